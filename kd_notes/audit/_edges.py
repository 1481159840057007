"""What happens where classes are masked, networks are sure, or logits are large."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kd_notes._checks import FloatArray
from kd_notes.audit._epsilon import LARGE, level_change
from kd_notes.audit._identify import Identity
from kd_notes.audit._labels import LabelPart
from kd_notes.audit._probes import CLASSES, Probe, probe
from kd_notes.audit._report import Finding, Report, finding
from kd_notes.audit._subject import LossError

SURE = 1000.0  # over the scale: e^-1000 is 0 in float64, as log(softmax) finds out
SURE_GIVEN = 600.0  # the same where the loss is given e^-600 itself, which is not 0
ROWS = 4


class Edge(NamedTuple):
    """A batch at an edge: the code of what goes wrong there, and what to call the place."""

    code: str
    place: str
    probe: Probe


def edges(report: Report, identity: Identity, part: LabelPart) -> Report:
    """Hold the loss to `kd_notes` at every edge, or to a finite number if it is unknown."""
    # An epsilon or a clamp is a finding of its own: that it bounds the loss is no second one.
    clamp = _clamp(identity)
    report = report.adding(*clamp)
    is_bounded = bool(clamp) or report.has("epsilon") or report.has("clip")
    here = probe(11, ROWS, scale=identity.scale)._replace(labels=np.zeros(ROWS, int))
    if identity.subject.takes == ("logits", "logits"):
        places = [*_masked(here), _sure(here, SURE * identity.scale), _large(here)]
    else:
        places = [*_masked(here), _sure(here, SURE_GIVEN * identity.scale)]
    for edge in places:
        report = report.adding(*_at(identity, part, edge, is_bounded))
    report = report.adding(*_one_class(identity))
    if "labels" in identity.subject.roles and identity.subject.axes > 1:
        report = report.adding(*_ignored_index(identity, part))
    return report


def _clamp(identity: Identity) -> list[Finding]:
    if not identity.fits or (level := level_change(identity)) is None:
        return []
    change = f"{level.added:g} more on all of them changes it from {level.before:.6g}"
    message = f"Large logits lose their differences, as by a clamp: {change} to {level.after:.6g}."
    return [finding("large-logits", message)]


def _masked(here: Probe) -> list[Edge]:
    student, teacher = here.student.copy(), here.teacher.copy()
    student[:, 1] = teacher[:, 1] = -np.inf
    name = "A class masked with -inf in"
    both = here._replace(student=student, teacher=teacher)
    return [
        Edge("masked-class", f"{name} both networks", both),
        Edge("excluded-class", f"{name} the student alone", here._replace(student=student)),
        Edge("excluded-class", f"{name} the teacher alone", here._replace(teacher=teacher)),
    ]


def _sure(here: Probe, lead: float) -> Edge:
    teacher = here.teacher.copy()
    teacher[:, 2] += lead
    return Edge("saturated-teacher", "A teacher that is sure", here._replace(teacher=teacher))


def _large(here: Probe) -> Edge:
    """Take whole numbers, which float32 holds too, and no two that are equal."""
    student, teacher = (np.round(LARGE * z / np.abs(z).max()) for z in here[:2])
    return Edge("large-logits", "Logits of ±10⁴", Probe(student, teacher, here.labels))


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
    truth = f" where it ought to be {expected[wrong]:.6g}" if identity.fits else ""
    return [finding(edge.code, f"{edge.place}: it gives {got[wrong]:.6g}{truth}.")]


def _expected(identity: Identity, part: LabelPart, here: Probe) -> FloatArray:
    if not identity.fits:
        return np.zeros(ROWS)
    divergence = identity.model.exact(here.student, here.teacher)
    return np.asarray(divergence + part.value(here.student, here.labels))


def _wrong(identity: Identity, got: FloatArray, expected: FloatArray, edge: Edge) -> int | None:
    """Return a row that is wrong, if any is."""
    if not identity.fits:
        bad = np.isnan(got) & (edge.code != "excluded-class")
        bad |= ~np.isfinite(got) & (edge.code == "large-logits")
        return int(np.argmax(bad)) if np.any(bad) else None
    good = _same(identity, got, expected) | np.isnan(expected)
    if edge.code == "masked-class" and identity.per_class:  # it may count 4 classes or 5
        good |= _same(identity, got, expected * CLASSES / (CLASSES - 1))
    if edge.code == "large-logits":  # an alpha-divergence may be beyond all numbers there
        good |= np.isinf(expected)
    return None if np.all(good) else int(np.argmin(good))


def _same(identity: Identity, got: FloatArray, expected: FloatArray) -> NDArray[np.bool_]:
    return np.isclose(got, expected, rtol=identity.tolerance, atol=identity.tolerance)


def _gradient(identity: Identity, edge: Edge) -> list[Finding]:
    try:
        found = identity.subject.gradients(edge.probe)
    except LossError:
        return []
    if found is None or found.first is None or np.all(np.isfinite(found.first)):
        return []
    bad = ~np.isfinite(found.first)
    entries = (
        "the whole gradient is" if np.all(bad) else f"{bad.sum()} entries of the gradient are"
    )
    value = "right" if identity.fits else "finite"
    message = f"{edge.place}: the value is {value}, and {entries} nan or infinite."
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
    subject, here = identity.subject, probe(13, 3, scale=identity.scale)
    two = Probe(*(x[:2] for x in here))
    try:
        got, without = subject(*here[:2], np.append(two.labels, -100)), subject(*two).sum()
    except LossError as error:
        message = f"A label of -100 raises {type(error.__cause__).__name__}."
        return [finding("ignored-index", message)]
    answers = {
        "is left out, and not counted in a mean": without,
        "costs nothing, and is counted in the mean": without * 2 / 3,
    }
    if part.weight:
        soft, hard = identity.model.value(*here[:2]), part.value(two.student, two.labels)
        answers["is left out of the label's part alone"] = soft.mean() + hard.mean()
    found = [
        text
        for text, value in answers.items()
        if np.isclose(got.sum(), value, rtol=identity.tolerance)
    ]
    if got.size > 1 or not found:
        return []
    return [finding("ignored-index", f"An example with label -100 {found[0]}.")]
