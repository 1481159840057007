"""To which dtype a loss rounds its values, whatever it is given."""

from __future__ import annotations

import numpy as np

from kd_notes._checks import FloatArray
from kd_notes.audit._probes import probe
from kd_notes.audit._subject import Subject

#: Up to which relative difference two values count as the same. Families differ by 1e-2 on the
#: probes. A sum of float64 terms is off by 1e-15; at a high temperature, 1e-10 of it is lost. The
#: other dtypes have 24, 11 and 8 binary digits, of which a sum of five terms may lose three.
TOLERANCES = {"float64": 1e-6, "float32": 1e-4, "float16": 1e-2, "bfloat16": 3e-2}


def precision(subject: Subject) -> str:
    """Return the coarsest dtype that holds all values of a few batches exactly."""
    values = np.array([subject(*probe(seed, 3)).sum() for seed in range(400, 412)])
    for dtype in ("bfloat16", "float16", "float32"):
        if np.array_equal(values, _rounded(values, dtype)):
            return dtype
    return "float64"


def _rounded(values: FloatArray, dtype: str) -> FloatArray:
    if dtype != "bfloat16":
        return values.astype(dtype).astype(float)
    upper_half = values.astype(np.float32).view(np.uint32) & 0xFFFF0000
    return upper_half.view(np.float32).astype(float)


def tolerance(subject: Subject) -> float:
    """Return how far values may be off a model."""
    return TOLERANCES[precision(subject)]
