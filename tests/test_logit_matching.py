"""Logit matching, and the regularized form that distillation tends to (Eq. 6, 11-12)."""

import numpy as np
import pytest
import references
from hypothesis import given
from numpy.testing import assert_allclose, assert_array_equal
from references import EPS, central_differences, over_rows, symbolic_gradient
from strategies import LOGIT_PAIRS, SHIFTS

from kd_notes import (
    logit_matching_grad,
    logit_matching_loss,
    regularized_logit_matching_grad,
    regularized_logit_matching_loss,
)

K = 5
LOSS_AND_GRAD = {
    "plain": (logit_matching_loss, logit_matching_grad),
    "regularized": (regularized_logit_matching_loss, regularized_logit_matching_grad),
}
both = pytest.mark.parametrize(("loss", "grad"), LOSS_AND_GRAD.values(), ids=LOSS_AND_GRAD)


@pytest.fixture
def student(rng):
    return rng.normal(scale=3, size=(6, K))


@pytest.fixture
def teacher(rng):
    return rng.normal(scale=3, size=(6, K)) + 1


def test_loss_is_equation_6(student, teacher):
    # A sum of five squares.
    expected = over_rows(references.logit_matching, student, teacher)
    assert_allclose(logit_matching_loss(student, teacher), expected, rtol=8 * EPS)


def test_gradient_stands_under_equation_6(student, teacher):
    # A difference and a quotient, rounded once each.
    expected = over_rows(
        lambda s, t: [(a - b) / K for a, b in zip(s, t, strict=True)], student, teacher
    )
    assert_allclose(logit_matching_grad(student, teacher), expected, rtol=2 * EPS)


def test_regularized_loss_is_equation_12(student, teacher):
    expected = over_rows(references.regularized_logit_matching, student, teacher)
    # Squares of differences from a mean, all of order 1 to 10.
    assert_allclose(regularized_logit_matching_loss(student, teacher), expected, rtol=32 * EPS)


def test_regularized_gradient_is_equation_11(student, teacher):
    expected = over_rows(references.regularized_logit_matching_grad, student, teacher)
    # Differences of numbers below 10, over 5.
    grad = regularized_logit_matching_grad(student, teacher)
    assert_allclose(grad, expected, rtol=0, atol=8 * EPS)


def test_regularized_loss_is_half_the_variance(student, teacher):  # proposition 4
    half_variance = np.var(student - teacher, axis=-1) / 2
    # The same numbers, averaged in another order.
    loss = regularized_logit_matching_loss(student, teacher)
    assert_allclose(loss, half_variance, rtol=8 * EPS)


def test_standardized_logits_have_one_minus_the_correlation(student, teacher):  # proposition 23
    z, v = ((a - a.mean(-1, keepdims=True)) / a.std(-1, keepdims=True) for a in (student, teacher))
    correlation = [np.corrcoef(*pair)[0, 1] for pair in zip(student, teacher, strict=True)]
    # Five products of order 1, divided by 5, twice.
    loss = regularized_logit_matching_loss(z, v)
    assert_allclose(loss, 1 - np.array(correlation), rtol=0, atol=8 * EPS)


def test_the_regularization_takes_out_the_mean(student, teacher):  # proposition 4
    plain = logit_matching_loss(student, teacher)
    mean = np.mean(student - teacher, axis=-1)
    # The terms add up to at most 30.
    expected = plain - mean**2 / 2
    assert_allclose(regularized_logit_matching_loss(student, teacher), expected, atol=32 * EPS)


def test_equal_means_make_the_two_equal():  # Remark 3
    # Whole numbers over 8, so that the means are equal and not nearly so.
    student = np.array([[1.5, -2.0, 0.25, 0.125, 3.0], [0.0, 4.0, -1.5, 2.0, 8.0]])
    teacher = np.add(student, [[3.0, -1.0, 0.5, -2.5, 0.0], [1.0, -4.0, 1.0, 1.0, 1.0]])
    for plain, regularized in zip(*LOSS_AND_GRAD.values(), strict=True):
        assert_array_equal(regularized(student, teacher), plain(student, teacher))


def test_unequal_means_tell_the_two_apart(student, teacher):
    for plain, regularized in zip(*LOSS_AND_GRAD.values(), strict=True):
        assert (np.abs(regularized(student, teacher) - plain(student, teacher)) > 1e-3).any()


