"""Learning from labels: cross-entropy and its gradient (Eq. 1-3)."""

import numpy as np
import pytest
import references
import sympy as sp
from numpy.testing import assert_allclose, assert_array_equal
from references import EPS, central_differences, over_rows, symbolic_gradient

from kd_notes import (
    cross_entropy_grad,
    cross_entropy_loss,
    entropy,
    kd_loss,
    kl_divergence,
    log_softmax,
    one_hot,
    softmax,
)


@pytest.fixture
def logits(rng):
    return rng.normal(scale=3, size=(6, 4))


@pytest.fixture
def labels(rng):
    return rng.dirichlet(np.ones(4), size=6)


def test_loss_is_equation_1(logits, labels):
    # Four terms of one sign, each a product of two numbers right to a few eps.
    expected = over_rows(references.cross_entropy, logits, labels)
    assert_allclose(cross_entropy_loss(logits, labels), expected, rtol=8 * EPS)


def test_gradient_is_equation_3(logits, labels):
    expected = over_rows(references.cross_entropy_grad, logits, labels)
    # A difference of two numbers below 1, p with its exponent's rounding.
    assert_allclose(cross_entropy_grad(logits, labels), expected, atol=8 * EPS)


@pytest.mark.parametrize("row", [[50.0, 0.0], [100.0, 0.0, 3.0], [700.0, 0.0], [3.0, 0.0]])
def test_a_confident_student_keeps_its_small_loss_and_gradient(row):
    with references.mp.workdps(400):  # e^-700 beside 1
        loss = over_rows(references.cross_entropy, [row], [[1, 0, 0][: len(row)]])
        grad = over_rows(references.cross_entropy_grad, [row], [[1, 0, 0][: len(row)]])
    # Whole exponents: a few roundings, none of them magnified.
    assert_allclose(cross_entropy_loss([row], [0]), loss, rtol=1e-14, atol=0)
    assert_allclose(cross_entropy_grad([row], [0]), grad, rtol=1e-14, atol=0)


