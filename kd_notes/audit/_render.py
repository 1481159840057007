"""A report as text, Markdown and HTML: two tables, what the loss is and what to know of it."""

from __future__ import annotations

import html
import textwrap
from typing import TYPE_CHECKING

from kd_notes.audit._families import SPOKEN

if TYPE_CHECKING:
    from kd_notes.audit._report import Report

WIDTH = 88


POWERS: dict[float, str] = {-2: "τ⁻²", -1: "τ⁻¹", 0: "1", 1: "τ", 2: "τ²"}

REDUCED = {
    "none": "for each example",
    "sum": "summed over the examples",
    "batchmean": "averaged over the examples",
    "mean": "averaged over the examples and the classes",
    "unknown": "in a batch in another way",
}


def summary(report: Report) -> str:
    """Return the loss in one line, as a product and a sum."""
    if report.residual is None:
        return "could not be asked what it is"
    if report.divergence == "unknown":
        return "no divergence that has a name here"
    factors = [_number(report.factor)] if report.factor not in (1, None) else []
    if report.value_power:
        factors.append(power(report.value_power))
    text = " × ".join([*factors, _name(report)])
    if report.weights is not None:
        text = f"{_number(report.weights.label)} × cross-entropy on the label + {text}"
    inside = f" at τ = {_temperature(report)}" if report.temperature else ""
    return f"{text}{inside}, {REDUCED[report.reduction]}"


def power(exponent: float) -> str:
    """Return a power of τ."""
    return POWERS.get(exponent, f"τ^{exponent:g}")


def _name(report: Report) -> str:
    name = SPOKEN[report.divergence]
    if report.parameter is None:
        return name
    letter = "β" if report.divergence == "jensen_shannon" else "α"
    return f"{name} ({letter} = {report.parameter:g})"


def facts(report: Report) -> list[tuple[str, str]]:
    """Return the questions and the answers, none if the loss could not be asked."""
    if report.residual is None:
        return []
    found = [
        ("divergence", _parameter(report)),
        ("residual", f"{report.residual:.0e}"),
        ("takes", _takes(report)),
        ("first argument", "student" if report.student_first else "teacher"),
        ("temperature inside", _temperature(report)),
        ("power of τ", _powers(report)),
        ("factor beside it", _number(report.factor)),
        ("reduction", report.reduction),
        ("gradient of the teacher", _yes(report.teacher_gradient)),
    ]
    if report.weights is not None:
        weights = report.weights
        found.append(("weight of the label", _number(weights.label)))
        found.append(("weight of the teacher", _number(weights.teacher)))
    found += [(f"digits in {dtype}", _digits(report, dtype)) for dtype in report.digits]
    return found


def _parameter(report: Report) -> str:
    parameter = "" if report.parameter is None else f", {report.parameter:g}"
    return f"{report.divergence}{parameter}"


def _takes(report: Report) -> str:
    both = dict.fromkeys((report.takes, report.teacher_takes))
    return " and ".join(name.replace("_", "-") for name in both)


def _temperature(report: Report) -> str:
    inside, teacher = report.temperature, report.teacher_temperature
    if inside == teacher:
        return _number(inside)
    return f"{_number(inside)} (student), {_number(teacher)} (teacher)"


def _powers(report: Report) -> str:
    value, gradient = report.value_power, report.gradient_power
    if value == gradient:
        return _number(value)
    return f"{_number(value)} in the value, {_number(gradient)} in the gradient"


def _digits(report: Report, dtype: str) -> str:
    found = report.digits[dtype]
    return ", ".join(f"{digits:.0f}" for digits in found.values()) + " at τ = 1, 10, …, 10⁶"


def _number(value: float | None) -> str:
    return "cannot tell" if value is None else f"{value:.5g}"


def _yes(value: bool | None) -> str:
    return "cannot tell" if value is None else "yes" if value else "no"


def as_text(report: Report) -> str:
    """Return aligned lines of at most 88 characters."""
    rows = facts(report)
    width = max((len(question) for question, _ in rows), default=0)
    lines = [f"{report.name} ({report.backend})", f"  {summary(report)}"]
    lines += [f"  {question:{width}}  {answer}" for question, answer in rows]
    for found in report.findings:
        text = f"{found.severity} {found.code}: {found.message}"
        lines += textwrap.wrap(text, WIDTH, subsequent_indent="  ", break_on_hyphens=False)
        lines.append(f"  {found.section}")
    return "\n".join(lines)


def as_markdown(report: Report) -> str:
    """Return two tables of Markdown."""
    lines = [f"| `{report.name}` | {summary(report)} |", "|---|---|"]
    lines += [f"| {question} | {answer} |" for question, answer in facts(report)]
    if report.findings:
        lines += ["", "| severity | code | finding | section |", "|---|---|---|---|"]
        rows = ((f.severity, f"`{f.code}`", f.message, f.section) for f in report.findings)
        lines += [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows]
    return "\n".join(lines)


def as_html(report: Report) -> str:
    """Return two tables of HTML."""
    caption = html.escape(f"{report.name}: {summary(report)}")
    head = f"<table><caption>{caption}</caption>"
    parts = [head, *(_row(row) for row in facts(report)), "</table>"]
    if report.findings:
        parts.append("<table>")
        rows = ((f.severity, f.code, f.message, f.section) for f in report.findings)
        parts += [*map(_row, rows), "</table>"]
    return "".join(parts)


def _row(cells: tuple[str, ...]) -> str:
    return "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>"
