"""First and second derivatives of every smooth divergence: temperatures, masks, ignored tokens.

A class that one network alone excludes (−inf) is tested where the loss is finite.
"""

import math

import pytest

torch = pytest.importorskip("torch")

from kd_notes.divergences import (  # noqa: E402
    Alpha,
    ForwardKL,
    Jeffreys,
    JensenShannon,
    ReverseKL,
    SkewKL,
    SkewReverseKL,
)
from kd_notes.torch import KnowledgeDistillationLoss, kd_loss  # noqa: E402

INF, NAN = math.inf, math.nan
SMOOTH = [
    ForwardKL(),
    ReverseKL(),
    Jeffreys(),
    JensenShannon(0.1),
    JensenShannon(0.5),
    JensenShannon(0.9, normalized=False),
    SkewKL(0.1),
    SkewKL(0.9, normalized=False),
    SkewReverseKL(0.1),
    Alpha(-1),
    Alpha(0.3),
    Alpha(0.5),
    Alpha(2),
]
BOUNDED = [x for x in SMOOTH if isinstance(x, JensenShannon | SkewKL | SkewReverseKL)]
BOUNDED += [Alpha(0.3), Alpha(0.5)]
FINITE = {
    "both": SMOOTH,
    "student": [ReverseKL(), Alpha(-1), *BOUNDED],
    "teacher": [ForwardKL(), Alpha(2), *BOUNDED],
}
SLOW = [pytest.param(x, marks=pytest.mark.slow) for x in (1.0, 1e3, INF)]
each_temperature = pytest.mark.parametrize("temperature", [4.0, *SLOW])
each_scaled = pytest.mark.parametrize(
    "scaled", [True, pytest.param(False, marks=pytest.mark.slow)]
)
pytestmark = pytest.mark.usefixtures("mode")


@pytest.fixture
def pair(rng):
    """Two networks' logits for two examples of four classes."""
    return [torch.tensor(x) for x in rng.normal(scale=2, size=(2, 2, 4))]


def assert_derivatives(loss, logits, temperature, scaled=True):
    """Compare with differences over steps in proportion to the temperature.

    Where one network excludes a class, the scaled loss, and its rounding, grow with temperature².
    """
    step = 1e-6 * min(temperature, 1e3)
    tolerance = 1e-6 if scaled or temperature < 10 else 1e-9
    assert torch.autograd.gradcheck(loss, logits, eps=step, atol=tolerance, rtol=1e-5)
    assert torch.autograd.gradgradcheck(loss, logits, eps=step, atol=tolerance, rtol=1e-5)


def excluded(by, logits):
    """Return both networks' logits without the second class of the first example."""
    student, teacher = (x.clone() for x in logits)
    for name, x in {"student": student, "teacher": teacher}.items():
        if by in (name, "both"):
            x[0, 1] = -INF
    return student, teacher


CASES = [(by, divergence) for by in FINITE for divergence in FINITE[by]]


@each_temperature
@each_scaled
@pytest.mark.parametrize(("by", "divergence"), CASES, ids=str)
def test_with_a_class_that_is_excluded(by, divergence, scaled, temperature, pair):
    student, teacher = excluded(by, pair)
    if scaled and temperature == INF and by != "both":
        return  # infinite

    def loss(rows):  # differences of −inf are nan
        z = student.masked_scatter(student > -INF, rows)
        return kd_loss(z, teacher, temperature, divergence=divergence, scaled=scaled)

    rows = student[student > -INF].requires_grad_()
    assert loss(rows).isfinite().all()
    assert_derivatives(loss, rows, temperature, scaled)


OTHERS = [x for x in CASES if x[1] != Alpha(0.3)]
OF_TEMPERATURE = [x for x in CASES if x not in OTHERS]
OF_TEMPERATURE += [pytest.param(*x, marks=pytest.mark.slow) for x in OTHERS]


@pytest.mark.parametrize(("by", "divergence"), OF_TEMPERATURE, ids=str)
def test_of_the_temperature_with_a_class_that_is_excluded(by, divergence, pair):
    student, teacher = excluded(by, pair)

    def loss(rows, temperature):
        z = student.masked_scatter(student > -INF, rows)
        return kd_loss(z, teacher, temperature, divergence=divergence)

    inputs = student[student > -INF], torch.tensor([2.0, 4.0], dtype=torch.float64)
    assert_derivatives(loss, tuple(x.requires_grad_() for x in inputs), 4.0)


TINY = [SkewReverseKL(1e-20), SkewKL(1e-20), JensenShannon(1e-20)]


IMPROBABLE = [(by, x) for by in ("student", "teacher") for x in [*FINITE[by], *TINY]]


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize(("by", "divergence"), IMPROBABLE, ids=str)
def test_an_excluded_class_has_the_curvature_of_a_very_improbable_one(
    by, divergence, temperature, pair
):
    logits = [x[0] for x in excluded(by, pair)]
    hessians = []
    for improbable in (-INF, -2000 * temperature):
        logits[by == "teacher"][1] = improbable
        hessian = torch.autograd.functional.hessian(
            lambda z: kd_loss(z, logits[1], temperature, divergence=divergence), logits[0]
        )
        hessians.append(hessian)
    torch.testing.assert_close(*hessians, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("divergence", [x for x in SMOOTH if x != Alpha(2)], ids=str)
def test_with_a_class_whose_reciprocal_probability_overflows(divergence, pair):
    student, teacher = (x[:1] for x in pair)
    student[0, 1] = -800  # where Alpha(2) is about e⁸⁰⁰

    def loss(z):
        return kd_loss(z, teacher, divergence=divergence)

    assert_derivatives(loss, student.requires_grad_(), 1.0)


@each_temperature
@pytest.mark.parametrize("divergence", SMOOTH, ids=str)
def test_with_ignored_tokens(divergence, temperature, pair):
    student, teacher, labels = *pair, torch.tensor([3, -100])
    student[1, 0] = teacher[1] = NAN
    loss = KnowledgeDistillationLoss(temperature, 0.5, divergence=divergence, reduction="none")

    def of_kept(row):  # differences of nan are nan
        return loss(torch.stack([row, student[1]]), teacher, labels)

    assert_derivatives(of_kept, student[0].clone().requires_grad_(), temperature)
