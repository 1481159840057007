"""Whether there is an epsilon or a clip inside the logarithm, and of what size."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kd_notes._checks import FloatArray
from kd_notes.audit._identify import WITH_EPSILON, Identity
from kd_notes.audit._probes import Probe, probe
from kd_notes.audit._report import Report, finding
from kd_notes.audit._subject import LossError

SHARE = 100.0  # times epsilon: the probes have probabilities above a hundredth for the most part
NEAR, FAR = 60.0, 300.0  # below the top logit, over the temperature: e^-300 is a normal number


class Epsilon(NamedTuple):
    """The smallest probability that a logarithm sees, and whether it is added to all of them."""

    size: float
    is_added: bool
    network: str


def allowing(identity: Identity, found: Epsilon | None) -> Identity:
    """Return the identity with what an epsilon may leave of the values held to be nothing."""
    if found is None or identity.model.residual > WITH_EPSILON:
        return identity
    bound = max(identity.tolerance, SHARE * found.size)
    fits = identity.fits or identity.model.residual < bound
    return identity._replace(fits=fits, tolerance=bound)


def epsilon(identity: Identity) -> Epsilon | None:
    """Let the probability of a class fall, and see where the loss stops to rise."""
    for network in ("student", "teacher"):
        size = _smallest(identity, network)
        if size is not None:
            return Epsilon(size, _is_added(identity, network, size), network)
    return None


def _measure(
    identity: Identity, network: str, depths: list[float]
) -> tuple[FloatArray, FloatArray]:
    """Return what the model says and what the loss is, with one class so far below the others.

    Both in comparison with another teacher, for which what a label costs is the same.
    """
    model = identity.model
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
    ends = low, low._replace(teacher=fixed)
    expected = [model.value(*end[:2]) for end in ends]
    got = [identity.subject.rows(end) for end in ends]
    return expected[0] - expected[1], got[0] - got[1]


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
    depth = FAR - (expected[1] - got[1]) / slope
    others = np.exp(probe(14, 1).student[0, 1:]).sum()
    return float(1 / (1 + others * np.exp(depth)))


def _is_added(identity: Identity, network: str, size: float) -> bool:
    """Ask at a probability of 10 epsilon: added, it makes a tenth; a clip makes none."""
    above = -np.log(10 * size)
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
