"""The laws of a divergence, on the logits: each is broken by some loss in use."""

from __future__ import annotations

import numpy as np

from kd_notes._checks import FloatArray
from kd_notes.audit._identify import Identity
from kd_notes.audit._probes import CLASSES, Probe, probe
from kd_notes.audit._report import Finding, Report, finding
from kd_notes.audit._subject import Subject

NEARBY = 0.1  # how far a student is from its teacher, over the scale
SHIFT = 3.0  # of all logits of an example, over the scale


def dependence(subject: Subject) -> list[Finding]:
    """Ask whether both arguments matter."""
    scale = subject.temperature or 1.0
    here, other = (probe(seed, 3, scale=scale) for seed in (8, 9))
    rows, batch = subject.rows(here), subject(*here)
    if not np.all(np.isfinite(rows)):
        return []  # two that are infinite are equal, whatever they depend on
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
    return found


def laws(report: Report, identity: Identity) -> Report:
    """Ask for a match, a sign, a shift and a permutation."""
    here = probe(10, 32, scale=identity.scale)
    rows = identity.subject.rows(here)
    size = float(np.abs(rows).max())
    found = [
        *(_match(identity, here, size) if not report.has("extra-term") else []),
        *_sign(identity, rows, size),
        *_shift(identity, here, rows, size),
        *_permutation(identity, here, rows, size),
        *([] if identity.fits else _classes(identity)),  # all classes are in a model that fits
    ]
    return report.adding(*found)


def _differs(identity: Identity, a: FloatArray, b: FloatArray, size: float) -> bool:
    bound = identity.close * size
    return not np.allclose(a, b, rtol=0, atol=bound, equal_nan=True)


def _match(identity: Identity, here: Probe, size: float) -> list[Finding]:
    same = here._replace(teacher=here.student)
    got = identity.subject.rows(same)
    if not identity.fits or not identity.model.family.is_named:
        return [] if "labels" in identity.subject.roles else _least(identity, here, got, size)
    if identity.model.family.has_entropy:
        message = f"For equal networks it is {got[0]:.6g}, the teacher's entropy, and not 0."
        return [finding("cross-entropy", message)]
    return []  # any other model is 0, and what is added to it is a finding already


def _least(identity: Identity, here: Probe, got: FloatArray, size: float) -> list[Finding]:
    """Ask of a loss that is no known divergence whether a student can do better than a match."""
    moves = probe(17, len(here.student), scale=NEARBY * identity.scale).student
    near = identity.subject.rows(here._replace(student=here.student + moves, teacher=here.student))
    worst = int(np.argmax(got - near))
    if got[worst] - near[worst] > identity.close * size:
        costs = f"{got[worst]:.6g}, and one a little off it {near[worst]:.6g}"
        return [finding("not-least-at-match", f"A student that equals its teacher costs {costs}.")]
    if not _differs(identity, got, np.zeros(len(got)), size):
        return []
    message = f"For equal networks it is {got[0]:.6g}, its least value, and not 0."
    return [finding("not-zero-at-match", message)]


def _sign(identity: Identity, rows: FloatArray, size: float) -> list[Finding]:
    if not rows.min() < -identity.close * size:
        return []
    message = f"On ordinary logits it comes out as low as {rows.min():.6g}"
    if identity.fits and identity.factor < 0 and "labels" not in identity.subject.roles:
        message += ": its factor is negative, so it is largest for equal networks"
    return [finding("negative", f"{message}.")]


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
            worst = int(np.nanargmax(np.abs(got - rows)))
            change = "from {} to {}".format(*_apart(rows[worst], got[worst]))
            message = f"{SHIFT * identity.scale:g} more on all logits of the {name} changes it"
            found.append(finding("not-shift-invariant", f"{message} {change}."))
    return found


def _apart(a: float, b: float) -> tuple[str, str]:
    """Write two numbers with as many digits as show that they differ, six at least."""
    pairs = [(f"{a:.{n}g}", f"{b:.{n}g}") for n in range(6, 18)]
    return next((pair for pair in pairs if pair[0] != pair[1]), pairs[-1])


def _permutation(identity: Identity, here: Probe, rows: FloatArray, size: float) -> list[Finding]:
    order = np.arange(CLASSES)[::-1]
    moved = Probe(here.student[:, order], here.teacher[:, order], CLASSES - 1 - here.labels)
    got = identity.subject.rows(moved)
    if not _differs(identity, got, rows, size):
        return []
    worst = int(np.argmax(np.abs(got - rows)))
    message = f"With the classes in reverse order it is {got[worst]:.6g}, not {rows[worst]:.6g}."
    return [finding("not-symmetric", message)]


def _classes(identity: Identity) -> list[Finding]:
    """Move the student's logit of one class after the other, by little and by much."""
    subject, idle = identity.subject, np.ones((CLASSES, 3), bool)
    for scale in (0.1 * identity.scale, identity.scale):
        here = probe(8, 3, scale=scale)
        rows = subject.rows(here)
        for i in range(CLASSES):
            student = here.student + scale * (np.arange(CLASSES) == i)
            idle[i] &= subject.rows(here._replace(student=student)) == rows
    if not np.any(idle):
        return []
    message = (
        f"In {idle.sum(axis=0).max()} of {CLASSES} classes of an example, the student's logit "
        "can change without effect."
    )
    return [finding("ignores-classes", message)]
