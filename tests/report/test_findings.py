"""What a run found, in words: each sentence from a table whose truth is known."""

from __future__ import annotations

from typing import Any

import pytest

from scaleinv_ray import tables
from scaleinv_ray.conclude.conclusions import SCHEMAS
from scaleinv_ray.contract import Quantity
from scaleinv_ray.report.figures.forest import change, forest, lines_of
from scaleinv_ray.report.findings import findings, with_error
from scaleinv_ray.report.summary import judged, paragraph
from tests.report.synthetic_tables import measurement, values_of, verdict

MEANINGS = {
    ("topology.persistence", "loops"): Quantity(law="constant", meaning="Number of loops; few"),
    ("topology.persistence", "rank"): Quantity(law="none", meaning="Euler number of the cloud"),
}


def rows_of(*rows: dict[str, Any]) -> list[dict[str, Any]]:
    return judged(tables.encode(rows, SCHEMAS["verdicts"]))


def values(
    quantity: str, by_variant: dict[str, dict[int, list[float]]], *, finished: bool = False
) -> list[dict[str, Any]]:
    """Rows of the values: variant -> size -> values over seeds; each size at its own end."""
    found = [
        measurement(
            quantity=quantity, variant=variant, n_params=n, model=f"{n}-{seed}", seed=seed,
            value=value,
            step=None if variant == "random_init" else n if finished else measurement()["step"],
        )
        for variant, sizes in by_variant.items()
        for n, of_seeds in sizes.items()
        for seed, value in enumerate(of_seeds)
    ]  # fmt: skip
    return values_of(tables.encode(found, tables.MEASUREMENTS)).to_pylist()


def test_the_first_sentence_names_what_is_learned_beside_what_is_not() -> None:
    rows = rows_of(
        verdict(quantity="loops", verdict="conserved", null_class="learned"),
        verdict(quantity="rank", verdict="undetermined", null_class="null_undetermined"),
    )
    measured = {
        "trained": {100: [1.0, 1.2], 1000: [1.1, 1.1]},
        "random_init": {100: [2.0, 2.0], 1000: [5.0, 5.0]},
    }
    lead, first, *_ = findings(rows, values("loops", measured), MEANINGS)
    assert lead == "Of 2 measured quantities, 1 conserved and learned (number of loops)."
    assert first == (
        "Conserved, learned: number of loops (loops at resid_post on prose): "
        "trained 1.10 ± 0.10 to 1.1, untrained 2 to 5."
    )


def test_finished_models_have_their_numbers_beside_the_verdict() -> None:
    ends = {"comparison": "final", "step": None}
    rows = rows_of(verdict(quantity="loops", verdict="conserved", null_class="learned", **ends))
    measured = {
        "trained": {100: [1.0, 1.2], 1000: [1.1, 1.1]},
        "random_init": {100: [2.0, 2.0], 1000: [5.0, 5.0]},
    }
    first = findings(rows, values("loops", measured, finished=True), MEANINGS)[1]
    assert first.endswith(": trained 1.10 ± 0.10 to 1.1, untrained 2 to 5.")


def test_a_learned_law_is_named_with_its_exponent() -> None:
    law = {"verdict": "scales", "null_class": "learned", "exponent": 0.31}
    ends = {"exponent_low": 0.28, "exponent_high": 0.34}
    rows = rows_of(
        verdict(quantity="rank", **law, **ends),
        verdict(quantity="other", unit=0.5, **law, **ends),
    )
    lead, first, other, *_ = findings(rows, [], MEANINGS)
    assert lead.endswith("2 with a law that is learned (Euler number of the cloud; other).")
    assert first.startswith("A law, learned: Euler number of the cloud (rank at")
    assert first.endswith(": exponent 0.31 [0.28, 0.34].")
    # no meaning is known: its name; judged in units: a slope of the quantity itself
    assert other.endswith(": slope per ln N 0.155 [0.14, 0.17].")


def test_more_than_four_findings_are_counted() -> None:
    rows = rows_of(*(
        verdict(quantity=f"q{i}", verdict="conserved", null_class="learned") for i in range(6)
    ))  # fmt: skip
    lead, *others = findings(rows, [], {})
    assert "6 conserved and learned (q0; q1; q2; q3; and 2 more)." in lead
    assert sum(line.startswith("Conserved, learned: ") for line in others) == 4


def test_nothing_learned_is_said() -> None:
    rows = rows_of(verdict(verdict="conserved", null_class="trivial"))
    said = findings(rows, [], {})
    assert said[0].startswith("Of 1 measured quantity, none was found to be conserved")
    assert any("1 conserved or scaling the same in untrained networks" in s for s in said)


def test_where_nothing_is_decided_nothing_is_denied() -> None:
    open_still = rows_of(verdict(verdict="undetermined", null_class=None))
    assert findings(open_still, [], {})[0] == "Of 1 measured quantity, none could be decided."


def test_claims_are_counted_as_held_or_refuted() -> None:
    kinds = ("conserved", "conserved_drifting", "scales", "not_conserved", "undetermined")
    rows = rows_of(*(verdict(quantity=k, law="constant", verdict=k) for k in kinds))
    (said,) = (s for s in findings(rows, [], {}) if s.startswith("Claimed"))
    assert said == (
        "Claimed constant in advance and measured: 5; 2 held (1 of them drifting), "
        "2 refuted (1 scaling, 1 lawless), 1 undetermined."
    )
    law = rows_of(*(verdict(quantity=k, law="power_law", verdict=k) for k in kinds))
    (said,) = (s for s in findings(law, [], {}) if s.startswith("Claimed"))
    assert "1 held, 3 refuted (2 conserved, 1 lawless)" in said


