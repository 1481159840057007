"""The divergences of `kd_notes.divergences`, in every backend: accuracy, limits, ends, errors.

The reference is the definition, summed by mpmath, as `f_divergences.py` writes it.
"""

import copy
import pickle
from unittest import mock

import f_divergences
import numpy as np
import pytest
from backends import BACKENDS, ENGINES, by_numpy
from mpmath import mp
from numpy import inf
from numpy.testing import assert_allclose, assert_array_equal
from references import exact
from rows import largest, softmax_of

import kd_notes as kd
from kd_notes import _kernel, kd_grad, kd_loss, kd_loss_and_grad
from kd_notes._f_divergences import as_formula
from kd_notes.divergences import (
    Alpha,
    ForwardKL,
    Jeffreys,
    JensenShannon,
    ReverseKL,
    SkewKL,
    SkewReverseKL,
    TotalVariation,
)

SMOOTH = [
    ReverseKL(),
    Jeffreys(),
    JensenShannon(0.5),
    JensenShannon(0.1),
    JensenShannon(1e-6),
    JensenShannon(0.999),
    SkewKL(0.1),
    SkewKL(1e-5),
    SkewKL(0.999),
    SkewReverseKL(0.1),
    SkewReverseKL(1e-5),
    SkewReverseKL(0.999),
    Alpha(0.5),
    Alpha(2),
    Alpha(-1),
    Alpha(0.01),
    Alpha(0.99),
    Alpha(1.5),
]
OTHERS = [*SMOOTH, TotalVariation()]
EVERY = [ForwardKL(), *OTHERS]
MIXTURES = [JensenShannon(0.3), SkewKL(0.2), SkewReverseKL(0.2)]
TEMPERATURES = [0.5, 1.0, 4.0, 100.0, 1e4, 1e6, inf]
PROMISE = 16

each_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])
of_every = pytest.mark.parametrize("divergence", EVERY, ids=str)
of_smooth = pytest.mark.parametrize("divergence", SMOOTH, ids=str)
of_others = pytest.mark.parametrize("divergence", OTHERS, ids=str)
each_backend = pytest.mark.parametrize("backend", BACKENDS.values(), ids=BACKENDS)
of_every_by_each_backend = pytest.mark.parametrize(
    ("divergence", "backend"),
    [
        pytest.param(divergence, backend, id=f"{divergence}-{name}")
        for divergence in EVERY
        for name, backend in BACKENDS.items()
    ],
)
each_temperature = pytest.mark.parametrize("temperature", TEMPERATURES)


# Accuracy


def examples(rng, tau, num_classes=5):
    """Yield pairs of logits of every kind, in units of the temperature but for the largest."""
    unit = min(tau, 1e4)
    v, noise, other = rng.normal(size=(3, num_classes)) * unit
    top, bottom = v == v.max(), v == v.min()
    yield "ordinary", 3 * noise, 2 * v
    yield "near", v + 1e-5 * noise, v
    yield "saturated teacher", noise, np.where(top, 60 * unit, v)
    yield "saturated student", np.where(top, 60 * unit, v), noise
    yield "one dominant", np.where(top, 20 * unit, v + noise / 10), np.where(top, 20 * unit, v)
    yield "opposed", np.where(top, 40 * unit, v), np.where(bottom, 30 * unit, v)
    yield "tied", np.sign(noise) * unit, 1.5 * np.sign(other) * unit
    yield "large", noise / unit * 1e4, other / unit * 1e4
    yield "offset", noise + 1e4, v
    yield "masked", np.where(bottom, -5e3, v + noise / 100), np.where(bottom, -1e4, v)
    yield "excluded", np.where(bottom, -inf, noise), np.where(bottom, -inf, v)


def true_values(divergence, z, v, tau):
    """Return the reference, at infinite temperature as that at a very high one.

    What is below the smallest normal number, and so beyond the digits, is exempt.
    """
    widest = max(np.ptp(x[x > -inf].astype(float)) for x in (z, v)) / tau
    with mp.workdps((120 if tau < inf else 250) + int(min(widest, 500))):
        temperature = mp.mpf(10) ** 80 if tau == inf else mp.mpf(tau)
        return f_divergences.reference(divergence, exact(z), exact(v), [1] * len(z), temperature)


