"""Which temperature is inside, and which power of it outside."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from kd_notes.audit._course import CLOSE, Course, nice
from kd_notes.audit._fit import snapped
from kd_notes.audit._identify import Identity
from kd_notes.audit._labels import LabelPart
from kd_notes.audit._open import USUAL_TEMPERATURE
from kd_notes.audit._render import power as power_of_tau
from kd_notes.audit._report import Finding, Report, finding

POWERS = (2, 0, 1)


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
    inside = snapped(model.student_temperature, model.residual)
    if path.given is not None:
        base = path.given if model.family.homogeneous else inside
        power = path.value_power
        return power, snapped(identity.factor / base ** (power or 0), model.residual)
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
    power = nice(float(np.log(abs(ratio)) / np.log(report.temperature))) if ratio else np.nan
    return power if power in (-2, -1, 0, 1, 2, 3, 4) else None


def _outside_findings(report: Report, identity: Identity, path: Course) -> list[Finding]:
    family = identity.model.family
    inside = report.temperature or identity.model.student_temperature
    power, factor = report.value_power, report.factor
    assert factor is not None
    natural = {"total_variation": 1}.get(family.name, 0 if family.homogeneous else 2)
    is_blind = not family.homogeneous and abs(inside - 1) < CLOSE and path.given is None
    if power is not None:
        return [*_power(power, natural, inside), *_factor(report, identity, path)]
    if path.given is not None:
        return [_no_power(factor, path)]
    unknown = not family.homogeneous and not is_blind
    return [_unknown_power(factor, inside)] if unknown else _factor(report, identity, path)


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


def _no_power(factor: float, path: Course) -> Finding:
    message = f"Its factor, {factor:.6g}, is not a power of the temperature that is inside"
    if path.is_regular:
        message += f": it goes with the one that is given, to the power {path.factor_power:.4g}"
    return finding("unknown-power", f"{message}.")


def _unknown_power(factor: float, inside: float) -> Finding:
    message = (
        f"Its factor {factor:.6g} may be τ² times {factor / inside**2:.4g} or hold no τ: without "
        "a parameter for the temperature the two look the same."
    )
    return finding("unknown-power", message)


def _factor(report: Report, identity: Identity, path: Course) -> list[Finding]:
    family = identity.model.family
    if report.weights is not None or report.factor is None or abs(report.factor - 1) < CLOSE:
        return []
    message = f"It is {report.factor:.6g} times {_spoken(report, identity, path)}."
    if abs(report.factor / family.normalizer(identity.model.parameter) - 1) < CLOSE:
        message = message[:-1] + ", which makes its limit half a variance."
    return [finding("factor", message)]


def _spoken(report: Report, identity: Identity, path: Course) -> str:
    """Return what is multiplied, with its τ² where this is not that of the temperature given."""
    name, inside = identity.model.name, report.temperature
    if inside is None or path.given is None or abs(inside / path.given - 1) < CLOSE:
        return name
    scaled = f"{power_of_tau(report.value_power)} × {name}" if report.value_power else name
    return f"{scaled} with the τ = {inside:.6g} that is inside"
