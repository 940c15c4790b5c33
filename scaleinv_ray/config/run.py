"""The config of a run: what is measured on what, and where it goes."""

from __future__ import annotations

import typing
from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationInfo,
    model_validator,
)

from scaleinv_ray.config.cluster import ClusterOptions
from scaleinv_ray.config.entering import Entered, or_auto, without_auto
from scaleinv_ray.config.fields import (
    Bool,
    Corpus,
    Float,
    Name,
    Options,
    Place,
    Positive,
    Steps,
    Text,
    check_circuits,
    check_known,
    check_parameter,
    distinct,
    placed,
    unknown,
)
from scaleinv_ray.config.sources import (
    HubSource,
    PathSource,
    Probe,
    Source,
    check_probes,
    list_of_models,
)
from scaleinv_ray.contract import REGISTRY, Invariant
from scaleinv_ray.inputs.wording import listed, shown
from scaleinv_ray.plugins.loading import check_distinct, known_to, load_installed
from scaleinv_ray.plugins.loading import read as read_plugin
from scaleinv_ray.protocols import (
    CircuitsProtocol,
    CurvatureProtocol,
    SamplingProtocol,
    Spectroscopy,
)
from scaleinv_ray.records import VARIANTS, Protocol, Variant


def _following(given: object) -> object:
    """A protocol whose defaults follow the numbers beside them: what is read fits what there is."""
    given = without_auto(given)
    if not isinstance(given, Mapping):
        return given
    made, default = dict(given), Protocol()
    length, sequences = made.get("length"), made.get("sequences")
    if isinstance(length, int) and 0 < length <= default.position:
        made.setdefault("position", length // 2)
    if isinstance(sequences, int) and 0 < sequences < default.blocks:
        made.setdefault("blocks", sequences)
    return made


def _special_tokens(value: object) -> object:
    """'auto', 'none', or names of tokens."""
    if isinstance(value, str) and value in {"auto", "none"}:
        return value
    if isinstance(value, list | tuple) and value and all(isinstance(v, str) and v for v in value):
        return tuple(value)
    raise ValueError(f"got {shown(value)}, allowed: 'auto', 'none' or a list of tokens")


def _registry() -> Mapping[str, Invariant]:
    import scaleinv_ray.invariants  # registers them; costs seconds, and a ladder needs none

    assert scaleinv_ray.invariants
    load_installed()
    return REGISTRY


def _plugin(value: str, info: ValidationInfo) -> str:
    """A plugin, loaded: its invariants may be named below it."""
    if value.endswith(".py"):
        value = placed(value, info)
    _registry()
    read_plugin(value, (info.context or {}).get("folder")).load()
    return value


def _plugins(value: tuple[str, ...]) -> tuple[str, ...]:
    check_distinct(value)
    distinct(value)
    return value


def _variants(value: object) -> object:
    if isinstance(value, list | tuple):
        for variant in value:
            if variant == "untrained":  # of which 'trained' is the nearest by its letters
                raise ValueError("unknown variant 'untrained', allowed: random_init for it")
            check_known(variant, VARIANTS, "variant")
        if "trained" not in value:
            raise ValueError(f"got {shown(list(value))}, 'trained' must be among them")
    return value


def _check_invariant(name: object, known: Collection[str]) -> None:
    of = [invariant for invariant, spec in REGISTRY.items() if name in spec.quantities]
    if of and name not in known:
        raise ValueError(f"unknown invariant {shown(name)}, a quantity of {listed(of, name)}")
    check_known(name, known, "invariant")


def _invariants(value: object) -> object:
    """'all', or a mapping from names to the parameters given, both checked; 'all' may be in it."""
    if value == "all":
        return value
    known = ("all", *_registry())
    if isinstance(value, list | tuple):
        for name in value:
            _check_invariant(name, known)
        value = dict.fromkeys(distinct(value))
    if not isinstance(value, Mapping) or not value:
        raise ValueError(f"got {shown(value)}, allowed: 'all', a list of names, {{name: {{...}}}}")
    chosen = {}
    for name, given in value.items():
        if name == "all" and given:
            raise ValueError(f"all: got {shown(given)}, allowed: {{}}, and parameters by name")
        _check_invariant(name, known)
        if given is not None and not isinstance(given, Mapping):
            raise ValueError(f"{name}: got {shown(given)}, allowed: a mapping of parameters")
        chosen[name] = without_auto(given or {})
        if chosen[name]:
            _check_parameters(REGISTRY[name], chosen[name])
    return chosen


def _check_parameters(spec: Invariant, given: Mapping[str, Any]) -> None:
    """Names, types, then ranges, which may depend on the parameters that are not given."""
    hints = typing.get_type_hints(spec.function, include_extras=True)
    for key, parameter in given.items():
        if key not in spec.parameters:
            raise unknown(key, spec.parameters, f"unknown parameter of {spec.name}", RunConfig)
        check_parameter(f"{spec.name}.{key}", parameter, hints[key])
    try:
        spec.check(given)
    except ValueError as error:
        raise ValueError(f"{spec.name}.{error}") from error


class PredictedModel(Options):
    """A larger model, which need not exist.

    Attributes:
        model: its name.
        n_params: its total parameters.
    """

    model: Name
    n_params: Positive


class CapabilityFile(Options):
    """Published evaluations, joined with the models of the series by name and tokens.

    Attributes:
        file: results.json of lm-evaluation-harness, or a Parquet table as Pythia's evaluations.
        tokens_per_step: tokens in a training step, where the file counts steps alone.
        fewshot: which rows of a Parquet table.
    """

    file: Place
    tokens_per_step: Positive | None = None
    fewshot: Text = "zero-shot"


def _each_once(value: tuple[PredictedModel, ...]) -> tuple[PredictedModel, ...]:
    distinct([p.model for p in value])
    return value


ComparisonName = Literal["steps", "tokens", "loss", "final"]


class ConservationOptions(Options):
    """How verdicts are reached.

    Attributes:
        margin: relative change that counts as conserved, where a quantity declares no other.
        held_out: what prediction leaves out.
        comparisons: at equal what the sizes are compared; final is each model's last checkpoint,
            which stands in for steps where the models have none in common.
        by_role: whether exponents of tails, which scatter over seeds by more than any margin where
            they are of one matrix, are judged role by role and in thirds of the depth, too.
        predict: larger models to predict from those measured.
    """

    margin: Annotated[Float, Field(gt=0, lt=1)] = 0.10
    held_out: Literal["largest", "none"] = "largest"
    comparisons: Annotated[
        tuple[ComparisonName, ...],
        Field(min_length=1),
        AfterValidator(distinct),
    ] = ("steps", "tokens", "loss")
    by_role: Bool = False
    predict: Annotated[tuple[PredictedModel, ...], AfterValidator(_each_once)] = ()


class RunConfig(Options):
    """What is measured on what, and where it goes.

    Attributes:
        name: of the series; a run folder belongs to one.
        models: where checkpoints come from.
        variants: trained and the nulls.
        probes: names of probe sets, and files: of texts (`{name: .., file: .., field: ..,
            layout: ..}`) and of token ids (`{name: .., tokens: ..}`).
        special_tokens: what stands before the text of every sequence: what the model's own
            tokenizer puts there (auto), nothing, or these tokens.
        measure_special_tokens: whether they count as the first tokens of a sequence; else captures
            leave them out, and positions count from the text.
        protocol: what makes captures comparable. A number that is left out, or says `auto`, is the
            default or the most below it that every model and probe of the series has.
        curvature: how densities of states are captured; they are not, without.
        sampling: how chains are sampled; they are not, without.
        circuits: how effects of components are measured; they are not, without.
        plugins: files (`my_invariants.py`) and modules (`package.module`) with invariants of one's
            own; their source travels to the workers and is part of the key of what they measure.
        invariants: 'all', a list of names, or names with the parameters given; `all: {}` among the
            names stands for all others with the planned parameters. Points that are left out, or
            say `auto`, fit the smallest cloud of the series.
        conservation: how verdicts are reached.
        capabilities: files of evaluations whose onsets are set against those of invariants.
        null_steps: steps at which nulls are planned.
        cluster: how a cluster is used.
        captures: whether captures outlive the measurements made of them.
        batch_size: sequences in a forward pass.
        split_heads: examine query, key, value and output weights head by head.
        corpus: 'python-stdlib', or files and folders with the text of held-out probes.
        trust_remote_code: names of models whose repository's code may run.
        out: folder or URI of the run; `runs/<name>` by default.
    """

    name: Name
    models: Annotated[tuple[Source, ...], Field(min_length=1), BeforeValidator(list_of_models)]
    variants: Annotated[
        tuple[Variant, ...], BeforeValidator(_variants), AfterValidator(distinct)
    ] = VARIANTS
    probes: Annotated[
        tuple[Probe, ...],
        Field(min_length=1, validate_default=True),
        AfterValidator(check_probes),
    ] = ("prose",)
    special_tokens: Annotated[
        Literal["auto", "none"] | tuple[str, ...], BeforeValidator(_special_tokens)
    ] = "auto"
    measure_special_tokens: Bool = False
    protocol: Annotated[
        Entered[Protocol],
        BeforeValidator(_following, json_schema_input_type=or_auto(Protocol) | Literal["auto"]),
    ] = Protocol()
    curvature: Entered[CurvatureProtocol] | None = None
    sampling: Entered[SamplingProtocol] | None = None
    circuits: Entered[CircuitsProtocol] | None = None
    plugins: Annotated[
        tuple[Annotated[Text, AfterValidator(_plugin)], ...], AfterValidator(_plugins)
    ] = ()
    invariants: Annotated[
        Literal["all"] | dict[str, dict[str, Any]],
        BeforeValidator(
            _invariants,
            json_schema_input_type=Literal["all"]
            | tuple[str, ...]
            | dict[str, dict[str, Any] | Literal["auto"] | None],
        ),
    ] = "all"
    conservation: ConservationOptions = ConservationOptions()
    capabilities: tuple[CapabilityFile, ...] = ()
    null_steps: Steps = "last"
    cluster: ClusterOptions = ClusterOptions()
    captures: Literal["keep", "discard"] = "keep"
    batch_size: Annotated[Positive, Field(le=10**6)] = 32
    split_heads: Bool = False
    corpus: Corpus = "python-stdlib"
    trust_remote_code: tuple[str, ...] = ()
    out: Place

    @model_validator(mode="before")
    @classmethod
    def _default_out(cls, data: object) -> object:
        if isinstance(data, Mapping):  # without a name that alone is said
            return {"out": f"runs/{data.get('name')}"} | dict(data)
        return data

    @model_validator(mode="after")
    def _trusted_models_are_models(self) -> RunConfig:
        models = [s.model for s in self.models if isinstance(s, HubSource | PathSource)]
        for name in self.trust_remote_code:
            try:
                check_known(name, models, "model")
            except ValueError as error:
                raise ValueError(f"trust_remote_code: {error}") from error
        return self

    @model_validator(mode="after")
    def _spectroscopy_fits(self) -> RunConfig:
        for section in ("curvature", "sampling"):
            options = getattr(self, section)
            if options is not None and options.sequences > self.protocol.sequences:
                raise ValueError(
                    f"{section}.sequences: got {options.sequences}, "
                    f"allowed 1..{self.protocol.sequences} (protocol.sequences)"
                )
        for probe in self.sampling.observed if self.sampling else ():
            check_known(probe, self.probe_names, "probe", "sampling.observed")
        if self.circuits is not None:
            check_circuits(self.circuits, self.probes, self.probe_names, self.cluster.load)
        return self

    @property
    def comparisons(self) -> list[str]:
        """Those wanted, as tables name them."""
        wanted = self.conservation.comparisons
        return [name if name == "final" else f"equal_{name}" for name in wanted]

    @property
    def probe_names(self) -> tuple[str, ...]:
        """Names of all probes, in order."""
        return tuple(p if isinstance(p, str) else p.name for p in self.probes)

    def spectroscopy(self) -> Spectroscopy:
        """What is asked for beside forward passes."""
        return Spectroscopy(self.curvature, self.sampling, self.circuits)

    @property
    def named_invariants(self) -> dict[str, dict[str, Any]]:
        """The parameters of the invariants that are asked for by name."""
        given = {} if isinstance(self.invariants, str) else self.invariants
        return {name: parameters for name, parameters in given.items() if name != "all"}

    def chosen_invariants(self) -> dict[str, dict[str, Any]]:
        """All parameters of every invariant of this run: those given, else those planned."""
        given = self.invariants
        chosen = self.named_invariants
        if "all" in given:  # the word, or among the names
            _registry()
            chosen = dict.fromkeys(known_to(self.plugins), {}) | chosen
        return {n: dict(REGISTRY[n].parameters) | p for n, p in chosen.items()}
