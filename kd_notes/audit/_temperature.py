"""Which temperature is inside, and which power of it outside?"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from kd_notes.audit._fit import Model
from kd_notes.audit._identify import Identity, refit
from kd_notes.audit._labels import LabelPart
from kd_notes.audit._probes import CLASSES
from kd_notes.audit._report import Finding, Report, finding

CLOSE = 1e-4  # of two temperatures or factors: fits agree to 1e-6, and nobody means 4.0004
POWERS = (2, 0, 1)


@dataclass(frozen=True)
class Course:
    """How a model changes with the temperature that the loss is given: by powers of it.

    A loss that takes no temperature is followed by changing its logits instead, and has powers
    of 0 and no `given`.
    """

    model: Model
    given: float | None
    student_power: float = 0.0
    teacher_power: float = 0.0
    factor_power: float = 0.0
    is_regular: bool = True

    def at(self, temperature: float) -> Model:
        if self.given is None:
            return self.model
        ratio = temperature / self.given
        return replace(
            self.model,
            student_temperature=self.model.student_temperature * ratio**self.student_power,
            teacher_temperature=self.model.teacher_temperature * ratio**self.teacher_power,
            factor=self.model.factor * ratio**self.factor_power,
        )


def course(identity: Identity) -> Course:
    """Fit the loss at twice its temperature for the powers, at three times to confirm them."""
    given, model = identity.subject.temperature, identity.model
    if given is None or "temperature" not in identity.subject.roles:
        return Course(model, None)
    twice, thrice = (
        refit(identity, replace(identity.subject, temperature=n * given), CLASSES) for n in (2, 3)
    )
    powers = [_nice(np.log(b / a) / np.log(2)) for a, b in _pairs(model, twice)]
    found = Course(model, given, *powers)
    expected = found.at(3 * given)
    is_regular = all(abs(b / a - 1) < 10 * CLOSE for a, b in _pairs(expected, thrice))
    return replace(found, is_regular=is_regular)


def _pairs(a: Model, b: Model) -> list[tuple[float, float]]:
    return [
        (a.student_temperature, b.student_temperature),
        (a.teacher_temperature, b.teacher_temperature),
        (abs(a.factor), abs(b.factor)),
    ]


def _nice(power: float) -> float:
    return float(round(power)) if abs(power - round(power)) < 1e-3 else float(power)


def temperature(
    report: Report, identity: Identity, path: Course, part: LabelPart | None, claimed: float | None
) -> Report:
    """Report the temperatures inside and the power outside."""
    model = identity.model
    power, factor = _outside(identity, path, part)
    report = replace(report, value_power=power, gradient_power=power, factor=factor)
    report = report.adding(*_outside_findings(report, identity, path))
    if model.family.homogeneous:
        return report
    inside, teacher = model.student_temperature, model.teacher_temperature
    report = replace(report, temperature=snapped(inside), teacher_temperature=snapped(teacher))
    if abs(teacher / inside - 1) > CLOSE:
        message = (
            f"The student's logits are divided by {inside:.4g}, the teacher's by {teacher:.4g}."
        )
        report = report.adding(finding("two-temperatures", message))
    return report.adding(*_inside_findings(inside, path, claimed))


def snapped(number: float) -> float:
    """Return a number without the last digits of a fit."""
    return float(f"{number:.6g}")


def _inside_findings(inside: float, path: Course, claimed: float | None) -> list[Finding]:
    given = path.given if path.given is not None else claimed
    if path.given is not None and path.student_power == path.teacher_power == 0:
        if path.factor_power == 0:
            message = f"Temperatures of {given:g} and {2 * path.given:g} give the same loss."
            return [finding("temperature-ignored", message)]
    if given is not None and abs(inside / given - 1) > CLOSE:
        message = f"At temperature {given:g} the student's logits are divided by {inside:.6g}."
        return [finding("wrong-temperature", message)]
    return []


def _outside(
    identity: Identity, path: Course, part: LabelPart | None
) -> tuple[float | None, float | None]:
    """Return the power of the temperature and the factor beside it."""
    factor, inside = identity.factor, identity.model.student_temperature
    if path.given is not None:
        if not path.is_regular:
            return None, None
        return path.factor_power, snapped(factor / path.given**path.factor_power)
    if identity.model.family.homogeneous or abs(inside - 1) < CLOSE:
        return None, snapped(factor)
    normal = identity.model.family.normalizer(identity.model.parameter)
    rest = 1 - part.weight if part is not None and part.weight else 1.0
    for target in (rest, rest * normal):
        for power in POWERS:
            if abs(factor / inside**power / target - 1) < CLOSE:
                return float(power), snapped(target)
    return None, snapped(factor)


def power_of(factor: float, report: Report) -> float | None:
    """Return the power of the temperature in a factor that has the report's other factor too."""
    if report.temperature is None or report.factor is None or abs(report.temperature - 1) < CLOSE:
        return None
    ratio = factor / report.factor
    power = _nice(float(np.log(abs(ratio)) / np.log(report.temperature))) if ratio else np.nan
    return power if power in (-2, -1, 0, 1, 2, 3, 4) else None


def _outside_findings(report: Report, identity: Identity, path: Course) -> list[Finding]:
    power, inside = report.value_power, identity.model.student_temperature
    family = identity.model.family
    natural = {"total_variation": 1}.get(family.name, 0 if family.homogeneous else 2)
    found = []
    if power is not None and abs(inside - 1) > CLOSE or family.homogeneous and power is not None:
        if power == natural - 2 or power == 0 != natural:
            lost = f"at τ = {inside:.4g} it is {inside**natural:.4g} times smaller than with it"
            message = f"It is not multiplied by τ^{natural}; {lost}."
            found.append(finding("unscaled", message.replace("τ^1", "τ").replace("τ^2", "τ²")))
        elif power != natural:
            message = f"It is multiplied by τ to the power {power:.4g}, where {natural} is usual."
            found.append(finding("odd-power", message))
    elif power is None and path.given is not None:
        message = "It does not follow a power of the temperature it is given."
        found.append(finding("unknown-power", message))
    elif power is None and not family.homogeneous and abs(inside - 1) > CLOSE:
        message = (
            f"The factor {report.factor:.6g} is τ^2 times {report.factor / inside**2:.4g}, or τ^0 "
            "times itself: without a parameter for the temperature the two look the same."
        )
        found.append(finding("unknown-power", message.replace("^2", "²").replace("^0", "⁰")))
    return found + _factor(report, identity)


def _factor(report: Report, identity: Identity) -> list[Finding]:
    if report.weights is not None or report.factor is None or report.has("unknown-power"):
        return []
    normal = identity.model.family.normalizer(identity.model.parameter)
    if abs(report.factor - 1) < CLOSE:
        return []
    message = f"It is {report.factor:.6g} times the {identity.model.family.name} of kd_notes."
    if abs(report.factor / normal - 1) < CLOSE:
        message = (
            f"It is {report.factor:.6g} times the sum, which makes its limit half a variance."
        )
    return [finding("factor", message)]