def test_two_classes_have_a_square(rng):
    student, teacher = rng.normal(size=(2, 20, 2))
    gap = np.diff(student - teacher, axis=-1)[:, 0]
    # gap^2 / 8 is formed from the difference; ours from two distances to the mean.
    loss = regularized_logit_matching_loss(student, teacher)
    assert_allclose(loss, gap**2 / 8, rtol=1e-13)
    grad = regularized_logit_matching_grad(student, teacher)
    assert_allclose(grad[:, 1], gap / 4, atol=4 * EPS)


@both
def test_gradient_is_the_derivative(loss, grad, student, teacher):
    def one_class_at_a_time(z):
        return loss(z, teacher[:, np.newaxis])

    # A quadratic: nothing cut off, losses up to 30 rounded and divided by 1e-5.
    expected = central_differences(one_class_at_a_time, student)
    assert_allclose(grad(student, teacher), expected, atol=1e-9)


def test_gradient_is_sympys(student):
    row = [0.5, -1.0, 2.0, 0.25, 3.0]

    def plain(z, p):
        return sum((z_i - t_i) ** 2 for z_i, t_i in zip(z, row, strict=True)) / (2 * K)

    def regularized(z, p):
        return plain(z, p) - (sum(z) - sum(row)) ** 2 / (2 * K**2)

    # Sums of five numbers below 10.
    expected = symbolic_gradient(plain, student)
    assert_allclose(logit_matching_grad(student, row), expected, atol=16 * EPS)
    expected = symbolic_gradient(regularized, student)
    assert_allclose(regularized_logit_matching_grad(student, row), expected, atol=16 * EPS)


def test_regularized_gradient_sums_to_zero(student, teacher):
    # Five numbers of order 1.
    grad = regularized_logit_matching_grad(student, teacher)
    assert_allclose(grad.sum(axis=-1), 0, atol=8 * EPS)


@both
def test_loss_and_gradient_vanish_at_a_match(loss, grad, student):
    assert_array_equal(loss(student, student), np.zeros(6))
    assert_array_equal(grad(student, student), np.zeros((6, K)))


@given(LOGIT_PAIRS, SHIFTS)
def test_a_shift_is_seen_by_the_plain_form_alone(pair, shift):
    student, teacher = pair
    loss = regularized_logit_matching_loss(student, teacher)
    # The differences are exact; their mean, up to 1000, is rounded.
    allowance = 8 * EPS * (abs(shift) + 32)
    shifted = regularized_logit_matching_loss(student + shift, teacher)
    assert abs(shifted - loss) <= allowance * (1 + np.sqrt(2 * loss))
    mean = np.mean(student - teacher)
    plain = logit_matching_loss(student + shift, teacher)
    # What a shift c adds is c mean + c^2 / 2.
    expected = logit_matching_loss(student, teacher) + shift * mean + shift**2 / 2
    assert_allclose(plain, expected, rtol=1e-12, atol=1e-12)


@given(LOGIT_PAIRS)
def test_reversed_classes_have_the_same_loss_and_reversed_gradients(pair):
    student, teacher = pair
    for loss, grad in LOSS_AND_GRAD.values():
        # Sums in another order, of at most seven numbers up to 32 and their squares.
        turned = loss(student[::-1], teacher[::-1])
        assert_allclose(turned, loss(student, teacher), rtol=32 * EPS, atol=32 * EPS)
        turned = grad(student[::-1], teacher[::-1])
        assert_allclose(turned[::-1], grad(student, teacher), atol=128 * EPS)


def test_a_class_excluded_by_one_network_alone():
    for loss, _ in LOSS_AND_GRAD.values():
        assert loss([-np.inf, 1.0, 2.0], [0.0, 1.0, 2.0]) == np.inf
        assert loss([0.0, 1.0, 2.0], [-np.inf, 1.0, 2.0]) == np.inf


@both
@pytest.mark.parametrize(
    ("student", "teacher"),
    [
        ([3e38, 0, 0], [-3e38, 0, 0]),  # the difference overflows
        ([1e30, 0, 0], [0, 0, 0]),  # its square
        ([3e38, 3e38, 0], [0, 0, 0]),  # the sum of the differences
    ],
)
def test_overflow_is_inf_without_a_warning(loss, grad, student, teacher):
    student, teacher = np.float32(student), np.float32(teacher)
    assert loss(student, teacher) == np.inf
    grad(student, teacher)


@both
def test_each_network_may_exclude_a_class_of_its_own(loss, grad):
    student, teacher = [-np.inf, 0.0, 1.0], [0.0, -np.inf, 1.0]
    assert loss(student, teacher) == np.inf
    # Infinite differences stay out of the mean, which is 0.
    assert_array_equal(grad(student, teacher), [-np.inf, np.inf, 0])
