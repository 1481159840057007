"""Softer labels: label smoothing and the confidence penalty (Eq. 4-5)."""

import numpy as np
import pytest
import references
import sympy as sp
from numpy.testing import assert_allclose, assert_array_equal
from references import EPS, central_differences, over_rows, symbolic_gradient

from kd_notes import (
    confidence_penalty_grad,
    confidence_penalty_loss,
    cross_entropy_grad,
    cross_entropy_loss,
    label_smoothing_grad,
    label_smoothing_loss,
    skew_jensen_divergence,
    softmax,
)

K = 5
UNIFORM = [references.mp.mpf(1) / K] * K
LOSS_AND_GRAD = {
    "label smoothing": (label_smoothing_loss, label_smoothing_grad),
    "confidence penalty": (confidence_penalty_loss, confidence_penalty_grad),
}
both = pytest.mark.parametrize(("loss", "grad"), LOSS_AND_GRAD.values(), ids=LOSS_AND_GRAD)


@pytest.fixture
def logits(rng):
    return rng.normal(scale=2, size=(6, K))


@pytest.fixture
def labels(rng):
    return rng.dirichlet(np.ones(K), size=6)


@pytest.mark.parametrize("alpha", [0.0, 0.1, 0.75, 1.0])
def test_label_smoothing_is_equation_4(alpha, logits, labels):
    def equation(z, y):
        hard, flat = references.cross_entropy(z, y), references.kl(UNIFORM, references.softmax(z))
        return (1 - references.mp.mpf(alpha)) * hard + alpha * flat

    # Both terms are sums of order 1, positive, and well conditioned.
    expected = over_rows(equation, logits, labels)
    assert_allclose(label_smoothing_loss(logits, labels, alpha), expected, rtol=32 * EPS)


@pytest.mark.parametrize("alpha", [0.0, 0.1, 0.75, 1.0])
def test_confidence_penalty_is_equation_5(alpha, logits, labels):
    def equation(z, y):
        hard, sharp = references.cross_entropy(z, y), references.kl(references.softmax(z), UNIFORM)
        return (1 - references.mp.mpf(alpha)) * hard + alpha * sharp

    # Both terms are sums of order 1, positive, and well conditioned.
    expected = over_rows(equation, logits, labels)
    assert_allclose(confidence_penalty_loss(logits, labels, alpha), expected, rtol=32 * EPS)


@both
def test_ends_of_alpha_are_the_terms_themselves(loss, grad, logits):
    assert_array_equal(loss(logits, 2, 0), cross_entropy_loss(logits, 2))
    assert_array_equal(grad(logits, 2, 0), cross_entropy_grad(logits, 2))
    assert_array_equal(loss(logits, 2, 1), loss(logits, 4, 1))
    assert_array_equal(grad(logits, 2, 1), grad(logits, 4, 1))


def test_label_smoothing_is_cross_entropy_on_the_smoothed_label(logits, labels):
    smoothed = 0.7 * labels + 0.3 / K
    # Sums of order 1 to 10, less a constant of 0.5.
    expected = cross_entropy_loss(logits, smoothed) - 0.3 * np.log(K)
    assert_allclose(label_smoothing_loss(logits, labels, 0.3), expected, rtol=1e-14, atol=1e-14)
    # One more rounding in the label, below 1.
    expected = cross_entropy_grad(logits, smoothed)
    assert_allclose(label_smoothing_grad(logits, labels, 0.3), expected, atol=4 * EPS)


def test_the_two_penalties_are_the_ends_of_skew_jensen(logits):  # proposition 1
    p, uniform = softmax(logits), np.full(K, 1 / K)
    # Probabilities carry the rounding of their exponents, below 10 eps.
    rtol = 64 * EPS
    sharp, flat = confidence_penalty_loss(logits, 0, 1), label_smoothing_loss(logits, 0, 1)
    assert_allclose(skew_jensen_divergence(uniform, p, 0), sharp, rtol=rtol)
    assert_allclose(skew_jensen_divergence(uniform, p, 1), flat, rtol=rtol)


@both
def test_gradient_is_the_derivative(loss, grad, logits, labels):
    def one_class_at_a_time(z):
        return loss(z, labels[:, np.newaxis], 0.3)

    # A step of 1e-5 cuts off 1e-11 and rounds off 1e-10.
    expected = central_differences(one_class_at_a_time, logits)
    assert_allclose(grad(logits, labels, 0.3), expected, atol=1e-9)


SYMBOLIC_PENALTIES = {
    label_smoothing_grad: lambda p: sum(sp.log(1 / (K * p_i)) / K for p_i in p),
    confidence_penalty_grad: lambda p: sum(p_i * sp.log(K * p_i) for p_i in p),
}


@pytest.mark.parametrize("grad", SYMBOLIC_PENALTIES)
def test_gradient_is_sympys(grad, logits):
    def loss(z, p):
        return -0.7 * sp.log(p[3]) + 0.3 * SYMBOLIC_PENALTIES[grad](p)

    # The derived expression cancels in numbers of order 1 to 10.
    assert_allclose(grad(logits, 3, 0.3), symbolic_gradient(loss, logits), atol=1e-14)


@both
def test_gradient_sums_to_zero(loss, grad, logits, labels):
    # Five terms of order 1.
    assert_allclose(grad(logits, labels, 0.4).sum(axis=-1), 0, atol=8 * EPS)


def test_label_smoothing_stops_at_the_smoothed_label(logits):
    p = softmax(logits)
    labels = (p - 0.01 / K) / 0.99
    assert (labels > 0).all()
    # The label is formed and smoothed again, in numbers below 1.
    assert_allclose(label_smoothing_grad(logits, labels, 0.01), 0, atol=8 * EPS)


