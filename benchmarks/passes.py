"""Time each pass of the compiled quick formula alone: `run.py` puts the times in `results.json`.

A pass is repeated over the same row, or where classes are few over the same group of rows, which
stays in the cache. What a call takes beyond their sum is memory, threads and Python.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from worker import seconds

from kd_notes import _compiled as loops
from kd_notes._compiled import V_TOP, P, V, Z  # by name, they are constants to Numba
from kd_notes._kernel import GROUPED, LEAST_SLOPE

LOGITS = 200_000  # of each call, at least


class Row(NamedTuple):
    """One row of many classes."""

    student: Any
    z: Any
    v: Any
    q: Any
    p: Any
    flat: Any
    grad: Any
    found: Any  # what a pass returns: a compiler leaves out what nobody reads
    tops: Any
    c: Any


class Group(NamedTuple):
    """A group of rows of few classes."""

    student: Any
    index: Any
    classes: Any
    rows: Any
    loss: Any
    grad: Any
    c: Any


def load(row):
    row.found[0] = loops.load(row.student, row.flat, row.c)[0]


def exponentials(row):
    row.found[0] = loops.exponentials(row.v, row.tops.v, row.p, row.c)


def gradient(row):
    z, v, q, p, c = row.z, row.v, row.q, row.p, row.c
    row.found[0] = loops.quick(z, v, q, p, row.tops, c.zero, c.one, row.grad, c)[0]


OF_ROW = {"load": load, "exponentials": exponentials, "gradient": gradient}
OF_GROUP = {
    "load": lambda group: loops.load_group(group.student, group.index, group.classes, Z),
    "largest": lambda group: loops.group_tops(group.classes, group.rows, group.c),
    "exponentials": lambda group: loops.group_exponentials(
        group.classes, group.rows, V, V_TOP, P, group.c
    ),
    "gradient": lambda group: loops.group_quick_terms(group.classes, group.rows, group.c),
    "store": lambda group: loops.store_group(
        group.classes, group.rows, group.index, group.loss, group.grad, group.c
    ),
}
FOR_BOTH = {"load", "exponentials"}  # done once for each network


def row_of(student, teacher, c):
    classes = len(student)
    space = loops.workspace(classes, student.dtype)
    flat = space.reshape(len(space), -1)
    flat[0, :classes], flat[1, :classes] = student, teacher
    tops = loops.Tops(*(x.max() for x in (student, teacher, student)))
    z, v, q, p = space
    return Row(
        student, z, v, q, p, flat[0], np.empty_like(student), np.empty_like(student[:1]), tops, c
    )


def group_of(student, teacher, c):
    classes = np.zeros((student.shape[1], loops.CLASS), student.dtype)
    for at, logits in ((Z, student), (V, teacher)):
        classes[:, at : at + loops.LANES] = logits.T
    rows, index = np.ones(loops.ROWS, student.dtype), np.arange(loops.LANES, dtype=np.uintp)
    loss, grad = np.empty_like(student[:, 0]), np.empty_like(student)
    return Group(student, index, classes, rows, loss, grad, c)


def repeated(step):
    step = njit(step)

    @njit
    def run(times, of):
        for _ in range(times):
            step(of)

    return run


def nanoseconds(step, of, logits):
    """Return the time of a pass per logit."""
    run, times = repeated(step), math.ceil(LOGITS / logits)
    return 1e9 * seconds(lambda: run(times, of)) / times / logits


def time_passes(student, teacher, temperature):
    """Return the time of each pass in nanoseconds per logit, for both networks together."""
    classes, dtype = student.shape[1], student.dtype
    of_call = {"beta": 1 / temperature, "unit": temperature, "least_slope": LEAST_SLOPE[1]}
    c = loops.numbers(dtype, **of_call)
    if classes <= GROUPED:
        pair = student[: loops.LANES], teacher[: loops.LANES]
        of, steps = group_of(*pair, c), OF_GROUP
    else:
        of, steps = row_of(student[0], teacher[0], c), OF_ROW
    logits = of.student.size
    return {
        name: (2 if name in FOR_BOTH else 1) * nanoseconds(step, of, logits)
        for name, step in steps.items()
    }
