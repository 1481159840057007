"""The laws of a divergence, on the logits: each is broken by some loss in use."""

from __future__ import annotations

import numpy as np

from kd_notes._checks import FloatArray
from kd_notes.audit._identify import Identity
from kd_notes.audit._labels import LabelPart
from kd_notes.audit._probes import CLASSES, Probe, probe
from kd_notes.audit._report import Finding, Report, finding
from kd_notes.audit._subject import Subject

SHIFT = 3.0  # of all logits of an example, over the scale


def dependence(subject: Subject) -> list[Finding]:
    """Ask whether every argument matters, and every class."""
    scale = subject.temperature or 1.0
    here, other = (probe(seed, 3, scale=scale) for seed in (8, 9))
    rows, batch = subject.rows(here), subject(*here)
    found = []
    for name in ("student", "teacher"):
        there = here._replace(**{name: getattr(other, name)})
        if not np.array_equal(rows, subject.rows(there)):
            continue
        if not np.array_equal(batch, subject(*there)):
            message = f"A batch of one costs {rows[0]:.6g} whatever the {name}'s logits are."
            return [finding("batch-not-rows", message)]
        message = f"Other logits of the {name} give the same loss, {rows[0]:.6g}."
        found.append(finding(f"ignores-{name}", message))
    return found or _classes(subject, here, rows, scale)


def _classes(subject: Subject, here: Probe, rows: FloatArray, scale: float) -> list[Finding]:
    idle = 0
    for i in range(CLASSES):
        moved = here.student.copy()
        moved[:, i] += scale
        idle += bool(np.any(subject.rows(here._replace(student=moved)) == rows))
    if not idle:
        return []
    message = (
        f"In {idle} of {CLASSES} classes the student's logit can change without effect, in at "
        "least one of 3 examples."
    )
    return [finding("ignores-classes", message)]


def laws(report: Report, identity: Identity, part: LabelPart | None) -> Report:
    """Ask for a match, a sign, a shift and a permutation."""
    here = probe(10, 32, scale=identity.scale)
    rows = identity.subject.rows(here)
    size = float(np.abs(rows).max())
    found = [
        *_match(identity, part, here, size),
        *_sign(identity, rows, size),
        *_shift(identity, here, rows, size),
        *_permutation(identity, here, rows, size),
    ]
    return report.adding(*found)


def _differs(identity: Identity, a: FloatArray, b: FloatArray, size: float) -> bool:
    bound = 100 * identity.tolerance * size
    return not np.allclose(a, b, rtol=0, atol=bound, equal_nan=True)


def _match(identity: Identity, part: LabelPart | None, here: Probe, size: float) -> list[Finding]:
    model = identity.model
    same = here._replace(teacher=here.student)
    got = identity.subject.rows(same)
    if identity.fits and model.family.name == "cross_entropy":
        message = f"For equal networks it is {got[0]:.6g}, the teacher's entropy, and not 0."
        return [finding("cross-entropy", message)]
    labeled = part.value(here.student, here.labels) if part is not None else np.zeros(len(got))
    if identity.fits:
        expected = model.value(*same[:2]) + labeled
    elif "labels" in identity.subject.roles:
        return []  # what the label costs is not known
    else:
        expected = np.zeros(len(got))
    if not _differs(identity, got, expected, size) or part is None:
        return []
    message = f"For equal networks it is {got[0]:.6g} where it must be {expected[0]:.6g}."
    return [finding("not-zero-at-match", message)]


def _sign(identity: Identity, rows: FloatArray, size: float) -> list[Finding]:
    if not rows.min() < -100 * identity.tolerance * size:
        return []
    return [finding("negative", f"On ordinary logits it comes out as low as {rows.min():.6g}.")]


def _shift(identity: Identity, here: Probe, rows: FloatArray, size: float) -> list[Finding]:
    subject = identity.subject
    is_expected = identity.fits and identity.model.family.name == "squared_error"
    if is_expected or subject.takes != ("logits", "logits"):
        return []
    found = []
    for name in ("student", "teacher"):
        moved = here._replace(**{name: getattr(here, name) + SHIFT * identity.scale})
        got = subject.rows(moved)
        if _differs(identity, got, rows, size):
            change = f"from {rows[0]:.6g} to {got[0]:.6g}"
            message = f"{SHIFT * identity.scale:g} more on all logits of the {name} changes it"
            found.append(finding("not-shift-invariant", f"{message} {change}."))
    return found


def _permutation(identity: Identity, here: Probe, rows: FloatArray, size: float) -> list[Finding]:
    order = np.arange(CLASSES)[::-1]
    moved = Probe(here.student[:, order], here.teacher[:, order], CLASSES - 1 - here.labels)
    got = identity.subject.rows(moved)
    if not _differs(identity, got, rows, size):
        return []
    worst = int(np.argmax(np.abs(got - rows)))
    message = f"With the classes in reverse order it is {got[worst]:.6g}, not {rows[worst]:.6g}."
    return [finding("not-symmetric", message)]
