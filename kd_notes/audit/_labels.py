"""What the label costs, and which term the weight multiplies."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kd_notes import cross_entropy_loss
from kd_notes._checks import FloatArray
from kd_notes.audit._fit import snapped
from kd_notes.audit._identify import Identity, refit
from kd_notes.audit._normalizer import ROWS, extra, normalizer_temperature
from kd_notes.audit._probes import CLASSES, Probe, probe
from kd_notes.audit._report import Finding, Report, Weights, finding
from kd_notes.audit._subject import LossError


class LabelPart(NamedTuple):
    """A weight times the student's cross-entropy on the label, at a temperature."""

    weight: float = 0.0
    temperature: float = 1.0

    def value(self, student: FloatArray, labels: NDArray[np.integer]) -> FloatArray:
        if self.weight == 0:
            return np.zeros(student.shape[:-1])
        return self.weight * np.asarray(cross_entropy_loss(student / self.temperature, labels))


NO_LABEL = LabelPart()


def label_part(identity: Identity) -> LabelPart | None:
    """Return what the label adds; None if it is something else than a cross-entropy.

    Between two labels the cross-entropy changes by a difference of two of the student's logits,
    which gives the weight over the temperature; the normalizer, whatever the label, the rest.
    """
    here = probe(100, ROWS, scale=identity.scale)
    rest = extra(identity.subject, identity.model, identity.scale, identity.tolerance)
    if not np.any(rest):
        return NO_LABEL
    slope = _slope(identity, here)
    if slope is None:
        return None
    own = np.take_along_axis(here.student, here.labels[:, np.newaxis], axis=-1)[:, 0]
    temperature = normalizer_temperature(here.student, rest / slope + own)
    part = LabelPart(slope * temperature, temperature)
    off = np.abs(part.value(here.student, here.labels) - rest).max()
    return part if off < _bound(identity, rest) else None


def _bound(identity: Identity, values: FloatArray) -> float:
    return float(identity.close * np.abs(values).max())


def _slope(identity: Identity, here: Probe) -> float | None:
    other = here._replace(labels=(here.labels + 1) % CLASSES)
    change = identity.subject.rows(here) - identity.subject.rows(other)
    own, next_ = (
        np.take_along_axis(here.student, x.labels[:, np.newaxis], axis=-1)[:, 0]
        for x in (here, other)
    )
    apart = next_ - own
    slope = float(apart @ change / (apart @ apart))
    is_linear = np.allclose(slope * apart, change, rtol=0, atol=_bound(identity, change))
    return slope if slope and is_linear else None


def labels(report: Report, identity: Identity, part: LabelPart | None) -> Report:
    """Say what there is beside the divergence."""
    roles = identity.subject.roles
    if part is None:
        return report.adding(_unexplained(identity))
    if "labels" not in roles:
        return report
    if part.weight == 0:
        return report.adding(*_ignored(identity))
    weight, inside = (snapped(x, identity.model.residual) for x in part)
    report = replace(report, weights=Weights(weight, identity.factor, inside))
    if abs(inside - 1) > 1e-3:
        message = f"The label's cross-entropy has the temperature {inside:.4g}, not 1."
        report = report.adding(finding("label-softened", message))
    return report


def _unexplained(identity: Identity) -> Finding:
    rest = extra(identity.subject, identity.model, identity.scale, identity.tolerance)
    if np.ptp(rest) < _bound(identity, rest):
        return finding("not-zero-at-match", f"It is {rest[0]:.6g} for equal networks.")
    return finding(
        "extra-term",
        f"Beside the divergence the student pays {rest.min():.4g} to {rest.max():.4g} for "
        "something that is not the cross-entropy on a label.",
    )


def _ignored(identity: Identity) -> list[Finding]:
    """Labels may only say which examples are left out."""
    here = probe(6, 3, scale=identity.scale)
    kept = here.labels.copy()
    kept[-1] = -100
    try:
        changed = not np.array_equal(
            identity.subject(*here), identity.subject(*here._replace(labels=kept)), equal_nan=True
        )
    except LossError:
        changed = False
    if changed:
        return []
    message = f"All {CLASSES} labels of an example give the same loss."
    return [finding("labels-ignored", message)]


def weights(report: Report, identity: Identity, part: LabelPart | None) -> Report:
    """Vary the weight, and see which of the two parts follows it."""
    if report.weights is None or part is None or report.factor is None:
        return report
    sum_to_one = abs(part.weight + report.factor - 1) < max(1e-4, identity.tolerance)
    known = replace(report.weights, teacher=report.factor, sum_to_one=sum_to_one)
    subject = identity.subject
    if "weight" in subject.roles and subject.weight is not None:
        other = (subject.weight + (subject.weight < 0.5)) / 2  # half the way to 0 or 1
        varied = replace(subject, weight=float(other))
        model = refit(identity, varied)
        there = label_part(identity._replace(subject=varied, model=model)) or part
        label, teacher = there.weight - part.weight, model.factor - identity.model.factor
        if abs(label) + abs(teacher) < 1e-9:
            message = f"Weights of {subject.weight:g} and {other:g} give the same loss."
            report = report.adding(finding("alpha-ignored", message))
        known = replace(known, alpha_on=_on(label, teacher, other > subject.weight))
    return _with_weights(replace(report, weights=known))


def _on(label: float, teacher: float, rising: bool) -> Literal["labels", "teacher"] | None:
    sign = 1 if rising else -1
    if sign * teacher > 1e-9:
        return "teacher"
    return "labels" if sign * label > 1e-9 else None


def _with_weights(report: Report) -> Report:
    known = report.weights
    assert known is not None
    if known.alpha_on == "labels":
        message = "Its weight multiplies the label's part, not the teacher's."
        report = report.adding(finding("alpha-on-labels", message))
    if not known.sum_to_one:
        total = f"{known.label:.4g} of the label's part and {known.teacher:.4g} of the teacher's"
        report = report.adding(finding("free-weights", f"The weights do not sum to one: {total}."))
    return report
