"""What happens where classes are masked, networks are sure, or logits are large."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kd_notes._checks import FloatArray
from kd_notes.audit._identify import Identity
from kd_notes.audit._labels import LabelPart
from kd_notes.audit._probes import CLASSES, Probe, probe
from kd_notes.audit._report import Finding, Report, finding
from kd_notes.audit._subject import LossError

LARGE = 1e4
SURE = 1000.0  # over the scale: e^-1000 is 0 in float64, as log(softmax) finds out
ROWS = 4


class Edge(NamedTuple):
    """A batch at an edge: the code of what goes wrong there, and what to call the place."""

    code: str
    place: str
    probe: Probe


def edges(report: Report, identity: Identity, part: LabelPart) -> Report:
    """Hold the loss to `kd_notes` at every edge, or to a finite number if it is unknown."""
    for edge in _edges(identity):
        # An epsilon is a finding of its own: that it bounds the loss is no second one.
        is_bounded = report.has("epsilon") or report.has("clip")
        report = report.adding(*_at(identity, part, edge, is_bounded))
    report = report.adding(*_one_class(identity))
    if "labels" in identity.subject.roles and identity.subject.axes > 1:
        report = report.adding(*_ignored_index(identity, part))
    return report


def _edges(identity: Identity) -> list[Edge]:
    here = probe(11, ROWS, scale=identity.scale)
    here = here._replace(labels=np.zeros(ROWS, int))
    student, teacher = here.student.copy(), here.teacher.copy()
    student[:, 1] = teacher[:, 1] = -np.inf
    sure = here.teacher.copy()
    sure[:, 2] += SURE * identity.scale
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
        # Whole numbers, which float32 holds too.
        student, teacher = (np.round(LARGE * z / np.abs(z).max()) for z in here[:2])
        large = Probe(student, teacher, here.labels)
        found.append(Edge("large-logits", "Logits of ±10⁴", large))
    return found


def _at(identity: Identity, part: LabelPart, edge: Edge, is_bounded: bool) -> list[Finding]:
    expected = _expected(identity, part, edge.probe)
    try:
        got = identity.subject.rows(edge.probe)
    except LossError as error:
        message = f"{edge.place}: it raises {error}"
        return [finding(edge.code, message)]
    wrong = _wrong(identity, got, expected, edge)
    if wrong is not None and is_bounded and np.isfinite(got[wrong]):
        return []
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
        if edge.code == "large-logits":
            bad &= np.isfinite(expected)  # of an alpha-divergence it may be beyond all numbers
    return int(np.argmax(bad)) if np.any(bad) else None


def _gradient(identity: Identity, edge: Edge) -> list[Finding]:
    try:
        found = identity.subject.gradients(edge.probe)
    except LossError:
        return []
    if found is None or found.first is None or np.all(np.isfinite(found.first)):
        return []
    count = int(np.sum(~np.isfinite(found.first)))
    value = "right" if identity.fits else "finite"
    message = f"{edge.place}: the value is {value}, and {count} entries of the gradient are not."
    return [finding("edge-gradient", message)]


def _one_class(identity: Identity) -> list[Finding]:
    here = probe(12, 2, classes=1, scale=identity.scale)
    family = identity.model.family
    if not identity.fits or not family.is_named or family.is_error:
        return []
    try:
        got = identity.subject.rows(here)
    except LossError as error:
        message = f"For a single class it raises {error}"
        return [finding("one-class", message)]
    if np.allclose(got, 0, atol=identity.tolerance):
        return []
    return [finding("one-class", f"For a single class it gives {got[0]:.6g} and not 0.")]


def _ignored_index(identity: Identity, part: LabelPart) -> list[Finding]:
    """Compare a batch whose last example has the label -100 with what it may stand for."""
    here = probe(13, 3, scale=identity.scale)
    labels = here.labels.copy()
    labels[-1] = -100
    try:
        got = identity.subject(*here._replace(labels=labels))
        two = identity.subject(*(x[:-1] for x in here))
    except LossError as error:
        return [
            finding("ignored-index", f"A label of -100 raises {type(error.__cause__).__name__}.")
        ]
    soft = np.mean(identity.model.value(*here[:2]))
    hard = np.mean(part.value(here.student[:-1], here.labels[:-1]))
    answers = {
        "is left out, and not counted in a mean": two.sum(),
        "costs nothing, and is counted in the mean": two.sum() * 2 / 3,
    }
    if part.weight:
        answers["is left out of the label's part alone"] = soft + hard
    found = [text for text, value in answers.items() if np.isclose(got.sum(), value, rtol=1e-6)]
    if got.size > 1 or not found:
        return []
    return [finding("ignored-index", f"An example with label -100 {found[0]}.")]