def assert_promise(divergence, z, v, tau, kind):
    finfo = np.finfo(z.dtype)
    eps, tiny, huge = float(finfo.eps), float(finfo.tiny), float(finfo.max) / 2
    true = true_values(divergence, z, v, tau)
    bounds = [PROMISE * eps * (1 + condition) for condition in true[2:]]
    for name, backend in BACKENDS.items():
        loss, grad = backend(z, v, tau, divergence=divergence)
        assert loss >= 0, (name, kind)
        assert np.isfinite(grad).all(), (name, kind)
        if true.loss * max(1, tau**-2) > huge:  # it overflows
            continue
        error = abs(mp.mpf(float(loss)) - true.loss)
        assert error <= max(bounds[0] * true.loss, tiny), (name, kind)
        error = largest(mp.mpf(float(g)) - t for g, t in zip(grad, true.grad, strict=True))
        is_smooth = not isinstance(divergence, TotalVariation)
        if is_smooth or kind != "tied":  # where signs are of nothing
            assert error <= max(bounds[1] * largest(true.grad), tiny), (name, kind)


@each_dtype
@each_temperature
@of_others
def test_the_promise_is_kept(divergence, temperature, dtype, rng):
    for kind, z, v in examples(rng, temperature):
        assert_promise(divergence, z.astype(dtype), v.astype(dtype), temperature, kind)


@pytest.mark.slow
@each_dtype
@pytest.mark.parametrize("divergence", [ReverseKL(), *MIXTURES, Alpha(0.5)], ids=str)
def test_the_promise_is_kept_for_many_classes(divergence, dtype, rng):
    for kind, z, v in [*examples(rng, 4.0, num_classes=70)][:3]:
        assert_promise(divergence, z.astype(dtype), v.astype(dtype), 4.0, kind)


@of_others
def test_the_reference_has_its_own_derivatives(divergence, rng):
    """Central differences of the definition, one logit of one network at a time."""
    z, v = map(exact, rng.normal(size=(2, 3)))
    ones, h, logits = [1] * 3, mp.mpf(10) ** -30, z + v

    def at(logits):
        return f_divergences.reference(divergence, logits[:3], logits[3:], ones, mp.mpf(2))

    moves = []
    for i, x in enumerate(logits):
        up, down = (at([*logits[:i], x + s * h, *logits[i + 1 :]]) for s in (1, -1))
        changes = [
            a - b for a, b in zip([up.loss, *up.grad], [down.loss, *down.grad], strict=True)
        ]
        moves.append([abs(change / (2 * h) * x) for change in changes])
        if i < 3:
            assert abs(changes[0] / (2 * h) - at(logits).grad[i]) < 1e-20
    by_loss, *by_grad = map(sum, zip(*moves, strict=True))
    true = at(logits)
    assert abs(by_loss / true.loss - true.loss_condition) < 1e-20
    assert abs(max(by_grad) / largest(true.grad) - true.grad_condition) < 1e-20


@of_every
def test_the_gradient_is_the_derivative(divergence, rng):
    z, v = rng.normal(size=(2, 6))
    step = 1e-6 * np.eye(6)
    for tau in (1.0, 4.0):
        up, down = (kd_loss(z + s, v, tau, divergence=divergence) for s in (step, -step))
        # The third derivative, and the rounding of the loss over the step.
        assert_allclose(
            kd_grad(z, v, tau, divergence=divergence), (up - down) / 2e-6, rtol=0, atol=1e-8
        )


# Theorems


def limits():
    """Return λ of each divergence: where, from teacher to student, the skew is taken."""
    return {
        ForwardKL(): 1 / 3,
        ReverseKL(): 2 / 3,
        Jeffreys(): 1 / 2,
        JensenShannon(0.3): 1.3 / 3,
        SkewKL(0.2): (1 + 2 * 0.2) / 3,
        SkewReverseKL(0.2): 2 * (1 - 0.2) / 3,
        Alpha(0.5): 1.5 / 3,
        Alpha(2): 0,
        Alpha(-1): 1,
    }


