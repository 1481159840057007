"""Divergences between probabilities: Kullback-Leibler and skew-Jensen."""

import numpy as np
import pytest
import references
import scipy.special
import scipy.stats
from hypothesis import given
from numpy.testing import assert_allclose
from references import EPS, over_rows
from strategies import ALPHAS, DISTRIBUTION_PAIRS

from kd_notes import kl_divergence, skew_jensen_divergence


def exact_distributions(rng, weights, shape):
    """Whole numbers over 2**40: rows that sum to one exactly, as the equations ask."""
    counts = rng.multinomial(2**40, weights, size=shape)
    return counts / 2**40


@pytest.fixture
def p(rng):
    return exact_distributions(rng, [0.5, 0.3, 0.1999, 0.0001], 6)


@pytest.fixture
def q(rng):
    return exact_distributions(rng, [0.1, 0.2, 0.3, 0.4], 6)


def test_kl_is_equation_8(p, q):
    # Four terms of one sign, each right to a few eps.
    assert_allclose(kl_divergence(p, q), over_rows(references.kl, p, q), rtol=8 * EPS)
    assert_allclose(kl_divergence(q, p), over_rows(references.kl, q, p), rtol=8 * EPS)


@pytest.mark.parametrize("power", [2, 12, 20, 35])
def test_kl_of_nearly_equal_distributions_is_right_relative_to_itself(power):
    nudge = np.array([3, -1, -2, 0]) * 2.0**-power / 8
    p = np.array([[0.5, 0.25, 0.125, 0.125]])
    q = p + nudge
    expected = over_rows(references.kl, p, q)
    # q - p is exact, and what follows has nothing to cancel.
    assert_allclose(kl_divergence(p, q), expected, rtol=8 * EPS, atol=0)
    expected = over_rows(lambda p, q: references.skew_jensen(p, q, 0.3), p, q)
    assert_allclose(skew_jensen_divergence(p, q, 0.3), expected, rtol=8 * EPS, atol=0)


@pytest.mark.parametrize("small", [2.0**-30, 2.0**-60, 1e-100, 1e-300])
def test_kl_where_a_class_is_all_but_lost(small):
    p, q = np.array([[0.5, 0.5, 0.0]]), np.array([[1 - small, small, 0.0]])
    # Where q is far below p, their ratio counts, and not 1 minus it.
    expected = over_rows(references.kl, p, q)
    assert_allclose(kl_divergence(p, q), expected, rtol=8 * EPS)
    expected = over_rows(references.kl, q, p)
    assert_allclose(kl_divergence(q, p), expected, rtol=8 * EPS)


def test_kl_in_float32_where_a_class_is_all_but_lost():
    p, q = np.float32([0.5, 0.5]), np.float32([1.0, 1e-20])
    expected = references.kl(references.exact(p), references.exact(q))
    # The same few roundings, in float32.
    assert_allclose(kl_divergence(p, q), float(expected), rtol=8 * np.finfo(np.float32).eps)


@pytest.mark.parametrize(("dtype", "small"), [(np.float32, 1e-40), (np.float64, 1e-310)])
def test_kl_where_a_ratio_of_probabilities_overflows(dtype, small):
    p, q = np.array([[small, 1]], dtype), np.array([[0.5, 0.5]], dtype)
    # KL(p, q) is log 2 plus about p log p, and a class of probability 0 would say the same.
    assert_allclose(kl_divergence(p, q), [np.log(2)], rtol=4 * np.finfo(dtype).eps)
    assert_allclose(
        skew_jensen_divergence(p, q, 0.75),
        skew_jensen_divergence(np.array([[0, 1]], dtype), q, 0.75),
        rtol=4 * np.finfo(dtype).eps,
    )


def test_zeros():
    assert kl_divergence([1.0, 0.0], [1.0, 0.0]) == 0
    assert kl_divergence([0.5, 0.5], [1.0, 0.0]) == np.inf
    # One term, log 2.
    assert_allclose(kl_divergence([1.0, 0.0], [0.5, 0.5]), np.log(2), rtol=2 * EPS)
    # Disjoint: the mixture's entropy over alpha (1 - alpha).
    assert_allclose(skew_jensen_divergence([1, 0], [0, 1], 0.5), 4 * np.log(2), rtol=2 * EPS)


