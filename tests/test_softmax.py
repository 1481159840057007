"""Softmax with temperature, its logarithm, its Jacobian, and entropy (Eq. 2, 7, 9)."""

import numpy as np
import pytest
import references
import scipy.special
from hypothesis import given
from numpy.testing import assert_allclose, assert_array_equal
from references import EPS, central_differences, over_rows
from strategies import LOGIT_PAIRS, SHIFTS, TEMPERATURES

from kd_notes import entropy, log_softmax, softmax, softmax_jacobian


@pytest.mark.parametrize("temperature", [0.25, 1.0, 3.0, 50.0])
@pytest.mark.parametrize("function", [softmax, log_softmax, softmax_jacobian])
def test_every_entry_is_right_relative_to_itself(function, temperature, rng):
    logits = rng.normal(scale=4, size=(6, 5))
    expected = over_rows(lambda z: getattr(references, function.__name__)(z, temperature), logits)
    # Rounding an exponent x moves e^x by |x| eps.
    exponent = np.ptp(logits) / temperature
    rtol = 4 * EPS * (1 + exponent)
    assert_allclose(function(logits, temperature), expected, rtol=rtol, atol=0)


@pytest.mark.parametrize("gap", [30.0, 50.0, 120.0])
@pytest.mark.parametrize("function", [softmax, log_softmax, softmax_jacobian])
def test_a_saturated_row_keeps_its_distance_from_one(function, gap):
    logits = np.array([[gap, 0.0, -1.0], [0.0, -gap, 1.0]])
    expected = over_rows(getattr(references, function.__name__), logits)
    # The exponents are whole numbers: only a few operations round.
    assert_allclose(function(logits), expected, rtol=8 * EPS, atol=0)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize(
    "row",
    [
        [95.3, -94.8],  # log p = -e^-190.1, whose exponent is rounded: an error of 64 eps
        [343.3070134785487, -265.99169954939345],
        [-29.448047637939453, -104.68161010742188, -400.0],
        [8.1, 8.1, -35.3],
        [61.7, 61.7 - 1e-9, 25.4, -77.3],
        [1e4 + 0.1, 1e4 - 20.7, 1e4 - 3.3],
        [1e-3, 2e-3, -8.0, 5e-4, 1e-9],
    ],
)
def test_log_softmax_keeps_its_promise(row, temperature):
    z = references.exact(row)
    with references.mp.workdps(400):  # e^-610 beside 1
        p = references.softmax(z, temperature)
        log_p = references.log_softmax(z, temperature)
    relative_errors = log_softmax(row, temperature) / np.array(log_p) - 1
    for i, error in enumerate(relative_errors):
        moved = ((int(i == j) - p[j]) * z[j] / temperature for j in range(len(z)))
        condition = sum(map(abs, moved)) / abs(log_p[i])
        assert abs(error) <= 4 * EPS * (1 + condition)


def test_a_certain_prediction_has_no_jacobian_but_zero():
    assert_array_equal(softmax_jacobian([1e308, -1e308]), np.zeros((2, 2)))


def test_scipy_agrees(rng):
    logits = rng.normal(scale=3, size=(4, 6))
    # SciPy's own rounding, on probabilities above 1e-7 and log-probabilities of order 1.
    assert_allclose(softmax(logits), scipy.special.softmax(logits, axis=-1), rtol=1e-14)
    expected = scipy.special.log_softmax(logits / 5, axis=-1)
    assert_allclose(log_softmax(logits, 5), expected, rtol=1e-14)
    p = softmax(logits)
    assert_allclose(entropy(p), scipy.special.entr(p).sum(axis=-1), rtol=1e-14)


def test_infinite_temperature_is_uniform_over_the_classes_left():
    logits = [2000.0, -np.inf, 1000.0, 0.0]
    assert_array_equal(softmax(logits, np.inf), [1 / 3, 0, 1 / 3, 1 / 3])
    # log1p(2) is rounded once.
    expected = np.where(np.isinf(logits), -np.inf, -np.log(3))
    assert_allclose(log_softmax(logits, np.inf), expected, rtol=2 * EPS)
    assert_array_equal(softmax_jacobian(logits, np.inf), np.zeros((4, 4)))