@pytest.mark.parametrize(("divergence", "weight"), limits().items(), ids=str)
def test_the_first_correction_is_a_third_moment_on_the_way_to_the_student(divergence, weight, rng):
    z, v = rng.normal(size=(2, 7))
    d, v_centered = z - v - np.mean(z - v), v - v.mean()
    expected = np.mean(d**2 * (v_centered + weight * d)) / 2
    limit = kd_loss(z, v, inf, divergence=divergence)
    assert_allclose(limit, np.mean(d**2) / 2, rtol=1e-14)
    for tau in (1e3, 1e4):
        correction = tau * (kd_loss(z, v, tau, divergence=divergence) - limit)
        assert_allclose(correction, expected, rtol=0, atol=20 / tau)


def test_total_variation_tends_to_half_the_mean_distance_from_the_mean(rng):
    z, v = rng.normal(size=(2, 7))
    d = z - v - np.mean(z - v)
    expected = np.mean(np.abs(d)) / 2
    assert_allclose(kd_loss(z, v, inf, divergence="total_variation"), expected, rtol=1e-14)
    assert_allclose(kd_loss(z, v, 1e6, divergence="total_variation"), expected, rtol=1e-5)


@each_backend
@each_dtype
@pytest.mark.parametrize("size", [1.0, 1e37])
@of_smooth
def test_at_infinite_temperature_all_are_the_same_to_the_bit(
    divergence, size, dtype, backend, rng
):
    z, v = (rng.normal(size=(2, 5, 4)) * size).astype(dtype)
    z[1, 2] = v[1, 2] = -inf
    expected, results = (backend(z, v, inf, divergence=d) for d in ("forward_kl", divergence))
    for one, other in zip(results, expected, strict=True):
        assert_array_equal(one, other)


@each_backend
@each_dtype
def test_at_infinite_temperature_total_variation_counts_signs(dtype, backend):
    z, v = np.array([0, 0, -1e37], dtype), np.zeros(3, dtype)
    loss, grad = backend(z, v, inf, divergence="total_variation")
    assert_allclose(loss, 1e37 * 2 / 9, rtol=4 * np.finfo(dtype).eps)
    assert_allclose(grad, [1 / 9, 1 / 9, -2 / 9], rtol=4 * np.finfo(dtype).eps)


@each_dtype
@pytest.mark.parametrize("num_classes", [1, 2, 9, 64, 65, 129])
@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
@of_others
def test_a_row_is_the_same_to_the_bit_alone_and_in_a_batch(
    divergence, engine, num_classes, dtype, rng
):
    z, v = rng.normal(scale=3, size=(2, 4, num_classes)).astype(dtype)
    v[0] = z[0] + v[0] / 100
    v[1, 0], z[2, -1] = 1e4, 30
    for tau in (1.0, 1e3):
        with engine():
            batch = kd_loss_and_grad(z, v, tau, divergence=divergence)
            rows = [
                kd_loss_and_grad(*pair, tau, divergence=divergence)
                for pair in zip(z, v, strict=True)
            ]
        for i, alone in enumerate(rows):
            for one, many in zip(alone, batch, strict=True):
                assert_array_equal(one, many[i])


def around_the_border(divergence, dtype, rng):
    """Return rows, and which of them the compiled loops leave to NumPy."""
    from kd_notes._compiled_divergences import widest_span

    z, v = rng.normal(size=(2, 9, 7)).astype(dtype)
    widest = widest_span(as_formula(divergence), 7, np.dtype(dtype), 1.0)
    for x, row, share in [(z, 1, 0.99), (z, 2, 1.01), (v, 3, 0.99), (v, 4, 1.01)]:
        x[row, 0] = x[row].max() - share * widest
    z[5, 2] = v[5, 2] = z[6, 2] = v[7, 2] = -inf
    z[8, 3] = np.nan
    return z, v, [2, 4, 6, 7, 8]


