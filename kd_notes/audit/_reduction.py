"""Over what the loss is summed or averaged."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from kd_notes._checks import FloatArray
from kd_notes.audit._identify import Identity
from kd_notes.audit._probes import Probe, probe
from kd_notes.audit._report import Finding, Reduction, Report, finding
from kd_notes.audit._subject import LossError, Subject

SEQUENCES, LENGTH = 2, 3


def reduction(report: Report, identity: Identity) -> Report:
    """Compare the loss of a batch with those of its examples."""
    subject = identity.subject
    if subject.axes == 1:
        return replace(report, reduction="none")
    here = probe(3, 3, scale=identity.scale)
    batch, rows = subject(*here), subject.rows(here)
    kind = _of_array(identity, batch, rows) if batch.size > 1 else _of_number(identity)
    if kind is None:
        return report.adding(_not_rows(batch, rows))
    report = _named(replace(report, reduction=kind), identity)
    return report if kind == "none" else _by_length(report, identity)


def _of_array(identity: Identity, batch: FloatArray, rows: FloatArray) -> Reduction | None:
    totals, close = batch.reshape(len(rows), -1).sum(axis=-1), identity.close
    return "none" if np.allclose(totals, rows, rtol=close, atol=close) else None


def _of_number(identity: Identity) -> Reduction | None:
    """Ask for batches of 3 and of 4: the ratio to the sum of the rows tells sum and mean."""
    ratios = []
    for number in (3, 4):
        here = probe(number, number, scale=identity.scale)
        ratios.append(identity.subject(*here).sum() / identity.subject.rows(here).sum())
    if np.allclose(ratios, [1, 1], rtol=identity.close):
        return "sum"
    if not np.allclose(ratios, [1 / 3, 1 / 4], rtol=identity.close):
        return None
    if not identity.fits or identity.per_class is None:
        return "unknown"
    return "mean" if identity.per_class else "batchmean"


def _not_rows(batch: FloatArray, rows: FloatArray) -> Finding:
    by_itself = ", ".join(f"{x:.6g}" for x in rows)
    message = (
        f"A batch of three costs {batch.sum():.6g}; its examples, each by itself, {by_itself}."
    )
    return finding("batch-not-rows", message)


def _named(report: Report, identity: Identity) -> Report:
    found = []
    if report.reduction == "sum":
        message = "It is the sum over the examples: 3 cost 3 times as much."
        found.append(finding("sum-over-batch", message))
    if identity.fits and identity.per_class and not identity.model.family.is_error:
        message = "It is divided by the number of classes: for 1000 it is 1000 times too small."
        found.append(finding("mean-over-classes", message))
    return report.adding(*found)


def _by_length(report: Report, identity: Identity) -> Report:
    """Ask for two sequences of three tokens, if it takes such, and for a mask."""
    subject = identity.subject
    tokens = probe(5, SEQUENCES * LENGTH, scale=identity.scale)
    student, teacher = (x.reshape(SEQUENCES, LENGTH, -1) for x in tokens[:2])
    sequences = Probe(student, teacher, tokens.labels.reshape(SEQUENCES, LENGTH))
    try:
        total = subject(*sequences)
    except LossError:  # it takes no sequences, and nobody said that it does
        return report
    if total.size > 1:
        return report
    rows = subject.rows(tokens)
    if np.isclose(total.sum() / rows.sum(), 1 / SEQUENCES, rtol=identity.close):
        message = (
            f"For sequences of {LENGTH} tokens it is {LENGTH} times the mean over the tokens: it "
            "is divided by the first axis alone."
        )
        report = report.adding(finding("grows-with-length", message))
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
