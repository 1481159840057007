"""Whether the gradient is the derivative of the value, and who gets one."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from kd_notes._checks import FloatArray
from kd_notes.audit._course import Course
from kd_notes.audit._identify import Identity
from kd_notes.audit._probes import Probe, probe
from kd_notes.audit._report import Report, finding
from kd_notes.audit._subject import LossError, Subject
from kd_notes.audit._temperature import power_of

#: Over the scale: a central difference is then off by 1e-9, and by rounding 1e-12. Rounding to
#: float32 asks for a larger step, and leaves 1e-4; half precision leaves nothing to compare.
STEPS = {"float64": 1e-4, "float32": 1e-2}
CLOSE = {"float64": 1e-5, "float32": 1e-2}


class Comparison(NamedTuple):
    """A gradient beside the derivative: its factor, and how far it is off in another way."""

    ratio: float
    off: float


def gradient(report: Report, identity: Identity, path: Course | None) -> Report:
    """Ask who gets a gradient, and compare autograd's with differences of the value."""
    subject = identity.subject
    try:
        found = subject.gradients(_probe(identity))
    except LossError as error:  # a value without a graph, or a backward that fails
        return _without(report, "no-gradient", f"Its backward pass raises {error}")
    if found is None:
        return report
    if found.first is None or not np.any(found.first):
        message = "The gradient of the student's argument is missing, or 0 in every entry."
        return _without(report, "no-gradient", message)
    if subject.gradient is None:
        report = _of_teacher(report, found.second)
    dtype = subject.precision
    if dtype not in STEPS:
        return replace(report, gradient_power=None)
    return _compared(report, identity, path, found.first, dtype)


def _probe(identity: Identity) -> Probe:
    return probe(7, 2, scale=identity.scale)


def _without(report: Report, code: str, message: str) -> Report:
    return replace(report.adding(finding(code, message)), gradient_power=None)


def _of_teacher(report: Report, teacher: FloatArray | None) -> Report:
    has_one = teacher is not None and bool(np.any(teacher))
    report = replace(report, teacher_gradient=has_one)
    if not has_one:
        return report
    message = "The teacher gets a gradient too, unless it is detached by the caller."
    return report.adding(finding("teacher-gradient", message))


def _compared(
    report: Report, identity: Identity, path: Course | None, found: FloatArray, dtype: str
) -> Report:
    step = STEPS[dtype] * identity.scale
    try:
        compared = _compare(identity.subject, _probe(identity), found, step)
    except LossError:  # it refuses arguments that are not normalized
        return report
    if compared.off > CLOSE[dtype]:
        message = f"The gradient is off the derivative of the value by {compared.off:.2g} of it."
        return _without(report, "wrong-gradient", message)
    if abs(compared.ratio - 1) < CLOSE[dtype]:
        return report
    halved = _compare(identity.subject, _probe(identity), found, step / 2).ratio
    if abs(halved / compared.ratio - 1) > CLOSE[dtype]:  # the loss bends too much for the step
        return replace(report, gradient_power=None)
    message = f"The gradient is {compared.ratio:.6g} times the derivative of the value."
    power = _power(report, identity, path, compared.ratio, step)
    return replace(report.adding(finding("wrong-gradient", message)), gradient_power=power)


def _compare(subject: Subject, here: Probe, found: FloatArray, step: float) -> Comparison:
    step = step if subject.takes[0] == "logits" else STEPS["float64"]
    derivative = _differences(subject, here, step)
    ratio = float(found.ravel() @ derivative.ravel() / (derivative.ravel() @ derivative.ravel()))
    off = float(np.linalg.norm(found - ratio * derivative) / np.linalg.norm(found))
    return Comparison(ratio, off)


def _differences(subject: Subject, here: Probe, step: float) -> FloatArray:
    """Move one number of the student's argument at a time."""
    inputs = subject.inputs(*here[:2])
    number = 0 if subject.student_first else 1
    slopes = np.zeros(here.student.shape)
    for index in np.ndindex(*here.student.shape):
        ends = []
        for sign in (1, -1):
            moved = [x.copy() for x in inputs]
            moved[number][index] += sign * step
            ends.append(float(subject.at_inputs(moved, here.labels).sum()))
        slopes[index] = (ends[0] - ends[1]) / (2 * step)
    return slopes


def _power(
    report: Report, identity: Identity, path: Course | None, ratio: float, step: float
) -> float | None:
    """Return the gradient's power of τ: its ratio at another temperature tells, or a factor."""
    if path is None or (report.value_power is None and path.given is not None):
        return None
    if path.given is None:
        return power_of(identity.factor * ratio, report)
    there = replace(identity.subject, temperature=2 * path.given)
    inside = path.at(2 * path.given).student_temperature / path.model.student_temperature
    here = probe(7, 2, scale=2 * identity.scale)
    found = there.gradients(here)
    if found is None or found.first is None or report.value_power is None:
        return None
    other = _compare(there, here, found.first, 2 * step).ratio
    base = 2.0 if path.model.family.homogeneous else inside
    if abs(base - 1) < CLOSE[there.precision]:
        return None
    return report.value_power + float(np.round(np.log(other / ratio) / np.log(base), 3))