@each_dtype
@pytest.mark.parametrize("engine", ["compiled", "compiled-rows"])
@pytest.mark.parametrize(
    "divergence", [*SMOOTH[:2], *MIXTURES, Alpha(0.5), TotalVariation()], ids=str
)
def test_what_the_compiled_loops_leave_is_computed_by_numpy(divergence, engine, dtype, rng):
    pytest.importorskip("numba")
    z, v, others = around_the_border(divergence, dtype, rng)
    by_formula = mock.patch.object(
        _kernel, "divergence_and_slope", wraps=_kernel.divergence_and_slope
    )
    for repeats in (1, 9):  # 9 · 9 are more than one group
        pair = np.tile(z, (repeats, 1)), np.tile(v, (repeats, 1))
        expected = by_numpy(*pair, 1.0, divergence=divergence)
        with by_formula as spy:
            results = BACKENDS[engine](*pair, 1.0, divergence=divergence)
        assert len(spy.call_args.args[1]) == repeats * len(others)
        for result, value in zip(results, expected, strict=True):
            result, value = (np.reshape(x, (repeats, 9, -1)) for x in (result, value))
            assert_array_equal(result[:, others], value[:, others])
            assert_array_equal(result, np.tile(result[:1], (repeats, 1, 1)))


@each_dtype
@pytest.mark.parametrize("divergence", [*SMOOTH[:2], *MIXTURES, Alpha(0.5), Alpha(2)], ids=str)
def test_the_promise_is_kept_around_the_border_of_ordinary_rows(divergence, dtype, rng):
    pytest.importorskip("numba")
    z, v, _ = around_the_border(divergence, dtype, rng)
    for i in range(6):
        assert_promise(divergence, z[i], v[i], 1.0, i)
    for i in range(1, 5):  # with the probabilities of both far from each other
        assert_promise(divergence, z[i], np.flip(v[i]).copy(), 1.0, i)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 1e4])
def test_the_natural_gradient_of_the_reverse_loss_is_logit_matching(temperature, rng):
    z, v = rng.normal(size=(2, 6, 5))
    fisher = kd.softmax_jacobian(z, temperature) * temperature  # times temperature squared
    expected = np.einsum("nij,nj->ni", fisher, z - v)
    grad = kd_grad(z, v, temperature, divergence="reverse_kl")
    assert_allclose(grad, expected, rtol=0, atol=1e-15)  # sums of five products of order 1


@each_backend
@each_dtype
@each_temperature
def test_the_ends_are_forward_and_reverse_to_the_bit(temperature, dtype, backend, rng):
    z, v = rng.normal(scale=3, size=(2, 20, 6)).astype(dtype)
    ends = {
        "forward_kl": [ForwardKL(), JensenShannon(0), SkewKL(0), Alpha(1)],
        "reverse_kl": [ReverseKL(), JensenShannon(1), SkewReverseKL(0), Alpha(0)],
    }
    for name, same in ends.items():
        expected = backend(z, v, temperature, divergence=name)
        for divergence in same:
            for result, value in zip(
                backend(z, v, temperature, divergence=divergence), expected, strict=True
            ):
                assert_array_equal(result, value)
    default = backend(z, v, temperature)
    assert_array_equal(default[0], backend(z, v, temperature, divergence="forward_kl")[0])


def test_known_relations(rng):
    z, v = rng.normal(size=(2, 8, 5))
    q, p = kd.softmax(z), kd.softmax(v)

    def loss(divergence, student=z, teacher=v):
        return kd_loss(student, teacher, divergence=divergence)

    close = {"rtol": 1e-12}
    assert_allclose(loss(ReverseKL()), loss(ForwardKL(), v, z), **close)
    assert_allclose(loss(Jeffreys()), (loss(ForwardKL()) + loss(ReverseKL())) / 2, **close)
    assert_allclose(loss(JensenShannon(0.3)), loss(JensenShannon(0.7), v, z), **close)
    assert_allclose(loss(SkewKL(0.3)), loss(SkewReverseKL(0.3), v, z), **close)
    assert_allclose(loss(JensenShannon(0.3)), kd.skew_jensen_divergence(p, q, 0.7), **close)
    assert_allclose(loss(Alpha(2)), np.sum((p - q) ** 2 / q, axis=-1) / 2, **close)
    assert_allclose(loss(Alpha(-1)), np.sum((p - q) ** 2 / p, axis=-1) / 2, **close)
    assert_allclose(loss(TotalVariation()), np.sum(abs(p - q), axis=-1) / 2, **close)


