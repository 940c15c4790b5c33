"""Direct logit attribution: what each component writes into the difference of two logits.

Shape suffixes: N components, S sequences, T tokens, P answer positions, D width, H heads, K width
of a head, V vocabulary, L layers + 1.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch

from scaleinv_ray.circuitry.attribution.norms import frozen
from scaleinv_ray.circuitry.attribution.said import cell, clearly, pm, stderr
from scaleinv_ray.circuitry.effects.interventions import check_pairs
from scaleinv_ray.circuitry.effects.metrics import at_positions
from scaleinv_ray.circuitry.effects.subject import Subject
from scaleinv_ray.circuitry.surgery.anatomy import Anatomy
from scaleinv_ray.circuitry.surgery.reruns import State, Surgery
from scaleinv_ray.probes.corrupted import Pairs

_ROWS = 32
_SHOWN = 5
_SEEN, _FELT = 0.01, 0.1
"""Of the largest part, or effect, at least: what is smaller is not named."""
_THROUGH_OTHERS = 0.25
"""Of its effect, at most, is direct in a component that works through later ones."""


@dataclass(frozen=True)
class Direct:
    """Parts of a logit difference.

    Attributes:
        names: of the components, `bias` last.
        parts_NS: what each adds to the difference; they sum to it.
        depth_LS: the difference read off the stream before each block and after the last one.
        against: what the answer's logit is compared with.
        capped: the model caps its logits; what is divided is the difference before the cap.
        effect: component -> mean effect of its ablation on the same difference, where known.
    """

    names: tuple[str, ...]
    parts_NS: np.ndarray
    depth_LS: np.ndarray
    against: str
    capped: bool
    effect: dict[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """What a report reads.

        components: name, effect (its part of the logit difference) and stderr of each, the largest
        first, `bias` among them. by_depth: the difference read off the stream, before block 0, ..,
        after the last one; by_depth_stderr. against: what the answer is compared with.
        """
        mean_N, stderr_N = self.parts_NS.mean(axis=1), stderr(self.parts_NS)
        order = np.argsort(-np.abs(mean_N), kind="stable")
        return {
            "components": [
                {"name": self.names[n], "effect": float(mean_N[n]), "stderr": stderr_N[n]}
                for n in order
            ],
            "by_depth": self.depth_LS.mean(axis=1).tolist(),
            "by_depth_stderr": stderr(self.depth_LS),
            "against": self.against,
        }

    def lines(self) -> list[str]:
        """At most twelve lines for a terminal."""
        found = self.as_json()
        whole, error = found["by_depth"][-1], found["by_depth_stderr"][-1]
        cap = ", before its cap" if self.capped else ""
        clear = clearly(whole, error)
        rows = [
            f"direct: the answer's logit minus that of {self.against} is {whole:+.3f}{pm(error)}"
            + (f"{cap}; who writes it:" if clear else f"{cap}, within its noise:"),
            f"{'component':<12}{'direct':>10}{'+-':>9}{'share' if clear else '':>8}"
            f"{'cut' if self.effect else '':>10}".rstrip(),
        ]
        largest = abs(found["components"][0]["effect"])
        shown = [c for c in found["components"] if abs(c["effect"]) >= _SEEN * largest][:_SHOWN]
        for part in shown:
            effect = self.effect.get(part["name"])
            share = f"{part['effect'] / whole:.0%}" if clear else ""
            cut = "" if effect is None else f"{effect:+.3f}"
            line = f"{part['name']:<12}{part['effect']:>+10.3f}{cell(part['stderr']):>9}"
            rows.append(f"{line}{share:>8}{cut:>10}".rstrip())
        if left := found["components"][len(shown) :]:
            rows.append(f".. and {len(left)} more, together {sum(c['effect'] for c in left):+.3f}")
        rows.append(f"by depth (before block 0, 1, ..): {_clipped(found['by_depth'])}")
        if felt := self.through_others[:_SHOWN]:
            rows.append(f"felt when cut, but not direct (through later ones): {', '.join(felt)}")
        return [*rows, "(scale of the final norm as it is in this run)"]

    @property
    def through_others(self) -> list[str]:
        """Components whose effect is not direct, the largest effect first; small ones left out."""
        direct = dict(zip(self.names, self.parts_NS.mean(axis=1), strict=True))
        size = {name: abs(effect) for name, effect in self.effect.items()}
        return [
            name
            for name in sorted(size, key=lambda name: -size[name])
            if size[name] >= _FELT * max(size.values())
            and abs(direct[name]) < _THROUGH_OTHERS * size[name]
        ]


def direct_logits(subject: Subject) -> Direct:
    """Divides the difference of logits at the answer positions among those who write it.

    The stream before the final norm is the sum of what embedding, heads, MLPs and the biases of
    the output projections write. With the scale of the final norm held at its value in this run
    (per row: that is a choice, as a component that is cut would change it) the norm is linear, and
    the part of a component with output u is <u, r>, r = the norm's transpose of W_U[answer] -
    W_U[other] (Elhage et al. 2021). `bias` is what no component writes: biases of output
    projections, of the final norm and of the head. Where a branch is normed after its heads are
    summed (Gemma 2, OLMo 2) what is counted is the normed part, that norm's scale held too. The
    parts sum to the difference of the model, of logits before a cap where there is one (Gemma 2).

    The other token is the answer of B; for prob_diff the means over the right and over the wrong
    tokens are compared. By depth: the difference read off the stream before every block through
    the final norm with the scale that it has there (nostalgebraist 2020, the logit lens).

    Args:
        subject: its pairs are read; positions whose answers in A and B are equal count as 0.

    Returns:
        Parts of each sequence, means over its answer positions.

    Raises:
        ValueError: for a model whose stream itself is normalised (OPT-350m), so that it is no sum;
            pairs whose answers are all equal.
    """
    anatomy, pairs = subject.anatomy, subject.pairs
    _check(anatomy, pairs, subject.effects.metric)
    surgery = Surgery(anatomy, _ROWS)
    parts, depth = [], []
    for first in range(0, len(pairs.tokens_A_ST), _ROWS):
        some = pairs.some(slice(first, first + _ROWS))
        state = surgery.record(torch.from_numpy(some.tokens_A_ST).long())
        found = _divided(anatomy, state, some, _difference(anatomy, some, subject.effects.metric))
        parts.append(found[0])
        depth.append(found[1])
    e = subject.effects
    effects = dict(zip(map(str, e.components), e.best_NS.mean(axis=1).tolist(), strict=True))
    sets = e.metric == "prob_diff"
    return Direct(
        names=(*map(str, anatomy.graph.writers), "bias"),
        parts_NS=np.concatenate(parts, axis=1),
        depth_LS=np.concatenate(depth, axis=1),
        against="the wrong tokens" if sets else "B's answer",
        capped=anatomy.architecture.logits_softcap is not None,
        effect=effects if e.metric == "logit_diff" else {},
    )


def adds_up(anatomy: Anatomy) -> bool:
    """The stream is the sum of what is written to it: no norm stands in the stream itself."""
    facts = anatomy.architecture
    return facts.model_type != "opt" or facts.removes_mean


def _check(anatomy: Anatomy, pairs: Pairs, metric: str) -> None:
    check_pairs(pairs, anatomy.model.config)
    if not adds_up(anatomy):
        raise ValueError(
            "direct: got an OPT that normalises its stream after every block, allowed models whose "
            "stream is the sum of what is written"
        )
    if metric != "prob_diff" and (pairs.answer_A_SP == pairs.answer_B_SP).all():
        raise ValueError("answers: got equal ones in A and B, allowed different ones for direct")


class _Difference(NamedTuple):
    """Two logits as a linear function of what the head reads.

    Attributes:
        direction_SPD: of the difference.
        bias_SP: of the head.
    """

    direction_SPD: torch.Tensor
    bias_SP: torch.Tensor


def _difference(anatomy: Anatomy, pairs: Pairs, metric: str) -> _Difference:
    facts = anatomy.architecture
    head: Any = anatomy.model.get_submodule(facts.head)
    weight_VD, bias = head.weight.detach(), getattr(head, "bias", None)
    bias_V = weight_VD.new_zeros(len(weight_VD)) if bias is None else bias.detach()
    if metric == "prob_diff":
        assert pairs.right_SV is not None and pairs.wrong_SV is not None, "its effects need them"
        right, wrong = (m / m.sum(1, keepdims=True) for m in (pairs.right_SV, pairs.wrong_SV))
        sign_SV = torch.from_numpy(right - wrong).to(weight_VD.device)
        direction = (sign_SV @ weight_VD.double())[:, None]
        constant = (sign_SV @ bias_V.double())[:, None]
    else:
        a_SP, b_SP = (
            torch.from_numpy(x).to(weight_VD.device) for x in (pairs.answer_A_SP, pairs.answer_B_SP)
        )
        direction = weight_VD[a_SP].double() - weight_VD[b_SP].double()
        constant = bias_V[a_SP].double() - bias_V[b_SP].double()
    body = anatomy.model.get_submodule(facts.blocks.rpartition(".")[0])
    last: Any = getattr(body, "project_out", None)
    if last is not None:  # an embedding narrower than the stream
        direction = direction @ last.weight.detach().double()
    return _Difference(direction / facts.logits_scaling, constant / facts.logits_scaling)


@torch.no_grad()
def _divided(
    anatomy: Anatomy, state: State, pairs: Pairs, difference: _Difference
) -> tuple[np.ndarray, np.ndarray]:
    """Parts [N, S], and the difference by depth [L, S]."""
    facts = anatomy.architecture
    positions = torch.from_numpy(pairs.positions_SP).to(state.stream[0].device)
    norm = None if facts.final_norm is None else anatomy.model.get_submodule(facts.final_norm)
    stream_LSPD = at_positions(torch.stack(state.stream), positions)
    last = frozen(norm, stream_LSPD[-1])
    r_SPD = last.back(difference.direction_SPD)
    parts = [(stream_LSPD[0].double() * r_SPD).sum(-1)]
    bias_SP = difference.bias_SP + difference.direction_SPD @ last.bias_D
    for layer in range(anatomy.graph.layers):
        z_SPHK = at_positions(state.heads[layer].flatten(-2)[None], positions)[0].double()
        z_SPHK = z_SPHK.unflatten(-1, state.heads[layer].shape[-2:])
        of_heads, of_bias = _attention(anatomy, layer, z_SPHK, r_SPD)
        parts += of_heads
        bias_SP = bias_SP + of_bias
        if state.mlps:
            u_SPD = at_positions(state.mlps[layer][None], positions)[0] * facts.residual_multiplier
            after = frozen(anatomy.norm_after(layer, "mlp"), u_SPD)
            parts.append((u_SPD.double() * after.back(r_SPD)).sum(-1))
            bias_SP = bias_SP + r_SPD @ after.bias_D
    through = stream_LSPD if norm is None else norm(stream_LSPD)
    read_LSP = (through.double() * difference.direction_SPD).sum(-1) + difference.bias_SP
    found_NSP = torch.stack([*parts, bias_SP])
    return found_NSP.mean(-1).cpu().numpy(), read_LSP.mean(-1).cpu().numpy()


def _attention(
    anatomy: Anatomy, layer: int, z_SPHK: torch.Tensor, r_SPD: torch.Tensor
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Parts of the heads of a layer, [S, P] each, and that of their common bias."""
    w_HKD = anatomy.written_HKD(layer)
    bias: Any = getattr(anatomy.out(layer), "bias", None)
    factor = anatomy.architecture.residual_multiplier
    bias_D = w_HKD.new_zeros(w_HKD.shape[-1]) if bias is None else bias * factor
    bias_D, w_HKD = bias_D.double(), w_HKD.double()
    after = anatomy.norm_after(layer, "heads")
    constant = r_SPD.new_zeros(r_SPD.shape[:-1])
    if after is not None:
        whole = torch.einsum("sphk,hkd->spd", z_SPHK, w_HKD) + bias_D
        normed = frozen(after, whole.to(bias.dtype if bias is not None else anatomy.model.dtype))
        constant, r_SPD = r_SPD @ normed.bias_D, normed.back(r_SPD)
    heads_HSP = torch.einsum("sphk,hkd,spd->hsp", z_SPHK, w_HKD, r_SPD)
    return list(heads_HSP), r_SPD @ bias_D + constant


def _clipped(values: list[float]) -> str:
    texts = [f"{x:+.2f}" for x in values]
    if len(texts) > 8:
        texts = [*texts[:3], "..", *texts[-4:]]
    return " ".join(texts)
