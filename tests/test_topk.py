"""The KD loss of a teacher of whom k classes are known: accuracy, chain rule, ends, errors.

The reference is the definition, summed by mpmath, as `topk_reference.py` writes it.
"""

from importlib.util import find_spec

import numpy as np
import pytest
import topk_reference
from backends import branchless, one_thread
from mpmath import mp
from numpy import inf
from numpy.testing import assert_allclose, assert_array_equal
from references import central_differences, exact
from rows import largest

import kd_notes as kd
from kd_notes import kd_grad, kd_loss, topk_kd_grad, topk_kd_loss

PROMISE = 16
SIZES = [(10, 1), (10, 2), (10, 9), (10, 10), (64, 20), (64, 63), (1000, 1), (1000, 20)]


def by_numpy(*args, **options):
    return topk_kd_loss(*args, **options), topk_kd_grad(*args, **options)


def by_torch(student, values, indices, temperature, teacher_log_normalizer=None, **options):
    import torch

    from kd_notes.torch import topk_kd_loss

    if teacher_log_normalizer is not None:
        options["teacher_log_normalizer"] = torch.tensor(teacher_log_normalizer)
    student = torch.tensor(student, requires_grad=True)
    with one_thread(torch):
        args = torch.tensor(values), torch.tensor(indices), temperature
        loss = topk_kd_loss(student, *args, **options)
        (grad,) = torch.autograd.grad(loss.sum(), student)
    return loss.detach().numpy(), grad.numpy()


def by_torch_branchless(*args, **options):
    with branchless():
        return by_torch(*args, **options)


BACKENDS = {"numpy": by_numpy}
if find_spec("torch"):
    BACKENDS |= {"torch": by_torch, "torch-branchless": by_torch_branchless}

each_backend = pytest.mark.parametrize("backend", BACKENDS.values(), ids=BACKENDS)
each_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])
each_tail = pytest.mark.parametrize("tail", ["bucket", "renormalize"])


def log_normalizer(logits, temperature):
    """Return log Σ exp(v/τ)."""
    return np.logaddexp.reduce(np.asarray(logits, float) / temperature, axis=-1)


def top(teacher, k):
    """Return the k largest values, in no order, and their indices."""
    indices = np.argpartition(teacher, -k, axis=-1)[..., -k:]
    return np.take_along_axis(teacher, indices, axis=-1), indices


@pytest.fixture
def pair(rng):
    """Two networks' logits for a batch (2, 3) of six classes."""
    return rng.normal(scale=2, size=(2, 2, 3, 6))


# Accuracy


def examples(rng, tau, num_classes, k):
    """Yield student and teacher logits, S the first k classes, in units of the temperature.

    The rest has four different values, so that the reference is quick.
    """
    unit, classes = min(tau, 1e4), np.arange(num_classes)
    in_s, first, last = classes < k, classes == 0, classes == num_classes - 1
    levels = k + rng.integers(4, size=num_classes - k)

    def logits():
        return rng.normal(size=k + 4)[np.concatenate([classes[:k], levels])] * unit

    z, v = logits(), logits() + 3 * unit * in_s
    yield "ordinary", 3 * z, 2 * v
    yield "near", v + 1e-5 * z, v
    yield "small", z * 1e-3, v
    yield "one dominant class", z, v + 60 * unit * first
    yield "one dominant class in both", z + 20 * unit * first, v + 20 * unit * first
    yield "a rest near eps", z + 34 * unit * first, v + 35 * unit * first
    yield "tied", np.sign(z) * unit, np.sign(v) * unit
    yield "large", z / unit * 3e3, v / unit * 2e3
    yield "offset", z + 1e4, v
    yield "masked", np.where(last, -1e4, z), v
    yield "ignores S", z - 100 * unit * in_s, v
    if 1 < k < num_classes - 1:
        yield "excluded in S", np.where(first, -inf, z), np.where(first, -inf, v)
        yield "excluded in the rest", np.where(last, -inf, z), np.where(last, -inf, v)


def true_values(z, values, normalizer, tau):
    """Return the reference, and the block of each class: S is the first classes, one block each.

    400 digits, as a result may be 1e-300.
    """
    k = values.size
    rest, block, counts = np.unique(z[k:], return_inverse=True, return_counts=True)
    with mp.workdps(400):
        normalizer = None if normalizer is None or k == z.size else mp.mpf(float(normalizer))
        args = exact([*z[:k], *rest]), exact(values), counts.tolist(), k, normalizer, mp.mpf(tau)
        return topk_reference.reference(*args), np.concatenate([np.arange(k), k + block])


