"""What an audit found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from kd_notes.audit import _render
from kd_notes.audit._codes import CODES, Severity
from kd_notes.audit._subject import Takes

DivergenceName: TypeAlias = Literal[
    "forward_kl",
    "reverse_kl",
    "jeffreys",
    "jensen_shannon",
    "skew_kl",
    "skew_reverse_kl",
    "alpha",
    "total_variation",
    "cross_entropy",
    "squared_error",
    "half_variance",
    "unknown",
]
Reduction: TypeAlias = Literal["none", "sum", "batchmean", "mean", "unknown"]


@dataclass(frozen=True)
class Finding:
    """One thing to know about a loss.

    Parameters
    ----------
    code
        One of `CODES`, which never changes its meaning.
    severity
        `"defect"`: wrong under every convention. `"warning"`: legal, and seldom meant.
        `"choice"`: to be known when the loss is converted. `"unknown"`: cannot be told.
    message
        One sentence, with the number that shows it.
    section
        The source of the book's page that explains it, and the label there.
    """

    code: str
    severity: Severity
    message: str
    section: str


def finding(code: str, message: str) -> Finding:
    """Return a finding with the severity and the page of its code."""
    return Finding(code, CODES[code].severity, message, CODES[code].section)


@dataclass(frozen=True)
class Weights:
    """The two weights of a loss with labels: a of the cross-entropy, b of the divergence.

    Parameters
    ----------
    label, teacher
        The weights at the weight and the temperature that the loss was given; the teacher's is
        without the power of the temperature.
    label_temperature
        That of the label's cross-entropy.
    alpha_on
        Which of the two the loss's own weight multiplies, if it has one.
    sum_to_one
        Whether the two do; None if that cannot be told.
    """

    label: float
    teacher: float
    label_temperature: float | None = None
    alpha_on: Literal["labels", "teacher"] | None = None
    sum_to_one: bool | None = None


@dataclass(frozen=True)
class Report:
    """What a loss was found to compute; `None` stands for what cannot be told.

    Parameters
    ----------
    name, backend
        Of the function, and the library of its arrays.
    divergence, parameter
        Its name as in `kd_notes`, and its beta or alpha if it has one.
    residual
        Of the best fit, in relation to the values; above about 1e-6 the divergence is unknown.
    temperature, teacher_temperature
        What each network's logits are divided by inside.
    value_power, gradient_power
        Which power of the student's temperature multiplies the divergence in the value, and its
        derivative in the gradient. Without autograd, and without a gradient given, they agree.
    factor
        What else multiplies the divergence, the reduction apart.
    reduction
        As in PyTorch: `"mean"` also divides by the number of classes.
    student_first
        The order of the arguments.
    takes, teacher_takes
        What the student's and the teacher's argument have to be.
    teacher_gradient
        Whether autograd gives the teacher one.
    weights
        Of a loss with labels.
    digits
        How many decimal digits are right at least, by dtype and temperature.
    three_digits
        By dtype, the temperature from which on fewer than three digits are right, None if not
        up to a million.
    findings
        All that there is to know, the worst first.
    """

    name: str
    backend: str = "unknown"
    divergence: DivergenceName = "unknown"
    parameter: float | None = None
    residual: float | None = None
    temperature: float | None = None
    teacher_temperature: float | None = None
    value_power: float | None = None
    gradient_power: float | None = None
    factor: float | None = None
    reduction: Reduction = "unknown"
    student_first: bool = True
    takes: Takes = "logits"
    teacher_takes: Takes = "logits"
    teacher_gradient: bool | None = None
    weights: Weights | None = None
    digits: Mapping[str, Mapping[float, float]] = field(default_factory=dict)
    three_digits: Mapping[str, float | None] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()

    def has(self, code: str) -> bool:
        """Whether there is a finding of this code."""
        return any(found.code == code for found in self.findings)

    @property
    def defects(self) -> tuple[Finding, ...]:
        """The findings that are wrong under every convention."""
        return tuple(found for found in self.findings if found.severity == "defect")

    @property
    def summary(self) -> str:
        """The loss in one line."""
        return _render.summary(self)

    def adding(self, *found: Finding) -> Report:
        """Return the report with more findings, the worst first, each code once."""
        new = [f for n, f in enumerate(found) if f.code not in {g.code for g in found[:n]}]
        together = [*self.findings, *(f for f in new if not self.has(f.code))]
        order = ["defect", "warning", "choice", "unknown"]
        return replace(
            self, findings=tuple(sorted(together, key=lambda f: order.index(f.severity)))
        )

    def __str__(self) -> str:
        return _render.as_text(self)

    def to_markdown(self) -> str:
        """Return the report as two Markdown tables."""
        return _render.as_markdown(self)

    def _repr_html_(self) -> str:
        return _render.as_html(self)
