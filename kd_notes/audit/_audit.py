"""The audit: one question after the other."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from kd_notes._checks import as_temperature
from kd_notes.audit._course import Course, course
from kd_notes.audit._digits import digits
from kd_notes.audit._divergence import divergence
from kd_notes.audit._edges import edges
from kd_notes.audit._epsilon import Epsilon, allowing, epsilon, small_probabilities
from kd_notes.audit._gradient import gradient as ask_gradient
from kd_notes.audit._identify import FORMS, Identity, identities, is_near, simpler
from kd_notes.audit._labels import NO_LABEL, label_part, labels, weights
from kd_notes.audit._laws import dependence, laws
from kd_notes.audit._open import check_calls, failure, order, subject_of, with_mask
from kd_notes.audit._reduction import reduction
from kd_notes.audit._report import Finding, Report, finding
from kd_notes.audit._signature import name_of
from kd_notes.audit._subject import LossError, Subject, Takes, as_forms
from kd_notes.audit._temperature import temperature as ask_temperature


def audit(
    loss: Callable[..., Any],
    *,
    temperature: float | None = None,
    takes: Takes | tuple[Takes, Takes] | None = None,
    student_first: bool | None = None,
    backend: Literal["numpy", "torch"] | None = None,
    gradient: Callable[..., Any] | None = None,
    keywords: Mapping[str, str] | None = None,
) -> Report:
    """Find out by experiment what a distillation loss computes.

    Parameters
    ----------
    loss
        A function of the logits of two networks, `(N, K)`, NumPy arrays or PyTorch tensors; or a
        module of PyTorch. They are its first two arguments, or those that their names say, such
        as in `(outputs, labels, teacher_outputs)`. It returns one number, one for each example,
        or one for each example and class, whose sum over the classes is then taken. If it refuses
        such logits, `(K,)` and `(N, T, K)` are tried, then probabilities and their logarithms.
        Functions of JAX are called with NumPy arrays: let them compute in float64.
    temperature
        What the loss is given, if it has a parameter for it; by default that parameter's own
        default, or 4. If it has none, the temperature that you believe is inside.
    takes
        `"logits"`, `"probabilities"` or `"log_probabilities"`, or a pair of these, the student's
        first; by default the first that makes it a divergence, and logits if none does.
    student_first
        Whether the first argument is the student's; by default found by the arguments' names, or
        by which of them gets a gradient.
    backend
        `"numpy"` or `"torch"`; by default the first of them that the loss accepts.
    gradient
        For a loss without autograd: a function of the same arguments that returns the derivative
        of the loss of the batch by its first argument.
    keywords
        The parameters that take `"labels"` (class indices, `(N,)`), `"temperature"`, `"weight"`
        (the loss's alpha) and `"mask"` (booleans, `(N,)` or `(N, T)`, false for what is left
        out, or true if only so the loss depends on its logits), by name. Those of usual names
        are found; an empty name leaves one at its default.

    Returns
    -------
    Report
        What was found. What cannot be told is `None` or `"unknown"` there; a loss that raises an
        exception or is not deterministic gets a report that says so.

    Raises
    ------
    ValueError
        If `takes`, `backend` or a key of `keywords` is none of those above, or the temperature
        is not above 0, or infinite.
    TypeError
        If the loss is not callable, or the temperature is no real number.

    Notes
    -----
    Each question has an experiment of its own, in float64 on logits of normal distribution. The
    divergence, its parameter and the temperatures are those of a least-squares fit to differences
    between two teachers; it counts if its relative residual is at most 1e-6, also for another
    number of classes. The truth at edges and in other dtypes is what `kd_notes` computes in
    float64 from the logits as they are rounded.

    One cause is one finding: a divergence times a negative factor is `negative`, and not
    `not-least-at-match` too. A squared error is usually a mean over the classes, so that one is
    no finding; `reduction` says it.

    Examples
    --------
    A loss with the factor of temperature squared, divided by the number of classes:

    >>> import numpy as np
    >>> from kd_notes import kd_loss
    >>> from kd_notes.audit import audit
    >>> def loss(student, teacher, temperature):
    ...     return kd_loss(student, teacher, temperature).sum() / student.size
    >>> report = audit(loss, temperature=3)
    >>> report.divergence, report.reduction
    ('forward_kl', 'mean')
    >>> report.temperature, report.value_power
    (3.0, 2.0)
    >>> for finding in report.findings:
    ...     print(finding.severity, finding.code)
    warning mean-over-classes
    """
    if not callable(loss) or isinstance(loss, type):
        raise TypeError(f"loss must be a function or an instance that is callable; got {loss!r}")
    if temperature is not None and as_temperature(temperature) == np.inf:
        raise ValueError(f"temperature must be finite; got {temperature!r}")
    forms = FORMS if takes is None else (as_forms(takes),)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        subject = subject_of(loss, temperature, backend, gradient, keywords or {}, forms)
        if isinstance(subject, Finding):
            return Report(name_of(loss)).adding(subject)
        report = Report(name_of(loss), subject.backend.name)
        try:
            return _opened(report, subject, student_first, temperature, forms)
        except LossError as error:
            return report.adding(failure("On ordinary batches", error))


def _opened(
    report: Report,
    subject: Subject,
    student_first: bool | None,
    claimed: float | None,
    forms: Sequence[tuple[Takes, Takes]],
) -> Report:
    """Ask what has to be known before any model is tried."""
    if found := check_calls(subject):
        return report.adding(*found)
    subject, found = with_mask(subject)
    report = report.adding(*found)
    first, found = order(subject, student_first)
    subject, report = replace(subject, student_first=first), report.adding(*found)
    report = replace(report, student_first=first)
    if found := dependence(subject):
        return report.adding(*found)
    identity, found_epsilon = _identified(subject, forms)
    if identity is None:
        return report.adding(_not_finite(forms))
    report = divergence(report, identity)
    if not identity.fits:
        return _without_model(report, identity)
    return _with_model(small_probabilities(report, found_epsilon), identity, claimed)


def _identified(
    subject: Subject, forms: Sequence[tuple[Takes, Takes]]
) -> tuple[Identity | None, Epsilon | None]:
    """Return the first form of the arguments for which a divergence fits, or else the first."""
    found = identities(subject, forms)
    for one in found:
        for identity in filter(is_near, [] if one is None else [one, *simpler(one)]):
            size = epsilon(identity)
            allowed = allowing(identity, size)
            if allowed.fits:
                return allowed, size
    return found[0], None


def _not_finite(forms: Sequence[tuple[Takes, Takes]]) -> Finding:
    form = " and ".join(dict.fromkeys(forms[0])).replace("_", "-")
    message = f"On ordinary {form} it is nan or infinite"
    if len(forms) > 1:
        message += ", and no divergence of probabilities; if it takes these, say so by `takes`"
    return finding("not-finite", f"{message}.")


def _with_model(report: Report, identity: Identity, claimed: float | None) -> Report:
    part = label_part(identity)
    path = course(identity, part or NO_LABEL)
    report = labels(report, identity, part)
    report = ask_temperature(report, identity, path, part, claimed)
    report = weights(report, identity, part)
    report = reduction(report, identity)
    report = ask_gradient(report, identity, path)
    report = laws(report, identity)
    if part is None:  # then what the loss ought to be is not known
        identity, part = identity._replace(fits=False), NO_LABEL
    return digits(edges(report, identity, part), identity, path)


def _without_model(report: Report, identity: Identity) -> Report:
    path = Course(identity.model, identity.subject.temperature)
    report = reduction(report, identity)
    report = ask_gradient(report, identity, None)
    report = laws(report, identity)
    return digits(edges(report, identity, NO_LABEL), identity, path)