@pytest.mark.parametrize(
    ("divergence", "plain", "second"),
    [
        (JensenShannon(0.3), JensenShannon(0.3, normalized=False), 0.21),
        (SkewKL(0.1), SkewKL(0.1, normalized=False), 0.81),
        (SkewReverseKL(0.1), SkewReverseKL(0.1, normalized=False), 0.81),
    ],
)
def test_without_normalization_it_is_times_the_second_derivative(divergence, plain, second, rng):
    z, v = rng.normal(size=(2, 4, 5))
    normalized, other = (kd_loss_and_grad(z, v, 2.0, divergence=d) for d in (divergence, plain))
    assert_allclose(other[0], second * normalized[0], rtol=1e-14)
    assert_allclose(other[1], second * normalized[1], rtol=1e-13)


@of_every_by_each_backend
@each_temperature
def test_equal_logits_cost_nothing_and_rows_sum_to_zero(temperature, divergence, backend, rng):
    z, v = rng.normal(scale=3, size=(2, 100, 12))
    z[20:] = np.minimum(z[20:], z[20:, 3:4])  # where several classes share the top
    for scaled in (True, False):
        loss, grad = backend(z, z, temperature, scaled, divergence=divergence)
        assert not loss.any()
        assert not grad.any()
        grad = backend(z, v, temperature, scaled, divergence=divergence)[1]
        assert_allclose(grad.sum(axis=-1), 0, atol=1e-14 * np.abs(grad).max())


# Excluded classes


@each_backend
@pytest.mark.parametrize("mixture", [JensenShannon, SkewKL, SkewReverseKL])
def test_the_smallest_weight_in_a_mixture_is_a_normal_number(mixture, backend, rng):
    z, v = rng.normal(size=(2, 5, 3)).astype(np.float32)
    z[0, 0], v[0, 0] = 5, 1800
    z[1, 0], v[1, 0] = 1800, 5
    for tau in (1.0, 1e-30, inf):
        results, expected = (
            backend(z, v, tau, divergence=mixture(weight)) for weight in (1e-50, 1e-20)
        )
        for one, other in zip(results, expected, strict=True):
            assert_array_equal(one, other)
            assert np.isfinite(one).all()


@pytest.mark.parametrize("temperature", [1.0, 1e4, inf])
@of_every_by_each_backend
def test_what_only_one_network_excludes(divergence, temperature, backend):
    kept, excluded = [1.0, 0.0, 2.0], [0.5, 0.0, -inf]
    costly = {  # an infinite loss for what the student alone, or the teacher alone, excludes
        ForwardKL: (True, False),
        ReverseKL: (False, True),
        Jeffreys: (True, True),
    }.get(type(divergence), (False, False))
    if isinstance(divergence, Alpha):
        costly = divergence.alpha >= 1, divergence.alpha <= 0
    pairs = [(excluded, kept), (kept, excluded)]
    for (z, v), is_costly in zip(pairs, costly, strict=True):
        z, v = np.array(z), np.array(v)
        for scaled in (True, False):
            loss, grad = backend(z, v, temperature, scaled, divergence=divergence)
            assert (loss == inf) == (is_costly or (scaled and temperature == inf))
            assert loss > 0
            assert np.isfinite(grad).all()


@each_dtype
@pytest.mark.parametrize("temperature", [5e37, 1e305, inf])
@of_every_by_each_backend
def test_what_only_one_network_excludes_has_a_finite_gradient_at_every_temperature(
    divergence, temperature, dtype, backend
):
    kept, excluded = np.array([0, 2, 1], dtype), np.array([-inf, 0, 1], dtype)
    for pair in [(excluded, kept), (kept, excluded), (excluded, excluded[::-1].copy())]:
        for scaled in (True, False):
            loss, grad = backend(*pair, temperature, scaled, divergence=divergence)
            assert loss > 0
            assert np.isfinite(grad).all()


