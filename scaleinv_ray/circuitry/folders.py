"""Circuits of a checkpoint folder on a probe in pairs, beside the same model untrained."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from transformers import PreTrainedModel

from scaleinv_ray.checkpoints import CAPTURED, Checkpoint, resolve
from scaleinv_ray.checkpoints.files.roles import ENCODERS
from scaleinv_ray.checkpoints.weights.nulls import materialise
from scaleinv_ray.circuitry.analysed import analysed
from scaleinv_ray.circuitry.effects.measuring import Asked, Watch, measure
from scaleinv_ray.circuitry.effects.subject import Subject
from scaleinv_ray.circuitry.summary import Circuits
from scaleinv_ray.circuitry.surgery.anatomy import Anatomy
from scaleinv_ray.circuitry.training import over_training, spread
from scaleinv_ray.inputs.json_files import read_json
from scaleinv_ray.inputs.paths import expanded
from scaleinv_ray.inputs.wording import nearest, shown
from scaleinv_ray.plan.costs import available_memory, choose_loading, model_bytes
from scaleinv_ray.plan.tokenizer import around, encode, read_tokenizer, unknown_ids
from scaleinv_ray.probes import ProbeRequest, load_corpus
from scaleinv_ray.probes.corpus import STDLIB
from scaleinv_ray.probes.corrupted import CORRUPTED, Pairs, corrupt
from scaleinv_ray.records import Variant


@dataclass(frozen=True)
class Drawing:
    """How pairs are drawn.

    Attributes:
        probe: a key of `CORRUPTED`.
        sequences: pairs.
        length: tokens of a sequence, at most.
        seed: of the draws.
    """

    probe: str
    sequences: int = 32
    length: int = 64
    seed: int = 0


def circuits_of(
    folder: Path,
    drawing: Drawing,
    asked: Asked,
    *,
    untrained: bool = True,
    analyses: tuple[str, ...] = (),
    step: int | None = None,
    steps: int | None = None,
    say: Callable[[str], None] = print,
    watch: Watch = lambda doing, forwards: None,
) -> Circuits:
    """Measures a checkpoint on a probe.

    Args:
        folder: a checkpoint, or a run, whose last step is taken.
        drawing: of the pairs.
        asked: what is wanted.
        untrained: the same of a random initialisation, for scale.
        analyses: names of what is wanted beside the effects.
        step: another one of the run than its last.
        steps: of the run, at which the largest components are followed; None for none.
        say: takes lines on what is left out.
        watch: takes what is done, and the forwards that it has taken.

    Raises:
        ValueError: for what cannot be measured, naming field, got and allowed.
    """
    run = _run(folder, drawing, step, steps)
    checkpoint = run[-1]
    pairs = pairs_of(checkpoint, drawing)
    name = checkpoint.model + ("" if checkpoint.step is None else f" at step {checkpoint.step}")
    anatomy = Anatomy.of(_loaded(checkpoint))
    effects = measure(anatomy, pairs, asked, watch=watch)
    null = None
    if untrained:
        model = _loaded(checkpoint, "random_init")
        null = measure(
            Anatomy.of(model), pairs, replace(asked, must_do=False),
            watch=lambda doing, forwards: watch(f"untrained, {doing}", forwards),
        )  # fmt: skip
    else:
        say("untrained: not measured")
    subject = Subject(
        anatomy, pairs, effects, _spelling(checkpoint), drawing.seed, _encoding(checkpoint)
    )
    facts = {"n_params": checkpoint.n_params, "step": checkpoint.step,
             "train_tokens": checkpoint.train_tokens}  # fmt: skip
    training = None
    if steps is not None:
        training = over_training(
            spread(run, steps), effects, pairs, asked, load=_loaded, watch=watch
        )
    return Circuits(
        name, drawing.probe, effects, null, pairs.acceptance, facts,
        analysed(analyses, subject, watch=lambda doing: watch(doing, 0.0)), training,
    )  # fmt: skip


def _run(folder: Path, drawing: Drawing, step: int | None, steps: int | None) -> list[Checkpoint]:
    """The steps up to the measured one, once all is checked that needs no weight."""
    if drawing.probe not in CORRUPTED:
        raise ValueError(
            f"probe: got {shown(drawing.probe)}{nearest(drawing.probe, CORRUPTED)}, allowed: "
            f"{', '.join(sorted(CORRUPTED))}"
        )
    run = _upto(resolve([{"path": str(existing(folder))}]), step)
    _check_model(folder, run[-1])
    if steps is not None and len(run) < 2:
        upto = "" if step is None else f" up to {step}"
        raise ValueError(f"steps: got {folder} with one step{upto}, allowed a run with two or more")
    return run


def _check_model(folder: Path, checkpoint: Checkpoint) -> None:
    """ValueError for what no components can be cut in, before it is loaded."""
    if checkpoint.no_logits:
        raise ValueError(f"model: got {folder}: {checkpoint.no_logits}, allowed causal models")
    if checkpoint.architecture not in CAPTURED - ENCODERS:
        raise ValueError(
            f"model: got {folder} of model_type {checkpoint.architecture!r}, allowed causal models "
            f"of {', '.join(sorted(CAPTURED - ENCODERS))}"
        )
    loading = choose_loading(model_bytes(checkpoint), memory=available_memory())
    if loading.how != "resident":
        raise ValueError(
            f"model: got {folder} ({loading.reason}), allowed one that is whole in memory: "
            "components are cut in it"
        )


def existing(folder: Path) -> Path:
    """A model's folder; ValueError where there is none, as a command line says it."""
    place = expanded(folder)
    if os.path.isdir(place):  # unlike Path's, never raises
        return place
    name = str(folder)
    what = "a file" if os.path.exists(place) else "no such folder"
    more = f"; of the hub: hf download {name} --local-dir FOLDER" if _OF_HUB(name) else ""
    raise ValueError(
        f"models: got {shown(name, 120)}, {what}; allowed: a folder of a checkpoint, or of a run"
        + more
    )


