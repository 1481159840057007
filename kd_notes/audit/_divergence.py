"""What the loss is called, if it has a name."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from kd_notes.audit._fit import snapped
from kd_notes.audit._identify import Identity
from kd_notes.audit._precision import of_values
from kd_notes.audit._probes import CLASSES, OTHER_CLASSES
from kd_notes.audit._report import DivergenceName, Finding, Report, finding


def divergence(report: Report, identity: Identity) -> Report:
    """Name the divergence and the form of its arguments."""
    model, (student, teacher) = identity.model, identity.subject.takes
    report = replace(report, residual=model.residual, takes=student, teacher_takes=teacher)
    report = report.adding(*_rounding(identity))
    if not identity.fits or not model.family.is_named:
        return report.adding(_unknown(identity))
    report = replace(
        report,
        divergence=cast(DivergenceName, model.family.name),
        parameter=snapped(model.parameter, model.residual) if model.family.starts else None,
    )
    if (student, teacher) == ("logits", "logits"):
        return report
    both = " and ".join(dict.fromkeys((student, teacher))).replace("_", "-")
    message = f"It fits if it is given {both}, and not on logits."
    return report.adding(finding("takes-probabilities", message))


def _rounding(identity: Identity) -> list[Finding]:
    dtype = identity.subject.precision
    if dtype == "float64":
        return []
    message = f"Its values for float64 logits are numbers of {dtype}."
    if of_values(identity.subject) != dtype:
        message = f"It rounds float64 logits to {dtype} before it computes with them."
    return [finding("casts-down", message)]


def _unknown(identity: Identity) -> Finding:
    model = identity.model
    if identity.fits:
        message = f"It is {model.name}, which is no divergence of kd_notes."
    elif model.residual < identity.tolerance:
        message = (
            f"{model.name} fits for {CLASSES} classes, and for {OTHER_CLASSES} with other numbers."
        )
        message = message[0].upper() + message[1:]
    else:
        near = f"the best fit, {model.name}, is off by {model.residual:.2g} of the values"
        message = f"None of the divergences fits: {near}."
    return finding("unknown-divergence", message)
