"""What a student pays beside the divergence, and the normalizer of a cross-entropy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from kd_notes._checks import FloatArray
from kd_notes.audit._fit import Model
from kd_notes.audit._precision import tolerance
from kd_notes.audit._probes import CLASSES, probe
from kd_notes.audit._subject import Subject

ROWS = 12  # three times as many as a fit has unknowns


def extra(subject: Subject, model: Model, scale: float, allowed: float = 0.0) -> FloatArray:
    """Return what each student pays beside the divergence, exactly 0 if all of it is allowed."""
    here = probe(100, ROWS, CLASSES, scale)
    values = subject.rows(here)
    rest = values - model.value(*here[:2])
    bound = 10 * max(tolerance(subject), model.residual, allowed) * np.abs(values).max()
    return np.where(np.abs(rest).max() < bound, 0.0, rest)


def normalizer_temperature(student: FloatArray, normalizers: FloatArray) -> float:
    """Return the temperature at which τ log Σ exp(z/τ) has this mean: it rises with τ."""
    low, high = 1e-3, 1e6
    top = student.max(axis=-1, keepdims=True)
    for _ in range(100):
        middle = float(np.sqrt(low * high))
        sums = np.exp((student - top) / middle).sum(axis=-1)
        found = top[:, 0] + middle * np.log(sums)
        low, high = (middle, high) if found.mean() < normalizers.mean() else (low, middle)
    return float(np.sqrt(low * high))


def with_normalizer(subject: Subject, model: Model, scale: float) -> Model:
    """Return a cross-entropy with the student's temperature, which is in its normalizer alone.

    Between two teachers the cross-entropy changes by a difference of logits, linear in the
    student's. So it is the teacher's temperature, unless what is left is another normalizer.
    """
    if not model.family.is_linear:
        return model
    slope = model.factor / model.student_temperature
    tied = _at_student(model, slope, model.teacher_temperature)
    rest = extra(subject, tied, scale)
    if not np.any(rest):
        return tied
    here = probe(100, ROWS, CLASSES, scale)
    own = np.logaddexp.reduce(here.student / tied.student_temperature, axis=-1)
    normalizers = rest / slope + tied.student_temperature * own
    own_temperature = normalizer_temperature(here.student, normalizers)
    other = _at_student(model, slope, own_temperature)
    if not model.family.has_entropy:  # the teacher's top class is so at every temperature
        other = replace(other, teacher_temperature=own_temperature)
    return tied if np.any(extra(subject, other, scale)) else other


def _at_student(model: Model, slope: float, temperature: float) -> Model:
    return replace(model, student_temperature=temperature, factor=slope * temperature)
