"""A model on a hub, by HTTP on loopback: planned from its headers, fetched by whoever captures."""

import shutil
from pathlib import Path

import pytest

from scaleinv_ray.cluster.actors import Capturer
from scaleinv_ray.config import load_run_config
from scaleinv_ray.measure.measuring import measure
from scaleinv_ray.store import Store, is_complete
from tests.checkpoints.test_series import REPO, Hub, commit_of, online
from tests.cluster.synthetic_work import of_weights
from tests.cluster.test_loading import one_model, the_job

assert online, "a fixture"
pytestmark = pytest.mark.ray


def test_weights_come_from_the_hub_when_a_model_is_captured_and_not_before(
    online: type[Hub], text_folder: Path, ladder: Path, tmp_path: Path
) -> None:
    for step in ("step0", "step6"):
        source = ladder / "d32-s0" / f"step-{int(step[4:]):06d}"
        shutil.copytree(source, online.root / step)
    hub = [{"hub": REPO, "revision": "step{step}", "steps": [6], "tokens_per_step": 256}]
    config = load_run_config(one_model(text_folder, ladder, tmp_path / "out", models=hub))
    job, tokens = the_job(config)
    checkpoint = job.weights.checkpoint
    assert (checkpoint.commit, checkpoint.train_tokens) == (commit_of("step6"), 6 * 256)
    cache = tmp_path / "hub"
    assert not list(cache.rglob("*.safetensors"))

    outcome = Capturer(num_threads=1, num_gpus=0).capture(job, tokens)
    assert not outcome.failed and all(is_complete(Path(path)) for path in outcome.written)
    (fetched,) = cache.rglob("*.safetensors")
    assert fetched.parent.name == checkpoint.commit

    store = Store(tmp_path / "out")
    found = measure(of_weights("k", job.weights), store)
    assert found.error is None and found.counts["ok"] > 0
    assert len(list(cache.rglob("*.safetensors"))) == 1, "fetched once"
