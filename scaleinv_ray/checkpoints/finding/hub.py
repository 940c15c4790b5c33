"""Checkpoints on the Hugging Face hub: metadata first, weights only when they are fetched.

With HF_HUB_OFFLINE=1 the local cache answers everything.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from scaleinv_ray.checkpoints.checkpoint import Checkpoint, describe, mask_id_of
from scaleinv_ray.checkpoints.files.beginning import SETTINGS, asked_beginning
from scaleinv_ray.checkpoints.files.headers import (
    INDEX,
    WEIGHTS,
    TensorHeader,
    check_index,
    file_digest,
    joined,
    read_tensors,
    shard_files,
)
from scaleinv_ray.checkpoints.files.layouts import nearest, no_logits, what_is
from scaleinv_ray.checkpoints.finding.hub_errors import asking
from scaleinv_ray.checkpoints.finding.steps import step_of, tokens_of
from scaleinv_ray.inputs.json_files import lies_in, read_json

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_BLOB = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_WANTED = ["model*.safetensors", "*.json", "tokenizer*", "vocab*", "merges.txt"]
_TIMEOUT_S = 10.0  # a firewall that answers nothing
_UNWANTED = ["*/*"]  # other formats and originals live in subfolders


class _Snapshot(NamedTuple):
    """One revision, without its weights."""

    commit: str
    config: dict[str, Any]
    tensors: dict[str, TensorHeader]
    weights_digest: str
    tokenizer: Path | None


class _NoRevision(ValueError):
    """The repository has no such revision."""


def from_hub(
    repo: str,
    revision: str = "main",
    steps: Sequence[int] | None = None,
    seed: int = 0,
    *,
    model: str | None = None,
    tokens_per_step: int | None = None,
) -> list[Checkpoint]:
    """Checkpoints of one model on the hub; downloads config.json and tokenizer.json only.

    Args:
        repo: `organisation/name`.
        revision: branch, tag or commit; `{step}` in it stands for every one of `steps`.
        steps: the steps; at most one, that of the revision, without `{step}`; then its name may
            give it.
        model: identity; the repository's name by default.
        tokens_per_step: tokens in a training batch, for train_tokens; a revision may name them.

    Returns:
        Checkpoints by step, each pinned to a commit.

    Raises:
        ValueError: for unknown repositories, revisions and steps (with those available), for
            repositories without safetensors, and for what is not in the cache when offline.
    """
    snapshot = partial(_snapshot, _api(), repo, revision)
    if "{step}" not in revision and steps is not None and len(steps) > 1:
        raise ValueError(f"{repo}: steps: got {list(steps)}, allowed one without {{step}}")
    named = None if "{step}" in revision else step_of(revision)
    found = {s: snapshot(s) for s in (sorted(steps) if steps else [named])}
    begin = _step_zero(snapshot, found) if "{step}" in revision else found.get(0)
    return [
        Checkpoint(
            **describe(f"{repo}@{s.commit}", s.config, s.tensors),
            model=model or repo.rpartition("/")[2],
            seed=seed,
            step=step,
            weights_digest=s.weights_digest,
            tokenizer_file=s.tokenizer,
            tokenizer_digest=None if s.tokenizer is None else file_digest(s.tokenizer, None),
            bos=None if s.tokenizer is None else asked_beginning(s.tokenizer.parent, s.config),
            train_tokens=step * tokens_per_step
            if step is not None and tokens_per_step
            else tokens_of(_named(revision, step)),
            no_logits=no_logits(s.config),
            mask_id=mask_id_of(s.config, s.tensors, s.tokenizer),
            repo=repo,
            revision=_named(revision, step),
            commit=s.commit,
            init_commit=begin and begin.commit,
            init_digest=begin and begin.weights_digest,
        )
        for step, s in found.items()
    ]


def _named(revision: str, step: int | None) -> str:
    return revision.replace("{step}", str(step))


def _step_zero(
    snapshot: partial[_Snapshot], found: dict[int | None, _Snapshot]
) -> _Snapshot | None:
    if 0 in found:
        return found[0]
    try:
        return snapshot(0)
    except _NoRevision:
        return None


def _api() -> HfApi:
    from huggingface_hub import HfApi  # half a second, and only hub models need it

    return HfApi()


def _snapshot(api: HfApi, repo: str, revision: str, step: int | None) -> _Snapshot:
    from huggingface_hub import errors, is_offline_mode

    name = _named(revision, step)
    if is_offline_mode():
        return _cached(api, repo, revision, name)
    try:
        return _remote(api, repo, name)
    except errors.RevisionNotFoundError as error:
        with asking(repo):
            refs = api.list_repo_refs(repo)
        known = [r.name for r in [*refs.branches, *refs.tags]]
        raise _NoRevision(_unknown(repo, revision, name, known)) from error


def _unknown(repo: str, revision: str, name: str, refs: Sequence[str]) -> str:
    """What to say of a revision that does not exist: the five nearest that do."""
    said = f"{repo}: revision: got {name!r}, available"
    pattern = re.escape(revision).replace(re.escape("{step}"), r"(\d+)")
    if "{step}" in revision and (found := [m for r in refs if (m := re.fullmatch(pattern, r))]):
        wanted = re.fullmatch(pattern, name)
        return (
            f"{said} steps {nearest(int(wanted[1]) if wanted else 0, [int(m[1]) for m in found])}"
        )
    close = refs if len(refs) <= 5 else difflib.get_close_matches(name, refs, n=5, cutoff=0.0)
    more = f" and {len(refs) - len(close)} more" if len(refs) > len(close) else ""
    return f"{said} {sorted(close)}{more}"


def _cached(api: HfApi, repo: str, revision: str, name: str) -> _Snapshot:
    """A revision as the cache has it."""
    from huggingface_hub import constants

    kept = Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}"
    folder = _cached_folder(api, repo, revision, name, kept)
    try:
        return _Snapshot(
            commit=folder.name,
            config=read_json(folder / "config.json"),
            tensors=read_tensors(folder),
            weights_digest=joined([_blob_hash(f) for f in shard_files(folder)]),
            tokenizer=folder / "tokenizer.json" if lies_in(folder, "tokenizer.json") else None,
        )
    except ValueError as error:
        said = (
            str(error).replace(f"{folder}/", "").replace(str(folder), "").replace(str(kept), "..")
        )
        raise ValueError(
            f"{repo}@{name}: not wholly in the cache: {said}; needs {_download_by_hand(repo, name)}"
        ) from error


def _cached_folder(api: HfApi, repo: str, revision: str, name: str, kept: Path) -> Path:
    from huggingface_hub import errors

    try:
        return Path(
            api.snapshot_download(
                repo,
                revision=name,
                allow_patterns=_WANTED,
                ignore_patterns=_UNWANTED,
                local_files_only=True,
            )
        )
    except errors.LocalEntryNotFoundError as error:
        refs = [
            str(p.relative_to(kept / "refs")) for p in (kept / "refs").rglob("*") if p.is_file()
        ]
        if not kept.is_dir():
            raise ValueError(
                f"hub: got {repo!r}, not in the cache {kept.parent} (HF_HUB_OFFLINE); needs "
                f"{_download_by_hand(repo, name)}"
            ) from error
        if name in refs or (kept / "snapshots" / name).is_dir():
            raise ValueError(
                f"{repo}@{name}: not wholly in the cache; needs {_download_by_hand(repo, name)}"
            ) from error
        said = _unknown(repo, revision, name, refs)
        raise _NoRevision(f"{said} in the cache (HF_HUB_OFFLINE)") from error


def _download_by_hand(repo: str, name: str | None) -> str:
    return f"hf download {repo} --revision {name} with a network, or a path"


def _blob_hash(file: Path) -> str:
    """The hub's hash of a cached file: its blob is named by it."""
    blob = file.resolve()
    if blob.parent.name == "blobs" and _BLOB.fullmatch(blob.name):
        return blob.name
    return file_digest(file, None)


