"""cluster.yaml as Ray's autoscaler reads it, and the manifests against the fields of KubeRay."""

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
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
    assert all(t["node_config"]["BlockDeviceMappings"] for t in types.values())
    starts = [*config["head_start_ray_commands"], *config["worker_start_ray_commands"]]
    for command in (c for c in starts if "ray start" in c):
        assert "RAY_AUTH_MODE=token" in command
        check_keepalive(dict(re.findall(r"(RAY_grpc\S+)=(\d+)", command)))
    assert "--dashboard-host=127.0.0.1" in starts[1]
    (token,) = config["file_mounts"]
    assert (
        token == f"{image()['ENV']['HOME']}/.ray/auth_token"
        and f"chmod 600 {token}" in config["setup_commands"]
    )
    (notice,) = (c for c in config["worker_start_ray_commands"] if "spot_notice" in c)
    assert (ROOT / "jobs" / Path(notice.split()[2]).name).is_file()


def check_keepalive(settings: dict[str, str]) -> None:
    """A cut link is noticed within a minute, and not at every hiccup."""
    names = [f"RAY_grpc_client_keepalive_{what}_ms" for what in ("time", "timeout")]
    assert all(20_000 <= int(settings[name]) <= 30_000 for name in names)


def image() -> dict[str, Any]:
    """What the Dockerfile says: base, environment, user, words of its commands, files copied."""
    lines = (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    steps = [line.split() for line in lines if line and not line.startswith("#")]
    assert steps[-1][0] == "USER", "whatever follows would run as another user"
    (base,) = (words[1] for words in steps if words[0] == "FROM")
    copied = (words[1:-1] for words in steps if words[0] == "COPY")
    return {
        "FROM": base,
        "ENV": dict(w.split("=", 1) for words in steps if words[0] == "ENV" for w in words[1:]),
        "USER": steps[-1][1],
        "RUN": [words[1:] for words in steps if words[0] == "RUN"],
        "COPY": {name.removeprefix("./") for names in copied for name in names},
    }


def test_the_image_has_what_clusters_call_in_it_and_states_how_it_authenticates() -> None:
    found = image()
    assert found["ENV"]["RAY_AUTH_MODE"] == "token"
    check_keepalive(found["ENV"])
    system, _ = found["RUN"]
    assert {"openssh-client", "rsync", "wget"} <= set(system)
    assert {"scaleinv_ray", "jobs", "LICENSE", "requirements.lock"} <= found["COPY"]
    assert all((ROOT / name).exists() for name in found["COPY"])


def test_the_image_is_the_same_whenever_it_is_built_and_runs_as_a_plain_user() -> None:
    found = image()
    assert re.fullmatch(r"python:3\.1[1-3]\.\d+-slim-[a-z]+", found["FROM"])
    system, install = found["RUN"]
    assert install[-3:] == ["--constraint", "requirements.lock", "'.[aws]'"]
    # a number: Kubernetes cannot tell from a name that it is not root
    assert found["USER"] == system[system.index("--uid") + 1] != "0"
    assert found["ENV"]["HOME"] == f"/home/{system[system.index('/bin/bash') + 1]}"


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
    locked = (ROOT / "requirements.lock").read_text().splitlines()
    assert f"ray=={cluster['rayVersion']}" in locked, "what the image has"
    head, workers = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    assert set(head) <= HEAD and {w["groupName"] for w in workers} == {"cpu", "gpu"}
    # the operator submits through the head's service, which loopback would not answer
    assert head["rayStartParams"]["dashboard-host"] == "0.0.0.0"
    for group in (head, *workers):
        assert all(type(v) is str for v in group["rayStartParams"].values()), "a map of strings"
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        user = int(image()["USER"])  # the group makes the claim of the runs writable to it
        assert pod["securityContext"] == {
            "runAsNonRoot": True, "runAsUser": user, "fsGroup": user,
        }  # fmt: skip
        mounted = {m["name"] for m in container["volumeMounts"]}
        assert mounted == {v["name"] for v in pod["volumes"]}
        check_keepalive({e["name"]: e["value"] for e in container["env"]})
        assert all(type(e["value"]) is str for e in container["env"])
        assert container["resources"]["limits"]["memory"]
    for worker in workers:
        assert set(worker) <= WORKER
        assert worker["template"]["spec"]["terminationGracePeriodSeconds"] > 30, "Ray drains for 30"
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