@of_every_by_each_backend
@pytest.mark.parametrize("temperature", [2.0, inf])
def test_what_both_exclude_does_not_count_and_nan_stays_in_its_row(
    temperature, divergence, backend, rng
):
    z, v = rng.normal(size=(2, 5, 4))
    expected = backend(z, v, temperature, divergence=divergence)
    wide = [np.insert(x, 2, -inf, axis=-1) for x in (z, v)]
    loss, grad = backend(*wide, temperature, divergence=divergence)
    assert_allclose(loss, expected[0], rtol=1e-14)
    assert_allclose(np.delete(grad, 2, axis=-1), expected[1], rtol=0, atol=1e-14)
    assert not grad[:, 2].any()
    z[1, 0], v[3, 1] = np.nan, np.nan
    loss, grad = backend(z, v, temperature, divergence=divergence)
    assert np.isnan(loss[[1, 3]]).all()
    assert np.isnan(grad[[1, 3]]).all()
    well = [0, 2, 4]
    assert_allclose(loss[well], expected[0][well], rtol=1e-14)
    assert_allclose(grad[well], expected[1][well], rtol=0, atol=1e-14)


@of_every_by_each_backend
@pytest.mark.parametrize("temperature", [2.0, inf])
@pytest.mark.parametrize("scaled", [True, False])
def test_where_no_loss_is_defined_no_gradient_is(temperature, divergence, backend, scaled, rng):
    z, v = rng.normal(size=(2, 5, 4))
    z[0], v[1] = -inf, -inf
    z[2, 3], v[3, 2] = inf, inf
    z[4], v[4] = -inf, -inf
    loss, grad = backend(z, v, temperature, scaled, divergence=divergence)
    assert np.isnan(loss).all()
    assert np.isnan(grad).all()


@each_dtype
@of_every_by_each_backend
@pytest.mark.parametrize("temperature", [0.01, 0.5, 1.0, 2.0])
def test_a_class_masked_by_the_lowest_number_is_as_one_excluded(
    temperature, divergence, dtype, backend
):
    z, v = np.array([1, 0, -inf], dtype), np.array([0, 1, -inf], dtype)
    expected = backend(z, v, temperature, divergence=divergence)
    lowest = np.where([False, False, True], np.finfo(dtype).min, [z, v]).astype(dtype)
    for pair in [lowest, (z, lowest[1]), (lowest[0], v)]:
        loss, grad = backend(*pair, temperature, divergence=divergence)
        if loss < inf or pair is lowest:
            assert_allclose(loss, expected[0], rtol=8 * np.finfo(dtype).eps)
        assert_allclose(grad, expected[1], rtol=8 * np.finfo(dtype).eps)


@each_backend
@each_dtype
@pytest.mark.parametrize("alpha", [-0.1, -0.5, -2.0, 1.5, 3.0])
@pytest.mark.parametrize("num_classes", [2, 3, 64, 65])
def test_where_the_loss_overflows_the_gradient_is_a_number(num_classes, alpha, dtype, backend):
    z, v = np.zeros((2, num_classes), dtype)
    v[-1], z[0] = -1e4, 1
    for pair in [(z, v), (v, z), (z * 0, v)]:
        loss, grad = backend(*pair, 1.0, divergence=Alpha(alpha))
        assert not np.isnan(loss)
        assert np.isfinite(grad).all()


@each_backend
@each_dtype
def test_the_gradient_of_total_variation_is_accurate_where_the_student_is_sure(dtype, backend):
    z, v = np.array([30, 0], dtype), np.zeros(2, dtype)
    grad = backend(z, v, 1.0, divergence="total_variation")[1]
    expected = 1 / (4 * np.cosh(15.0) ** 2)  # q₁ q₂
    assert_allclose(grad, [expected, -expected], rtol=4 * np.finfo(dtype).eps)


# The teacher's own temperature


