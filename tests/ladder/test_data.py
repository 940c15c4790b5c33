from pathlib import Path

import numpy as np
import pytest

from scaleinv_ray.ladder.data import evaluation_set, token_stream, training_batch
from scaleinv_ray.probes.corpus import load_corpus


def test_batches_depend_on_seed_and_step_alone(corpus_folder: Path) -> None:
    streams = token_stream(load_corpus(corpus_folder), "train")
    draw = {
        (seed, step): training_batch(streams, batch=4, length=16, seed=seed, step=step)
        for step in (1, 0)
        for seed in (1, 0)
    }
    again = training_batch(streams, batch=4, length=16, seed=0, step=0)
    np.testing.assert_array_equal(draw[0, 0], again)
    assert not np.array_equal(draw[0, 0], draw[0, 1])
    assert not np.array_equal(draw[0, 1], draw[1, 0])


def test_rows_alternate_between_the_kinds(corpus_folder: Path) -> None:
    streams = token_stream(load_corpus(corpus_folder), "train")
    assert list(streams) == ["prose", "code"]
    rows = training_batch(streams, batch=4, length=16, seed=0, step=0)
    assert rows.shape == (4, 17)
    for row, kind in zip(rows, ["prose", "code"] * 2, strict=True):
        assert bytes(row.tolist()) in streams[kind].tobytes()


def test_evaluation_windows_are_held_out_and_do_not_overlap(corpus_folder: Path) -> None:
    streams = token_stream(load_corpus(corpus_folder), "held_out")
    chosen = evaluation_set(streams, length=16)
    for kind, windows in chosen.items():
        text = streams[kind].tobytes()
        assert all(bytes(window.tolist()) in text for window in windows)
        assert 1 <= len(windows) <= len(text) // 17


def test_too_little_text_is_refused(corpus_folder: Path) -> None:
    streams = token_stream(load_corpus(corpus_folder), "train")
    with pytest.raises(ValueError, match="corpus: got .* a window needs 1000000"):
        training_batch(streams, batch=1, length=999_999, seed=0, step=0)
    with pytest.raises(ValueError, match="corpus: got .* held-out tokens, a window needs 1000000"):
        evaluation_set(streams, length=999_999)


def test_the_last_rows_repeat_a_random_block_with_a_period_of_their_own() -> None:
    streams = {"prose": np.arange(200, dtype=np.uint8)}
    rows = training_batch(streams, batch=12, length=64, seed=0, step=0, repeated=1 / 3)
    plain = training_batch(streams, batch=12, length=64, seed=0, step=0)
    np.testing.assert_array_equal(rows[:8], plain[:8])
    periods = [next(p for p in range(1, 65) if (row[p:] == row[:-p]).all()) for row in rows[8:]]
    assert all(8 <= period <= 32 for period in periods)
    assert len(set(periods)) > 1
