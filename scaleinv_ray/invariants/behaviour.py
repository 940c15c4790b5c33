"""Behaviour: capabilities that show in next-token losses alone, without a benchmark.

Shape suffixes: S sequences, T positions (loss t is that of token t + 1).
"""

from __future__ import annotations

import numpy as np

from scaleinv_ray.contract import Curve, Measured, Quantity, Refused, invariant
from scaleinv_ray.estimate import Estimate
from scaleinv_ray.invariants.common.soundness import sound
from scaleinv_ray.records import MaskedLosses, TokenLosses

MIN_LENGTH = 16
NATS = 0.05
"""Change of a loss that counts as none: a third of what twice the parameters gain at a loss of 3,
as L ~ N^-0.076 (Kaplan et al. 2020, arXiv 2001.08361, eq. 1.1)."""
NUM_SAMPLES = 8
"""Blocks of sequences whose means are kept with a row, to compare two models on the same ones."""
BRACKET_DEPTH = 4
"""Of the probe `brackets`: four opening brackets, then the four that close them."""


@invariant(
    quantities={
        "loss": Quantity(
            law="power_law",
            unit=1.0,
            margin=NATS,
            nats="mean_per_token",
            meaning="Mean cross-entropy of the next token, nats a token; lower is better",
        ),
        "in_context_gain": Quantity(
            law="none",
            unit=1.0,
            nats="per_token",
            meaning=(
                "Loss early in a sequence less loss late in it, nats a token; above 0 context helps"
            ),
        ),
        "copying_gain": Quantity(
            law="none",
            unit=1.0,
            nats="per_token",
            meaning=(
                "Loss of a random sequence less that of its repetition, nats a token; above 0 it "
                "is copied"
            ),
        ),
        "closing_gain": Quantity(
            law="none",
            unit=1.0,
            nats="per_token",
            meaning=(
                "Loss of opening brackets less that of closing ones, nats a token; at most ln 3"
            ),
        ),
    },
    curves={"loss_by_position": "Loss, nats a token; position in the sequence"},
)
def capabilities(losses: TokenLosses, *, rng: np.random.Generator) -> Measured:
    """Loss, gain from context, copying of a repeated half, and closing of brackets, in nats.

    loss: mean of -ln p(token | earlier tokens);
    in_context_gain: mean loss of the second eighth of the positions minus that of the last eighth
    (Olsson et al. 2022 take positions 50 and 500);
    copying_gain, on the probe `induction`: mean loss of the random half minus that of its
    repetition, whose first token nothing announces (Olsson et al. 2022);
    closing_gain, on the probe `brackets`: mean loss of the opening brackets, which are random,
    minus that of the closing ones, which are determined (ln 3 at most, once openings cost ln 3).

    Args:
        losses: loss_ST with S sequences, the replicates of the error.
        rng: not drawn from.

    Returns:
        The quantities; the last two are refused on other probes. Curve `loss_by_position`.

    Raises:
        Refused: under two sequences or 16 positions, or where `sound` refuses.
    """
    sound(losses)
    loss_ST = np.asarray(losses.loss_ST, dtype=np.float64)
    sequences, positions = loss_ST.shape
    if sequences < 2 or positions < MIN_LENGTH:
        raise Refused(f"loss_ST: got {loss_ST.shape}, allowed >= (2, {MIN_LENGTH})")
    eighth = positions // 8
    token_T = np.arange(1, positions + 1)
    period = (positions + 2) // 2  # the probe's sequence has one token more
    inside_T = token_T % (2 * BRACKET_DEPTH) >= BRACKET_DEPTH
    values: dict[str, Estimate | Refused] = {
        "loss": _mean(loss_ST.mean(axis=1)),
        "in_context_gain": _gain(
            loss_ST, _span(positions, eighth, 2 * eighth), _span(positions, -eighth, None)
        ),
        "copying_gain": _on(
            "induction", losses, _gain(loss_ST, token_T < period, token_T > period)
        ),
        "closing_gain": _on("brackets", losses, _gain(loss_ST, ~inside_T, inside_T)),
    }
    stderr_T = loss_ST.std(axis=0, ddof=1) / np.sqrt(sequences)
    curve = Curve(token_T.astype(np.float64), loss_ST.mean(axis=0), stderr_T)
    return Measured(values, curves={"loss_by_position": curve})


@invariant(
    quantities={
        "masked_loss": Quantity(
            law="power_law",
            unit=1.0,
            margin=NATS,
            nats="mean_per_token",
            meaning="Mean cross-entropy of hidden tokens, nats a token; lower is better",
        )
    }
)
def masked_prediction(losses: MaskedLosses, *, rng: np.random.Generator) -> Measured:
    """Loss of an encoder on hidden tokens, in nats: 15 % of each sequence, always the same.

    masked_loss: mean of -ln p(token | the tokens that are not hidden) over the hidden positions
    (Devlin et al. 2019, all of them replaced by the mask).

    Args:
        losses: loss_SM with S sequences, the replicates of the error.
        rng: not drawn from.

    Returns:
        The quantity; flag `masked`, hidden tokens of a sequence.

    Raises:
        Refused: under two sequences, or where `sound` refuses.
    """
    sound(losses)
    loss_SM = np.asarray(losses.loss_SM, dtype=np.float64)
    if len(loss_SM) < 2:
        raise Refused(f"loss_SM: got {loss_SM.shape}, allowed two sequences or more")
    return Measured(
        {"masked_loss": _mean(loss_SM.mean(axis=1))}, flags={"masked": loss_SM.shape[1]}
    )


def _mean(value_S: np.ndarray) -> Estimate:
    """The mean over sequences; of thousands the means of a few blocks are kept with the row."""
    blocks = np.array_split(value_S, min(NUM_SAMPLES, len(value_S)))
    return Estimate(
        float(value_S.mean()),
        float(value_S.std(ddof=1) / np.sqrt(len(value_S))),
        len(value_S),
        "sequences",
        tuple(float(block.mean()) for block in blocks),
    )


def _gain(loss_ST: np.ndarray, before_T: np.ndarray, after_T: np.ndarray) -> Estimate:
    return _mean(loss_ST[:, before_T].mean(axis=1) - loss_ST[:, after_T].mean(axis=1))


def _span(positions: int, start: int, stop: int | None) -> np.ndarray:
    chosen_T = np.zeros(positions, dtype=bool)
    chosen_T[start:stop] = True
    return chosen_T


def _on(probe: str, losses: TokenLosses, gain: Estimate) -> Estimate | Refused:
    if losses.probe == probe:
        return gain
    return Refused(f"probe: got {losses.probe!r}, defined on {probe!r}")
