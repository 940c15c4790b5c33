"""cluster.yaml as Ray's autoscaler reads it, and the manifests against the fields of KubeRay."""

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
# json tags of RayJobSpec, RayClusterSpec, HeadGroupSpec, WorkerGroupSpec (ray-operator/apis/ray/v1)
JOB = {
    "activeDeadlineSeconds", "backoffLimit", "rayClusterSpec", "submitterPodTemplate", "metadata",
    "clusterSelector", "submitterConfig", "managedBy", "deletionStrategy", "entrypoint",
    "runtimeEnvYAML", "jobId", "submissionMode", "entrypointResources", "entrypointNumCpus",
    "entrypointNumGpus", "ttlSecondsAfterFinished", "shutdownAfterJobFinishes", "suspend",
}  # fmt: skip
CLUSTER = {
    "suspend", "autoscalerOptions", "headServiceAnnotations", "enableInTreeAutoscaling",
    "headGroupSpec", "rayVersion", "workerGroupSpecs", "authOptions", "gcsFaultToleranceOptions",
    "managedBy", "upgradeStrategy",
}  # fmt: skip
HEAD = {"template", "rayStartParams", "serviceType", "headService", "enableIngress"}
WORKER = {
    "groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template",
    "scaleStrategy", "numOfHosts", "idleTimeoutSeconds", "suspend",
}  # fmt: skip


def read(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text())


def overcommitted(config: dict[str, Any]) -> str | None:
    """Ray does not check that the workers of all types together fit under the global limit."""
    head = config["head_node_type"]
    types = {k: v for k, v in config["available_node_types"].items() if k != head}
    total = sum(of["max_workers"] for of in types.values())
    if total > config["max_workers"]:
        return f"max_workers: got {config['max_workers']}, its node types may have {total}"
    return None


def validate(config: dict[str, Any]) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(copy.deepcopy(config)))


def test_the_autoscaler_takes_cluster_yaml_offline() -> None:
    config = read("cluster.yaml")
    validate(config)
    assert overcommitted(config) is None
    types = config["available_node_types"]
    assert all("resources" in of for of in types.values())
    assert types["head"]["resources"]["CPU"] == 0, "the head runs the driver and nothing else"
    for name in ("cpu", "gpu"):
        assert types[name]["min_workers"] == 0
        assert types[name]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    starts = [*config["head_start_ray_commands"], *config["worker_start_ray_commands"]]
    for command in starts:
        if "ray start" in command:
            assert "RAY_AUTH_MODE=token" in command and "keepalive_time_ms" in command
    assert "--dashboard-host=127.0.0.1" in starts[1]


def test_both_checks_can_fail() -> None:
    config = read("cluster.yaml")
    del config["head_node_type"]
    with pytest.raises(ValueError, match="head_node_type"):
        validate(config)
    config = read("cluster.yaml")
    config["available_node_types"]["cpu"]["max_workers"] = 17
    assert overcommitted(config) == "max_workers: got 20, its node types may have 21"


def check_job(spec: dict[str, Any], job: str) -> None:
    assert set(spec) <= JOB
    assert spec["submissionMode"] in {"K8sJobMode", "HTTPMode", "InteractiveMode"}
    assert spec["shutdownAfterJobFinishes"] is True
    for field in ("activeDeadlineSeconds", "ttlSecondsAfterFinished", "backoffLimit"):
        assert type(spec[field]) is int and spec[field] > 0
    script = Path(spec["entrypoint"].split()[1])
    assert script.name == job and (ROOT / "jobs" / job).is_file()
    cluster = spec["rayClusterSpec"]
    assert set(cluster) <= CLUSTER and cluster["authOptions"] == {"mode": "token"}
    assert cluster["enableInTreeAutoscaling"] is True
    head, workers = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    assert set(head) <= HEAD and {w["groupName"] for w in workers} == {"cpu", "gpu"}
    for group in (head, *workers):
        assert all(type(v) is str for v in group["rayStartParams"].values()), "a map of strings"
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        mounted = {m["name"] for m in container["volumeMounts"]}
        assert mounted == {v["name"] for v in pod["volumes"]}
        assert all(type(e["value"]) is str for e in container["env"])
        assert container["resources"]["limits"]["memory"]
    for worker in workers:
        assert set(worker) <= WORKER
        assert worker["minReplicas"] == worker["replicas"] == 0 < worker["maxReplicas"]


def test_the_ray_job() -> None:
    manifest = read("jobs/kuberay/rayjob.yaml")
    assert (manifest["apiVersion"], manifest["kind"]) == ("ray.io/v1", "RayJob")
    check_job(manifest["spec"], "analyze.py")


def test_the_ray_cron_job_holds_the_fields_of_a_job_directly() -> None:
    manifest = read("jobs/kuberay/raycronjob.yaml")
    assert (manifest["apiVersion"], manifest["kind"]) == ("ray.io/v1", "RayCronJob")
    assert set(manifest["spec"]) <= {"schedule", "jobTemplate", "suspend"}
    assert re.fullmatch(r"(\S+ ){4}\S+", manifest["spec"]["schedule"])
    check_job(manifest["spec"]["jobTemplate"], "sweep.py")


def test_jobs_are_short_and_set_the_mode_of_authentication_before_ray() -> None:
    for job in (ROOT / "jobs").glob("*.py"):
        text = job.read_text()
        assert len(text.splitlines()) <= 40, job
        assert text.index("RAY_AUTH_MODE") < text.index("from scaleinv_ray"), job
