"""Which divergence it is, of what, at which temperatures, times what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from kd_notes._checks import FloatArray
from kd_notes.audit._families import FAMILIES, Family
from kd_notes.audit._fit import Model, Values, fits
from kd_notes.audit._precision import tolerance
from kd_notes.audit._probes import CLASSES, OTHER_CLASSES, probe
from kd_notes.audit._subject import LossError, Subject, Takes

ROWS = 12  # three times as many as a fit has unknowns
ROUNDS = 5  # of moving the probes to the temperature: from 1 to 30^4
WITH_EPSILON = 0.03  # an epsilon inside a logarithm may leave so much; see `_epsilon`
HOPELESS = 0.2  # no family comes so near at another scale, unless it has reached its limit
EXTREME = 50.0  # a temperature, over the scale, at which a softmax is a maximum or constant
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
    subject
        The loss, given the form of its arguments for which the model fits.
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
    def close(self) -> float:
        """Up to which relative difference two results count as the same, each of many values."""
        return min(100 * self.tolerance, 0.1)

    @property
    def factor(self) -> float:
        """What multiplies the divergence, with a mean over classes undone."""
        return self.model.factor * (CLASSES if self.per_class else 1)


def identify(subject: Subject, forms: Sequence[tuple[Takes, Takes]] = FORMS) -> Identity | None:
    """Return the first form of the arguments for which a family fits, or nearly fits.

    If there is none, it is the first that the loss accepts; None if it is finite for no form.
    """
    found = []
    for takes in forms:
        try:
            identity = _identify(replace(subject, takes=takes))
        except LossError:  # it wants another form of its arguments
            if takes == subject.takes:
                raise
            continue
        if identity is not None:
            found.append(identity)
            if identity.fits:
                return identity
    near = [
        identity
        for identity in found
        if identity.model.residual < WITH_EPSILON
        and _is_plausible(identity.subject, identity.model, identity.scale)
    ]
    return next(iter([*near, *found]), None)


def measure(subject: Subject, seed: int, classes: int, scale: float) -> Values:
    """Return what the loss adds for one teacher beside another, on normal logits."""
    here, other = (probe(s, ROWS, classes, scale) for s in (seed, seed + 1))
    there = here._replace(teacher=other.teacher)
    differences = subject.rows(here) - subject.rows(there)
    return Values(here.student, here.teacher, other.teacher, differences)


def extra(subject: Subject, model: Model, scale: float) -> FloatArray:
    """Return what each student pays beside the divergence, exactly 0 where that is rounding."""
    here = probe(100, ROWS, CLASSES, scale)
    values = subject.rows(here)
    rest = values - model.value(*here[:2])
    bound = 10 * max(tolerance(subject), model.residual) * np.abs(values).max()
    return np.where(np.abs(rest).max() < bound, 0.0, rest)


def refit(identity: Identity, subject: Subject, classes: int = CLASSES) -> Model:
    """Return the same family fitted again, at another temperature, weight or number of classes."""
    scale = identity.scale
    is_divided = subject.takes[0] == "logits"  # probabilities have a scale of their own
    if is_divided and subject.temperature and identity.subject.temperature:
        scale *= subject.temperature / identity.subject.temperature
    families: tuple[Family, ...] = (identity.model.family,)
    model = fits(measure(subject, 200, classes, scale), scale, families)[0]
    return _with_normalizer(subject, model, scale)


def normalizer_temperature(student: FloatArray, normalizers: FloatArray) -> float:
    """Return the temperature at which τ log Σ exp(z/τ) has this mean: it rises with τ."""
    low, high = 1e-3, 1e6
    top = student.max(axis=-1, keepdims=True)
    for _ in range(100):
        middle = float(np.sqrt(low * high))
        sums = np.exp((student - top) / middle).sum(axis=-1)
        found = top[:, 0] + middle * np.log(sums)
        low, high = (middle, high) if found.mean() < normalizers.mean() else (low, middle)
    return float(np.sqrt(low * high))


def _identify(subject: Subject) -> Identity | None:
    """Fit, moving the probes to where the divergence shows, until they are there."""
    scale = subject.temperature or 1.0
    for number in range(ROUNDS):
        values = measure(subject, 10 * number, CLASSES, scale)
        if not np.all(np.isfinite(values.differences)) or not np.any(values.differences):
            return None
        model = _best(subject, values, scale)
        if _is_there(subject, model, scale) or model.residual > HOPELESS:
            break
        away = 30 if model.family.homogeneous else model.student_temperature / scale
        scale *= float(np.clip(away, 0.1, 30))
    return _confirmed(subject, model, scale)


def _is_there(subject: Subject, model: Model, scale: float) -> bool:
    if model.family.homogeneous:
        return _holds_far_out(subject, model, scale)
    return 0.6 < model.student_temperature / scale < 1.7


def _holds_far_out(subject: Subject, model: Model, scale: float) -> bool:
    """Whether it is no limit: at high temperatures every divergence looks like half a variance."""
    values = measure(subject, 500, CLASSES, 100 * scale)
    expected = model.value(*values[:2]) - model.value(values.student, values.other)
    return bool(np.allclose(values.differences, expected, rtol=1e-3, atol=0))


def _best(subject: Subject, values: Values, scale: float) -> Model:
    """Try the families without a parameter first; they are enough for most losses."""
    simple = fits(values, scale, [f for f in FAMILIES if f.is_named and not f.starts])
    model = _simplest(subject, simple, scale)
    if model.residual < 1e-9 and not np.any(extra(subject, model, scale)):
        return model
    together = sorted([*simple, *fits(values, scale)], key=lambda m: m.residual)
    return _simplest(subject, together, scale)


def _simplest(subject: Subject, models: list[Model], scale: float) -> Model:
    """Return, of models that fit equally, one that adds nothing for the student, or the first."""
    bound = max(100 * models[0].residual, tolerance(subject))
    equal = [_with_normalizer(subject, m, scale) for m in models if m.residual <= bound]
    equal = [m for m in equal if _is_plausible(subject, m, scale)] or equal
    equal.sort(key=lambda model: FAMILIES.index(model.family))
    own = [model for model in equal if not np.any(extra(subject, model, scale))]
    return (own or equal)[0]


def _with_normalizer(subject: Subject, model: Model, scale: float) -> Model:
    """Return a cross-entropy with the student's temperature, which is in its normalizer alone.

    Between two teachers the cross-entropy changes by a difference of logits, linear in the
    student's. So it is the teacher's temperature, unless what is left is another normalizer.
    """
    if not model.family.is_linear:
        return model
    slope = model.factor / model.student_temperature
    tied = _at_student(model, slope, model.teacher_temperature)
    rest = extra(subject, tied, scale)
    if not np.any(rest):
        return tied
    here = probe(100, ROWS, CLASSES, scale)
    own = np.logaddexp.reduce(here.student / tied.student_temperature, axis=-1)
    normalizers = rest / slope + tied.student_temperature * own
    own_temperature = normalizer_temperature(here.student, normalizers)
    other = _at_student(model, slope, own_temperature)
    if not model.family.has_entropy:  # the teacher's top class is so at every temperature
        other = replace(other, teacher_temperature=own_temperature)
    return tied if np.any(extra(subject, other, scale)) else other


def _at_student(model: Model, slope: float, temperature: float) -> Model:
    return replace(model, student_temperature=temperature, factor=slope * temperature)


def _confirmed(subject: Subject, model: Model, scale: float) -> Identity:
    """Hold the model to fresh probes with another number of classes, for the factor of K."""
    bound = tolerance(subject)
    fit = model.residual < bound and _is_plausible(subject, model, scale)
    identity = Identity(subject, model, fit, None, scale, bound)
    if model.residual > WITH_EPSILON:
        return identity
    try:
        again = refit(identity, subject, OTHER_CLASSES)
    except LossError:  # it works for one number of classes only
        return identity
    ratio = again.factor / model.factor if model.factor else np.nan
    close = min(100 * max(bound, model.residual), 0.1)
    known = [k for k in (0, 1) if abs(ratio * (OTHER_CLASSES / CLASSES) ** k - 1) < close]
    same = np.allclose(_numbers(model), _numbers(again), rtol=close, atol=close)
    per_class = bool(known[0]) if known else None
    return identity._replace(fits=fit and same and again.residual < bound, per_class=per_class)


def _is_plausible(subject: Subject, model: Model, scale: float) -> bool:
    """Whether the temperatures are none at which a model stands for something else.

    A function of logits may happen to be a divergence of its arguments if they are
    probabilities: so such a loss must be one that has a name, without a temperature inside.
    """
    temperatures = np.array([model.student_temperature, model.teacher_temperature])
    ratios = temperatures / scale
    if ratios.max() > EXTREME or ratios.min() < 1 / EXTREME:
        return False
    if subject.takes == ("logits", "logits"):
        return True
    is_one = np.allclose(temperatures, 1, rtol=1e-4) or "temperature" in subject.roles
    return model.family.is_named and bool(is_one)


def _numbers(model: Model) -> list[float]:
    parameter = model.parameter if model.family.starts else 0.0
    return [model.student_temperature, model.teacher_temperature, parameter]
