"""Over what is the loss summed or averaged."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from kd_notes._checks import FloatArray
from kd_notes.audit._identify import Identity
from kd_notes.audit._probes import Probe, probe
from kd_notes.audit._report import Reduction, Report, finding
from kd_notes.audit._subject import LossError, Subject

SEQUENCES, LENGTH = 2, 3


def reduction(report: Report, identity: Identity) -> Report:
    """Compare the loss of a batch with those of its examples."""
    subject, close = identity.subject, identity.close
    if subject.axes == 1:
        return replace(report, reduction="none")
    here = probe(3, 3, scale=identity.scale)
    batch, rows = subject(*here), subject.rows(here)
    if batch.size > 1:
        same = np.allclose(batch.reshape(3, -1).sum(axis=-1), rows, rtol=close, atol=close)
        report = replace(report, reduction="none" if same else "unknown")
    else:
        longer = probe(4, 4, scale=identity.scale)
        ratios = batch.sum() / rows.sum(), subject(*longer).sum() / subject.rows(longer).sum()
        same = any(np.allclose(ratios, r, rtol=close) for r in ((1, 1), (1 / 3, 1 / 4)))
        kind = _reduced(identity, summed=abs(ratios[1] - 1) < 0.5)
        report = replace(report, reduction=kind if same else "unknown")
    if not same:
        return report.adding(
            finding(
                "batch-not-rows",
                f"A batch of three costs {batch.sum():.6g}; its examples, each by itself, "
                f"{', '.join(f'{x:.6g}' for x in rows)}.",
            )
        )
    return _by_length(_named(report, identity), identity, batch)


def _reduced(identity: Identity, summed: bool) -> Reduction:
    if summed:
        return "sum"
    if not identity.fits or identity.per_class is None:
        return "unknown"
    return "mean" if identity.per_class else "batchmean"


def _named(report: Report, identity: Identity) -> Report:
    if report.reduction == "sum":
        report = report.adding(
            finding("sum-over-batch", "It is the sum over the examples: 3 cost 3 times as much.")
        )
    if identity.fits and identity.per_class and not identity.model.family.is_error:
        report = report.adding(
            finding(
                "mean-over-classes",
                "It is divided by the number of classes: 5 times too small for 5 classes, "
                "1000 times for 1000.",
            )
        )
    return report


def _by_length(report: Report, identity: Identity, batch: FloatArray) -> Report:
    """Ask for two sequences of three tokens, if it takes such, and for a mask."""
    subject = identity.subject
    tokens = probe(5, SEQUENCES * LENGTH, scale=identity.scale)
    student, teacher = (x.reshape(SEQUENCES, LENGTH, -1) for x in tokens[:2])
    sequences = Probe(student, teacher, tokens.labels.reshape(SEQUENCES, LENGTH))
    try:
        total = subject(*sequences)
    except LossError:  # it takes no sequences, and nobody said that it does
        return report
    rows = subject.rows(tokens)
    if batch.size > 1 or total.size > 1:
        return report
    if np.isclose(total.sum() / rows.sum(), 1 / SEQUENCES, rtol=identity.close):
        report = report.adding(
            finding(
                "grows-with-length",
                "For two sequences of 3 tokens it is 3 times the mean over the tokens: it is "
                "divided by the first axis alone.",
            )
        )
    return _masked(report, subject, sequences, rows) if "mask" in subject.roles else report


def _masked(report: Report, subject: Subject, sequences: Probe, rows: FloatArray) -> Report:
    mask = np.ones((SEQUENCES, LENGTH), bool)
    mask[-1, -1] = False
    kept = rows[:-1].sum()
    unmasked, masked = subject(*sequences).sum(), subject(*sequences, mask).sum()
    if np.isclose(masked, unmasked, rtol=1e-9):
        message = f"With one of 6 tokens masked it stays {masked:.6g}."
        return report.adding(finding("mask-ignored", message))
    if not np.isclose(unmasked / rows.sum(), 1 / len(rows), rtol=1e-6):
        return report
    if np.isclose(masked, kept / len(rows), rtol=1e-6):
        ratio = (len(rows) - 1) / len(rows)
        message = f"With one of 6 tokens masked it is {ratio:.3g} times the mean over the others."
        report = report.adding(finding("mean-over-masked", message))
    return report
