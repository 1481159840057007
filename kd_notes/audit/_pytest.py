"""One line in a test that holds a loss to what it is meant to be."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import Any

from kd_notes.audit._audit import audit
from kd_notes.audit._report import Report

CLOSE = 1e-6  # of numbers that the audit reports with six digits


def assert_audit(
    loss: Callable[..., Any],
    *,
    allow: Collection[str] = (),
    divergence: str | None = None,
    parameter: float | None = None,
    value_power: float | None = None,
    gradient_power: float | None = None,
    reduction: str | None = None,
    teacher_gradient: bool | None = None,
    **options: Any,
) -> Report:
    """Fail with the report unless a loss is what it is meant to be, and has no defect.

    Parameters
    ----------
    loss
        As `audit`.
    allow
        Codes of defects that are not to fail.
    divergence, parameter, value_power, gradient_power, reduction, teacher_gradient
        What the fields of the report must be, those that are given.
    **options
        Keywords of `audit`. Its `temperature` must then be the one inside: another is a defect.

    Returns
    -------
    Report
        For whatever else is to be asserted.

    Raises
    ------
    AssertionError
        With what is wrong, and the report.
    ValueError
        As `audit`.

    Notes
    -----
    Findings that are no defects do not fail.

    Examples
    --------
    >>> from kd_notes import kd_loss
    >>> from kd_notes.audit import assert_audit
    >>> def test_our_loss():
    ...     assert_audit(kd_loss, divergence="forward_kl", value_power=2)
    >>> test_our_loss()
    """
    report = audit(loss, **options)
    expected = {
        "divergence": divergence,
        "parameter": parameter,
        "value_power": value_power,
        "gradient_power": gradient_power,
        "reduction": reduction,
        "teacher_gradient": teacher_gradient,
    }
    wrong = [
        f"{name} is {getattr(report, name)!r}, not {value!r}"
        for name, value in expected.items()
        if value is not None and not _same(getattr(report, name), value)
    ]
    wrong += [f"{f.code}: {f.message}" for f in report.defects if f.code not in allow]
    if wrong:
        raise AssertionError("\n".join([*wrong, "", str(report)]))
    return report


def _same(found: object, expected: object) -> bool:
    if isinstance(found, float) and isinstance(expected, int | float):
        return math.isclose(found, expected, rel_tol=CLOSE, abs_tol=CLOSE)
    return found == expected
