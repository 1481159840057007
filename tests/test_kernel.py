"""The promise: loss and gradient within 16 eps (1 + condition number) at every temperature.

The reference takes the floats as exact. It sums the divergence from its definition, with
so many digits that 50 are left of the smallest one (a saturated divergence can be 1e-80).
The condition number is with respect to all logits: of the loss the sum of |dL/dz z| over
both networks, divided by L; of the gradient g the largest row sum of |dg/dz z|, divided
by the largest |g|. What lies below the smallest normal number is exempt. The promise is to
first order in eps; where the networks agree to within the rounding of their logits, one test
holds the second order.
"""

import tracemalloc
from operator import mul
from unittest import mock

import numpy as np
import pytest
import references
from backends import BACKENDS, ENGINES
from mpmath import mp
from numpy.testing import assert_array_equal
from references import exact

from kd_notes import _formulas, _kernel, kd_grad, kd_loss, kd_loss_and_grad, log_softmax, softmax

DTYPES = [np.float32, np.float64]
TEMPERATURES = [0.01, 0.5, 1.0, 4.0, 20.0, 1e3, 1e4, 1e6, 1e12, np.inf]
PROMISE = 16

each_dtype = pytest.mark.parametrize("dtype", DTYPES)
each_temperature = pytest.mark.parametrize("temperature", TEMPERATURES)
each_engine = pytest.mark.usefixtures("engine")


@pytest.fixture(params=ENGINES.values(), ids=ENGINES)
def engine(request):
    with request.param():
        yield


def reference(z, v, temperature):
    """Return tau^2 KL, its gradient, and the condition numbers of both, for one row."""
    z, v = exact(z), exact(v)
    if temperature == np.inf:
        return reference_at_infinity(z, v)
    tau = mp.mpf(temperature)
    q, p = references.softmax(z, tau), references.softmax(v, tau)
    ratio = [mp.log(p_i / q_i) for p_i, q_i in zip(p, q, strict=True)]
    kl = sum(map(mul, p, ratio))
    grad = [q_i - p_i for p_i, q_i in zip(p, q, strict=True)]
    by_teacher = [p_i * (r_i - kl) for p_i, r_i in zip(p, ratio, strict=True)]
    of_loss = (size(grad, z) + size(by_teacher, v)) / tau / kl if kl else 0
    bends = map(sum, zip(bend(q, z), bend(p, v), strict=True))
    largest = max(map(abs, grad))
    of_grad = max(bends) / tau / largest if largest else 0
    return tau**2 * kl, [tau * g for g in grad], of_loss, of_grad


def reference_at_infinity(z, v):
    loss = references.regularized_logit_matching(z, v)
    grad = references.regularized_logit_matching_grad(z, v)
    uniform = [mp.mpf(1) / len(z)] * len(z)
    of_loss = (size(grad, z) + size(grad, v)) / loss if loss else 0
    bends = map(sum, zip(bend(uniform, z), bend(uniform, v), strict=True))
    largest = max(map(abs, grad))
    return loss, grad, of_loss, max(bends) / largest if largest else 0


def size(derivative, logits):
    return sum(map(abs, map(mul, derivative, logits)))


def bend(p, logits):
    """Return the row sums of |p_i (delta_ij - p_j) z_j|."""
    mean = size(p, logits)
    return [p_i * ((1 - 2 * p_i) * abs(z) + mean) for p_i, z in zip(p, logits, strict=True)]


def digits(z, v, temperature):
    """Return enough digits for the smallest probability, squared, and 50 more."""
    widest = max(np.ptp(z.astype(float)), np.ptp(v.astype(float)))
    return 60 + int(2 * min(widest / temperature, 1000) / np.log(10)) + 30


def outlying_top(rng, v, scale, tau):
    """A class far above the others, whose logits differ by the mean difference: no slope."""
    others = v != v.max()
    nudge = np.where(others, rng.normal(size=v.size), 0)
    nudge -= others * nudge.sum() / others.sum()
    teacher = np.where(others, v / scale, 1e4)
    return teacher, teacher + 0.02 * nudge


