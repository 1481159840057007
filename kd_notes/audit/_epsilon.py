"""Is there an epsilon or a clip inside the logarithm, and of what size."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kd_notes.audit._identify import Identity
from kd_notes.audit._probes import Probe, probe
from kd_notes.audit._report import Report, finding
from kd_notes.audit._subject import LossError

NEAR, FAR = 60.0, 300.0  # below the top logit, over the temperature: e^-300 is a normal number


class Epsilon(NamedTuple):
    """The smallest probability that a logarithm sees, and whether it is added to all of them."""

    size: float
    is_added: bool
    network: str


def epsilon(identity: Identity) -> Epsilon | None:
    """Let the probability of a class fall, and see where the loss stops to rise."""
    for network in ("student", "teacher"):
        size = _smallest(identity, network)
        if size is not None:
            return Epsilon(size, _is_added(identity, network, size), network)
    return None


def _falling(identity: Identity, network: str, depths: list[float]) -> Probe:
    """Return examples that are alike but for how far one class is below the others."""
    temperature = identity.model.student_temperature
    if network == "teacher":
        temperature = identity.model.teacher_temperature
    logits = np.tile(probe(14, 1)[0], (len(depths), 1))
    others = np.tile(probe(15, 1)[0], (len(depths), 1))
    logits[:, 0] = -np.asarray(depths)
    both = {"student": others * temperature, "teacher": others * temperature}
    both[network] = logits * temperature
    return Probe(both["student"], both["teacher"], np.ones(len(depths), int))


def _smallest(identity: Identity, network: str) -> float | None:
    here = _falling(identity, network, [NEAR, FAR])
    try:
        got = identity.subject.rows(here)
    except LossError:
        return None
    expected = identity.model.value(*here[:2])
    slope = (expected[1] - expected[0]) / (FAR - NEAR)
    if abs(slope) * FAR < 1e-3 * np.abs(expected).max() or not np.all(np.isfinite(got)):
        return None
    if abs(got[1] - got[0]) > 0.01 * abs(expected[1] - expected[0]):
        return None
    depth = FAR - (expected[1] - got[1]) / slope
    ends = _falling(identity, network, [depth])
    logits = getattr(ends, network) / identity.scale
    size = np.exp(logits[0, 0]) / np.exp(logits[0]).sum()
    return float(size)


def _is_added(identity: Identity, network: str, size: float) -> bool:
    """Ask at a probability of 10 epsilon: added, it makes a tenth; a clip makes none."""
    above = -np.log(10 * size)
    here = _falling(identity, network, [above, above - 0.01])
    expected, got = identity.model.value(*here[:2]), identity.subject.rows(here)
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