def _remote(api: HfApi, repo: str, name: str) -> _Snapshot:
    where = f"{repo}@{name}"
    with asking(repo):
        info = api.model_info(repo, revision=name, files_metadata=True, timeout=_TIMEOUT_S)
        files = {s.rfilename: s for s in info.siblings or []}
    if WEIGHTS not in files and INDEX not in files:
        raise ValueError(
            what_is(where, [*files, *{f.partition("/")[0] + "/" for f in files if "/" in f}])
        )
    if info.sha is None or "config.json" not in files:
        raise ValueError(f"{where}: got no config.json, allowed: transformers models")
    with asking(repo):
        meta = api.get_safetensors_metadata(repo, revision=info.sha)
        by_file = {f: m.tensors for f, m in meta.files_metadata.items()}
        # by name, not by commit: this leaves the name in the cache, for later work offline
        config = api.hf_hub_download(repo, "config.json", revision=name)
        tokenizer = None
        if "tokenizer.json" in files:
            tokenizer = Path(api.hf_hub_download(repo, "tokenizer.json", revision=info.sha))
            if SETTINGS in files:
                api.hf_hub_download(repo, SETTINGS, revision=info.sha)
    if meta.sharded:
        check_index(where, meta.weight_map, by_file)
    blobs = [files[f] for f in sorted(by_file)]
    return _Snapshot(
        commit=info.sha,
        config=read_json(Path(config)),
        tensors={
            n: TensorHeader(t.dtype, tuple(t.shape)) for m in by_file.values() for n, t in m.items()
        },
        weights_digest=joined([b.lfs.sha256 if b.lfs else str(b.blob_id) for b in blobs]),
        tokenizer=tokenizer,
    )


