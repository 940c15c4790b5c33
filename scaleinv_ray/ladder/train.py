"""One run of the ladder: deterministic, resumable, a checkpoint folder at every saved step."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from scaleinv_ray.ladder import checkpoint
from scaleinv_ray.ladder.architectures import build_model, rate_factor, role_of
from scaleinv_ray.ladder.data import evaluation_set, token_stream, training_batch
from scaleinv_ray.ladder.folders import DIVERGED, DivergedError, read_training, step_folder
from scaleinv_ray.ladder.spec import Rung, TrainSpec, run_config
from scaleinv_ray.ladder.tokenizer import byte_tokenizer
from scaleinv_ray.probes.corpus import Corpus, load_corpus

LOST = 1000.0
"""Nats a token: a uniform guess has ln V < 13, and nothing that still learns is so far above it."""
OnStep = Callable[[int, float], None]


@dataclass(frozen=True)
class _Run:
    """A rung with its text and its folder."""

    spec: TrainSpec
    rung: Rung
    corpus: Corpus
    folder: Path
    config: Mapping[str, Any]
    device: str

    @property
    def resume(self) -> Path:
        return self.folder / "resume" / "state.safetensors"


def train_run(
    spec: TrainSpec,
    rung: Rung,
    out: Path,
    *,
    on_step: OnStep | None = None,
    num_threads: int = 1,
    device: str = "cpu",
    stop: Callable[[], bool] | None = None,
) -> Path:
    """Trains one rung and leaves its checkpoints under `out / rung.name`.

    On the CPU the numbers are a function of spec, rung, corpus, num_threads and the torch build: a
    run that was killed at any moment and started again ends with the same bits. On a GPU, where
    sums are taken in an order of its own, it goes on as well, but to other last bits; weights
    before the first step and batches are the same on every device. What exists is not computed
    again. A checkpoint folder holds the model, the tokenizer and training.json.

    Args:
        out: folder of the ladder's runs.
        on_step: called after every update with the number of updates made and the loss (nats) of
            the batch before that update.
        device: of the model, as torch names it; what is written does not depend on it.
        stop: asked after every update but the last; where it says yes, the resume file is written
            and training ends there, to go on with the next call.

    Returns:
        The run's folder.

    Raises:
        DivergedError: where a loss is no number or above `LOST`, in this call or in an earlier one;
            training ends there, and training.json of that step has `"diverged": true`.
        ValueError: where the folder holds a run of another configuration or corpus, or the corpus
            is too small.
    """
    corpus = load_corpus(spec.corpus)
    config = run_config(spec, rung, corpus.digest)
    run = _Run(spec, rung, corpus, Path(out) / rung.name, config, device)
    missing = _missing_steps(run)
    if missing:
        with _deterministic(num_threads, device):
            _train(run, missing[0], on_step, stop or (lambda: False))
    if is_trained(run.folder, spec):
        shutil.rmtree(run.resume.parent, ignore_errors=True)
    return run.folder


def is_trained(folder: Path, spec: TrainSpec) -> bool:
    """Whether the folder of a run holds its last checkpoint."""
    return read_training(step_folder(folder, spec.steps)) is not None


def _missing_steps(run: _Run) -> list[int]:
    """The saved steps that do not exist yet; refuses what another configuration left behind."""
    for folder in sorted(run.folder.glob("step-*")):
        if (read_training(folder) or {}).get(DIVERGED):
            raise _diverged(run, folder)
    missing = []
    for step in run.spec.saved:
        folder = step_folder(run.folder, step)
        training = read_training(folder)
        if training is None:
            missing.append(step)
        else:
            _same_config(run, folder, training["config"])
    progress = checkpoint.read_progress(run.resume)
    if progress is not None:
        _same_config(run, run.resume, progress["config"])
    return missing


def _diverged(run: _Run, folder: Path) -> DivergedError:
    return DivergedError(
        f"optimizer.lr: got {run.spec.optimizer.lr:g}, run {run.rung.name} diverged at "
        f"{folder.name}: its loss is no number, or above {LOST:g} nats; allowed: a smaller one, "
        f"into another `out` or without {run.folder}"
    )


def _same_config(run: _Run, path: Path, found: Mapping[str, Any]) -> None:
    for key in sorted(found.keys() | run.config.keys()):
        if found.get(key) != run.config.get(key):
            raise ValueError(
                f"{key}: got {run.config.get(key)!r}, but {path} was trained with "
                f"{found.get(key)!r}; allowed: the same configuration, or another `out`"
            )


def _train(run: _Run, first_missing: int, on_step: OnStep | None, stop: Callable[[], bool]) -> None:
    spec = run.spec
    model: Any = build_model(spec, run.rung)
    model.to(run.device)  # drawn on the CPU: the same weights on every device
    optimizer = _optimizer(spec, run.rung, model)
    start = _restore(run, first_missing, model, optimizer)
    train_KT = token_stream(run.corpus, "train")
    held_out = evaluation_set(token_stream(run.corpus, "held_out"), length=spec.length)
    if start == 0 and 0 in spec.saved:
        _save(run, 0, None, model, optimizer, held_out)
    for step in range(start, spec.steps):
        batch_ST = training_batch(
            train_KT,
            batch=spec.batch,
            length=spec.length,
            seed=run.rung.seed,
            step=step,
            repeated=spec.repeated,
        )
        loss = _update(spec, model, optimizer, batch_ST, step)
        if not loss < LOST:
            _save_diverged(run, step, model, held_out)
        if on_step is not None:
            on_step(step + 1, loss)
        if step + 1 in spec.saved:
            _save(run, step + 1, loss, model, optimizer, held_out)
        if step + 1 < spec.steps and stop():
            _write_resume(run, step + 1, model, optimizer)
            return


def _restore(
    run: _Run, first_missing: int, model: PreTrainedModel, optimizer: torch.optim.Optimizer
) -> int:
    """The step to start from: the resume file's where it lies before what is missing, else 0."""
    progress = checkpoint.read_progress(run.resume)
    if progress is None or progress["step"] >= first_missing:
        return 0
    checkpoint.load_resume(run.resume, model, optimizer)
    return int(progress["step"])