def masked(rng, v, scale, tau):
    """Nearly equal, but for a class that each network masks by a finite number of its own."""
    mask = v == v.min()
    teacher, student = v / scale, v / scale + 0.02 * rng.normal(size=v.size)
    return np.where(mask, -1e4, teacher), np.where(mask, -5e3, student)


ROWS = {
    "outlying top": outlying_top,
    "masked": masked,
    "random": lambda rng, v, scale, tau: (v, rng.permutation(v) * rng.choice([0.1, 1, 3])),
    "near": lambda rng, v, scale, tau: (v, v + rng.normal(size=v.size) * scale * 1e-5),
    "one changed": lambda rng, v, scale, tau: (v, np.where(v == v.min(), v * 1.001, v)),
    "rescaled": lambda rng, v, scale, tau: (v, v * 1.01),
    "shifted": lambda rng, v, scale, tau: (v, v + 1000),
    "offset": lambda rng, v, scale, tau: (v / scale + 1e4, rng.normal(size=v.size) + 1e4),
    "ties": lambda rng, v, scale, tau: (np.sign(v) * scale, np.sign(rng.permutation(v)) * scale),
    "saturated teacher": lambda rng, v, scale, tau: (
        np.where(v == v.max(), 90 * tau, v / scale),
        rng.permutation(v),
    ),
    "both saturated": lambda rng, v, scale, tau: (
        np.where(v == v.max(), 90 * tau, v / scale),
        np.where(v == v.max(), 80 * tau, v / scale),
    ),
    "one far": lambda rng, v, scale, tau: (v / 100, np.where(v == v.min(), scale, v / 101)),
    "uniform teacher": lambda rng, v, scale, tau: (0 * v, v),
    "just apart": lambda rng, v, scale, tau: (  # with 1500 classes, KL is just above 1/4
        0 * v,
        np.where(v == v.max(), tau * np.log(v.size / 3.3), 0),
    ),
    "equal": lambda rng, v, scale, tau: (v, v),
}


def example(kind, num_classes, temperature, dtype, rng):
    """Return a row of each network's logits, up to 1e4 or 300 temperatures in size."""
    scale = 10 ** rng.uniform(-3, 4)
    spread = min(temperature, 1e4)
    teacher, student = ROWS[kind](rng, rng.normal(size=num_classes) * scale, scale, spread)
    return student.astype(dtype), teacher.astype(dtype)


def assert_promise(student, teacher, temperature):
    eps, tiny = (float(getattr(np.finfo(student.dtype), name)) for name in ("eps", "tiny"))
    with mp.workdps(digits(student, teacher, temperature)):
        true, true_grad, of_loss, of_grad = reference(student, teacher, temperature)
        largest = max(map(abs, true_grad))
        for name, loss_and_grad in BACKENDS.items():
            loss, grad = loss_and_grad(student, teacher, temperature)
            error = abs(mp.mpf(float(loss)) - true)
            assert error <= max(PROMISE * eps * (1 + of_loss) * true, tiny), name
            error = max(abs(mp.mpf(float(g)) - t) for g, t in zip(grad, true_grad, strict=True))
            assert error <= max(PROMISE * eps * (1 + of_grad) * largest, tiny), name


@each_dtype
@each_temperature
@pytest.mark.parametrize("kind", ROWS)
def test_the_promise_is_kept(kind, temperature, dtype, rng):
    for num_classes in [2, 3, 10, 33, 65]:
        assert_promise(*example(kind, num_classes, temperature, dtype, rng), temperature)


