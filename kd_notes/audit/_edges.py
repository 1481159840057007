"""What happens where classes are masked, networks are sure, or logits are large?"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kd_notes._checks import FloatArray
from kd_notes.audit._identify import Identity
from kd_notes.audit._labels import LabelPart
from kd_notes.audit._probes import CLASSES, Probe, probe
from kd_notes.audit._report import Finding, Report, finding

LARGE = 1e4
SURE = 1000.0  # over the scale: e^-1000 is 0 in float64, as log(softmax) finds out
NEAR, FAR = 60.0, 300.0  # below the top logit, over the scale: e^-300 is no subnormal number yet
ROWS = 4


class Edge(NamedTuple):
    """A batch at an edge: the code of what goes wrong there, and what to call the place."""

    code: str
    place: str
    probe: Probe


def edges(report: Report, identity: Identity, part: LabelPart | None) -> Report:
    """Hold the loss to `kd_notes` at every edge, or to a finite number if it is unknown."""
    for edge in _edges(identity):
        report = report.adding(*_at(identity, part or LabelPart(), edge))
    report = report.adding(*_one_class(identity))
    if "labels" in identity.subject.roles:
        report = report.adding(*_ignored_index(identity))
    return report


def _edges(identity: Identity) -> list[Edge]:
    here = probe(11, ROWS, scale=identity.scale)
    here = here._replace(labels=np.zeros(ROWS, int))
    student, teacher = here.student.copy(), here.teacher.copy()
    student[:, 1] = teacher[:, 1] = -np.inf
    sure = here.teacher.copy()
    sure[:, 2] += SURE * identity.scale
    signs = np.sign(here.student), np.sign(here.teacher)
    found = [
        Edge(
            "masked-class",
            "A class masked with -inf in both networks",
            here._replace(student=student, teacher=teacher),
        ),
        Edge(
            "excluded-class",
            "A class masked with -inf in the student alone",
            here._replace(student=student),
        ),
        Edge(
            "excluded-class",
            "A class masked with -inf in the teacher alone",
            here._replace(teacher=teacher),
        ),
        Edge("saturated-teacher", "A teacher that is sure", here._replace(teacher=sure)),
    ]
    if identity.subject.takes == ("logits", "logits"):
        large = (here.student + LARGE * signs[0], here.teacher + LARGE * signs[1])
        found.append(Edge("large-logits", "Logits of ±10⁴", Probe(*large, here.labels)))
    return found


def _at(identity: Identity, part: LabelPart, edge: Edge) -> list[Finding]:
    expected = _expected(identity, part, edge.probe)
    try:
        got = identity.subject.rows(edge.probe)
    except Exception as error:
        message = f"{edge.place}: it raises {type(error).__name__}: {str(error)[:100]}"
        return [finding(edge.code, message)]
    wrong = _wrong(identity, got, expected, edge)
    if wrong is None:
        return _gradient(identity, edge) if np.all(np.isfinite(got)) else []
    truth = f", where the truth is {expected[wrong]:.6g}" if identity.fits else ""
    return [finding(edge.code, f"{edge.place}: it gives {got[wrong]:.6g}{truth}.")]


def _expected(identity: Identity, part: LabelPart, here: Probe) -> FloatArray:
    if not identity.fits:
        return np.zeros(ROWS)
    divergence = identity.model.exact(here.student, here.teacher)
    return np.asarray(divergence + part.value(here.student, here.labels))


def _wrong(identity: Identity, got: FloatArray, expected: FloatArray, edge: Edge) -> int | None:
    """Return a row that is wrong, if any is."""
    if not identity.fits:
        bad = np.isnan(got) if edge.code != "large-logits" else ~np.isfinite(got)
        bad &= edge.code != "excluded-class"
    else:
        bound = max(identity.tolerance, 1e-9)
        bad = ~np.isclose(got, expected, rtol=bound, atol=bound, equal_nan=True)
        if edge.code == "masked-class" and identity.per_class:  # it may count 4 classes or 5
            less = expected * CLASSES / (CLASSES - 1)
            bad &= ~np.isclose(got, less, rtol=bound, atol=bound)
        bad &= ~np.isnan(expected)
    return int(np.argmax(bad)) if np.any(bad) else None


def _gradient(identity: Identity, edge: Edge) -> list[Finding]:
    try:
        found = identity.subject.gradients(edge.probe)
    except Exception:
        return []
    if found is None or found.first is None or np.all(np.isfinite(found.first)):
        return []
    count = int(np.sum(~np.isfinite(found.first)))
    message = f"{edge.place}: the value is right, and {count} entries of the gradient are not."
    return [finding("edge-gradient", message)]


def _one_class(identity: Identity) -> list[Finding]:
    here = probe(12, 2, classes=1, scale=identity.scale)
    if identity.model.family.name == "squared_error":
        return []
    try:
        got = identity.subject.rows(here)
    except Exception as error:
        message = f"For a single class it raises {type(error).__name__}: {str(error)[:100]}"
        return [finding("one-class", message)]
    if np.allclose(got, 0, atol=1e-9):
        return []
    return [finding("one-class", f"For a single class it gives {got[0]:.6g} and not 0.")]


def _ignored_index(identity: Identity) -> list[Finding]:
    here = probe(13, 3, scale=identity.scale)
    labels = here.labels.copy()
    labels[-1] = -100
    try:
        got = identity.subject(*here._replace(labels=labels))
        two = identity.subject(*(x[:-1] for x in here))
    except Exception as error:
        message = f"A label of -100 raises {type(error).__name__}."
        return [finding("ignored-index", message)]
    if got.size == 1 and np.isclose(got.sum(), two.sum(), rtol=1e-6):
        message = "An example with label -100 is left out, and not counted in a mean."
        return [finding("ignored-index", message)]
    if got.size == 1 and np.isclose(got.sum() * 3, two.sum() * 2, rtol=1e-6):
        message = "An example with label -100 costs nothing, and is counted in the mean."
        return [finding("ignored-index", message)]
    return []


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
    except Exception:
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
