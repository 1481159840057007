"""Which temperature is inside, and which power of it outside."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from kd_notes.audit._fit import Model
from kd_notes.audit._identify import Identity, refit
from kd_notes.audit._labels import NO_LABEL, LabelPart, label_part
from kd_notes.audit._open import USUAL_TEMPERATURE
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
    part: LabelPart = NO_LABEL
    part_power: float = 0.0

    def label_part(self, temperature: float) -> LabelPart:
        if self.given is None:
            return self.part
        ratio = (temperature / self.given) ** self.part_power
        return self.part._replace(temperature=self.part.temperature * ratio)

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


def course(identity: Identity, part: LabelPart) -> Course:
    """Fit the loss at twice its temperature for the powers, at three times to confirm them."""
    given, model = identity.subject.temperature, identity.model
    if given is None or "temperature" not in identity.subject.roles:
        return Course(model, None, part=part)
    subjects = [replace(identity.subject, temperature=n * given) for n in (2, 3)]
    twice, thrice = (refit(identity, subject) for subject in subjects)
    close = max(CLOSE, 10 * model.residual)
    student, teacher, factor = (_nice(np.log2(b / a), close) for a, b in _pairs(model, twice))
    there = identity._replace(subject=subjects[0], model=twice, scale=2 * identity.scale)
    other = label_part(there) or part
    part_power = _nice(np.log2(other.temperature / part.temperature))
    found = Course(model, given, student, teacher, factor, part=part, part_power=part_power)
    off = [abs(b / a - 1) for a, b in _pairs(found.at(3 * given), thrice)]
    return replace(found, is_regular=max(off) < 10 * close)


def _pairs(a: Model, b: Model) -> list[tuple[float, float]]:
    return [
        (a.student_temperature, b.student_temperature),
        (a.teacher_temperature, b.teacher_temperature),
        (abs(a.factor), abs(b.factor)),
    ]


def _nice(power: float, close: float = CLOSE) -> float:
    return float(round(power)) if abs(power - round(power)) < 10 * close else float(power)


def temperature(
    report: Report, identity: Identity, path: Course, part: LabelPart | None, claimed: float | None
) -> Report:
    """Report the temperatures inside and the power outside."""
    model = identity.model
    power, factor = _outside(identity, path, part)
    report = replace(report, value_power=power, gradient_power=power, factor=factor)
    if model.family.homogeneous:
        return report.adding(*_outside_findings(report, identity, path))
    inside, teacher = (
        snapped(x, model.residual) for x in (model.student_temperature, model.teacher_temperature)
    )
    report = replace(report, temperature=inside, teacher_temperature=teacher)
    if _is_ignored(path):
        message = f"Twice the temperature {path.given:g} gives the same loss."
        return report.adding(finding("temperature-ignored", message))
    return report.adding(
        *_outside_findings(report, identity, path), *_inside_findings(report, path, claimed)
    )


def snapped(number: float, residual: float = 0.0) -> float:
    """Return a number without the last digits of a fit, those that its residual reaches."""
    digits = int(np.clip(-np.log10(10 * max(residual, 1e-16)), 2, 6))
    return float(f"{number:.{digits}g}")


def _is_ignored(path: Course) -> bool:
    powers = path.student_power, path.teacher_power, path.factor_power
    return path.given is not None and not any(powers)


def _inside_findings(report: Report, path: Course, claimed: float | None) -> list[Finding]:
    inside, teacher = report.temperature, report.teacher_temperature
    assert inside is not None
    assert teacher is not None
    given = path.given if path.given is not None else claimed
    found = []
    if abs(teacher / inside - 1) > CLOSE:
        message = (
            f"The student's logits are divided by {inside:.4g}, the teacher's by {teacher:.4g}."
        )
        found.append(finding("two-temperatures", message))
    if given is not None and abs(inside / given - 1) > CLOSE:
        message = f"At temperature {given:g} the student's logits are divided by {inside:.6g}."
        found.append(finding("wrong-temperature", message))
    return found


def _outside(
    identity: Identity, path: Course, part: LabelPart | None
) -> tuple[float | None, float | None]:
    """Return the power of the temperature and the factor beside it."""
    model = identity.model
    factor = snapped(identity.factor, model.residual)
    if path.given is not None:
        power = path.factor_power
        rest = snapped(identity.factor / path.given**power, model.residual)
        return (power, rest) if path.is_regular else (None, None)
    inside = snapped(model.student_temperature, model.residual)
    if model.family.homogeneous or abs(inside - 1) < CLOSE:
        return None, factor
    rest = 1 - part.weight if part is not None and part.weight else 1.0
    for target in (rest, rest * model.family.normalizer(model.parameter)):
        for power in POWERS:
            if abs(factor / inside**power / target - 1) < max(CLOSE, 10 * model.residual):
                return float(power), snapped(target)
    return None, factor


def power_of(factor: float, report: Report) -> float | None:
    """Return the power of the temperature in a factor that has the report's other factor too."""
    if report.temperature is None or report.factor is None or abs(report.temperature - 1) < CLOSE:
        return None
    ratio = factor / report.factor
    power = _nice(float(np.log(abs(ratio)) / np.log(report.temperature))) if ratio else np.nan
    return power if power in (-2, -1, 0, 1, 2, 3, 4) else None


def _outside_findings(report: Report, identity: Identity, path: Course) -> list[Finding]:
    family, inside = identity.model.family, identity.model.student_temperature
    power, factor = report.value_power, report.factor
    natural = {"total_variation": 1}.get(family.name, 0 if family.homogeneous else 2)
    is_blind = not family.homogeneous and abs(inside - 1) < CLOSE and path.given is None
    if power is None:
        unknown = not family.homogeneous and not is_blind
        return [_unknown_power(factor, inside)] if unknown else _factor(report, identity)
    return [*_power(power, natural, inside), *_factor(report, identity)]


def _power(power: float, natural: int, inside: float) -> list[Finding]:
    if power == natural:
        return []
    if power not in (0, natural - 2):
        message = f"It is multiplied by τ to the power {power:.4g}, where {natural} is usual."
        return [finding("odd-power", message)]
    shown = inside if abs(inside - 1) > CLOSE else USUAL_TEMPERATURE
    factor = "τ" if natural - power == 1 else "τ²"
    size = f"{shown ** (natural - power):.4g} at τ = {shown:.4g}"
    return [finding("unscaled", f"It is not multiplied by {factor}, which is {size}.")]


def _unknown_power(factor: float | None, inside: float) -> Finding:
    if factor is None:
        message = "It does not follow a power of the temperature it is given."
        return finding("unknown-power", message)
    message = (
        f"Its factor {factor:.6g} may be τ² times {factor / inside**2:.4g} or hold no τ: without "
        "a parameter for the temperature the two look the same."
    )
    return finding("unknown-power", message)


def _factor(report: Report, identity: Identity) -> list[Finding]:
    family = identity.model.family
    if report.weights is not None or report.factor is None or abs(report.factor - 1) < CLOSE:
        return []
    message = f"It is {report.factor:.6g} times {identity.model.name}."
    if abs(report.factor / family.normalizer(identity.model.parameter) - 1) < CLOSE:
        message = message[:-1] + ", which makes its limit half a variance."
    return [finding("factor", message)]
