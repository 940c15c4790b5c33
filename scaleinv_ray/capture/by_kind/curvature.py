"""Densities of states of the Hessian and the Gauss-Newton operator."""

from __future__ import annotations

from collections.abc import Iterator

from scaleinv_ray.capture.curvature.products import Operator
from scaleinv_ray.capture.makers import PassRequest, passes
from scaleinv_ray.capture.posterior.language_models import model_curvature
from scaleinv_ray.protocols import CurvatureProtocol
from scaleinv_ray.records import Lanczos


def _curvature(asked: PassRequest, operator: Operator) -> Iterator[Lanczos]:
    assert isinstance(asked.settings, CurvatureProtocol)
    return model_curvature(
        asked.model, asked.tokens_ST, asked.settings, operator,
        seed=asked.seed % 2**63, labels=asked.labels, left_out=asked.left_out,
    )  # fmt: skip


@passes("hessian")
def _hessian(asked: PassRequest) -> Iterator[Lanczos]:
    return _curvature(asked, "hessian")


@passes("ggn")
def _ggn(asked: PassRequest) -> Iterator[Lanczos]:
    return _curvature(asked, "ggn")