def test_what_was_never_measured_is_not_undetermined() -> None:
    lost = "no model has a value; 3 of 3 models dropped: "
    rows = rows_of(
        verdict(
            quantity="a",
            verdict="refused",
            n_models=0,
            reason=f"{lost}distinct rows: got 5, needs 9 (why)",
        ),
        verdict(
            quantity="b",
            verdict="not_asked",
            n_models=0,
            reason=f"{lost}probe: got 'prose', defined on 'x'",
        ),
        verdict(
            quantity="c",
            verdict="not_asked",
            n_models=0,
            reason=f"{lost}c: needs max_dimension 2, got 1",
        ),
        verdict(quantity="d", seeds_needed=7),
        verdict(quantity="e", seeds_needed=None),
    )
    said = findings(rows, [], {})
    (without,) = (s for s in said if s.startswith("Without a value"))
    assert "3; 1 refused (most often 'distinct rows: got 5, needs 9')" in without
    assert "2 not asked for by the config" in without
    (still,) = (s for s in said if s.startswith("Measured and undetermined"))
    assert still.endswith("2; 1 would be decided by 7 seeds a size, 1 by no number of seeds.")


def test_seeds_are_blamed_only_where_they_would_decide() -> None:
    still = {"verdict": "scales", "null_class": "null_undetermined"}
    rows = rows_of(verdict(**still), verdict(quantity="b", null_seeds_needed=9, **still))
    text = paragraph(rows, tables.MEASUREMENTS.empty_table())
    assert "1 not told apart from the nulls with the seeds at hand" in text
    assert "1 not told apart from the nulls, which more seeds alone would not change" in text
    alone = findings(rows_of(verdict(**still)), [], {})[-1]
    assert alone.endswith("1; more seeds alone would not decide.")


def test_fragile_verdicts_are_counted() -> None:
    rows = rows_of(
        verdict(verdict="conserved", fragile=True), verdict(quantity="b", verdict="scales")
    )
    assert any(
        s.startswith("1 of the 2 conserved or scaling verdicts") for s in findings(rows, [], {})
    )


@pytest.mark.parametrize(
    ("given", "text"),
    [([1.0, 1.0], "1"), ([2.5], "2.5"), ([-1e-9, 1e-9], "0 ± 1e-09"), ([10.0, 30.0], "20 ± 10")],
)
def test_numbers_have_as_many_digits_as_their_error(given: list[float], text: str) -> None:
    assert with_error(given) == text


def test_a_reason_is_a_line_without_our_names() -> None:
    rows = rows_of(
        verdict(verdict="conserved", certified_change=0.0416, reason="long"),
        verdict(verdict="scales", form="offset_power", law="constant", reason="long"),
        verdict(verdict="not_conserved", heterogeneity_p=0.0031, reason="long"),
        verdict(certified_change=1.2, unit=0.5, reason="changes up to 0.6; and more"),
        verdict(n_models=0, reason=f"no model has a value; 3 of 3 models dropped: {'x' * 200}"),
        verdict(reason="2 sizes, needs 4; one seed at 2 of 2 sizes"),
        verdict(reason=""),
    )
    briefs = [row["brief"] for row in rows]
    assert briefs == [
        "Changes of 4.16 % or more are excluded",
        "A power law with an offset fits and predicts the largest size from the others; "
        "refutes the claim",
        "Sizes differ (p = 0.0031) and no law holds",
        "Changes up to 0.6 are not excluded, and none is established",
        f"No value: {'x' * 108} …",
        "2 sizes, needs 4",
        "",
    ]
    assert max(map(len, briefs)) == 120


def test_the_picture_has_a_line_a_quantity_least_change_first() -> None:
    rows = rows_of(
        verdict(quantity="loops", verdict="scales", null_class="learned"),
        verdict(quantity="rank", verdict="conserved", unit=1.0),
        verdict(quantity="one_seed"),
    )
    still = {"trained": {100: [0.0, 0.02], 1000: [0.05, 0.05]}, "random_init": {100: [1.0, 1.0]}}
    grows = {"trained": {100: [1.0, 1.0], 1000: [1.21, 1.21]}}
    given = [*values("loops", grows), *values("rank", still)]
    given += values("one_seed", {"trained": {100: [1.0], 1000: [2.0]}})
    lines = lines_of(rows, given, MEANINGS)
    places = ["rank at resid_post on prose", "loops at resid_post on prose"]
    assert [line.quantity for line in lines] == places
    assert lines[1].trained == pytest.approx((2.0, 2.0, 2.0))  # margins of 10 %: 1.1 ** 2
    # by hand: (0.05 - 0.01) / 0.1, t(1) times sqrt(var / 2) / 0.1
    assert lines[0].trained.value == pytest.approx(0.4)
    assert lines[0].trained.high - 0.4 == pytest.approx(12.7062 * 0.1, rel=1e-4)
    assert lines[0].untrained is None  # one size is no change
    drawn = forest(lines)
    assert drawn.count("<tr>") == 3 and "Number of loops" in drawn
    assert 'aria-label="trained +2 [+2, +2] margins"' in drawn


def test_values_of_both_signs_have_no_change_without_a_unit() -> None:
    by_size = {100: [-1.0, -1.0], 1000: [1.0, 1.0]}
    assert change(by_size, margin=0.1, unit=None) is None
    assert change(by_size, margin=0.1, unit=2.0) == (10.0, 10.0, 10.0)
