"""Products with the curvature of a loss over Ray actors, each with some of the batches.

Shape suffixes: P parameters of a block, R probe vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from scaleinv_ray.cluster.session import ray

if TYPE_CHECKING:
    import torch

    from scaleinv_ray.capture.curvature.products import Loss, Parameters


class ProductWorker:
    """Holds a loss and some batches with their graph; `ProductActor` is this class as an actor."""

    def __init__(
        self,
        make: Callable[[], tuple[Loss, Parameters]],
        batches: Sequence[Any],
        *,
        operator: str,
        block: Sequence[str] | None = None,
        num_threads: int = 1,
    ) -> None:
        """Makes the loss where it is used: a model is loaded here, not sent.

        Args:
            make: the loss and all its parameters.
            batches: of this worker.
            operator: hessian or ggn.
            block: as of `hessian_products`.
            num_threads: of torch.
        """
        import torch

        from scaleinv_ray.capture.curvature.products import products_of

        torch.set_num_threads(num_threads)
        loss, parameters = make()
        self._like = next(iter(parameters.values())).detach()
        self._products = products_of(operator)(loss, parameters, batches, block=block)

    def products(self, v_RP: np.ndarray) -> np.ndarray:
        """Products with the operator of the mean over its batches.

        Args:
            v_RP: vectors, read only.

        Returns:
            As many products.
        """
        import torch

        product_RP: np.ndarray = self._products(torch.tensor(v_RP).to(self._like)).cpu().numpy()
        return product_RP


ProductActor: Any = ray.remote(max_restarts=0, max_task_retries=0)(ProductWorker)


class ShardedProducts:
    """Products with the operator of the mean over all batches, computed by actors side by side.

    A callable as `hessian_products` gives, for `lanczos_record` and `tridiagonal`; a context
    manager that ends its actors. Vectors travel once to every node (object store).
    """

    def __init__(
        self,
        make: Callable[[], tuple[Loss, Parameters]],
        batches: Sequence[Any],
        *,
        num_workers: int,
        operator: str = "hessian",
        block: Sequence[str] | None = None,
        num_gpus: float = 0.0,
    ) -> None:
        """Starts the actors.

        Args:
            make: gives loss and parameters; is called once in every actor.
            batches: of equal size, at least one for each actor.
            num_workers: actors.
            operator: hessian or ggn.
            block: as of `hessian_products`.
            num_gpus: of an actor.

        Raises:
            ValueError: for fewer than one worker, or more workers than batches.
        """
        if not 1 <= num_workers <= len(batches):
            raise ValueError(f"num_workers: got {num_workers}, allowed 1..{len(batches)} (batches)")
        shards = [
            [batches[i] for i in share]
            for share in np.array_split(np.arange(len(batches)), num_workers)
        ]
        self._weights = [len(shard) / len(batches) for shard in shards]
        start = ProductActor.options(num_cpus=1, num_gpus=num_gpus)
        self._actors = [
            start.remote(make, shard, operator=operator, block=block) for shard in shards
        ]

    def __call__(self, v_RP: torch.Tensor) -> torch.Tensor:
        """Products with each of the R vectors."""
        import torch

        from scaleinv_ray.capture.curvature.lanczos import weighted_sum

        vectors = ray.put(v_RP.detach().cpu().numpy())
        parts = [actor.products.remote(vectors) for actor in self._actors]
        terms = (torch.tensor(ray.get(part)).to(v_RP) for part in parts)
        return weighted_sum(terms, self._weights)

    def close(self) -> None:
        """Ends the actors."""
        for actor in self._actors:
            ray.kill(actor)
        self._actors = []

    def __enter__(self) -> ShardedProducts:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