def assert_promise(z, values, normalizer, tau, kind, backends=BACKENDS):
    """Compare every backend with the reference; no normalizer means a renormalized teacher."""
    eps, tiny = np.finfo(z.dtype).eps, np.finfo(z.dtype).tiny
    true, block = true_values(z, values, normalizer, tau)
    options = {"tail": "renormalize"} if normalizer is None else {}
    if normalizer or (normalizer == 0 and tau != 1):
        options = {"teacher_log_normalizer": normalizer}
    bounds = [PROMISE * eps * (1 + condition) for condition in true[2:]]
    order = np.random.default_rng(z.size).permutation(z.size)
    student = np.empty_like(z)
    student[order] = z
    for name, backend in backends.items():
        loss, grad = backend(student, values, order[: values.size], tau, **options)
        assert loss >= 0, (name, kind)
        assert np.isfinite(grad).all(), (name, kind)
        in_blocks = [grad[order[block == i]] for i in range(len(true.grad))]
        ends = [[mp.mpf(float(g)) for g in (x.min(), x.max())] for x in in_blocks]
        pairs = zip(ends, true.grad, strict=True)
        errors = abs(float(loss) - true.loss), largest(g - t for end, t in pairs for g in end)
        sizes = true.loss, largest(true.grad)
        for error, size, bound in zip(errors, sizes, bounds, strict=True):
            assert bound >= PROMISE or error <= max(bound * size, tiny), (name, kind)


@each_dtype
@each_tail
@pytest.mark.parametrize("temperature", [1e-3, 0.5, 1.0, 4.0, 1e3, 1e6, 1e12])
@pytest.mark.parametrize(("num_classes", "k"), [(10, 1), (10, 2), (10, 9), (10, 10), (64, 20)])
def test_the_promise_is_kept(num_classes, k, temperature, tail, dtype, rng):
    for kind, z, v in examples(rng, temperature, num_classes, k):
        normalizer = dtype(log_normalizer(v, temperature))
        z, values = z.astype(dtype), v[:k].astype(dtype)
        if temperature == 1:
            values, normalizer = (v[:k] - log_normalizer(v, 1)).astype(dtype), 0.0
        if tail == "renormalize":
            assert_promise(z, values, None, temperature, kind)
        elif mass(values, normalizer, temperature) < 1:  # rounding may make it larger
            assert_promise(z, values, normalizer, temperature, kind)


def mass(values, normalizer, temperature):
    tau = mp.mpf(temperature)
    return sum(mp.exp(x / tau - mp.mpf(float(normalizer))) for x in exact(values))


@each_dtype
@each_tail
@pytest.mark.parametrize(
    ("num_classes", "k"), [(64, 63), (1000, 1), (1000, 20), (50_257, 2), (50_257, 20)]
)
def test_the_promise_is_kept_for_many_classes(num_classes, k, tail, dtype, rng):
    for kind, z, v in [*examples(rng, 2.0, num_classes, k)][:3]:
        normalizer = None if tail == "renormalize" else dtype(log_normalizer(v, 2.0))
        assert_promise(z.astype(dtype), v[:k].astype(dtype), normalizer, 2.0, kind)


# (student: S first, then the rest; counts of the rest; values; log-normalizer; temperature),
# the worst that a search found, for this computation or for one before.
WORST = [
    ("float64", [-1.5e-4, 1.1e-4, -1.8e-4], [40217], [-27.946962, -29.896492], 0.0, 0.9998),
    (
        "float64",
        [0.011030704, -0.007725336, 0.0044194],
        [60000, 4565],
        [-7.7492854],
        11.07512,
        1.009,
    ),
    ("float64", [-34.288879, 3.75e-4, 0.00109], [50435], [-33.050832, -33.156012], 0.0, 1.0),
    (
        "float32",
        [-9.2e-4, 0.061299, -0.0011, 7.2e-4],
        [1405, 5080, 200],
        [-34.642379],
        0.0,
        1.9951,
    ),
    ("float32", [1.9e-4, -1.6033, 0.0075], [27226], [-2.17144, -1.60062], 9.53697, 0.27235),
    ("float32", [29.454784, -0.5976327, -0.21983], [728, 146], [-3.272111e-06], 0.0, 1.0),
    ("float32", [9998.829, 10000.0, -9999.999], [31, 475], [10000.0], 27.754583, 73459.628),
]


