"""Which divergence it is, of what, at which temperatures, times what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from kd_notes.audit._families import FAMILIES, Family
from kd_notes.audit._fit import Model, Values, fits
from kd_notes.audit._normalizer import ROWS, extra, with_normalizer
from kd_notes.audit._precision import precision, tolerance
from kd_notes.audit._probes import CLASSES, OTHER_CLASSES, probe
from kd_notes.audit._subject import LossError, Subject, Takes

ROUNDS = 5  # of moving the probes to the temperature: from 1 to 30^4
WITH_EPSILON = 0.03  # an epsilon inside a logarithm may leave so much; see `_epsilon`
NEARER = 8.0  # times: the logits are below 1 for the most part, and families still differ by 1e-4
EQUAL = 1e-11  # a residual that is rounding
HOPELESS = 0.2  # no family comes so near at another scale, unless it has reached its limit
EXTREME = 20.0  # a temperature, over the scale, at which a softmax is a maximum or constant
SIMPLE = [family for family in FAMILIES if family.is_named and not family.starts]
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


def identities(
    subject: Subject, forms: Sequence[tuple[Takes, Takes]] = FORMS
) -> list[Identity | None]:
    """Return the best fit for each form that the loss accepts, up to the first that fits.

    It is None for a form of which the loss is not finite.
    """
    found: list[Identity | None] = []
    subject = replace(subject, precision=precision(subject))
    for takes in forms:
        try:
            identity = _identify(replace(subject, takes=takes))
        except LossError:  # it wants another form of its arguments
            if takes == subject.takes:
                raise
            continue
        found.append(identity)
        if identity is not None and identity.fits:
            break
    return found


def is_near(identity: Identity) -> bool:
    """Whether an epsilon inside a logarithm may be all that is between the model and the loss."""
    model = identity.model
    is_close = identity.fits or model.residual < WITH_EPSILON
    return is_close and _is_plausible(identity.subject, model, identity.scale)


def simpler(identity: Identity) -> list[Identity]:
    """Return a divergence without a parameter where one with it is near, as by an epsilon."""
    if identity.fits or not identity.model.family.starts:
        return []
    subject, scale = identity.subject, identity.scale
    values = measure(subject, 0, CLASSES, scale)
    return [_confirmed(subject, _simplest(subject, fits(values, scale, SIMPLE), scale), scale)]


def measure(subject: Subject, seed: int, classes: int, scale: float) -> Values:
    """Return what the loss adds for one teacher beside another, on normal logits."""
    here, other = (probe(s, ROWS, classes, scale) for s in (seed, seed + 1))
    there = here._replace(teacher=other.teacher)
    differences = subject.rows(here) - subject.rows(there)
    return Values(here.student, here.teacher, other.teacher, differences)


def refit(identity: Identity, subject: Subject, classes: int = CLASSES) -> Model:
    """Return the same family fitted again, at another temperature, weight or number of classes."""
    scale = identity.scale
    is_divided = subject.takes[0] == "logits"  # probabilities have a scale of their own
    if is_divided and subject.temperature and identity.subject.temperature:
        scale *= subject.temperature / identity.subject.temperature
    families: tuple[Family, ...] = (identity.model.family,)
    model = fits(measure(subject, 200, classes, scale), scale, families)[0]
    return with_normalizer(subject, model, scale)


def _identify(subject: Subject) -> Identity | None:
    """Fit where the divergence shows; and if none does, nearer to 0, where no logit is clamped."""
    scale = subject.temperature or 1.0
    identity = _at_scale(subject, scale, ROUNDS)
    if identity is None or identity.fits or subject.precision != "float64":
        return identity
    if subject.takes[0] != "logits" or identity.model.family.homogeneous:
        return identity
    nearer = _at_scale(subject, scale / NEARER, 1)
    is_exact = nearer is not None and nearer.fits and nearer.model.residual < EQUAL
    return nearer if is_exact else identity  # near 0 families look alike: about right is wrong


def _at_scale(subject: Subject, scale: float, rounds: int) -> Identity | None:
    """Fit, moving the probes to where the divergence shows, until they are there."""
    for number in range(rounds):
        values = measure(subject, 10 * number, CLASSES, scale)
        if not np.all(np.isfinite(values.differences)) or not np.any(values.differences):
            return None
        model = _best(subject, values, scale)
        if rounds == 1 or _is_there(subject, model, scale) or model.residual > HOPELESS:
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
    simple = fits(values, scale, SIMPLE)
    model = _simplest(subject, simple, scale)
    is_exact = model.residual < EQUAL and _is_plausible(subject, model, scale)
    if is_exact and not np.any(extra(subject, model, scale)):
        return model
    together = sorted([*simple, *fits(values, scale)], key=lambda m: m.residual)
    return _simplest(subject, together, scale)


def _simplest(subject: Subject, models: list[Model], scale: float) -> Model:
    """Return, of models that fit equally, one that adds nothing for the student, or the first."""
    bound = max(3 * models[0].residual, EQUAL)
    equal = [with_normalizer(subject, m, scale) for m in models if m.residual <= bound]
    equal = [m for m in equal if _is_plausible(subject, m, scale)] or equal
    equal.sort(key=lambda model: FAMILIES.index(model.family))
    own = [model for model in equal if not np.any(extra(subject, model, scale))]
    return (own or equal)[0]


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