PREDICTIONS = [
    [-1.2549796e-5, -1.2483861e-5, -1.25e-5],
    [3e-8, 1e-8, -2e-8],
    [2.1, -0.3, 0.4],
    [-3.3, 1.7, 1.2],
    [1e4 + 2.1, 1e4 - 0.3, 1e4 + 0.4],
    [-777.7, -777.1, -776.9],
    [50.3, 0.1, -1.7],
    [-20.1, 30.9, -33.3],
    [7.7, 7.7, -25.1],
    [7.7, 7.7 - 1e-6, -25.1],
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("row", PREDICTIONS)
@pytest.mark.parametrize(
    "label", [[1, 0, 0], [0, 0, 1], [0.5, 0.5, 0], [0.75, 0.125, 0.125], [0.375, 0.375, 0.25]]
)
def test_gradient_is_right_relative_to_its_largest_entry(label, row, dtype):
    row = np.array(row, dtype)
    expected = over_rows(references.cross_entropy_grad, [row], [label])[0]
    p = softmax(row.astype(float))
    jacobian = np.diag(p) - np.outer(p, p)
    # What a relative change of one eps in each logit and each soft label changes.
    change = (np.abs(jacobian) @ np.abs(row) + np.array(label) % 1).max()
    atol = 4 * np.finfo(dtype).eps * (np.abs(expected).max() + change)
    assert_allclose(cross_entropy_grad(row, label), expected, rtol=0, atol=atol)


def test_a_loss_of_zero_has_no_sign():
    assert not np.signbit(cross_entropy_loss([0.0, -800.0], 0))
    assert not np.signbit(cross_entropy_loss([3.0], 0))


def test_a_student_as_wrong_as_can_be():
    # No probability is formed, so none underflows.
    assert cross_entropy_loss([0.0, 1e4], 0) == 1e4
    assert_array_equal(cross_entropy_grad([0.0, 1e4], 0), [-1, 1])
    assert cross_entropy_loss([-1e308, 1e308], 0) == np.inf


def test_two_classes_are_the_logistic_loss(rng):
    margin = rng.normal(scale=10, size=50)
    logits = np.stack([margin, np.zeros(50)], axis=-1)
    # The same two operations, and 1 ulp for each.
    assert_allclose(cross_entropy_loss(logits, 0), np.logaddexp(0, -margin), rtol=4 * EPS)
    slope = np.exp(-np.logaddexp(0, margin))
    # An exponent up to 30, rounded.
    assert_allclose(cross_entropy_grad(logits, 0)[:, 1], slope, rtol=64 * EPS)


def test_class_indices_are_one_hot_labels(logits):
    indices = np.array([0, 3, 2, 1, 1, 0])
    for function in cross_entropy_loss, cross_entropy_grad:
        assert_array_equal(function(logits, indices), function(logits, one_hot(indices, 4)))


def test_cross_entropy_is_kl_plus_the_entropy_of_the_labels(logits, labels):  # Remark 1
    loss = cross_entropy_loss(logits, labels)
    # Sums of numbers of order 1 to 10.
    p = softmax(logits)
    assert_allclose(kl_divergence(labels, p) + entropy(labels), loss, rtol=1e-14)
    assert_allclose(kd_loss(logits, np.log(labels)) + entropy(labels), loss, rtol=1e-14)


def test_cross_entropy_is_kl_where_the_label_is_one_class(logits):  # Remark 1
    y = one_hot([0, 3, 2, 1, 1, 0], 4)
    # One operation more or less.
    assert_allclose(kl_divergence(y, softmax(logits)), cross_entropy_loss(logits, y), rtol=1e-14)


def test_gradient_is_the_derivative(logits, labels):
    def loss(z):
        return cross_entropy_loss(z, labels[:, np.newaxis])

    # A step of 1e-5 cuts off 1e-11 and rounds off 1e-10.
    expected = central_differences(loss, logits)
    assert_allclose(cross_entropy_grad(logits, labels), expected, atol=1e-9)


def test_gradient_is_sympys(logits):
    label = [0.5, 0.25, 0.25, 0.0]
    expected = symbolic_gradient(
        lambda z, p: -sum(y_i * sp.log(p_i) for y_i, p_i in zip(label, p, strict=True)), logits
    )
    # The derived expression cancels a little, in numbers below 1.
    assert_allclose(cross_entropy_grad(logits, label), expected, atol=1e-14)


def test_gradient_sums_to_zero(logits, labels):
    # Four terms below 1; p and y each sum to 1 within as much.
    assert_allclose(cross_entropy_grad(logits, labels).sum(axis=-1), 0, atol=8 * EPS)


def test_gradient_vanishes_where_the_prediction_is_the_label(logits):
    # p and 1 - p are both rounded, once each.
    assert_allclose(cross_entropy_grad(logits, softmax(logits)), 0, atol=8 * EPS)


def test_a_class_that_no_label_names_may_be_excluded():
    # The same sum with one term less.
    assert cross_entropy_loss([1.0, -np.inf, 0.0], 0) == cross_entropy_loss([1.0, 0.0], 0)
    assert cross_entropy_loss([1.0, -np.inf, 0.0], 1) == np.inf
    expected = [*softmax([1.0, 0.0]), 0.0]
    # One rounding of a difference below 1.
    assert_allclose(cross_entropy_grad([1.0, 0.0, -np.inf], 2), expected - one_hot(2, 3), atol=EPS)


def test_loss_reads_the_labels_row_of_log_softmax(logits):
    assert_array_equal(cross_entropy_loss(logits, 2), -log_softmax(logits)[:, 2])


def test_one_hot_is_a_row_of_the_identity():
    assert_array_equal(one_hot([[2, 0], [1, 1]], 3), np.eye(3)[[[2, 0], [1, 1]]])
    assert_array_equal(one_hot(np.uint8(4), 5), [0, 0, 0, 0, 1])
    assert_array_equal(one_hot([True, False], 2), [[0, 1], [1, 0]])
    assert one_hot([1], np.int32(2)).dtype == np.float64
    assert_array_equal(one_hot([0, 0], 1), [[1], [1]])