_OF_HUB = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*").fullmatch


def _upto(run: list[Checkpoint], step: int | None) -> list[Checkpoint]:
    """A run up to a step."""
    if step is None:
        return run
    steps = [checkpoint.step for checkpoint in run if checkpoint.step is not None]
    if not steps:
        raise ValueError(f"step: got {step} of a folder with one checkpoint, allowed: a run")
    if step not in steps:
        raise ValueError(f"step: got {step}, allowed {shown(steps)}")
    return run[: steps.index(step) + 1]


def _loaded(checkpoint: Checkpoint, variant: Variant = "trained") -> PreTrainedModel:
    assert checkpoint.folder is not None, "a path is local"
    init = checkpoint.init_folder if variant == "random_init" else None
    return materialise(checkpoint.folder, variant, 0, init_folder=init).model


def _spelling(checkpoint: Checkpoint) -> Callable[[int], str] | None:
    """The text of a token; None without a tokenizer."""
    file, digest = checkpoint.tokenizer_file, checkpoint.tokenizer_digest
    if file is None or digest is None:
        return None
    tokenizer = read_tokenizer(file, digest)
    return lambda token: tokenizer.decode([token], skip_special_tokens=False)


def _encoding(checkpoint: Checkpoint) -> Callable[[str], list[int]] | None:
    """The tokens of a text; None without a tokenizer."""
    file, digest = checkpoint.tokenizer_file, checkpoint.tokenizer_digest
    if file is None or digest is None:
        return None
    return partial(encode, read_tokenizer(file, digest), file)


def pairs_of(checkpoint: Checkpoint, drawing: Drawing) -> Pairs:
    """The pairs of a probe in a checkpoint's tokens, behind what its tokenizer puts first.

    Args:
        checkpoint: its tokenizer is read; without one the probes of token ids alone can be had.
        drawing: of the pairs.

    Raises:
        ValueError: for a probe of text without a tokenizer, or tokens it cannot spell.
    """
    request, first = _request(checkpoint, drawing)
    most = checkpoint.max_positions
    if most is not None and len(first) + request.length > most:
        request = replace(request, length=most - len(first))
    return corrupt(drawing.probe, request).after(first)


def _request(checkpoint: Checkpoint, drawing: Drawing) -> tuple[ProbeRequest, tuple[int, ...]]:
    text = drawing.probe in {"prose", "code"}
    request = ProbeRequest(
        encode=_no_tokenizer,
        sequences=drawing.sequences,
        length=drawing.length,
        vocab_size=checkpoint.vocab_size,
        corpus=load_corpus(STDLIB) if text else None,
        rng=np.random.default_rng(drawing.seed),
    )
    file, digest = checkpoint.tokenizer_file, checkpoint.tokenizer_digest
    if file is None or digest is None:
        first = _own_first(checkpoint)
        return replace(request, special_ids=frozenset(first)), first
    tokenizer = read_tokenizer(file, digest)
    added = tokenizer.get_added_tokens_decoder().items()
    special = {i for i, token in added if token.special} | {*unknown_ids(tokenizer)}
    request = replace(
        request,
        encode=partial(encode, tokenizer, file),
        vocab_size=min(checkpoint.vocab_size, tokenizer.get_vocab_size()),
        special_ids=frozenset(special),
    )
    return request, around(tokenizer, file, "auto", checkpoint.bos).before


def _own_first(checkpoint: Checkpoint) -> tuple[int, ...]:
    """The beginning token of config.json where there is no tokenizer to say."""
    assert checkpoint.folder is not None, "a path is local"
    first = read_json(checkpoint.folder / "config.json").get("bos_token_id")
    if isinstance(first, int) and 0 <= first < checkpoint.vocab_size:
        return (first,)
    return ()


def _no_tokenizer(text: str) -> list[int]:
    raise ValueError(
        f"tokenizer: got none for {text[:20]!r}, allowed tokenizer.json beside the model; or probe "
        "induction or induction.last, which are of token ids"
    )
