"""How many digits are right, by dtype and temperature."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from kd_notes._checks import FloatArray
from kd_notes.audit._course import Course
from kd_notes.audit._identify import Identity
from kd_notes.audit._probes import Probe, probe
from kd_notes.audit._report import Report, finding
from kd_notes.audit._subject import LossError

DECADES = tuple(10.0**n for n in range(7))
ENOUGH = 3.0
ROWS = 8  # the worst of eight: one example may be right by chance
BISECTIONS = 5  # of a decade: the temperature is then known to 7 percent
MOST = 16.0  # of float64


@dataclass(frozen=True)
class Accuracy:
    """How well a loss computes itself, in one dtype at one temperature."""

    identity: Identity
    path: Course

    def digits(self, dtype: str, temperature: float) -> float:
        """Return the digits of the worst of a few examples, in the dtype's own logits."""
        subject = replace(self.identity.subject, dtype=dtype)
        here = probe(16, ROWS)
        if self.path.given is not None:
            subject = replace(subject, temperature=temperature)
        else:
            factor = self._inside / temperature
            here = here._replace(student=factor * here.student, teacher=factor * here.teacher)
        s, t = (subject.backend.rounded(x, dtype) for x in here[:2])
        there = Probe(s, t, here.labels)
        return _digits(subject.rows(there), self._expected(there, temperature))

    @property
    def _inside(self) -> float:
        model = self.identity.model
        is_seen = self.identity.fits and not model.family.homogeneous
        return model.student_temperature if is_seen else self.identity.scale

    @property
    def is_known(self) -> bool:
        """Whether the truth is known at every temperature."""
        return self.identity.fits and self.path.is_regular

    def _expected(self, here: Probe, temperature: float) -> FloatArray:
        if self.is_known:
            divergence = self.path.at(temperature).exact(here.student, here.teacher)
            part = self.path.label_part(temperature)
            return np.asarray(divergence + part.value(here.student, here.labels))
        subject = self.identity.subject
        if self.path.given is not None:
            subject = replace(subject, temperature=temperature)
        return subject.rows(here)

    def limit(self, dtype: str, digits: dict[float, float]) -> float | None:
        """Return the temperature from which on fewer than three digits are right."""
        low = None
        for temperature, number in digits.items():
            if number < ENOUGH:
                return temperature if low is None else self._between(dtype, low, temperature)
            low = temperature
        return None

    def _between(self, dtype: str, low: float, high: float) -> float:
        for _ in range(BISECTIONS):
            middle = float(np.sqrt(low * high))
            if self.digits(dtype, middle) < ENOUGH:
                high = middle
            else:
                low = middle
        return float(f"{high:.2g}")


def _digits(got: FloatArray, expected: FloatArray) -> float:
    """Return the digits of the worst value, in relation to the values' mean size."""
    error = np.abs(got - expected).max() / np.abs(expected).mean()
    return float(-np.log10(np.clip(np.nan_to_num(error, nan=1.0), 10**-MOST, 1.0))) + 0.0  # not -0


def digits(report: Report, identity: Identity, path: Course) -> Report:
    """Count the digits of each dtype in every decade up to a million."""
    if identity.subject.takes != ("logits", "logits"):
        return report  # rounded probabilities do not sum to one: the truth is not defined
    accuracy = Accuracy(identity, path)
    table: dict[str, dict[float, float]] = {}
    for dtype in identity.subject.backend.dtypes:
        if dtype == "float64" and not accuracy.is_known:
            continue  # then float64 is the reference
        try:
            table[dtype] = {t: round(accuracy.digits(dtype, t), 1) for t in DECADES}
        except LossError:  # the loss, or an operation of the library, does not exist in this dtype
            continue
    limits = {dtype: accuracy.limit(dtype, found) for dtype, found in table.items()}
    report = replace(report, digits=table, three_digits=limits)
    few = [f"in {dtype} from τ = {limit:g}" for dtype, limit in limits.items() if limit]
    if not few:
        return report
    message = f"Fewer than three digits are right {', '.join(few)}."
    return report.adding(finding("few-digits", message))