@each_backend
@each_dtype
@pytest.mark.parametrize("divergence", [ForwardKL(), ReverseKL(), JensenShannon(0.3)], ids=str)
def test_two_temperatures_are_one_and_a_teacher_multiplied(divergence, dtype, backend, rng):
    z, v = rng.normal(size=(2, 6, 5)).astype(dtype)
    v[0, 0] = z[0, 0] = -inf
    pairs = [(4.0, 2.0, 2.0), (2.0, 8.0, 0.25), (1.0, inf, 0.0), (inf, inf, 1.0), (3.0, 3.0, 1.0)]
    for tau, own, factor in pairs:
        given = backend(z, v, tau, divergence=divergence, teacher_temperature=own)
        multiplied = np.where(v == -inf, v, v * dtype(factor) if factor else 0 * np.maximum(v, 0))
        expected = backend(z, multiplied.astype(dtype), tau, divergence=divergence)
        for result, value in zip(given, expected, strict=True):
            assert_array_equal(result, value)


FAR_APART = [
    (np.float32, [1e9, 2e9, 3e9], 1.0, 1e-30, True),
    (np.float32, [1, 2, 3], 4.0, 1e-38, True),
    (np.float32, [1, 2, 3], 1e20, 1e-20, False),
    (np.float32, [1, -inf, 3], 1.0, 1e-38, True),
    (np.float32, [1e-12, 0, -1e-12], 1e15, 1e-25, True),  # their ratio is no float32
    (np.float32, [1e10, 0, -1e10], 1e-36, 1e8, False),
    (np.float64, [1, 2, 3], 1.0, 1e-308, True),
]


@each_backend
@pytest.mark.parametrize(("dtype", "teacher", "tau", "own", "scaled"), FAR_APART)
def test_two_temperatures_may_be_far_apart(dtype, teacher, tau, own, scaled, backend):
    z, v = np.array([0, 1, 0], dtype), np.array(teacher, dtype)
    loss, grad = backend(z, v, tau, scaled, teacher_temperature=own)
    with mp.workdps(60):
        factor = mp.mpf(tau) / mp.mpf(own)
        at_one = [factor * mp.mpf(x) for x in v.tolist()]
        unit = tau**2 if scaled else 1
        with mp.workdps(400):
            q, p = (softmax_of(x, [1] * 3, mp.mpf(tau))[0] for x in (exact(z), at_one))
            true = sum(a * mp.log(a / b) for a, b in zip(p, q, strict=True) if a)
        assert_allclose(loss, float(unit * true), rtol=32 * np.finfo(dtype).eps)
        slope = [float(unit / tau * (b - a)) for a, b in zip(p, q, strict=True)]
        assert_allclose(grad, slope, rtol=0, atol=32 * np.finfo(dtype).eps * max(slope))


@each_backend
@pytest.mark.parametrize(("tau", "own"), [(1.0, 1e-320), (1e-160, 1e160), (1e200, 1e-200)])
def test_a_ratio_of_temperatures_that_is_no_normal_number_is_refused(tau, own, backend):
    message = "temperature / teacher_temperature must be between 2.2e-308 and 1.8e"
    with pytest.raises(ValueError, match=message):
        backend(np.ones(3), np.ones(3), tau, teacher_temperature=own)


def test_in_the_limit_the_teacher_counts_as_much_more(rng):
    z, v = rng.normal(size=(2, 5))
    limit = kd.regularized_logit_matching_loss(z, 2 * v)
    assert_allclose(kd_loss(z, v, 1e8, teacher_temperature=5e7), limit, rtol=1e-6)


def test_the_mixture_with_labels_takes_both(rng):
    z, v = rng.normal(size=(2, 4, 5))
    options = {"divergence": JensenShannon(0.3), "teacher_temperature": 2.0}
    soft, soft_grad = kd_loss_and_grad(z, v, 4.0, **options)
    hard, hard_grad = (
        kd.cross_entropy_loss(z, [0, 1, 2, 3]),
        kd.cross_entropy_grad(z, [0, 1, 2, 3]),
    )
    arguments = (z, v, [0, 1, 2, 3], 4.0, 0.25)
    loss = kd.knowledge_distillation_loss(*arguments, **options)
    assert_array_equal(loss, 0.75 * hard + 0.25 * soft)
    grad = kd.knowledge_distillation_grad(*arguments, **options)
    assert_array_equal(grad, 0.75 * hard_grad + 0.25 * soft_grad)