def test_temperature_to_zero_is_the_top_class():
    assert_array_equal(softmax([1.0, 3.0, 2.0], 1e-3), [0, 1, 0])
    assert_array_equal(softmax([3.0, 3.0, 2.0], 1e-3), [0.5, 0.5, 0])
    assert_array_equal(softmax([1.0, 3.0, 2.0], 5e-324), [0, 1, 0])
    assert_array_equal(softmax_jacobian([1.0, 3.0, 2.0], 5e-324), np.zeros((3, 3)))
    single = np.array([1, 3, 2], np.float32)
    assert_array_equal(softmax(single, 1e-46), [0, 1, 0])
    assert_array_equal(softmax_jacobian(single, 1e-46), np.zeros((3, 3)))


def test_jacobian_is_the_derivative_of_softmax(rng):
    logits = rng.normal(size=(3, 4))
    by_logit = central_differences(lambda z: softmax(z, 2.0), logits)
    # A step of 1e-5 cuts off 1e-11 and rounds off 1e-11.
    assert_allclose(softmax_jacobian(logits, 2.0), by_logit.swapaxes(-1, -2), atol=1e-10)


def test_jacobian_is_symmetric_and_its_rows_sum_to_zero(rng):
    jacobian = softmax_jacobian(rng.normal(size=(3, 2, 5)), 0.7)
    # p_j (p_i / temperature) may be rounded in either order.
    assert_allclose(jacobian, jacobian.swapaxes(-1, -2), rtol=2 * EPS)
    # Five terms, none above 1 / (4 * 0.7).
    assert_allclose(jacobian.sum(axis=-1), 0, atol=5 * EPS)


@given(LOGIT_PAIRS, SHIFTS, TEMPERATURES)
@pytest.mark.parametrize("function", [softmax, log_softmax])
def test_a_shift_of_all_logits_changes_nothing(function, pair, shift, temperature):
    logits, _ = pair
    # The differences of the logits, all that counts, are exact.
    assert_array_equal(function(logits + shift, temperature), function(logits, temperature))


@given(LOGIT_PAIRS, TEMPERATURES)
@pytest.mark.parametrize("function", [softmax, log_softmax])
def test_reversed_classes_have_reversed_values(function, pair, temperature):
    logits, _ = pair
    # Only the order of the sum differs: one rounding a class.
    expected = function(logits, temperature)[::-1]
    assert_allclose(function(logits[::-1], temperature), expected, rtol=8 * EPS)


@given(LOGIT_PAIRS, TEMPERATURES)
def test_probabilities_sum_to_one_and_are_ordered_as_the_logits(pair, temperature):
    logits, _ = pair
    p = softmax(logits, temperature)
    # One rounding a class.
    assert abs(p.sum() - 1) <= 8 * EPS
    assert (np.diff(p[np.argsort(logits)]) >= 0).all()


def test_entropy_is_its_formula(rng):
    # Whole numbers over a power of two: these distributions sum to one exactly.
    p = rng.multinomial(2**20, [0.4, 0.3, 0.2, 0.0999, 0.0001], size=4) / 2**20
    # Five terms of one sign.
    assert_allclose(entropy(p), over_rows(references.entropy, p), rtol=4 * EPS)


def test_entropy_runs_from_zero_to_log_k():
    for certain in [1.0], [0.0, 1.0, 0.0]:
        assert entropy(certain) == 0
        assert not np.signbit(entropy(certain))
    # Eight equal terms.
    assert_allclose(entropy(np.full(8, 0.125)), np.log(8), rtol=EPS)
    assert_allclose(entropy([1e-300, 1.0]), 300 * np.log(10) * 1e-300, rtol=4 * EPS)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_entropy_is_not_negative_where_a_probability_is_rounded_above_one(dtype):
    above = 1 + np.finfo(dtype).eps
    for p in [above], [above, 0], [0, 1 + 4 * np.finfo(dtype).eps, 0]:
        assert entropy(np.array(p, dtype)) == 0
        assert not np.signbit(entropy(np.array(p, dtype)))
    small = np.finfo(dtype).tiny
    # What is left is the entropy of the small probability.
    expected = -float(small) * np.log(float(small))
    eps = np.finfo(np.promote_types(dtype, np.float32)).eps
    assert_allclose(entropy(np.array([above, small], dtype)), expected, rtol=4 * eps)


@given(LOGIT_PAIRS, TEMPERATURES)
def test_entropy_of_a_softmax_is_never_negative(pair, temperature):
    logits, _ = pair
    for dtype in np.float32, np.float64:
        assert entropy(softmax(logits.astype(dtype), temperature)) >= 0
