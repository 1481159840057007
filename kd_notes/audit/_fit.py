"""Fit a family to values: its temperatures and parameter by Gauss-Newton, its factor linearly.

What is fitted are differences between two teachers for one student. Whatever a loss adds for
the student alone, such as a label's part, is then gone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from kd_notes import kd_loss
from kd_notes._checks import FloatArray
from kd_notes.audit._families import FAMILIES, SPOKEN, Family, Networks

FIRST_STEPS, LAST_STEPS = 8, 60
KEPT = 4  # families that are fitted to the end; after the first steps the right one leads
SLOPE_STEP = 1e-5  # of a central difference: its error, 1e-10, only slows the last steps
OCTAVES = np.arange(-3.0, 5.5, 0.5)  # of the student's temperature, beside the probes' scale
RATIOS = np.array([1.0, 0.25, 0.5, 0.7, 1.4, 2.0, 4.0])  # the teacher's temperature over it
EXACT = 1e-13  # a residual beyond which nothing improves
SETTLED = 0.999  # times the residual before: a step that brings less is the last
LARGEST_DAMPING = 1e6  # where the steps are too short to be worth a trial


@dataclass(frozen=True)
class Model:
    """A family with its numbers: what the loss of an example is, but for what is added to it."""

    family: Family
    student_temperature: float
    teacher_temperature: float
    parameter: float
    factor: float
    residual: float

    @property
    def name(self) -> str:
        """What it is called in a sentence."""
        return SPOKEN.get(self.family.name) or self.family.name.format(self.parameter)

    def value(self, student: FloatArray, teacher: FloatArray) -> FloatArray:
        """Return the loss per example, `(..., K)` to `(...)`, by the definition."""
        networks = Networks.of(*self._scaled(student, teacher))
        terms = self.family.terms(networks, np.asarray(self.parameter))
        if self.family.has_entropy:
            terms = np.where(networks.p == 0, 0, terms)
        values: FloatArray = self.factor * terms.sum(axis=-1)
        return values

    def exact(self, student: FloatArray, teacher: FloatArray) -> FloatArray:
        """Return the loss per example as `kd_notes` computes it, where it has this divergence."""
        if self.family.exact is None:
            return self.value(student, teacher)
        divergence = self.family.exact(self.parameter)
        return self.factor * kd_loss(*self._scaled(student, teacher), divergence=divergence)

    def _scaled(self, student: FloatArray, teacher: FloatArray) -> tuple[FloatArray, FloatArray]:
        return student / self.student_temperature, teacher / self.teacher_temperature


class Values(NamedTuple):
    """How much more each student pays for one teacher than for another."""

    student: FloatArray
    teacher: FloatArray
    other: FloatArray
    differences: FloatArray


def fits(values: Values, scale: float, families: Sequence[Family] = FAMILIES) -> list[Model]:
    """Return the best models, the best first."""
    begun: dict[Family, _Fit] = {}
    for family in families:
        fitted = [_Fit(family, values, point) for point in _starts(family, values, scale)]
        for fit in fitted:
            fit.refine(FIRST_STEPS)
        begun[family] = min(fitted, key=_Fit.residual)
    best = sorted(begun.values(), key=_Fit.residual)[:KEPT]
    for fit in best:
        fit.refine(LAST_STEPS)
    return [fit.model() for fit in sorted(best, key=_Fit.residual)]


def _starts(family: Family, values: Values, scale: float) -> list[FloatArray]:
    """Return the best point of a grid of temperatures for each parameter to begin from."""
    temperatures = np.ones(1) if family.homogeneous else scale * 2**OCTAVES
    student, ratio = np.meshgrid(temperatures, RATIOS, indexing="ij")
    logs = np.log([student.ravel(), (student * ratio).ravel()])
    found = []
    for parameter in family.starts or (0.5,):
        grid = np.stack([*logs, np.full(student.size, _unbounded(family, parameter))], axis=-1)
        fitted = _projected(family, values, grid)
        found.append(grid[np.argmin(fitted.residuals)])
    return found


class _Projected(NamedTuple):
    """For each point: the best factor, what is left of each value, and of all in relation."""

    factors: FloatArray
    off: FloatArray
    residuals: FloatArray


def _projected(family: Family, values: Values, points: FloatArray) -> _Projected:
    student, teacher = np.exp(np.clip(points[:, :2].T, -40, 40))[..., np.newaxis, np.newaxis]
    parameter = _bounded(family, points[:, 2])[:, np.newaxis, np.newaxis]
    z = values.student / student
    units = sum(
        sign * family.terms(Networks.of(z, v / teacher), parameter).sum(axis=-1)
        for sign, v in ((1, values.teacher), (-1, values.other))
    )
    factors = units @ values.differences / (units**2).sum(axis=-1)
    off = factors[:, np.newaxis] * units - values.differences
    residuals = np.linalg.norm(off, axis=-1) / np.linalg.norm(values.differences)
    return _Projected(factors, off, np.nan_to_num(residuals, nan=np.inf))


class _Fit:
    """Damped Gauss-Newton steps (Levenberg and Marquardt) in coordinates without bounds."""

    def __init__(self, family: Family, values: Values, point: FloatArray) -> None:
        self.family, self.values, self.point = family, values, point
        self.free = ([1] if family.homogeneous else [0, 1]) + [2] * bool(family.starts)
        self.at = _projected(family, values, point[np.newaxis])
        self.damping = 1e-3

    def residual(self) -> float:
        return float(self.at.residuals[0])

    def refine(self, steps: int) -> None:
        for _ in range(steps):
            if self.residual() < EXACT or self.damping > LARGEST_DAMPING:
                break
            point, before = self._moved(), self.residual()
            at = _projected(self.family, self.values, point[np.newaxis])
            if at.residuals[0] < before:
                self.point, self.at, self.damping = point, at, self.damping / 10
                if self.residual() > SETTLED * before:
                    self.damping = np.inf
            else:
                self.damping *= 10

    def _moved(self) -> FloatArray:
        steps = SLOPE_STEP * np.eye(3)[self.free]
        around = np.concatenate([self.point + steps, self.point - steps])
        above, below = np.split(_projected(self.family, self.values, around).off, 2)
        slopes = (above - below).T / (2 * SLOPE_STEP)
        square = slopes.T @ slopes
        lifted = square + self.damping * np.diag(np.diag(square))
        moved = self.point.copy()
        if np.all(np.isfinite(lifted)):
            step = np.linalg.lstsq(lifted, slopes.T @ self.at.off[0], rcond=None)[0]
            moved[self.free] -= np.clip(step, -1, 1)  # a factor e of a temperature
        return moved

    def model(self) -> Model:
        student, teacher = map(float, np.exp(self.point[:2]))
        parameter = float(_bounded(self.family, self.point[2]))
        factor = float(self.at.factors[0])
        return Model(self.family, student, teacher, parameter, factor, self.residual())


def _unbounded(family: Family, parameter: float) -> float:
    low, high = family.bounds
    share = (parameter - low) / (high - low)
    return float(np.log(share / (1 - share)))


def _bounded(family: Family, coordinate: FloatArray) -> FloatArray:
    low, high = family.bounds
    share: FloatArray = 1 / (1 + np.exp(-np.clip(coordinate, -30, 30)))
    return low + (high - low) * share


def snapped(number: float, residual: float = 0.0) -> float:
    """Return a number without the last digits of a fit, those that its residual reaches."""
    digits = int(np.clip(-np.log10(10 * max(residual, 1e-16)), 2, 6))
    return float(f"{number:.{digits}g}")
