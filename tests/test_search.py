"""The search measures errors right, finds planted defects, and finds none in the library.

`SEARCH_SECONDS=600 pytest tests/test_search.py` searches for so long with each kernel.
"""

import os
from itertools import islice

import numpy as np
import pytest
import references
import rows
import search
from backends import BACKENDS, by_numpy
from families import FAMILIES, begin
from mpmath import mp
from numpy import inf
from rows import Row, reference
from search import PROMISE, worst_rows
from worst_rows import WORST

from kd_notes import log_softmax, softmax

SECONDS = float(os.environ.get("SEARCH_SECONDS", "0"))
STEPS = 2 * len(FAMILIES)  # two in each, where time does not count

each_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


@pytest.mark.parametrize("tau", [0.7, 1e5, inf])
def test_the_reference_is_the_definition_and_its_derivatives(tau, rng):
    row = Row("float64", rng.normal(size=3), rng.normal(size=3), [1, 2, 1], tau)
    z, v = map(references.exact, row.logits())
    true, grad = reference(row), definition(z + v, tau)[1:]
    largest = max(map(abs, grad))
    moves = [sum(column) for column in zip(*sensitivities(z + v, tau), strict=True)]
    assert abs(true.loss / definition(z + v, tau)[0] - 1) < 1e-20
    assert largest_difference(true.grad, [grad[0], *grad[2:]]) < 1e-20 * largest
    assert abs(true.loss_condition / (moves[0] / true.loss) - 1) < 1e-20
    assert abs(true.grad_condition / (max(moves[1:]) / largest) - 1) < 1e-20


def definition(logits, tau):
    """Return the loss, and after it the gradient."""
    z, v = logits[:4], logits[4:]
    if tau == inf:
        loss = references.regularized_logit_matching(z, v)
        return [loss, *references.regularized_logit_matching_grad(z, v)]
    return [references.kd_loss(z, v, tau), *references.kd_grad(z, v, tau)]


def sensitivities(logits, tau):
    """Yield by how much, to first order, each logit moves loss and gradient: |dL/dx x|."""
    h = mp.mpf(10) ** -40
    for i, x in enumerate(logits):
        ends = [definition([*logits[:i], x + s * h, *logits[i + 1 :]], tau) for s in (1, -1)]
        yield [abs((a - b) / (2 * h) * x) for a, b in zip(*ends, strict=True)]


def largest_difference(one, other):
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


@each_dtype
def test_the_reference_has_digits_enough(dtype, rng, monkeypatch):
    families = [family for family in FAMILIES for _ in range(2)]
    several = [begin(family, dtype, rng) for family in families]
    several.append(Row(dtype, [0, -60], [0, -inf], [1, 11]))  # only the student has a margin
    short = [reference(row) for row in several]
    monkeypatch.setattr(rows, "digits", lambda row: 2000)
    tiny = float(np.finfo(dtype).tiny)
    for row, one in zip(several, short, strict=True):
        true = reference(row)
        assert one.loss == true.loss or abs(one.loss - true.loss) < max(1e-20 * true.loss, tiny)
        if tiny < true.loss < inf:
            for a, b in zip(one[2:], true[2:], strict=True):
                assert abs(a - b) < 1e-15 * (1 + b)


def test_a_row_is_written_as_the_python_that_makes_it(rng):
    for family in FAMILIES:
        row = begin(family, "float32", rng)
        again = eval(repr(row), {"Row": Row, "inf": inf})
        for one, other in zip(row.logits(), again.logits(), strict=True):
            np.testing.assert_array_equal(one, other)
        assert (row.tau, row.scaled) == (again.tau, again.scaled)


def by_definition(student, teacher, temperature, scaled):
    """The usual code: a difference of log-softmaxes, and one of softmaxes."""
    p, q = softmax(teacher, temperature), softmax(student, temperature)
    x = log_softmax(teacher, temperature) - log_softmax(student, temperature)
    unit = temperature if scaled else 1
    return abs((p * x).sum(axis=1)) * unit * unit, (q - p) * unit


def from_the_teachers_top(student, teacher, temperature, scaled):
    """The student's logits are rounded beside the teacher's largest."""
    return by_numpy(student - teacher.max(axis=1, keepdims=True), teacher, temperature, scaled)


def tilted(student, teacher, temperature, scaled):
    """The slope of the teacher's top class does not cancel the others'."""
    loss, grad = by_numpy(student, teacher, temperature, scaled)
    grad[np.arange(len(grad)), teacher.argmax(axis=1)] *= 1 - 2e-5
    return loss, grad


def sometimes_negative(student, teacher, temperature, scaled):
    loss, grad = by_numpy(student, teacher, temperature, scaled)
    return np.where(loss < 1e-3, -loss, loss), grad


def not_alone(student, teacher, temperature, scaled):
    """A row's last bit depends on how many rows there are."""
    loss, grad = by_numpy(student, teacher, temperature, scaled)
    return (np.nextafter(loss, 0) if len(loss) % 2 else loss), grad


@pytest.mark.slow
@each_dtype
@pytest.mark.parametrize(
    "backend", [by_definition, from_the_teachers_top, tilted, sometimes_negative, not_alone]
)
def test_a_planted_defect_is_found(backend, dtype, monkeypatch):
    families = ["near", "offset", "one top", "at threshold"]
    if backend is not_alone:
        monkeypatch.setattr(search, "by_numpy", backend)  # what is not required of other kernels
    found = worst_rows(islice(search.search(backend, dtype, 1, families, steps=5), 20))
    assert max(finding.score for finding in found.values()) > PROMISE


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_worst_rows_of_earlier_searches_keep_the_promise(backend):
    scores = zip(WORST, search.evaluate(WORST, BACKENDS[backend]), strict=True)
    assert not [(row, score) for row, score in scores if score.both > PROMISE]


@pytest.mark.slow
@each_dtype
@pytest.mark.parametrize("backend", BACKENDS)
def test_no_row_is_found_that_breaks_the_promise(backend, dtype):
    climbs = search.search(BACKENDS[backend], dtype, 1, steps=100 if SECONDS else 2)
    found = worst_rows(climbs if SECONDS else islice(climbs, STEPS), SECONDS or inf)
    assert not [finding for finding in found.values() if finding.score > PROMISE]