def config_folder(checkpoint: Checkpoint) -> Path:
    """The folder with a checkpoint's config.json; on the hub that file alone is fetched.

    Returns:
        A folder, which may hold nothing else.
    """
    if checkpoint.folder is not None or checkpoint.repo is None:
        return checkpoint.folder or Path()
    with asking(checkpoint.repo):
        file = _api().hf_hub_download(checkpoint.repo, "config.json", revision=checkpoint.commit)
    return Path(file).parent


def fetch(checkpoint: Checkpoint, *, remote_code: bool = False) -> Path:
    """The folder with a checkpoint's files, downloaded at its commit where it is on the hub.

    ValueError where the folder lacks weights.

    Args:
        remote_code: also download the repository's Python files (trust_remote_code).

    Returns:
        A folder for from_pretrained.
    """
    if checkpoint.folder is not None:
        shard_files(checkpoint.folder)
        return checkpoint.folder
    return _download(checkpoint, checkpoint.commit, remote_code)


def fetch_init(checkpoint: Checkpoint, *, remote_code: bool = False) -> Path | None:
    """The folder with the run's own step 0, None where the run has none.

    ValueError where the folder lacks weights.

    Args:
        remote_code: as in `fetch`.

    Returns:
        A folder for from_pretrained, or None: then the model is initialised from its config.
    """
    if checkpoint.init_folder is not None:
        shard_files(checkpoint.init_folder)
        return checkpoint.init_folder
    if checkpoint.init_commit is None:
        return None
    return _download(checkpoint, checkpoint.init_commit, remote_code)


def _download(checkpoint: Checkpoint, commit: str | None, remote_code: bool) -> Path:
    if checkpoint.repo is None:
        raise ValueError(f"model {checkpoint.model}: got neither folder nor repo")
    with asking(checkpoint.repo):
        folder = _api().snapshot_download(
            checkpoint.repo,
            revision=commit,
            allow_patterns=[*_WANTED, "*.py"] if remote_code else _WANTED,
            ignore_patterns=_UNWANTED,
        )
    try:
        shard_files(Path(folder))
    except ValueError as error:  # without a network what the cache has is given, whole or not
        raise ValueError(
            f"{checkpoint.where}: the hub was not reached, and the cache has no whole model; needs "
            f"{_download_by_hand(checkpoint.repo, commit)}"
        ) from error
    return Path(folder)
