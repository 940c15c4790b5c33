"""From a folder to records."""

from __future__ import annotations

import numpy as np
import pytest

from scaleinv_ray.capture.session import Session, Source, StreamedSession
from scaleinv_ray.checkpoints.weights.nulls import shuffle_tokens
from scaleinv_ray.kinds import KINDS, of_tokens
from scaleinv_ray.protocols import CurvatureProtocol, SamplingProtocol, Spectroscopy
from scaleinv_ray.store.states import StateFiles

from .conftest import PROTOCOL

CAUSAL = of_tokens() - {"masked_losses"}
LIVE = frozenset(name for name in CAUSAL if KINDS[name].section is None)
_LABELS = {"unit": "u", "probe": "prose"}


def _arrays(record):
    return {name: getattr(record, name) for name in type(record).arrays}


def capture(source, tokens_ST, **asked):
    return Session.open(source).records(tokens_ST, PROTOCOL, batch_size=64, **asked)


def test_all_kinds_of_one_checkpoint_as_numpy(folder, tokens_ST):
    records = capture(Source(folder("neox_parallel")), tokens_ST, kinds=LIVE, labels=_LABELS)
    assert set(records) == LIVE
    for kind, found in records.items():
        assert found
        for record in found:
            assert type(record) is KINDS[kind].record
            assert (record.unit, record.probe) == ("u", "prose")
            assert all(isinstance(a, np.ndarray) for a in _arrays(record).values())


def test_kinds_of_the_loss_are_captured_with_their_settings(folder, tokens_ST):
    kinds = frozenset({"hessian", "ggn", "chains"})
    asked = {"kinds": kinds, "labels": _LABELS}
    settings = Spectroscopy(
        CurvatureProtocol(sequences=8, num_steps=3, num_probes=2, sketch=0),
        SamplingProtocol(
            sequences=8, batch=4, chains=2, draws=3, burn_in=1, nbetas=(30.0,), localisers=(1.0,)
        ),
    )
    more = {"spectroscopy": settings, "observed": {"other": tokens_ST[::-1]}}
    records = capture(Source(folder("llama")), tokens_ST, **asked, **more)
    assert set(records) == kinds
    assert [records[k][0].operator for k in ("hessian", "ggn")] == ["hessian", "ggn"]
    assert records["chains"][0].observed == "prose,other"
    with pytest.raises(ValueError, match="got 'hessian', which needs its settings"):
        capture(Source(folder("llama")), tokens_ST, **asked)


def test_a_session_serves_several_probes_and_shuffles_its_tokens(folder, tokens_ST):
    other = (tokens_ST + 1) % 50
    trained = Session.open(Source(folder("llama")))
    mixed = Session.open(Source(folder("llama"), "shuffled_tokens", seed=4))
    kinds = frozenset({"token_losses"})

    def losses(session, tokens):
        records = session.records(tokens, PROTOCOL, kinds=kinds, batch_size=64)
        return records["token_losses"][0].loss_ST

    first = losses(trained, tokens_ST)
    assert not np.array_equal(first, losses(trained, other))
    np.testing.assert_array_equal(first, losses(trained, tokens_ST))
    by_hand = losses(trained, shuffle_tokens(tokens_ST, 4))
    np.testing.assert_array_equal(by_hand, losses(mixed, tokens_ST))


def test_sampled_units_do_not_depend_on_the_source(folder, tokens_ST):
    """The seed of a source is that of its nulls alone: units are drawn from the protocol."""
    kinds = frozenset({"stream"})
    streams = [
        Session.open(Source(folder("llama"), seed=seed)).records(
            tokens_ST, PROTOCOL, kinds=kinds, batch_size=64
        )["stream"]
        for seed in (0, 1)
    ]
    for a, b in zip(*streams, strict=True):
        np.testing.assert_array_equal(a.x_TD, b.x_TD)


@pytest.mark.parametrize("kind", ["lanczos", "weights"])
def test_a_kind_that_is_unknown_or_needs_no_tokens_is_refused(folder, kind):
    with pytest.raises(ValueError, match=rf"kinds: got \['{kind}'\], allowed"):
        capture(Source(folder("llama")), np.zeros((1, 1), int), kinds=frozenset({kind}))


@pytest.mark.parametrize("variant", ["trained", "shuffled_weights", "shuffled_tokens"])
def test_a_streamed_session_gives_what_a_resident_one_gives(variant, folder, tokens_ST, tmp_path):
    source = Source(folder("neox_parallel"), variant, seed=2)
    asked = {"kinds": frozenset({"stream", "token_losses"}), "batch_size": 64, "labels": _LABELS}
    resident = Session.open(source).records(tokens_ST, PROTOCOL, **asked)
    states = StateFiles(tmp_path)
    streamed = StreamedSession.open(source).records(tokens_ST, PROTOCOL, states, **asked)
    assert set(streamed) == set(resident)
    for kind, found in resident.items():
        for a, b in zip(found, streamed[kind], strict=True):
            assert a.labels() == b.labels()
            for name, value in _arrays(a).items():
                np.testing.assert_array_equal(getattr(b, name), value)


def test_a_streamed_random_init_is_the_runs_own_step_zero_or_refused(folder, tokens_ST, tmp_path):
    alone = Source(folder("llama"), "random_init")
    with pytest.raises(ValueError, match=r"random_init.*has no step 0.*cluster.load: resident"):
        StreamedSession.open(alone)
    kinds = frozenset({"token_losses"})
    asked = {"kinds": kinds, "batch_size": 64}
    zero = Source(folder("llama"), "random_init", init_folder=folder("llama"))
    got = StreamedSession.open(zero).records(tokens_ST, PROTOCOL, StateFiles(tmp_path), **asked)
    expected = Session.open(zero).records(tokens_ST, PROTOCOL, **asked)
    np.testing.assert_array_equal(
        got["token_losses"][0].loss_ST, expected["token_losses"][0].loss_ST
    )


def test_what_needs_the_whole_model_is_refused_of_a_streamed_one(folder, tokens_ST, tmp_path):
    session = StreamedSession.open(Source(folder("llama")))
    with pytest.raises(ValueError, match=r"got \['attention'\] of a streamed model"):
        session.records(
            tokens_ST, PROTOCOL, StateFiles(tmp_path), kinds=frozenset({"attention"}), batch_size=8
        )
