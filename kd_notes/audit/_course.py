"""How a loss changes with the temperature that it is given."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from kd_notes.audit._fit import Model
from kd_notes.audit._identify import NEARER, Identity, refit
from kd_notes.audit._labels import NO_LABEL, LabelPart, label_part

CLOSE = 1e-4  # of two temperatures or factors: fits agree to 1e-6, and nobody means 4.0004


@dataclass(frozen=True)
class Course:
    """How a model changes with the temperature that the loss is given: by powers of it.

    A loss that takes no temperature is followed by changing its logits instead, and has powers
    of 0 and no `given`. The `value_power` is that of the temperature inside, if the factor is one.
    """

    model: Model
    given: float | None
    student_power: float = 0.0
    teacher_power: float = 0.0
    factor_power: float = 0.0
    is_regular: bool = True
    value_power: float | None = None
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
    """Follow the loss as its temperature rises, with smaller logits if it is then another one."""
    given = identity.subject.temperature
    if given is None or "temperature" not in identity.subject.roles:
        return Course(identity.model, None, part=part)
    found = _followed(identity, part, given)
    if found.is_regular or identity.subject.precision != "float64":
        return found
    nearer = _followed(identity._replace(scale=identity.scale / NEARER), part, given)
    return nearer if nearer.is_regular else found


def _followed(identity: Identity, part: LabelPart, given: float) -> Course:
    """Fit the loss at twice its temperature for the powers, at three times to confirm them."""
    model = identity.model
    subjects = [replace(identity.subject, temperature=n * given) for n in (2, 3)]
    twice, thrice = (refit(identity, subject) for subject in subjects)
    residuals = [m.residual for m in (twice, thrice)]  # of an epsilon; a clamp leaves much more
    close = max(CLOSE, 10 * model.residual, min(10 * max(residuals), 10 * CLOSE))
    student, teacher, factor = (nice(np.log2(b / a), close) for a, b in _pairs(model, twice))
    power = _value_power([model, twice, thrice], close)
    there = identity._replace(subject=subjects[0], model=twice, scale=2 * identity.scale)
    other = label_part(there) or part
    part_power = nice(np.log2(other.temperature / part.temperature))
    found = Course(
        model,
        given,
        student,
        teacher,
        factor,
        value_power=power,
        part=part,
        part_power=part_power,
    )
    off = [abs(b / a - 1) for a, b in _pairs(found.at(3 * given), thrice)]
    return replace(found, is_regular=max(off) < 10 * close)


def _value_power(models: list[Model], close: float) -> float | None:
    """Return the power of the temperature that the factor is, where both are seen three times."""
    first, *others = models
    insides = [m.student_temperature / first.student_temperature for m in others]
    factors = [abs(m.factor / first.factor) for m in others]
    if first.family.homogeneous:
        insides = [2.0, 3.0]
    if max(abs(x - 1) for x in factors) < 10 * close:
        return 0.0
    if min(abs(x - 1) for x in insides) < 10 * close:
        return None
    power = nice(np.log(factors[0]) / np.log(insides[0]), close)
    return power if abs(insides[1] ** power / factors[1] - 1) < 10 * close else None


def _pairs(a: Model, b: Model) -> list[tuple[float, float]]:
    return [
        (a.student_temperature, b.student_temperature),
        (a.teacher_temperature, b.teacher_temperature),
        (abs(a.factor), abs(b.factor)),
    ]


def nice(power: float, close: float = CLOSE) -> float:
    return float(round(power)) if abs(power - round(power)) < 10 * close else float(power)