def _optimizer(spec: TrainSpec, rung: Rung, model: PreTrainedModel) -> torch.optim.Optimizer:
    """AdamW or plain SGD with a group for every (rate factor, decayed or not)."""
    groups: dict[tuple[float, bool], list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        factor = rate_factor(spec, rung, role_of(name, parameter))
        groups.setdefault((factor, parameter.ndim >= 2), []).append(parameter)
    decay = spec.optimizer.weight_decay
    listed = [
        {"params": parameters, "factor": factor, "weight_decay": decay if is_matrix else 0.0}
        for (factor, is_matrix), parameters in groups.items()
    ]
    if spec.optimizer.name == "sgd":
        return torch.optim.SGD(listed, lr=spec.optimizer.lr, fused=True)
    return torch.optim.AdamW(listed, lr=spec.optimizer.lr, betas=(0.9, 0.95), eps=1e-8, fused=True)


def _update(
    spec: TrainSpec,
    model: PreTrainedModel,
    optimizer: torch.optim.Optimizer,
    batch_ST: np.ndarray,
    step: int,
) -> float:
    """One step; returns the loss before it. From one that is lost no step is made."""
    rate = spec.optimizer.rate(step, spec.steps)
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]
    loss = _loss(spec, model, batch_ST)
    value = loss.item()
    if value < LOST:
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return value


def _loss(spec: TrainSpec, model: PreTrainedModel, batch_ST: np.ndarray) -> torch.Tensor:
    """Mean cross-entropy in nats of every next token of windows [S, length + 1]."""
    ids_ST = torch.from_numpy(batch_ST).to(model.device)
    with _precision(spec, model.device):
        logits_STV = model(input_ids=ids_ST[:, :-1], use_cache=False).logits
    return cross_entropy(logits_STV.flatten(0, 1).float(), ids_ST[:, 1:].flatten())


def _precision(spec: TrainSpec, device: torch.device) -> AbstractContextManager[Any]:
    if spec.dtype == "bfloat16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()


