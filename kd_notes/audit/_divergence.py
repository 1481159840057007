"""What the loss is called, if it has a name."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from kd_notes.audit._identify import Identity
from kd_notes.audit._precision import precision
from kd_notes.audit._report import DivergenceName, Finding, Report, finding
from kd_notes.audit._temperature import snapped


def divergence(report: Report, identity: Identity) -> Report:
    """Name the divergence and the form of its arguments."""
    model, (student, teacher) = identity.model, identity.subject.takes
    report = replace(report, residual=model.residual).adding(*_rounding(identity))
    if not identity.fits or not model.family.is_named:
        return report.adding(_unknown(identity))
    report = replace(
        report,
        divergence=cast(DivergenceName, model.family.name),
        parameter=snapped(model.parameter, model.residual) if model.family.starts else None,
        takes=student,
        teacher_takes=teacher,
    )
    if (student, teacher) == ("logits", "logits"):
        return report
    both = " and ".join(dict.fromkeys((student, teacher))).replace("_", "-")
    message = f"It fits if it is given {both}, and not on logits."
    return report.adding(finding("takes-probabilities", message))


def _rounding(identity: Identity) -> list[Finding]:
    dtype = precision(identity.subject)
    if dtype == "float64":
        return []
    message = f"Its values for float64 logits are numbers of {dtype}."
    return [finding("casts-down", message)]


def _unknown(identity: Identity) -> Finding:
    model = identity.model
    if identity.fits:
        message = f"It is {model.name}, which is no divergence of kd_notes."
    else:
        near = f"the best fit, {model.name}, is off by {model.residual:.2g} of the values"
        message = f"None of the divergences fits: {near}."
    return finding("unknown-divergence", message)
