"""Products summed over actors are those of one process."""

import numpy as np
import pytest
import torch

from scaleinv_ray.capture.curvature.lanczos import lanczos_record
from scaleinv_ray.capture.curvature.products import SplitLoss, curvature_records, products_of
from scaleinv_ray.cluster.curvature import ShardedProducts


def make() -> tuple[SplitLoss, dict[str, torch.Tensor]]:
    """A tanh net with its weights, the same in every process."""
    generator = torch.Generator().manual_seed(0)
    w = {
        name: torch.randn(*shape, generator=generator, dtype=torch.float64)
        for name, shape in (("a", (5, 4)), ("b", (3, 5)))
    }
    loss = SplitLoss(
        lambda p, x: torch.tanh(x @ p["a"].T) @ p["b"].T,
        lambda z, x: torch.nn.functional.cross_entropy(z, torch.arange(len(x)) % 3),
    )
    return loss, w


def batches_of(count: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(6, 4, generator=generator, dtype=torch.float64) for _ in range(count)]


@pytest.mark.ray
def test_actors_add_up_to_one_process(ray_session: None) -> None:
    loss, w = make()
    batches, eye = batches_of(3), torch.eye(35, dtype=torch.float64)
    whole = products_of("hessian")(loss, w, batches)(eye)
    with ShardedProducts(make, batches, num_workers=2) as sharded:
        found = sharded(eye)
        torch.testing.assert_close(found, whole, rtol=1e-12, atol=1e-12 * float(whole.abs().max()))
        made = {"generator": torch.Generator().manual_seed(2), "num_probes": 2}
        record = lanczos_record(sharded, w, num_steps=20, **made)
    made["generator"].manual_seed(2)
    (alone,) = curvature_records(loss, w, batches, num_steps=20, **made)
    np.testing.assert_allclose(record.nodes_RK, alone.nodes_RK, atol=1e-8)


def test_as_many_batches_as_workers() -> None:
    with pytest.raises(ValueError, match=r"num_workers: got 3, allowed 1\.\.2"):
        ShardedProducts(make, batches_of(2), num_workers=3)