@pytest.mark.parametrize("row", WORST)
def test_the_worst_rows_of_a_search_keep_the_promise(row):
    dtype, z, counts, values, normalizer, tau = row
    z = np.repeat(np.array(z, dtype), [1] * len(values) + counts)
    assert_promise(z, np.array(values, dtype), np.dtype(dtype).type(normalizer), tau, row)


def test_the_reference_has_its_own_derivatives(rng):
    """Central differences of the definition, one input at a time."""
    z, v = exact(rng.normal(size=5)), exact(rng.normal(size=3))
    h = mp.mpf(10) ** -30
    for normalizers in ([], [mp.mpf(2)]):

        def at(inputs):
            normalizer = inputs[8] if len(inputs) > 8 else None
            return topk_reference.reference(
                inputs[:5], inputs[5:8], [1, 1], 3, normalizer, mp.mpf(2)
            )

        inputs, moves = z + v + normalizers, []
        for i, x in enumerate(inputs):
            ends = (at([*inputs[:i], x + s * h, *inputs[i + 1 :]]) for s in (1, -1))
            up, down = ([end.loss, *end.grad] for end in ends)
            slopes = [(a - b) / (2 * h) for a, b in zip(up, down, strict=True)]
            moves.append([abs(slope * x) for slope in slopes])
            assert i >= 5 or abs(slopes[0] - at(inputs).grad[i]) < 1e-20
        by_loss, *by_grad = map(sum, zip(*moves, strict=True))
        true = at(inputs)
        assert abs(by_loss / true.loss - true.loss_condition) < 1e-20
        assert abs(max(by_grad) / largest(true.grad) - true.grad_condition) < 1e-20


@each_tail
@pytest.mark.parametrize("scaled", [True, False])
def test_the_gradient_is_the_derivative_and_sums_to_zero(scaled, tail, pair):
    student, teacher = pair[0][0], pair[1][0]
    values, indices = top(teacher, 3)
    normalizer = log_normalizer(teacher, 4)
    options = {"temperature": 4.0, "tail": tail, "scaled": scaled}

    def loss(z):
        teachers = values[:, np.newaxis], indices[:, np.newaxis]
        each = {"teacher_log_normalizer": normalizer[:, np.newaxis]}
        return topk_kd_loss(z, *teachers, **options, **each)

    options_of_grad = options | {"teacher_log_normalizer": normalizer}
    grad = topk_kd_grad(student, values, indices, **options_of_grad)
    # The third derivative, and the rounding of the loss over the step.
    assert_allclose(grad, central_differences(loss, student), rtol=0, atol=1e-8)
    assert_allclose(grad.sum(axis=-1), 0, atol=1e-14)


# The chain rule


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 1e3])
def test_a_bucket_leaves_out_the_divergence_within_the_rest(temperature, pair):
    student, teacher = pair
    values, indices = top(teacher, 2)
    normalizer = log_normalizer(teacher, temperature)
    options = {"teacher_log_normalizer": normalizer}
    loss = topk_kd_loss(student, values, indices, temperature, **options)
    rest = np.argsort(teacher, axis=-1)[..., :4]
    outside = [np.take_along_axis(x, rest, axis=-1) for x in (student, teacher)]
    weight = np.exp(log_normalizer(outside[1], temperature) - normalizer)
    left_out = weight * kd_loss(*outside, temperature)
    whole = kd_loss(student, teacher, temperature)
    # A condition number of about the temperature, by the log-normalizer.
    assert_allclose(loss + left_out, whole, rtol=1e-14 * (1 + 10 * temperature))
    assert (loss < whole).all()


def test_at_high_temperature_it_is_the_law_of_total_variance(pair):
    student, teacher = pair
    values, indices = top(teacher, 2)
    options = {"teacher_log_normalizer": log_normalizer(teacher, 1e6)}
    d, rest = student - teacher, np.argsort(teacher, axis=-1)[..., :4]
    outside = np.take_along_axis(d, rest, axis=-1)
    expected = (np.var(d, axis=-1) - 4 / 6 * np.var(outside, axis=-1)) / 2
    loss = topk_kd_loss(student, values, indices, 1e6, **options)
    # The first correction, of 1e-6, and the condition number of 1e7.
    assert_allclose(loss, expected, rtol=1e-4)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 1e3])