@each_dtype
@pytest.mark.parametrize("share", [1e-30, 1e-8, 0.3, 1.0])
@pytest.mark.parametrize("num_classes", [2, 3, 65])
def test_at_infinite_temperature_logits_are_as_large_as_their_dtype_allows(
    num_classes, share, dtype, rng
):
    pair = rng.uniform(-1, 1, size=(2, num_classes)) * share * float(np.finfo(dtype).max)
    student, teacher = pair.astype(dtype)
    true, true_grad, _, of_grad = reference(student, teacher, np.inf)
    bound = PROMISE * float(np.finfo(dtype).eps) * (1 + of_grad) * max(map(abs, true_grad))
    for name, loss_and_grad in BACKENDS.items():
        loss, grad = loss_and_grad(student, teacher, np.inf)
        assert np.isfinite(loss) == (true <= float(np.finfo(dtype).max)), name
        error = max(abs(mp.mpf(float(g)) - t) for g, t in zip(grad, true_grad, strict=True))
        assert error <= bound, name


@each_dtype
@pytest.mark.parametrize("share", [1e-30, 1e-5, 0.4])
def test_the_gradient_for_a_class_that_the_teacher_excludes_grows_with_any_temperature(
    share, dtype
):
    tau = share / float(np.finfo(dtype).tiny)
    student, teacher = np.array([0, 0, 1], dtype), np.array([0, 1, -np.inf], dtype)
    for loss_and_grad in BACKENDS.values():
        grad = loss_and_grad(student, teacher, tau)[1] / tau
        np.testing.assert_allclose(grad, [-1 / 6, -1 / 6, 1 / 3], rtol=4 * np.finfo(dtype).eps)


@each_dtype
def test_a_probability_below_the_smallest_normal_number_may_count_as_zero(dtype):
    """Only there: where it is not, the promise holds; where it is, the loss may be too small."""
    tau, tiny = 1e12, float(np.finfo(dtype).tiny)
    for gap, is_promised in [(0.97, True), (1.2, False)]:
        top = -np.log(tiny) * gap * tau
        student, teacher = np.array([top, 0, tau], dtype), np.array([top, 0, 0], dtype)
        if is_promised:
            assert_promise(student, teacher, tau)
        with mp.workdps(1000):
            true = reference(student, teacher, tau)[0]
        for loss_and_grad in BACKENDS.values():
            loss, grad = loss_and_grad(student, teacher, tau)
            assert 0 <= loss <= 1.01 * true
            assert np.isfinite(grad).all()


@pytest.mark.slow
@each_dtype
@pytest.mark.parametrize("temperature", [0.5, 4.0, 1e4, np.inf])
def test_the_promise_is_kept_for_many_classes(temperature, dtype, rng):
    for kind in ["random", "near", "saturated teacher", "just apart"]:
        assert_promise(*example(kind, 1500, temperature, dtype, rng), temperature)


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "temperature"), [(np.float32, 1e6), (np.float64, 4.0)])
def test_the_promise_is_kept_for_a_hundred_thousand_classes(dtype, temperature, rng):
    assert_promise(*example("random", 100_000, temperature, dtype, rng), temperature)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_classes", "logit", "temperature"),
    [(1_800, 4.152338027954102, 1.0), (95_000, 162.55934143066406, 20.0)],
)
def test_the_promise_is_kept_where_the_rounding_of_a_logarithm_weighs_most(
    num_classes, logit, temperature
):
    """KL is just above 1/32, an earlier threshold, and the rounding of log r adds to the error."""
    student, teacher = np.zeros((2, num_classes), np.float32)
    student[0] = logit
    assert_promise(student, teacher, temperature)


def test_the_promise_is_kept_where_the_rounding_of_an_exponential_weighs_most():
    """NumPy's exponential has an error of nearly two eps here, and KL is just above 1/32."""
    student = np.array([-0.08424664288759232, 0.23121336102485657], np.float32)
    teacher = np.array([0.17171047627925873, -0.02474375255405903], np.float32)
    assert_promise(student, teacher, 1.0)


