"""The audit: one question after the other."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, cast

import numpy as np

from kd_notes.audit._digits import digits
from kd_notes.audit._edges import edges
from kd_notes.audit._epsilon import epsilon, small_probabilities
from kd_notes.audit._gradient import gradient as ask_gradient
from kd_notes.audit._identify import FLOAT32_TOLERANCE, FORMS, WITH_EPSILON, Identity, identify
from kd_notes.audit._labels import NO_LABEL, label_part, labels, weights
from kd_notes.audit._laws import dependence, laws
from kd_notes.audit._open import check_calls, order, subject_of
from kd_notes.audit._reduction import reduction
from kd_notes.audit._report import DivergenceName, Finding, Report, finding
from kd_notes.audit._subject import Subject, Takes
from kd_notes.audit._temperature import Course, course, snapped
from kd_notes.audit._temperature import temperature as ask_temperature

Loss = Callable[..., Any]


def audit(
    loss: Loss,
    *,
    temperature: float | None = None,
    takes: Takes | tuple[Takes, Takes] | None = None,
    student_first: bool | None = None,
    backend: Literal["numpy", "torch"] | None = None,
    gradient: Callable[..., Any] | None = None,
    keywords: Mapping[str, str] | None = None,
) -> Report:
    """Find out by experiment what a distillation loss computes."""
    name = getattr(loss, "__name__", type(loss).__name__)
    forms = FORMS if takes is None else (((takes, takes) if isinstance(takes, str) else takes),)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        subject = subject_of(loss, temperature, backend, gradient, keywords or {}, forms)
        if isinstance(subject, Finding):
            return Report(name).adding(subject)
        report = Report(name, subject.backend.name)
        if found := check_calls(subject):
            return report.adding(*found)
        first, found = order(subject, student_first)
        subject, report = replace(subject, student_first=first), report.adding(*found)
        if not first:
            report = report.adding(finding("teacher-first", "Its first argument is the teacher."))
        return _questions(replace(report, student_first=first), subject, temperature, forms)


def _questions(
    report: Report,
    subject: Subject,
    claimed: float | None,
    forms: Sequence[tuple[Takes, Takes]],
) -> Report:
    report = report.adding(*dependence(subject))
    if (
        report.has("ignores-student")
        or report.has("ignores-teacher")
        or report.has("batch-not-rows")
    ):
        return report
    identity = identify(subject, forms)
    if identity is None:
        message = "On ordinary logits it is nan or infinite."
        return report.adding(finding("not-finite", message))
    found_epsilon = epsilon(identity)
    if found_epsilon is not None and identity.model.residual < WITH_EPSILON:
        bound = max(identity.tolerance, 100 * found_epsilon.size)
        fits = identity.fits or identity.model.residual < bound
        identity = identity._replace(fits=fits, tolerance=bound)
    report = _identified(report, identity)
    if not identity.fits:
        return _without_model(report, identity)
    return _with_model(small_probabilities(report, found_epsilon), identity, claimed)


def _identified(report: Report, identity: Identity) -> Report:
    model, (student_takes, teacher_takes) = identity.model, identity.subject.takes
    family = model.family
    report = replace(report, residual=model.residual)
    if identity.tolerance == FLOAT32_TOLERANCE:
        message = "Values for float64 logits are rounded to float32."
        report = report.adding(finding("float32-inside", message))
    if not identity.fits or not family.is_named:
        near = f"the best fit, {family.name}, is off by {model.residual:.2g} of the values"
        message = f"None of the divergences fits: {near}."
        if identity.fits:
            message = f"It is {family.name}, which is no divergence of kd_notes."
        return report.adding(finding("unknown-divergence", message))
    report = replace(
        report,
        divergence=cast(DivergenceName, family.name),
        parameter=snapped(model.parameter, model.residual) if family.starts else None,
        takes=student_takes,
        teacher_takes=teacher_takes,
    )
    if (student_takes, teacher_takes) != ("logits", "logits"):
        both = " and ".join(dict.fromkeys(identity.subject.takes)).replace("_", "-")
        message = f"It fits if it is given {both}, and not on logits."
        report = report.adding(finding("takes-probabilities", message))
    return report


def _with_model(report: Report, identity: Identity, claimed: float | None) -> Report:
    part = label_part(identity)
    path = course(identity, part or NO_LABEL)
    report = labels(report, identity, part)
    report = ask_temperature(report, identity, path, part, claimed)
    report = weights(report, identity, part)
    report = reduction(report, identity)
    report = ask_gradient(report, identity, path)
    report = laws(report, identity, part)
    if part is None:  # then what the loss ought to be is not known
        identity, part = identity._replace(fits=False), NO_LABEL
    return digits(edges(report, identity, part), identity, path)


def _without_model(report: Report, identity: Identity) -> Report:
    path = Course(identity.model, identity.subject.temperature)
    report = reduction(report, identity)
    report = ask_gradient(report, identity, None)
    report = laws(report, identity, NO_LABEL)
    return digits(edges(report, identity, NO_LABEL), identity, path)
