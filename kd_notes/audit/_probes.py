"""The logits that a loss is asked about."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kd_notes._checks import FloatArray

CLASSES = 5  # few, so that no probability is small, and not the number of rows of any batch
OTHER_CLASSES = 7  # a factor of K shows as a factor of 5/7
SPREAD = 1.5  # over the temperature: far from the limit that all divergences share, and no
# probability below about a thousandth, where an epsilon of 1e-8 would hide the divergence


class Probe(NamedTuple):
    """A batch: the logits of both networks, `(N, K)`, and a label for each example."""

    student: FloatArray
    teacher: FloatArray
    labels: NDArray[Any]


def probe(seed: int, rows: int, classes: int = CLASSES, scale: float = 1.0) -> Probe:
    """Draw normal logits, which are all different, from a generator with a fixed seed."""
    rng = np.random.default_rng(seed)
    student, teacher = SPREAD * scale * rng.normal(size=(2, rows, classes))
    return Probe(student, teacher, rng.integers(classes, size=rows))