@pytest.mark.slow
@each_dtype
@pytest.mark.parametrize(
    ("counts", "student", "teacher"),
    [
        # The rounding of one exponential weighs as much as the thousands of its kind.
        ([1, 12030, 27], [0.327065289, 0.0, -29.04181671], [1.34298825, 0.0, 0.0]),
        # The student all but excludes the teacher's top class, which is one of many.
        ([10077, 7, 21], [5.4686e-05, -4.471438, -18.71315], [-1.368e-06, 0.0207426, 0.1432179]),
        ([2, 26682, 1], [-0.0018646584, -5.0711245, -15.722132], [0.0415677, -0.0964816, -0.1069]),
    ],
)
def test_the_promise_is_kept_where_a_search_for_the_worst_ends(counts, student, teacher, dtype):
    z, v = (np.repeat(np.array(row, dtype), counts) for row in (student, teacher))
    assert_promise(z, v, 1.0)


@each_dtype
def test_the_second_order_is_that_of_rounded_logits(dtype):
    """0.5 − v is rounded up for one class and down for the other, and KL is far below eps²."""
    eps = float(np.finfo(dtype).eps)
    half, low = eps / 8, np.array([-np.log(eps) * 2.3, -np.log(eps) * 2.2])
    student = np.array([0.5, 0.5, -low[0]], dtype)
    teacher = np.array([half * (1 - 2**-20), half * (1 + 2**-20), -low[1]], dtype)
    with mp.workdps(digits(student, teacher, 1.0)):
        true, _, of_loss, _ = reference(student, teacher, 1.0)
        second = (np.abs(student) + np.abs(teacher))[0] ** 2 * 2 * eps**2
        for loss_and_grad in BACKENDS.values():
            error = abs(mp.mpf(float(loss_and_grad(student, teacher, 1.0)[0])) - true)
            assert error > PROMISE * eps * (1 + of_loss) * true  # the first order is exceeded
            assert error <= PROMISE * (eps * (1 + of_loss) * true + second)


def test_the_promise_is_kept_in_a_crowd(rng):
    """Some errors occur once in ten thousand rows; float64 is precise enough as the reference."""
    scale = rng.uniform(0.2, 0.6, size=(1_000_000, 1))
    logits = rng.normal(scale=scale, size=(2, 1_000_000, 2)).astype(np.float32)
    z, v = logits.astype(np.float64)
    true = kd_loss(z, v)
    p, q, log_ratio = softmax(v), softmax(z), log_softmax(v) - log_softmax(z)
    moves = abs((q - p) * z) + abs(p * (log_ratio - true[:, np.newaxis]) * v)
    unit = (1 + moves.sum(axis=1) / true) * np.finfo(np.float32).eps
    assert (abs(kd_loss(*logits) / true - 1) / unit).max() <= PROMISE


@each_engine
@each_dtype
@pytest.mark.parametrize("temperature", [1e-320, 1e-40, 1e20, 1e160])
@pytest.mark.parametrize("num_classes", [3, 100])
def test_no_temperature_is_too_extreme(num_classes, temperature, dtype, rng):
    student, teacher = rng.normal(size=(2, 3, num_classes)).astype(dtype)
    teacher[0, 0] = student[1, 1] = teacher[1, 1] = -np.inf
    loss, grad = kd_loss_and_grad(student, teacher, temperature)
    assert (loss >= 0).all()
    assert np.isfinite(grad).all()
    assert not np.isnan(kd_grad(student, teacher, temperature, scaled=False)).any()
    finite = np.isfinite(loss)
    cold = max(temperature, 1 / float(np.finfo(dtype).max))  # lower ones count as this
    expected = kd_loss(student.astype(float), teacher.astype(float), cold)
    np.testing.assert_allclose(loss[finite], expected[finite], rtol=1e-5, atol=cold / 1e30)


@each_dtype
def test_temperatures_beyond_a_dtype_count_as_infinite_and_as_the_lowest(dtype, rng):
    student, teacher = rng.normal(size=(2, 3)).astype(dtype)
    tiny, huge = (float(getattr(np.finfo(dtype), name)) for name in ("tiny", "max"))
    for temperature, counts_as in [(2 / tiny, np.inf), (0.5 / huge, 1 / huge)]:
        for loss_and_grad in BACKENDS.values():
            results = loss_and_grad(student, teacher, temperature)
            for one, other in zip(
                results, loss_and_grad(student, teacher, counts_as), strict=True
            ):
                assert_array_equal(one, other)