def test_renormalized_it_is_the_divergence_within_s_and_the_mass_that_is_missing(
    temperature, pair
):
    student, teacher = pair
    values, indices = top(teacher, 2)
    loss = topk_kd_loss(student, values, indices, temperature, tail="renormalize")
    within = np.take_along_axis(student, indices, axis=-1)
    missing = log_normalizer(student, temperature) - log_normalizer(within, temperature)
    expected = kd_loss(within, values, temperature) + temperature**2 * missing
    assert_allclose(loss, expected, rtol=1e-12)


@each_backend
@each_dtype
def test_a_student_that_ignores_the_teachers_classes_pays_for_it(dtype, backend):
    """It keeps its mass elsewhere, with the teacher's proportions within the top k."""
    values, indices = np.log(np.array([0.6, 0.3], dtype)), np.array([1, 3])
    for lead in (5, 50, 500, 5000):
        student = np.array([lead, values[0], 0, values[1], 0], dtype)
        for tail in ("bucket", "renormalize"):
            loss, grad = backend(student, values, indices, 1.0, tail=tail)
            q = float(np.exp(student[[1, 3]] - log_normalizer(student, 1)).sum())
            mass = 0.9 if tail == "bucket" else 1.0
            expected = mass * (lead - np.log(0.9) if lead > 10 else -np.log(q))
            if tail == "bucket":
                expected += 0.9 * np.log(0.9) + 0.1 * np.log(0.1 / (1 - q))
            assert_allclose(loss, expected, rtol=1e-2 if lead == 5 else 1e-5)
            assert grad[0] > 0.8
            assert (grad[[1, 3]] < 0).all()


# The ends


@each_backend
@each_dtype
@each_tail
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 1e4, inf])
def test_with_all_classes_it_is_the_kd_loss(temperature, tail, dtype, backend, pair):
    student, teacher = pair.astype(dtype)
    indices = np.argsort(teacher, axis=-1)[..., ::-1].copy()
    values = np.take_along_axis(teacher, indices, axis=-1)
    for scaled in (True, False):
        loss, grad = backend(student, values, indices, temperature, tail=tail, scaled=scaled)
        expected = kd_loss(student, teacher, temperature, scaled=scaled)
        # As some of the sums are in another order.
        eps = np.finfo(dtype).eps
        assert_allclose(loss, expected, rtol=64 * eps)
        expected = kd_grad(student, teacher, temperature, scaled=scaled)
        assert_allclose(grad, expected, rtol=0, atol=64 * eps * np.abs(expected).max())


@each_backend
def test_at_infinite_temperature(backend, pair):
    student, teacher = pair
    values, indices = top(teacher, 2)
    loss, grad = backend(student, values, indices, inf, tail="renormalize")
    assert (loss == inf).all()
    assert np.isfinite(grad).all()
    loss, grad = backend(student, values, indices, inf, tail="renormalize", scaled=False)
    assert_allclose(loss, np.log(6 / 2), rtol=1e-15)
    assert not np.abs(grad).max() > 1e-200
    options = {"teacher_log_normalizer": np.full((2, 3), np.log(6)), "scaled": False}
    loss, grad = backend(student, values, indices, inf, **options)
    assert_allclose(loss, 0, atol=1e-30)  # the square of the logarithm's rounding
    assert not np.abs(grad).max() > 1e-200