def test_scipy_agrees(p, q):
    # SciPy sums terms of both signs: up to 1 each, for results above 0.1.
    expected = scipy.special.rel_entr(p, q).sum(axis=-1)
    assert_allclose(kl_divergence(p, q), expected, rtol=1e-14)
    assert_allclose(kl_divergence(p, q), scipy.stats.entropy(p, q, axis=-1), rtol=1e-14)


@pytest.mark.parametrize("alpha", [1e-12, 1e-6, 0.1, 0.5, 0.9, 1 - 2**-20])
def test_skew_jensen_is_its_definition(alpha, p, q):
    expected = over_rows(lambda p, q: references.skew_jensen(p, q, alpha), p, q)
    # The definition divides a cancelled difference by alpha; ours adds terms of one sign.
    assert_allclose(skew_jensen_divergence(p, q, alpha), expected, rtol=8 * EPS)


@pytest.mark.parametrize("alpha", [1e-30, 1e-10, 0.3])
def test_skew_jensen_where_only_alpha_keeps_it_finite(alpha):
    p, q = np.array([[1.0, 0.0, 0.0]]), np.array([[0.0, 0.75, 0.25]])
    expected = over_rows(lambda p, q: references.skew_jensen(p, q, alpha), p, q)
    # 1 - alpha may round to 1, and alpha must not be lost with it.
    assert_allclose(skew_jensen_divergence(p, q, alpha), expected, rtol=8 * EPS)
    expected = over_rows(lambda p, q: references.skew_jensen(p, q, alpha), q, p)
    assert_allclose(skew_jensen_divergence(q, p, alpha), expected, rtol=8 * EPS)


@given(DISTRIBUTION_PAIRS)
def test_kl_is_never_negative(pair):
    p, q = pair
    assert kl_divergence(p, q) >= 0
    assert kl_divergence(p, p) == 0


@given(DISTRIBUTION_PAIRS, ALPHAS)
def test_skew_jensen_is_never_negative(pair, alpha):
    p, q = pair
    assert skew_jensen_divergence(p, q, alpha) >= 0
    assert skew_jensen_divergence(p, p, alpha) == 0


@given(DISTRIBUTION_PAIRS)
def test_skew_jensen_continues_into_its_kl_ends(pair):  # proposition 1
    for p, q in pair, pair[::-1]:
        assert skew_jensen_divergence(p, q, 0) == kl_divergence(q, p)
        assert skew_jensen_divergence(p, q, 1) == kl_divergence(p, q)
        # No ratio p/q is above 99**2, so alpha = 2^-40 moves it by a part in 2^26 at most.
        for alpha, end in (2.0**-40, kl_divergence(q, p)), (1 - 2.0**-40, kl_divergence(p, q)):
            assert_allclose(skew_jensen_divergence(p, q, alpha), end, rtol=2.0**-26, atol=0)


@pytest.mark.parametrize("alpha", [0, 0.3, 1])
def test_ends_of_alpha_have_the_batch_shape(alpha, p, q):
    p, q = p.reshape(2, 3, 4), q.reshape(2, 3, 4)
    assert skew_jensen_divergence(p, q, alpha).shape == (2, 3)


@given(DISTRIBUTION_PAIRS, ALPHAS)
def test_skew_jensen_turned_around_is_skewed_the_other_way(pair, alpha):
    p, q = pair
    turned = skew_jensen_divergence(q, p, 1 - alpha)
    # 1 - alpha may round, by eps / 4; a ratio p/q of at most 99**2 magnifies it.
    assert_allclose(skew_jensen_divergence(p, q, alpha), turned, rtol=99**2 * EPS, atol=0)


@given(DISTRIBUTION_PAIRS, ALPHAS)
def test_reversed_classes_have_the_same_divergence(pair, alpha):
    p, q = pair
    # The order of at most seven terms of one sign.
    for function in kl_divergence, lambda p, q: skew_jensen_divergence(p, q, alpha):
        assert_allclose(function(p[::-1], q[::-1]), function(p, q), rtol=8 * EPS, atol=0)
