"""Whether there is an epsilon or a clip inside the logarithm, and of what size."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from kd_notes._checks import FloatArray
from kd_notes.audit._families import Family, Formula, Networks
from kd_notes.audit._fit import Model, fits
from kd_notes.audit._identify import WITH_EPSILON, Identity, measure
from kd_notes.audit._probes import CLASSES, Probe, probe
from kd_notes.audit._report import Report, finding
from kd_notes.audit._subject import LossError

SHARE = 100.0  # times epsilon: the probes have probabilities above a hundredth for the most part
ROUNDS = 3
LARGE = 1e4
NEAR, FAR = 60.0, 300.0  # below the top logit, over the temperature: e^-300 is a normal number


class Epsilon(NamedTuple):
    """The smallest probability that a logarithm sees, and whether it is added to all of them."""

    size: float
    is_added: bool
    network: str


class Level(NamedTuple):
    """What a loss is before and after the same number is added to all logits of both networks."""

    added: float
    before: float
    after: float


def level_change(identity: Identity) -> Level | None:
    """Tell a clamp of the logits from an epsilon: of the probabilities, which see no level.

    Between clamped logits there is no difference left. Rounding makes a much smaller change.
    """
    subject = identity.subject
    if subject.takes != ("logits", "logits") or subject.precision not in ("float64", "float32"):
        return None
    here = probe(11, 4, scale=identity.scale)
    before = subject.rows(here)
    for added in (LARGE, -LARGE):
        moved = here._replace(student=here.student + added, teacher=here.teacher + added)
        after = subject.rows(moved)
        worst = int(np.argmax(np.abs(after - before)))
        if np.abs(after - before)[worst] > 0.1 * np.abs(before).max():
            return Level(added, float(before[worst]), float(after[worst]))
    return None


def allowing(identity: Identity, found: Epsilon | None) -> Identity:
    """Return the identity fitted with the epsilon inside, and its effect held to be nothing."""
    if found is None or identity.model.residual > WITH_EPSILON:
        return identity
    bound = max(identity.tolerance, SHARE * found.size)
    if identity.fits or not found.is_added:
        return identity._replace(tolerance=bound)
    model = _refitted(identity, found)
    fit = model.residual < identity.tolerance
    return identity._replace(model=model, fits=fit, tolerance=bound)


def _refitted(identity: Identity, found: Epsilon) -> Model:
    """Fit again with the epsilon in one logarithm, in both, or in all probabilities."""
    family, model, size = identity.model.family, identity.model, found.size
    values = measure(identity.subject, 600, CLASSES, identity.scale)
    if not family.starts:  # its size can be fitted as a parameter
        around = family._replace(starts=(size,), bounds=(size / 3, size * 3))
        model = fits(values, identity.scale, _placed(around, None))[0]
        return replace(model, family=family, parameter=identity.model.parameter)
    for _ in range(ROUNDS):  # a better model gives a better epsilon, and this a better model
        best = fits(values, identity.scale, _placed(family, size))[0]
        model = replace(best, family=family)
        size = _smallest(identity._replace(model=model), found.network) or size
    return model


def _placed(family: Family, size: float | None) -> list[Family]:
    places = [("log_q",), ("log_p",), ("log_q", "log_p"), ("log_q", "log_p", "q", "p")]
    return [family._replace(terms=_with(family.terms, size, place)) for place in places]


def _with(terms: Formula, size: float | None, places: tuple[str, ...]) -> Formula:
    """Add an epsilon in these places, of this size or of that of the parameter."""

    def changed(n: Networks, parameter: FloatArray) -> FloatArray:
        added = parameter if size is None else size
        q, p = n.q + added, n.p + added
        given = {"q": q, "p": p, "log_q": np.log(q), "log_p": np.log(p)}
        return terms(n._replace(**{place: given[place] for place in places}), parameter)

    return changed


def epsilon(identity: Identity) -> Epsilon | None:
    """Let the probability of a class fall, and see where the loss stops to rise."""
    for network in ("student", "teacher"):
        size = _smallest(identity, network)
        if size is not None and not level_change(identity):
            return Epsilon(size, _is_added(identity, network, size), network)
    return None


def _measure(
    identity: Identity, network: str, depths: list[float]
) -> tuple[FloatArray, FloatArray]:
    """Return what the model says and what the loss is, with one class so far below the others.

    Both in comparison with another teacher, for which what a label costs is the same.
    """
    got = [identity.subject.rows(end) for end in _ends(identity.model, network, depths)]
    return _expected(identity.model, network, depths), got[0] - got[1]


def _expected(model: Model, network: str, depths: list[float]) -> FloatArray:
    low, other = _ends(model, network, depths)
    return model.value(*low[:2]) - model.value(*other[:2])


def _ends(model: Model, network: str, depths: list[float]) -> tuple[Probe, Probe]:
    """Return the logits with one class so far below the others, and with another teacher."""
    temperature = getattr(model, f"{network}_temperature")
    here, other = probe(14, 1), probe(15, 1)
    logits = np.tile(here.student, (len(depths), 1))
    logits[:, 0] = -np.asarray(depths)
    fixed = np.tile(other.student, (len(depths), 1)) * model.teacher_temperature
    labels = np.ones(len(depths), int)
    pair = {
        "student": np.tile(here.teacher, (len(depths), 1)) * model.student_temperature,
        "teacher": np.tile(here.teacher, (len(depths), 1)) * model.teacher_temperature,
        network: logits * temperature,
    }
    low = Probe(**pair, labels=labels)
    return low, low._replace(teacher=fixed)


def _smallest(identity: Identity, network: str) -> float | None:
    try:
        expected, got = _measure(identity, network, [NEAR, FAR])
    except LossError:
        return None
    slope = (expected[1] - expected[0]) / (FAR - NEAR)
    if not abs(slope) * FAR > 1e-3 * np.abs(expected).max() or not np.all(np.isfinite(got)):
        return None
    if abs(got[1] - got[0]) > 0.01 * abs(expected[1] - expected[0]):
        return None
    depth = _depth(identity.model, network, got[1])
    return float(1 / (1 + _others() * np.exp(depth)))


def _depth(model: Model, network: str, value: float) -> float:
    """Return how far below the others a class is where the model is what the loss stays at."""
    low, high = 0.0, FAR
    rises = _expected(model, network, [high])[0] > value
    for _ in range(60):
        middle = (low + high) / 2
        is_above = (_expected(model, network, [middle])[0] > value) == rises
        low, high = (low, middle) if is_above else (middle, high)
    return high


def _others() -> float:
    """Return the sum of the exponentials of the classes that do not fall."""
    return float(np.exp(probe(14, 1).student[0, 1:]).sum())


def _is_added(identity: Identity, network: str, size: float) -> bool:
    """Ask at a probability of 10 epsilon: added, it makes a tenth; a clip makes none."""
    above = -np.log(10 * size * _others())
    expected, got = _measure(identity, network, [above, above - 0.01])
    slope = (expected[0] - expected[1]) / 0.01
    return bool(abs((expected[0] - got[0]) / slope) > 0.03)


def small_probabilities(report: Report, found: Epsilon | None) -> Report:
    """Report an epsilon, which hides what a student gets most wrong."""
    if found is None:
        return report
    if found.is_added:
        message = f"About {found.size:.2g} is added to the {found.network}'s probabilities."
        return report.adding(finding("epsilon", message))
    message = (
        f"Below about {found.size:.2g} the {found.network}'s probabilities make no difference."
    )
    return report.adding(finding("clip", message))