@each_backend
def test_what_is_excluded(backend):
    indices, log_p = np.array([0, 2]), np.log([0.5, 0.3])
    student = np.array([0.0, 1.0, -1.0, 0.5])
    for tail in ("bucket", "renormalize"):

        def at(z, values=log_p, indices=indices, tail=tail):
            loss, grad = backend(np.asarray(z), np.asarray(values), indices, 1.0, tail=tail)
            assert np.isnan(loss) or np.isfinite(grad).all()
            return float(loss)

        assert at([0, 1, -inf, 0.5]) == inf  # a class of S
        assert at([-inf, 1, -inf, 0.5]) == inf  # all of S
        assert at([0, 1, -inf, 0.5], [np.log(0.5), -inf]) < inf  # in the teacher too
        without = at([0, -1, 0.5], log_p, np.array([0, 1]))
        assert at([0, -inf, -1, 0.5]) == without  # in the rest
        assert np.isnan(at(student, [-inf, -inf]))  # the teacher excludes all that it names
        assert np.isnan(at([-inf] * 4))
        assert at([0, -inf, -1, -inf]) == (inf if tail == "bucket" else pytest.approx(at_two()))
        assert at([0, -inf, -1, -inf], np.log([0.6, 0.4]) + 1e-16) == pytest.approx(at_two(0.6))
        assert at([0, -inf, -1, -inf], np.log([0.6, 0.4]) - 1e-15) == pytest.approx(at_two(0.6))
    assert at(student, [-2000.0, -2001.0], tail="bucket") < inf
    assert at([0, 1, -inf, 0], [-2000.0, -2001.0], tail="bucket") == inf  # though P underflows


def at_two(first=0.625):
    return float(kd_loss([0.0, -1.0], np.log([first, 1 - first])))


@each_backend
def test_nan_stays_in_its_row(backend, pair):
    student, teacher = pair.reshape(2, 6, 6)
    values, indices = top(teacher, 3)
    normalizer = log_normalizer(teacher, 2)
    expected = backend(student, values, indices, 2.0, teacher_log_normalizer=normalizer)
    student[0, indices[0, 0]] = student[1, np.argmin(teacher[1])] = np.nan
    values[2, 0] = normalizer[3] = np.nan
    results = backend(student, values, indices, 2.0, teacher_log_normalizer=normalizer)
    for result, value in zip(results, expected, strict=True):
        assert np.isnan(result[:4].reshape(4, -1)).any(axis=-1).all()
        assert_array_equal(result[4:], value[4:])


@each_backend
@each_dtype
@each_tail
def test_a_match_costs_nothing(tail, dtype, backend, rng):
    """But for the rounding of the log-normalizer, whose square the loss is."""
    teacher = rng.normal(scale=3, size=(20, 12)).astype(dtype)
    values, indices = top(teacher, 4)
    normalizer = log_normalizer(teacher, 2).astype(dtype)
    if tail == "renormalize":
        np.put_along_axis(teacher, np.argsort(teacher, axis=-1)[:, :8], -inf, axis=-1)
    loss, grad = backend(
        teacher, values, indices, 2.0, tail=tail, teacher_log_normalizer=normalizer
    )
    eps = np.finfo(dtype).eps
    assert (loss >= 0).all()
    assert_allclose(loss, 0, atol=100 * eps**2)
    assert_allclose(grad, 0, atol=20 * eps)


# Shapes and dtypes


def test_the_batch_shapes_broadcast_and_blocks_leave_no_seam(rng, monkeypatch):
    student, teacher = rng.normal(size=(7, 1, 9)), rng.normal(size=(3, 9))
    values, indices = top(teacher, 4)
    options = {"teacher_log_normalizer": log_normalizer(teacher, 2)}
    loss, grad = by_numpy(student, values, indices, 2.0, **options)
    assert loss.shape == (7, 3)
    assert grad.shape == (7, 3, 9)
    monkeypatch.setattr("kd_notes._topk.BLOCK", 200)
    assert_array_equal(topk_kd_loss(student, values, indices, 2.0, **options), loss)
    assert_array_equal(topk_kd_grad(student, values, indices, 2.0, **options), grad)
    for i, j in np.ndindex(7, 3):
        options = {"teacher_log_normalizer": log_normalizer(teacher[j], 2)}
        one = topk_kd_loss(student[i, 0], values[j], indices[j], 2.0, **options)
        assert_allclose(one, loss[i, j], rtol=1e-14)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_result_has_the_dtype_of_the_logits(dtype):
    student, values = np.zeros((2, 5), dtype), np.full((2, 2), -1, dtype)
    indices = np.array([[0, 1], [2, 3]], np.uint8)
    loss, grad = by_numpy(student, values, indices)
    assert (loss.dtype, grad.dtype) == (np.result_type(np.float32, dtype), dtype)
    normalizer = np.zeros(2)
    loss = topk_kd_loss(student, values, indices, teacher_log_normalizer=normalizer)
    assert loss.dtype == np.float64
    assert type(topk_kd_loss([0.0, 1.0, 2.0], [-1, -2], [0, 1])) is float
    assert type(topk_kd_loss([0, 1], [0], [1], 2, teacher_log_normalizer=0.7)) is float


