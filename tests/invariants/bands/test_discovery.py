"""Bands and tracks: units, strays, refusals, merging and splitting, requests for checkpoints."""

import numpy as np
import pytest

from scaleinv_ray.invariants.bands.discovery import (
    Band,
    GapNull,
    angle_gaps,
    find_bands,
    orthonormal,
)
from scaleinv_ray.invariants.bands.tracks import overlaps, track_bands


def _spectrum(*extra: float, probes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """A bulk of 20 scattered nodes in [0, 1] and converged eigenvalues outside."""
    rng = np.random.default_rng(0)
    bulk_RK = np.sort(
        (1 - np.cos(np.pi * (np.arange(20) + rng.uniform(size=(probes, 20))) / 20)) / 2
    )
    nodes_RK = np.hstack([bulk_RK, np.tile(extra, (probes, 1))])
    weights_RK = np.hstack([
        np.full((probes, 20), (1 - 1e-3 * len(extra)) / 20), np.full((probes, len(extra)), 1e-3)
    ])  # fmt: skip
    return nodes_RK, weights_RK


def _null(num_nodes: int, share: float) -> float:
    return 3.0


def _found(nodes_RK: np.ndarray, weights_RK: np.ndarray) -> list[float]:
    return [b.centre for b in find_bands(nodes_RK, weights_RK, dim=1000, null=_null)]


@pytest.mark.parametrize("scale", [1e-6, -1.0, 1e5])
def test_unit_and_sign_of_the_operator_change_nothing(scale: float) -> None:
    nodes_RK, weights_RK = _spectrum(-4.0, 8.0, 30.0)
    found = _found(scale * nodes_RK, weights_RK)
    np.testing.assert_allclose(sorted(np.array(found) / scale), [-4.0, 8.0, 30.0])


def test_a_node_of_one_probe_vector_is_scatter() -> None:
    nodes_RK, weights_RK = _spectrum(8.0, 30.0)
    nodes_RK[0, -1] = 15.0
    assert _found(nodes_RK, weights_RK) == pytest.approx([30.0, 8.0])
    nodes_RK[1, -1], nodes_RK[2, -1] = 17.0, 24.0
    assert _found(nodes_RK, weights_RK) == pytest.approx([8.0])


def test_nodes_without_weight_are_no_bands() -> None:
    nodes_RK, weights_RK = _spectrum(8.0, 30.0)
    weights_RK[:, -1] = 1e-15
    assert _found(nodes_RK, weights_RK) == pytest.approx([8.0])


def test_width_against_gap_decides() -> None:
    for width, bands in ((1.9, 1), (2.5, 2)):
        nodes_RK, weights_RK = _spectrum(8.0, 8.0 + width)
        assert len(_found(nodes_RK, weights_RK)) == bands


def test_one_probe_vector_has_no_errors() -> None:
    (band,) = find_bands(*_spectrum(8.0, probes=1), dim=1000, null=_null)
    assert band.centre_stderr is None and len(band.weight_R) == 1


def test_gaps_on_the_arc_do_not_depend_on_unit_or_origin() -> None:
    nodes_N = np.sort(np.random.default_rng(0).normal(size=30))
    np.testing.assert_allclose(angle_gaps(nodes_N, 30), angle_gaps(-3 + 1e4 * nodes_N, 30))
    assert angle_gaps(nodes_N, 30).sum() == pytest.approx(30)
    chebyshev_N = np.cos(np.pi * np.arange(10, -1, -1) / 10)
    np.testing.assert_allclose(angle_gaps(chebyshev_N, 10), 1.0)


@pytest.mark.parametrize("positive", [False, True])
def test_the_null_is_exceeded_at_its_level(positive: bool) -> None:
    rng = np.random.default_rng(0)
    drawn = [GapNull(500, positive=positive, num_null=20, rng=rng)(30, 1.0) for _ in range(20)]
    fresh = [GapNull(500, positive=positive, num_null=1, rng=rng)(30, 1.0) for _ in range(200)]
    assert 0.01 < np.mean(np.subtract.outer(fresh, drawn) > 0) < 0.1


def test_copies_of_a_vector_span_one_direction() -> None:
    rng = np.random.default_rng(0)
    u, v = np.linalg.qr(rng.normal(size=(50, 2)))[0].T
    assert len(orthonormal(np.array([u, -u, u + 1e-3 * v]))) == 1
    basis_DM = orthonormal(np.array([u, v, u + v]))
    np.testing.assert_allclose(basis_DM @ basis_DM.T, np.eye(2), atol=1e-12)


def _band(centre: float, *rows: np.ndarray) -> Band:
    return Band(centre, 0.0, centre, centre, np.full(4, 0.01), 1.0, np.array(rows))


E = np.eye(8)


def test_overlaps_of_planes_and_lines() -> None:
    of = overlaps([_band(1.0, E[0], E[1])], [_band(1.0, E[0]), _band(2.0, E[2], E[3], E[1])])
    np.testing.assert_allclose(of.shared_AB, [[1.0, 1.0]])
    np.testing.assert_allclose(of.equal_AB, [[1 / 2, 1 / 3]])
    np.testing.assert_allclose(of.inside_AB, [[1.0, 1 / 2]])


def test_a_merger_is_flagged_and_no_checkpoint_asked_for() -> None:
    apart, joined = [_band(9.0, E[0]), _band(8.0, E[1])], [_band(8.6, E[0], E[1])]
    found = track_bands([apart, apart, joined, apart], floor=1e-3, steps=[1, 10, 100, 1000])
    assert [(c.before, sorted(c.bands)) for c in found.crossings] == [(1, [0, 1])]
    assert not found.requests
    assert sorted((t.first, t.last) for t in found.tracks) == [(0, 1), (0, 3), (3, 3)]


def test_a_merger_beside_a_birth_is_no_lost_identity() -> None:
    before = [_band(9.0, E[0]), _band(8.0, E[1])]
    after = [_band(8.6, E[0], E[1]), _band(5.0, E[4])]
    found = track_bands([before, after], floor=1e-3, steps=[1, 100])
    assert len(found.crossings) == 1 and not found.requests


def test_births_and_deaths() -> None:
    found = track_bands([[], [_band(5.0, E[0])], []], floor=1e-3)
    assert [(t.first, t.last) for t in found.tracks] == [(1, 1)]
    assert track_bands([], floor=1e-3).tracks == []


@pytest.mark.parametrize(
    ("steps", "asked"), [([0, 1], []), ([0, 2], [1]), ([30, 100], [55]), (None, [None])]
)
def test_requests_name_a_step_in_between(steps, asked) -> None:
    lost = [[_band(5.0, E[0])], [_band(5.0, E[1])]]
    found = track_bands(lost, floor=1e-3, steps=steps)
    assert [r.step for r in found.requests] == asked
    assert len(found.tracks) == 2


def test_near_zero_logarithms_end() -> None:
    """A flat band stays itself while its eigenvalue changes sign far below the floor."""
    runs = [[_band(10.0, E[0]), _band(s * 1e-9, E[1])] for s in (1, -1, 1)]
    assert [len(t.bands) for t in track_bands(runs, floor=1e-3).tracks] == [3, 3]


def test_refused_inputs() -> None:
    bare = Band(1.0, None, 1.0, 1.0, np.ones(1), 1.0)
    with pytest.raises(ValueError, match="followed by their subspaces"):
        track_bands([[bare], [bare]], floor=1.0)
    with pytest.raises(ValueError, match="floor: got 0"):
        track_bands([], floor=0)
    with pytest.raises(ValueError, match=r"steps: got \[3, 1\], allowed 2 ascending"):
        track_bands([[], []], floor=1.0, steps=[3, 1])
