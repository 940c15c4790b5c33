"""An inspection on a terminal."""

from __future__ import annotations

import io

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from scaleinv_ray.conclude.aggregation.values import Value
from scaleinv_ray.conclude.assessment.conformal import Interval
from scaleinv_ray.inspection.asking import BEYOND
from scaleinv_ray.inspection.findings import Line, commonest, named
from scaleinv_ray.inspection.inspecting import Inspection
from scaleinv_ray.report.findings import rounded

_REASONS = 6
_FEW = 2
_WIDTH = 140
_PRE = '<pre style="line-height:normal;font-family:monospace">{code}</pre>'


def printed(found: Inspection) -> Group:
    """Table of values, a sentence a family, the card, and what could not be had."""
    parts: list[Text | Table] = [_title(found), _values(found), *_said(found), Text("")]
    return Group(*parts, *_card(found), *_paired(found), *_missing(found), _seconds(found))


def show(found: Inspection) -> None:
    """Writes an inspection to the terminal, or as wide as its table to a file."""
    _console().print(printed(found))


def show_card(found: Inspection) -> None:
    """Writes what the card and the parent say, without the values."""
    parts = [_title(found), *_card(found), *_without(found), *_paired(found), _seconds(found)]
    _console().print(Group(*parts))


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=_WIDTH)


def _title(found: Inspection) -> Text:
    step = "" if found.step is None else f", step {found.step}"
    return Text(f"{found.model}, {found.n_params:,} parameters{step}", style="bold")


def _seconds(found: Inspection) -> Text:
    return Text(f"{found.seconds:.0f} s", style="dim")


def as_html(found: Inspection) -> str:
    """The same as a piece of HTML, for notebooks."""
    console = Console(width=_WIDTH, record=True, file=io.StringIO())
    console.print(printed(found))
    return console.export_html(inline_styles=True, code_format=_PRE)


def _values(found: Inspection) -> Table:
    table = Table(show_lines=False, header_style="bold", pad_edge=False)
    table.add_column("quantity", overflow="fold")
    for name in ("value", "untrained", "z", "shuffled", "z", "series, 95 %"):
        table.add_column(name, justify="right", no_wrap=name != "series, 95 %")
    by_part: dict[tuple[str, str], list[Line]] = {}
    for line in found.lines:
        if line.brief and not line.control:
            by_part.setdefault((line.family, line.at.probe or ""), []).append(line)
    for (family, probe), lines in by_part.items():
        table.add_section()
        table.add_row(Text(f"{family} on {probe}" if probe else family, style="bold cyan"))
        for line in lines:
            table.add_row(*_cells(line))
    return table


def _cells(line: Line) -> list[Text]:
    site = f" ({line.at.site})" if line.at.site not in {None, "all"} else ""
    outside = line.interval is not None and line.interval.outside
    return [
        Text(f"  {line.at.quantity}{site}"),
        Text(_number(line.value)),
        Text(_number(line.untrained)),
        _z(line.z_untrained),
        Text(_number(line.shuffled)),
        _z(line.z_shuffled),
        Text(_interval(line), style="bold red" if outside else ""),
    ]


def _number(value: Value | None) -> str:
    """Value and error, the error with two digits and the value with as many places."""
    if value is None:
        return "-"
    if not value.stderr:
        return f"{value.value:.4g}"
    return rounded(value.value, value.stderr)


def _z(z: float | None) -> Text:
    if z is None:
        return Text("-", style="dim")
    return Text(f"{z:+.1f}", style="bold" if abs(z) > 4 else "")


def _interval(line: Line) -> str:
    if line.interval is None:
        return "-"
    text = f"{line.interval.low:.3g} .. {line.interval.high:.3g}"
    return f"{text} outside" if line.interval.outside else text


def _said(found: Inspection) -> list[Text]:
    return [
        Text.assemble((f"{family}: ", "bold"), text) for family, text in found.sentences.items()
    ]


def _card(found: Inspection) -> list[Text]:
    assessment, card = found.assessment, found.assessment.card
    reference = assessment.reference
    lines = [
        Text.assemble(("card: ", "bold"), found.verdict),
        Text(f"series: {reference.name} ({len(reference.members)} models; {reference.provenance})"),
    ]
    if card is not None:
        outside = sorted((i for i in card.intervals if i.outside), key=lambda i: -abs(i.t))
        usual = card.usual_outside
        beside = f"; models of the series left out: {usual[0]} to {usual[1]}" if usual else ""
        lines.append(Text(f"outside: {len(outside)} of {len(card.intervals)} quantities{beside}"))
        verdicts = {named(at): verdict for at, verdict in reference.verdicts.items()}
        lines += [_outside(i, verdicts.get(i.name)) for i in outside[:_REASONS]]
        families = ", ".join(f"{name} {rank.p:.3g}" for name, rank in card.groups.items())
        lines.append(Text(f"p by family, each alone: {families}"))
        if assessment.p_beyond_behaviour is not None:
            lines.append(Text(f"p without the losses: {assessment.p_beyond_behaviour:.3g}"))
        lines.append(Text(f"given its size and loss: {found.at_loss}"))
    lines += [Text(f"note: {note}") for note in assessment.notes]
    return lines


def _outside(found: Interval, verdict: str | None) -> Text:
    """A quantity outside its interval, and what the series says of it."""
    said = f" ({verdict.replace('_', ' ')} in the series)" if verdict else ""
    return Text(f"  {found.name}: {found.value:.3g}, t = {found.t:+.1f}{said}")


def _paired(found: Inspection) -> list[Text]:
    """What has changed since the parent, the surest first."""
    if found.parent is None:
        return []
    lines = [Text.assemble(("parent: ", "bold"), found.paired)]
    lines += [
        Text(f"  {c.name}: {c.difference:+.3g} ± {c.stderr:.2g}, t = {c.t:+.1f} ({c.n} {c.over})")
        for c in found.changed[:_REASONS]
    ]
    more = len(found.changed) - _REASONS
    return [*lines, Text(f"  and {more} more: --json has them all")] if more > 0 else lines


def _without(found: Inspection) -> list[Text]:
    """What the series has and this model gives no value of: the card says nothing of it."""
    known = {(at.invariant, at.quantity, at.probe) for at in found.assessment.reference.values}
    lacking = [r for r in found.refused if (r.at.invariant, r.at.quantity, r.at.probe) in known]
    reasons = commonest(lacking)[:_FEW]
    return [Text(f"without a value, but in the series: {text}") for text in reasons]


def _missing(found: Inspection) -> list[Text]:
    late = [name for name, why in found.left_out.items() if why.startswith(BEYOND)]
    lines = [f"not measured: {n}: {why}" for n, why in found.left_out.items() if n not in late]
    if late:
        own = (f"{n} {found.left_out[n].partition('takes ')[2].rstrip(')')}" for n in late)
        lines.append(f"beyond the budget (--budget): {', '.join(own)}")
    reasons = commonest(found.refused)
    lines += [f"without a value: {text}" for text in reasons[:_REASONS]]
    if len(reasons) > _REASONS:
        lines.append(f"and {len(reasons) - _REASONS} other reasons: --json has them all")
    return [Text(line, style="dim") for line in lines]