# The dataclasses, and what is refused


@of_every
def test_a_divergence_is_a_value(divergence):
    for same in (pickle.loads(pickle.dumps(divergence)), copy.deepcopy(divergence)):
        assert same == divergence
        assert hash(same) == hash(divergence)
    assert eval(repr(divergence)) == divergence
    with pytest.raises(AttributeError):
        divergence.alpha = 0.5


def test_fields_are_python_numbers():
    assert type(JensenShannon(np.float32(0.5)).beta) is float
    assert type(SkewKL(0, normalized=np.True_).normalized) is bool
    assert JensenShannon(1) == JensenShannon(1.0) != JensenShannon(0.5)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: JensenShannon(1.5), ValueError, r"beta must be between 0 and 1; got 1\.5"),
        (lambda: JensenShannon(np.nan), ValueError, "beta must be between 0 and 1; got nan"),
        (lambda: JensenShannon("half"), TypeError, "beta must be a real number; got 'half'"),
        (lambda: JensenShannon(1, normalized=False), ValueError, "above 0 and below 1"),
        (lambda: JensenShannon(0.5, normalized=1), TypeError, "normalized must be True or False"),
        (lambda: SkewKL(1), ValueError, "alpha must be below 1"),
        (lambda: SkewReverseKL(-0.1), ValueError, "alpha must be between 0 and 1"),
        (lambda: SkewReverseKL(1), ValueError, "alpha must be below 1"),
        (lambda: Alpha(inf), ValueError, "alpha must be finite; got inf"),
        (lambda: Alpha(None), TypeError, "alpha must be a real number; got None"),
    ],
)
def test_wrong_fields_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


@each_backend
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"divergence": "kl"}, ValueError, r"must be one of \['forward_kl', .* got 'kl'"),
        ({"divergence": None}, TypeError, "divergence must be one of .* got None"),
        ({"divergence": ReverseKL}, TypeError, "divergence must be one of .* got <class"),
        ({"teacher_temperature": 0}, ValueError, "teacher_temperature must be greater than 0"),
        ({"teacher_temperature": "2"}, TypeError, "teacher_temperature must be a real number"),
    ],
)
def test_wrong_options_are_refused(options, error, message, backend):
    with pytest.raises(error, match=message):
        backend(np.ones(3), np.ones(3), 2.0, **options)


@each_backend
def test_an_infinite_temperature_of_the_student_alone_is_refused(backend):
    with pytest.raises(ValueError, match="temperature / teacher_temperature must be finite"):
        backend(np.ones(3), np.ones(3), inf, teacher_temperature=2.0)


@pytest.mark.parametrize("alpha", [0.25, 0.5, 2.0, 3.0])
def test_the_renyi_divergence_is_an_integral_over_a_triangle(alpha, rng):  # proposition 6
    student, teacher = rng.normal(scale=2, size=(2, 5))
    tau, difference = 3.0, student - teacher
    divergence = kd_loss(student, teacher, tau, divergence=Alpha(alpha), scaled=False)
    renyi = np.log1p(alpha * (alpha - 1) * divergence) / (alpha - 1)
    start, peak = min(0, 1 - alpha), max(0, 1 - alpha)
    x, weights = np.polynomial.legendre.leggauss(40)

    def integral(left, right, triangle):
        t = (left + right + x * (right - left)) / 2
        p = kd.softmax(teacher + t[:, np.newaxis] * difference, tau)
        mean = (p * difference).sum(axis=-1, keepdims=True)
        variance = (p * (difference - mean) ** 2).sum(axis=-1)
        return (right - left) / 2 * np.sum(weights * triangle(t) * variance)

    rising = integral(start, peak, lambda t: (t - start) * min(alpha, 1) / (peak - start))
    falling = integral(peak, 1, lambda t: 1 - t)
    assert_allclose(tau**2 * renyi, rising + falling, rtol=1e-12)