@both
def test_a_uniform_prediction_has_no_penalty(loss, grad):
    assert_array_equal(loss(np.full((2, K), 3.0), 0, 1), [0, 0])
    # 1/5 is rounded, and may be rounded differently in u and p.
    assert_allclose(grad(np.full(K, 3.0), 0, 1), 0, atol=EPS)


@pytest.mark.parametrize("scale", [1e-2, 1e-5, 1e-8])
def test_penalty_near_the_uniform_prediction_is_right_relative_to_itself(scale, rng):
    logits = scale * rng.normal(size=(4, K))
    flat = over_rows(lambda z: references.kl(UNIFORM, references.softmax(z)), logits)
    sharp = over_rows(lambda z: references.kl(references.softmax(z), UNIFORM), logits)
    # A square, whose condition number is about 2, with 16 eps for each.
    assert_allclose(label_smoothing_loss(logits, 0, 1), flat, rtol=64 * EPS, atol=0)
    assert_allclose(confidence_penalty_loss(logits, 0, 1), sharp, rtol=64 * EPS, atol=0)


@pytest.mark.parametrize(
    "row", [[50.0, 0.0, 1.0, -2.0, 3.0], [1e-6, 3e-6, 0.0, -2e-6, 5e-6], [2.0, 1.0, 0.0, 0.0, 4.0]]
)
def test_penalty_gradient_is_right_relative_to_its_largest_entry(row):
    def penalty_grad(z):
        p = references.softmax(z)
        mean = references.mp.fsum(p_i * z_i for p_i, z_i in zip(p, z, strict=True))
        return [p_i * (z_i - mean) for p_i, z_i in zip(p, z, strict=True)]

    expected = over_rows(penalty_grad, [row])
    # Exponents up to 52, whole or tiny; a mean of terms of one sign, below the top class.
    atol = 16 * EPS * np.abs(expected).max()
    assert_allclose(confidence_penalty_grad([row], 0, 1), expected, rtol=0, atol=atol)


PREDICTIONS = [
    [-1.2549796e-5, -1.2483861e-5],  # in float32 the uniform probability 1/2 would hide it
    [3e-8, 1e-8, -2e-8],
    [1e-3, 2e-3, -8.0, 5e-4],
    [2.1, -0.3, 0.4],
    [1e4 + 2.1, 1e4 - 0.3, 1e4 + 0.4],
    [50.3, 0.1, -1.7],
    [7.7, 7.7, -25.1],
    [-np.inf, 1e-6, 3e-6, -2e-6],
    [0.5, -np.inf, -np.inf, 3.25, 1.75],
]


def label_smoothing_grad_equation(z, y, alpha):  # Eq. 3 on the smoothed label
    return [
        p_i - (1 - alpha) * y_i - alpha / len(z)
        for p_i, y_i in zip(references.softmax(z), y, strict=True)
    ]


def confidence_penalty_grad_equation(z, y, alpha):
    p = references.softmax(z)
    mean = references.mp.fsum(p_i * z_i for p_i, z_i in zip(p, z, strict=True))
    return [
        (1 - alpha) * (p_i - y_i) + alpha * p_i * (z_i - mean)
        for p_i, y_i, z_i in zip(p, y, z, strict=True)
    ]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("alpha", [0.0, 1e-3, 0.5, 1.0])
@pytest.mark.parametrize("row", PREDICTIONS)
@pytest.mark.parametrize(
    ("grad", "equation"),
    [
        (label_smoothing_grad, label_smoothing_grad_equation),
        (confidence_penalty_grad, confidence_penalty_grad_equation),
    ],
)
def test_gradient_is_right_relative_to_its_largest_entry(grad, equation, row, alpha, dtype):
    row = np.array(row, dtype)
    kept = np.isfinite(row)
    z, y = row[kept], np.eye(kept.sum())[1]

    def exact_grad(logits):
        return equation(references.exact(logits), references.exact(y), references.mp.mpf(alpha))

    expected = np.array(exact_grad(z), float)
    # What a relative change of one eps in each logit changes, from differences at 120 digits.
    step = references.mp.mpf(10) ** -40
    moved = 0
    for j, z_j in enumerate(references.exact(z)):
        nearby = references.exact(z)
        nearby[j] += step
        after = equation(nearby, references.exact(y), references.mp.mpf(alpha))
        slope = np.array(
            [(a - b) / step for a, b in zip(after, exact_grad(z), strict=True)], float
        )
        moved += np.abs(slope * float(z_j))
    largest = np.abs(expected).max()
    atol = 4 * np.finfo(dtype).eps * (largest + moved.max())
    result = grad(row, np.flatnonzero(kept)[1], alpha)
    assert_array_equal(result[~kept], 0)
    assert_allclose(result[kept], expected, rtol=0, atol=atol)
    # One rounding an entry, and those of a cross-entropy gradient below 1.
    allowance = 4 * np.finfo(dtype).eps * (largest + (1 - alpha))
    assert abs(result.sum(dtype=float)) <= allowance


def test_an_excluded_class_is_no_part_of_uniform():
    full, less = np.array([1.0, -np.inf, 0.0, 2.0]), np.array([1.0, 0.0, 2.0])
    for loss, grad in LOSS_AND_GRAD.values():
        # The same sums with one term less.
        assert_allclose(loss(full, 0, 0.3), loss(less, 0, 0.3), rtol=4 * EPS)
        assert_allclose(grad(full, 0, 0.3), np.insert(grad(less, 0, 0.3), 1, 0), atol=4 * EPS)
        assert loss(full, 1, 0.3) == np.inf
        assert np.isfinite(grad(full, 1, 0.3)).all()