@each_dtype
@pytest.mark.parametrize("num_classes", [1, 2, 9, 40])
def test_a_zero_has_the_same_sign_alone_and_in_a_batch(num_classes, dtype):
    student, teacher = np.full((2, num_classes), -0.0, dtype), np.zeros((2, num_classes), dtype)
    for name, loss_and_grad in BACKENDS.items():
        together = loss_and_grad(student, teacher, 1.0)[1]
        alone = loss_and_grad(student[0], teacher[0], 1.0)[1]
        assert alone.tobytes() == together[0].tobytes(), name


@each_dtype
def test_the_series_is_right_to_the_last_units(dtype):
    reach = _formulas.REACH
    d = np.concatenate([np.linspace(-reach, reach, 501), [1e-30, -1e-10, 1e-5]]).astype(dtype)
    one, coefficients = np.ones_like(d), _formulas.COTH[np.dtype(dtype).name]
    expm1, phi = _formulas._series(one, one, d, coefficients)
    with mp.workdps(200):
        true = [mp.expm1(a) / a if a else mp.mpf(1) for a in exact(d)]
        true_phi = [(mp.exp(a) - 1 - a) / a**2 if a else mp.mpf(0.5) for a in exact(d)]
        for computed, expected in [(expm1, true), (phi, true_phi)]:
            errors = [
                abs(mp.mpf(float(c)) / t - 1) for c, t in zip(computed, expected, strict=True)
            ]
            # The quotient, the products and the difference at its end are rounded once each.
            assert max(errors) <= 2 * np.finfo(dtype).eps


def test_the_coefficients_are_those_of_the_interpolating_polynomial():
    for name, coefficients in _formulas.COTH.items():
        n, reach = len(coefficients), mp.mpf(str(_formulas.REACH))
        squares = [reach**2 * (1 + mp.cos(mp.pi * (2 * k + 1) / (2 * n))) / 2 for k in range(n)]
        halves = [mp.sqrt(square) / 2 for square in squares]
        g = [(x * mp.coth(x) - 1) / square for x, square in zip(halves, squares, strict=True)]
        vandermonde = mp.matrix([[square**power for power in range(n)] for square in squares])
        true = mp.lu_solve(vandermonde, mp.matrix(g))
        assert coefficients == [float(c) for c in true], name


@each_engine
@each_dtype
@each_temperature
def test_equal_logits_cost_exactly_nothing_and_nothing_is_negative(temperature, dtype, rng):
    logits = (rng.normal(size=(50, 20)) * 10 ** rng.uniform(-3, 4, size=(50, 1))).astype(dtype)
    loss, grad = kd_loss_and_grad(logits, logits, temperature)
    assert not loss.any()
    assert not grad.any()
    nearly = logits * (1 + np.finfo(dtype).eps * rng.integers(-2, 3, size=logits.shape))
    assert (kd_loss(nearly.astype(dtype), logits, temperature) >= 0).all()


@each_engine
@each_dtype
@pytest.mark.parametrize("num_classes", [1, 2, 10, 64, 65, 200, 1000])
@pytest.mark.parametrize("temperature", [1.0, 30.0, 1e5, np.inf])
def test_a_row_is_the_same_to_the_bit_alone_and_anywhere_in_a_batch(
    num_classes, temperature, dtype, rng
):
    block = _kernel.BLOCK // (num_classes * np.dtype(dtype).itemsize)
    rows = min(2 * block + 3, 30_000)
    student, teacher = rng.normal(scale=3, size=(2, rows, num_classes)).astype(dtype)
    student[::2] = teacher[::2] + student[::2] * dtype(0.05)  # rows near and far, mixed
    loss, grad = kd_loss_and_grad(student, teacher, temperature)
    for i in [0, 1, block - 1, block, block + 1, rows - 1]:
        i %= rows
        alone = kd_loss_and_grad(student[i], teacher[i], temperature)
        assert_array_equal(loss[i], alone[0])
        assert_array_equal(grad[i], alone[1])
    later = kd_loss_and_grad(student[5:], teacher[5:], temperature)
    assert_array_equal(loss[5:], later[0])
    assert_array_equal(grad[5:], later[1])