def _save(
    run: _Run,
    step: int,
    loss: float | None,
    model: PreTrainedModel,
    optimizer: torch.optim.Optimizer,
    held_out: Mapping[str, np.ndarray],
) -> None:
    """The checkpoint first, then the resume file: a kill in between repeats a stretch, no more."""
    folder = step_folder(run.folder, step)
    if read_training(folder) is None:
        training = _training(run, step, loss, _evaluate(run.spec, model, held_out))
        checkpoint.write_checkpoint(folder, model, byte_tokenizer(), training)
        if training.get(DIVERGED):
            raise _diverged(run, folder)
    if step < run.spec.steps:
        _write_resume(run, step, model, optimizer)


def _write_resume(
    run: _Run, step: int, model: PreTrainedModel, optimizer: torch.optim.Optimizer
) -> None:
    progress = {"step": step, "config": dict(run.config)}
    checkpoint.write_resume(run.resume, model, optimizer, progress)


def _save_diverged(
    run: _Run, step: int, model: PreTrainedModel, held_out: Mapping[str, np.ndarray]
) -> NoReturn:
    """The weights whose loss is no number, marked as such."""
    folder = step_folder(run.folder, step)
    if read_training(folder) is None:
        training = _training(run, step, None, _evaluate(run.spec, model, held_out))
        checkpoint.write_checkpoint(folder, model, byte_tokenizer(), training)
    checkpoint.mark(folder, DIVERGED)
    raise _diverged(run, folder)


def _evaluate(
    spec: TrainSpec, model: PreTrainedModel, held_out: Mapping[str, np.ndarray]
) -> dict[str, float]:
    """Mean held-out loss in nats of each kind of text, in batches of the training size."""
    losses: dict[str, float] = {}
    model.eval()
    with torch.no_grad():
        for kind, windows_ST in held_out.items():
            parts = [windows_ST[i : i + spec.batch] for i in range(0, len(windows_ST), spec.batch)]
            total = sum(_loss(spec, model, part).item() * len(part) for part in parts)
            losses[kind] = total / len(windows_ST)
    model.train()
    return losses


def _training(
    run: _Run, step: int, loss: float | None, eval_losses: Mapping[str, float]
) -> dict[str, Any]:
    """Content of training.json: losses in nats a token, train_loss of the batch before the step."""
    # JSON has nothing for what is no number: those losses are null
    numbers = all(map(math.isfinite, eval_losses.values()))
    lost = not all(loss < LOST for loss in eval_losses.values())
    canonical = json.dumps(dict(run.config), sort_keys=True, separators=(",", ":"))
    return {
        "series": run.spec.name,
        "architecture": run.spec.architecture,
        "width": run.rung.width,
        "depth": run.rung.depth,
        "seed": run.rung.seed,
        "step": step,
        "train_tokens": step * run.spec.batch * run.spec.length,
        "train_loss": loss,
        "eval_loss": sum(eval_losses.values()) / len(eval_losses) if numbers else None,
        "eval_loss_by_kind": {k: v if math.isfinite(v) else None for k, v in eval_losses.items()},
        "optimizer": run.spec.optimizer.name,
        "corpus_digest": run.corpus.digest,
        "config": dict(run.config),
        "config_digest": hashlib.sha256(canonical.encode()).hexdigest()[:16],
        "torch": torch.__version__,
    } | ({DIVERGED: True} if lost else {})


@contextmanager
def _deterministic(num_threads: int, device: str) -> Generator[None, None, None]:
    """Deterministic algorithms and the given threads, put back as they were afterwards.

    Not on a GPU: cuBLAS would have to be told by the environment before it is loaded.
    """
    settings: Any = torch.utils.deterministic  # its only attribute is set at run time
    before = (
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        settings.fill_uninitialized_memory,
    )
    torch.set_num_threads(num_threads)
    torch.use_deterministic_algorithms(torch.device(device).type == "cpu")
    settings.fill_uninitialized_memory = False  # costs time, changes no result
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])
        settings.fill_uninitialized_memory = before[2]