def test_float16_log_probabilities_may_sum_to_a_little_more_than_one():
    log_p = kd.log_softmax([0.6, 0.0, -9.0, -9.0]).astype(np.float16)
    assert np.exp(log_p[:2].astype(float)).sum() > 1 + 1e-5
    student = np.zeros(4, np.float16)
    assert topk_kd_loss(student, log_p[:2], [0, 1]) == pytest.approx(
        topk_kd_loss(student, log_p[:2], [0, 1], tail="renormalize"), rel=1e-2
    )


# What is refused


GOOD = {
    "student": np.zeros((2, 4)),
    "values": np.full((2, 2), -1.0),
    "indices": np.array([[0, 1], [2, 3]]),
    "temperature": 1.0,
}
SHAPES = "k = .* of classes on the last|shape \\(..., k\\)"
REFUSED = [
    ({"indices": np.array([[0, 1], [2, 4]])}, ValueError, r"indices must be .* 0\.\.3; got .*4"),
    ({"indices": np.array([[0, 1], [2, -1]])}, ValueError, r"indices must be .* 0\.\.3; got .*-1"),
    ({"indices": np.array([[0, 1], [2, 2]])}, ValueError, r"distinct within a row; got \[2,? 2\]"),
    ({"indices": np.array([[0.0, 1], [2, 3]])}, TypeError, "teacher_indices must be .*integer"),
    ({"indices": np.eye(2) > 0}, TypeError, "teacher_indices must be .*integer.* got .*bool"),
    ({"indices": np.array([[0], [2]])}, ValueError, "k"),
    ({"values": np.zeros((2, 5)), "indices": np.zeros((2, 5), int)}, ValueError, "K"),
    ({"values": np.zeros((2, 0)), "indices": np.zeros((2, 0), int)}, ValueError, "values"),
    ({"student": np.zeros((3, 4))}, ValueError, "student_logits.*shape"),
    ({"teacher_log_normalizer": np.zeros((2, 1))}, ValueError, r"the batch, \(2,\).* got .*2, 1"),
    ({"tail": "drop"}, ValueError, r"tail must be one of \['bucket', 'renormalize'\]; got 'drop'"),
    ({"tail": None}, ValueError, "tail must be one of .* got None"),
    ({"temperature": 0.0}, ValueError, "temperature must be greater than 0"),
    (
        {"temperature": 2.0},
        ValueError,
        r"pass teacher_log_normalizer, the log-sum-exp of all .* 2",
    ),
    ({"temperature": inf}, ValueError, "temperature must be finite for .*bucket"),
    ({"values": np.full((2, 2), 1.0)}, ValueError, r"at most 1, .* pass teacher_log_norm.* 5\.4"),
    ({"values": np.full((2, 2), 1e3)}, ValueError, "sum to at most 1, .* got (a sum of )?inf"),
    (
        {"teacher_log_normalizer": np.array([-1.0, 2])},
        ValueError,
        r"- teacher_log_normalizer must sum to at most 1: pass .* got .*2",
    ),
    ({"scaled": 1}, TypeError, "scaled must be True or False"),
]


@each_backend
@pytest.mark.parametrize(("bad", "error", "message"), REFUSED, ids=lambda x: str(x)[:40])
def test_wrong_arguments_are_refused(bad, error, message, backend):
    student, values, indices, temperature, options = _arguments(**GOOD | bad)
    with pytest.raises(error, match=message):
        backend(student, values, indices, temperature, **options)


def _arguments(student, values, indices, temperature, **options):
    return student, values, indices, temperature, options


def test_no_normalizer_is_needed_where_none_is_used():
    args = np.zeros(4), np.ones(2), [0, 1]
    for tau in (1.0, 2.0):
        expected = topk_kd_loss(*args, tau, tail="renormalize")
        given = topk_kd_loss(*args, tau, tail="renormalize", teacher_log_normalizer=-7.0)
        assert expected == given
    assert topk_kd_loss(np.zeros(4), np.ones(4), [3, 1, 2, 0], 2.0) == 0