def test_classes_that_both_exclude_do_not_hide_that_the_networks_are_close(rng):
    """Else a batch would be computed by the quicker formula first, in vain."""
    student, teacher = rng.normal(size=(2, 40, 10))
    student[:, 3] = teacher[:, 3] = -np.inf
    with mock.patch("kd_notes._kernel._quick", side_effect=AssertionError):
        kd_loss(student, teacher, 20.0)


@each_engine
@pytest.mark.parametrize("num_classes", [4, 200, 201])
@each_dtype
def test_a_loss_near_the_largest_number_may_be_infinite_but_not_nan(num_classes, dtype):
    """A compensated sum must not end in ∞ − ∞."""
    largest = float(np.finfo(dtype).max)
    student = (np.resize([0.8, -0.8], num_classes) * largest**0.5).astype(dtype)
    assert kd_loss(student, np.zeros(num_classes, dtype), largest**0.75) > 0.3 * largest


@each_engine
@pytest.mark.parametrize("temperature", [2.0, 1e5, np.inf])
def test_a_bad_row_leaves_the_rest_of_its_block_as_it_was(temperature, rng):
    student, teacher = rng.normal(size=(2, 40, 10))
    loss, grad = kd_loss_and_grad(student, teacher, temperature)
    student[3, 0], student[4, 9], teacher[6] = np.nan, np.inf, -np.inf
    spoiled_loss, spoiled_grad = kd_loss_and_grad(student, teacher, temperature)
    well = np.delete(np.arange(40), [3, 4, 6])
    assert_array_equal(spoiled_loss[well], loss[well])
    assert_array_equal(spoiled_grad[well], grad[well])
    assert np.isnan(spoiled_loss[[3, 4, 6]]).all()


@each_engine
@pytest.mark.parametrize("temperature", [4.0, 1e5])
def test_batches_that_are_no_matrix_are_the_same_to_the_bit(temperature, rng):
    student, teacher = rng.normal(size=(5, 1, 6, 10)), rng.normal(size=(4, 1, 10))
    loss, grad = kd_loss_and_grad(student, teacher, temperature)
    full = [np.ascontiguousarray(a) for a in np.broadcast_arrays(student, teacher)]
    assert_array_equal(loss, kd_loss(*full, temperature))
    assert_array_equal(grad, kd_grad(*full, temperature))
    turned = [np.asfortranarray(a) for a in full]
    assert_array_equal(loss, kd_loss(*turned, temperature))


@pytest.mark.slow
@each_engine
@pytest.mark.parametrize("temperature", [4.0, 1e4])
@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((65536, 10), "f4"), ((8192, 100), "f4"), ((256, 50257), "f4"), ((1000, 4, 500), "f8")],
)
def test_extra_memory_is_a_few_blocks(shape, dtype, temperature, rng):
    student, teacher = rng.normal(size=(2, *shape)).astype(dtype)
    grad = np.empty_like(student)
    tracemalloc.start()
    kd_loss_and_grad(student, teacher[:1], temperature, out=grad)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 * 2**20


def test_the_buffer_that_numpy_works_with_is_left_as_it_was(rng):
    before = np.getbufsize()
    kd_loss(*rng.normal(size=(2, 5, 1000)))
    assert np.getbufsize() == before


@each_engine
def test_half_precision_logits_are_converted_block_by_block(rng):
    teacher = rng.normal(size=(20_000, 100)).astype(np.float16)
    student = rng.normal(size=(20_000, 100)).astype(np.float32)
    expected = kd_loss(student, teacher.astype(np.float32), 4.0)
    tracemalloc.start()
    loss = kd_loss(student, teacher, 4.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < teacher.size * 4  # the teacher's logits in float32 alone
    assert_array_equal(loss, expected)
