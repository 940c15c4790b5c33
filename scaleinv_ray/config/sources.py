"""Where the checkpoints and the sequences of a run come from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Discriminator, Tag, model_validator

from scaleinv_ray.checkpoints.finding.steps import model_of
from scaleinv_ray.config.fields import (
    Int,
    Name,
    Natural,
    Options,
    Place,
    Positive,
    StepList,
    Steps,
    Text,
    check_known,
    distinct,
)
from scaleinv_ray.inputs.wording import listed, shown


def _repository(value: str) -> str:
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", value):
        raise ValueError(
            f"got {shown(value)}, allowed: organisation/name, as openai-community/gpt2"
        )
    return value


class HubSource(Options):
    """Checkpoints of a model on the hub.

    Attributes:
        hub: `organisation/name`.
        revision: branch, tag or commit; `{step}` stands for every one of `steps`.
        steps: the steps; without `{step}` at most one.
        seed: of the model.
        name: identity in the series; the repository's name by default.
        tokens_per_step: tokens in a training batch, from which train_tokens follow.
    """

    hub: Annotated[Text, AfterValidator(_repository)]
    revision: Text = "main"
    steps: StepList | None = None
    seed: Int = 0
    name: Name | None = None
    tokens_per_step: Positive | None = None

    @property
    def model(self) -> str:
        """Identity in the series."""
        return self.name or self.hub.rpartition("/")[2]

    @model_validator(mode="after")
    def _steps_of_revision(self) -> HubSource:
        many = "{step}" in self.revision
        if (self.steps is None) if many else (len(self.steps or ()) > 1):
            needed = "a list of steps" if many else "one step (revision has no {step})"
            raise ValueError(f"steps: got {self.steps}, revision {self.revision!r} needs {needed}")
        return self


class PathSource(Options):
    """Checkpoints in a folder: one, or a run of folders named by their steps.

    Attributes:
        path: the folder.
        steps: which steps of a run.
        seed: where no training.json says it.
        step: of a single checkpoint, or of the model beside step folders, where no file says it.
        tokens: seen in training by a single checkpoint, where no file says it.
        tokens_per_step: tokens in a training batch, from which those seen follow.
        name: identity in the series; the folder's name by default.
        init: the model at step 0, where it is not in the run folder.
    """

    path: Place
    steps: Steps = "all"
    seed: Int | None = None
    step: Natural | None = None
    tokens: Natural | None = None
    tokens_per_step: Positive | None = None
    name: Name | None = None
    init: Place | None = None

    @property
    def model(self) -> str:
        """Identity in the series."""
        return self.name or model_of(Path(self.path).absolute())

    @model_validator(mode="after")
    def _tokens_once(self) -> PathSource:
        if self.tokens is not None and self.tokens_per_step is not None:
            raise ValueError(
                f"tokens: got {self.tokens} beside tokens_per_step {self.tokens_per_step}, "
                "allowed: one of them"
            )
        return self


class LadderSource(Options):
    """Every run in a folder of runs.

    Attributes:
        ladder: the folder.
        steps: which steps of every run.
    """

    ladder: Place
    steps: Steps = "all"


class RecordsSource(Options):
    """Captures made elsewhere, in a folder with a records.json.

    Attributes:
        records: the folder.
    """

    records: Place


_KINDS = ("hub", "path", "ladder", "records")


def _kind_of_source(value: object) -> str | None:
    fields = value if isinstance(value, Mapping) else getattr(type(value), "model_fields", ())
    kinds = [kind for kind in _KINDS if kind in fields]
    return kinds[0] if len(kinds) == 1 else None


Source = Annotated[
    Annotated[HubSource, Tag("hub")]
    | Annotated[PathSource, Tag("path")]
    | Annotated[LadderSource, Tag("ladder")]
    | Annotated[RecordsSource, Tag("records")],
    Discriminator(
        _kind_of_source,
        custom_error_type="source",
        custom_error_message="Input should be a mapping with one of hub, path, ladder, records",
    ),
]


def list_of_models(value: object) -> object:
    """What stands under `models`; ValueError shows how a single model is written."""
    if isinstance(value, str):
        raise ValueError(f"got {shown(value, 40)}, allowed: a list, as '- path: {value:.40}'")
    if isinstance(value, Mapping):
        raise ValueError(f"got {shown(value, 60)}, allowed: a list, a '-' before each model")
    return value


class ProbeFile(Options):
    """A probe of the user's own.

    Attributes:
        name: of the probe, none of those that exist.
        file: JSON lines, an object a line; .parquet; .txt.
        field: of every object, with its text, or name of the column.
        layout: texts one behind the other, or each at the start of a sequence of its own.
    """

    name: Name
    file: Place
    field: Text = "text"
    layout: Literal["packed", "documents"] = "packed"


class ProbeTokenFile(Options):
    """A probe of token ids.

    Attributes:
        name: of the probe, none of those that exist.
        tokens: .npy of integers [sequences, tokens], or .parquet.
        field: name of the column with lists of integers.
    """

    name: Name
    tokens: Place
    field: Text = "input_ids"


def _kind_of_probe(value: object) -> str:
    if isinstance(value, str):
        return "name"
    of_ids = isinstance(value, ProbeTokenFile) or (isinstance(value, Mapping) and "tokens" in value)
    return "tokens" if of_ids else "file"


Probe = Annotated[
    Annotated[str, Tag("name")]
    | Annotated[ProbeFile, Tag("file")]
    | Annotated[ProbeTokenFile, Tag("tokens")],
    Discriminator(_kind_of_probe),
]


def check_probes(
    value: tuple[str | ProbeFile | ProbeTokenFile, ...],
) -> tuple[str | ProbeFile | ProbeTokenFile, ...]:
    """The probes; ValueError for an unknown one, a name that is taken, one that stands twice."""
    from scaleinv_ray.probes import PROBES

    for probe in value:
        if isinstance(probe, str):
            check_known(probe, tuple(PROBES), "probe")
        elif probe.name in PROBES:
            raise ValueError(
                f"got a file named {probe.name!r}, allowed: none of {listed(PROBES, probe.name)}"
            )
    distinct([p if isinstance(p, str) else p.name for p in value])
    return value
