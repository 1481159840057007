"""Which divergence is it, of what, at which temperatures, times what?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from kd_notes._checks import FloatArray
from kd_notes.audit._families import FAMILIES, Family
from kd_notes.audit._fit import Model, Values, fits
from kd_notes.audit._probes import CLASSES, OTHER_CLASSES, probe
from kd_notes.audit._subject import Subject, Takes

ROWS = 12  # three times as many as a fit has unknowns
TOLERANCE = 1e-6  # of the residual: families differ by 1e-2 on the probes, float64 by 1e-13
FLOAT32_TOLERANCE = 1e-4  # the same for a loss that rounds to float32, 6e-8, inside
WITH_EPSILON = 0.03  # an epsilon inside a logarithm may leave so much; see `_edges`
FORMS: tuple[tuple[Takes, Takes], ...] = (
    ("logits", "logits"),
    ("log_probabilities", "log_probabilities"),
    ("log_probabilities", "probabilities"),
    ("probabilities", "probabilities"),
)


class Identity(NamedTuple):
    """What a loss was found to be.

    Attributes
    ----------
    model
        The best one, whether or not it fits.
    fits
        Whether it does, on these and on fresh examples.
    per_class
        Whether the loss is divided by the number of classes; None if it depends on it otherwise.
    scale
        A size of logits at which the divergence shows: the student's temperature.
    tolerance
        Up to which relative difference two values count as the same.
    """

    subject: Subject
    model: Model
    fits: bool
    per_class: bool | None
    scale: float
    tolerance: float

    @property
    def factor(self) -> float:
        """What multiplies the divergence, with a mean over classes undone."""
        return self.model.factor * (CLASSES if self.per_class else 1)


def measure(subject: Subject, seed: int, classes: int, scale: float) -> Values:
    """Return what the loss adds for one teacher beside another, on normal logits."""
    here, other = (probe(s, ROWS, classes, scale) for s in (seed, seed + 1))
    there = here._replace(teacher=other.teacher)
    differences = subject.rows(here) - subject.rows(there)
    return Values(here.student, here.teacher, other.teacher, differences)


def identify(subject: Subject, forms: Sequence[tuple[Takes, Takes]] = FORMS) -> Identity:
    """Return the first form of the arguments for which a family fits, else the best fit of all."""
    found = []
    for takes in forms:
        identity = _identify(replace(subject, takes=takes))
        if identity is not None:
            found.append(identity)
            if identity.fits:
                return identity
    if not found:
        raise ArithmeticError("the loss is not finite, or the same for all teachers")
    return min(found, key=lambda identity: identity.model.residual)


def tolerance(subject: Subject) -> float:
    """Return how far values may be off a model: more if they all are numbers of float32."""
    values = subject(*probe(400, ROWS))
    is_rounded = np.all(values == values.astype(np.float32))
    return FLOAT32_TOLERANCE if is_rounded else TOLERANCE


def _identify(subject: Subject) -> Identity | None:
    """Fit, moving the probes to where the divergence shows, until they are there."""
    scale = subject.temperature or 1.0
    for round_ in range(5):
        try:
            values = measure(subject, 10 * round_, CLASSES, scale)
        except Exception:  # it wants another form of its arguments
            return None
        if not np.all(np.isfinite(values.differences)) or not np.any(values.differences):
            return None
        best = _simplest(subject, fits(values, scale), scale)
        ratio = best.student_temperature / scale
        if best.family.homogeneous and _holds_far_out(subject, best, scale):
            break
        if not best.family.homogeneous and 0.6 < ratio < 1.7:
            break
        scale *= 30 if best.family.homogeneous else float(np.clip(ratio, 0.1, 30))
    return _confirmed(subject, best, scale)


def _holds_far_out(subject: Subject, model: Model, scale: float) -> bool:
    """Whether it is no limit: at high temperatures every divergence looks like half a variance."""
    values = measure(subject, 500, CLASSES, 100 * scale)
    expected = model.value(*values[:2]) - model.value(values.student, values.other)
    return bool(np.allclose(values.differences, expected, rtol=1e-3, atol=0))


def _simplest(subject: Subject, models: list[Model], scale: float) -> Model:
    """Return, of models that fit equally, one that adds nothing for the student, or the first."""
    bound = max(100 * models[0].residual, 1e-9)
    equal = [model for model in models if model.residual <= bound]
    equal.sort(key=lambda model: FAMILIES.index(model.family))
    own = [model for model in equal if not np.any(extra(subject, model, scale))]
    return (own or equal)[0]


def extra(subject: Subject, model: Model, scale: float) -> FloatArray:
    """Return what each student pays beside the divergence, exactly 0 where that is rounding."""
    here = probe(100, ROWS, CLASSES, scale)
    values, expected = subject.rows(here), model.value(*here[:2])
    rest = values - expected
    size = np.abs(values).max()
    return np.where(np.abs(rest).max() < 10 * tolerance(subject) * size, 0.0, rest)


def refit(identity: Identity, subject: Subject, classes: int, seed: int = 200) -> Model:
    """Return the same family fitted again, at another temperature, weight or number of classes."""
    scale = identity.scale
    if subject.temperature and identity.subject.temperature:
        scale *= subject.temperature / identity.subject.temperature
    families: tuple[Family, ...] = (identity.model.family,)
    return fits(measure(subject, seed, classes, scale), scale, families)[0]


def _confirmed(subject: Subject, model: Model, scale: float) -> Identity:
    """Hold the model to fresh probes with another number of classes, for the factor of K."""
    bound = tolerance(subject)
    identity = Identity(subject, model, False, None, scale, bound)
    try:
        again = refit(identity, subject, OTHER_CLASSES)
    except Exception:  # it works for one number of classes only
        return identity._replace(fits=model.residual < bound)
    ratio = again.factor / model.factor if model.factor else np.nan
    known = [k for k in (0, 1) if abs(ratio * (OTHER_CLASSES / CLASSES) ** k - 1) < 100 * bound]
    same = np.allclose(_numbers(model), _numbers(again), rtol=100 * bound, atol=100 * bound)
    fit = max(model.residual, again.residual) < bound and same
    return identity._replace(fits=bool(fit), per_class=bool(known[0]) if known else None)


def _numbers(model: Model) -> list[float]:
    parameter = model.parameter if model.family.starts else 0.0
    return [model.student_temperature, model.teacher_temperature, parameter]
