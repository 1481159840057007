"""To which dtype a loss rounds its arguments or its values, whatever it is given."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from kd_notes._checks import FloatArray
from kd_notes.audit._probes import probe
from kd_notes.audit._subject import LossError, Subject

#: Up to which relative difference two values count as the same. Families differ by 1e-2 on the
#: probes. A sum of float64 terms is off by 1e-15; at a high temperature, 1e-10 of it is lost. The
#: other dtypes have 24, 11 and 8 binary digits, of which a sum of five terms may lose three.
TOLERANCES = {"float64": 1e-6, "float32": 1e-4, "float16": 1e-2, "bfloat16": 3e-2}

STEPS = 64
#: How far a logit moves in these steps, in relation to it. On the long way bfloat16 has 2 to 5
#: numbers, float16 16 to 33; on the short one float32 has as many as float16 on the long one.
LONG, SHORT = 2.0**-6, 2.0**-19
FEW, MANY = 9, 48


def precision(subject: Subject) -> str:
    """Return the coarsest dtype that holds its values, or an argument as it computes with it."""
    values = of_values(subject)
    if values in ("float16", "bfloat16"):  # of which there are too few to see the arguments' steps
        return values
    arguments = [_of_argument(subject, name) for name in ("student", "teacher")]
    return max([values, *arguments], key=lambda dtype: TOLERANCES[dtype])


def of_values(subject: Subject) -> str:
    """Return the coarsest dtype that holds all values of a few batches exactly."""
    values = np.array([subject(*probe(seed, 3)).sum() for seed in range(400, 412)])
    for dtype in ("bfloat16", "float16", "float32"):
        if np.array_equal(values, _rounded(values, dtype)):
            return dtype
    return "float64"


def _of_argument(subject: Subject, network: str) -> str:
    """Move the top logit of an example by little: between two numbers of a dtype nothing moves."""
    logits = replace(subject, takes=("logits", "logits"))
    try:
        long, short = (_different(logits, network, length) for length in (LONG, SHORT))
    except LossError:  # it refuses what is not normalized
        return "float64"
    if 1 < long < MANY:
        return "bfloat16" if long < FEW else "float16"
    return "float32" if 1 < short < MANY else "float64"


def _different(subject: Subject, network: str, length: float) -> int:
    here = probe(413, 1, scale=subject.temperature or 1.0)
    way = np.zeros_like(here.student)
    way[0, getattr(here, network).argmax()] = 1
    moved = (getattr(here, network) * (1 + length * n / STEPS * way) for n in range(STEPS))
    return len({float(subject.rows(here._replace(**{network: z}))[0]) for z in moved})


def _rounded(values: FloatArray, dtype: str) -> FloatArray:
    if dtype != "bfloat16":
        return values.astype(dtype).astype(float)
    upper_half = values.astype(np.float32).view(np.uint32) & 0xFFFF0000
    return upper_half.view(np.float32).astype(float)


def tolerance(subject: Subject) -> float:
    """Return how far values may be off a model."""
    return TOLERANCES[subject.precision]
