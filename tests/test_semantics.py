"""What holds for every public function: dtypes, shapes, limits, and untouched inputs."""

import numpy as np
import pytest
from backends import ENGINES, compiling_nothing
from calling import call, names_with
from numpy.testing import assert_allclose, assert_array_equal
from references import EPS

import kd_notes as kd

OF_PROBABILITIES = names_with("p", "probabilities")
OF_LOGITS = names_with("logits", "student_logits")
OF_LABELS = names_with("labels", "hard_labels")
OF_TWO = names_with("q", "teacher_logits")
EVERY = OF_LOGITS + OF_PROBABILITIES
OF_FORWARD_KL = ("kd", "knowledge", "topk", "label_smoothing", "confidence_penalty_loss")
COMPILED = [name for name in EVERY if name.startswith(OF_FORWARD_KL)]


def by_each_engine(names):
    """Call each function with the engine of NumPy, and what is compiled with the other too."""
    pairs = [(name, engine) for name in names for engine in ENGINES]
    pairs = [(name, engine) for name, engine in pairs if engine == "numpy" or name in COMPILED]
    return pytest.mark.parametrize(("name", "engine"), pairs, indirect=["engine"])


every = by_each_engine(EVERY)
of_logits = by_each_engine(OF_LOGITS)
of_labels = by_each_engine(sorted(set(OF_LABELS) & set(OF_LOGITS)))
of_two = by_each_engine(OF_TWO)
each_engine = pytest.mark.parametrize("engine", ENGINES, indirect=True)


@pytest.fixture(autouse=True)
def engine(request):
    with ENGINES[getattr(request, "param", "numpy")]():
        yield


@pytest.fixture(autouse=True)
def no_floating_point_complaint():
    with np.errstate(all="raise", under="ignore"):
        yield


def evaluate(name, first, second, **others):
    """Return the results of a function as a tuple: one of them has two."""
    arguments = {
        **dict.fromkeys(["logits", "student_logits", "p", "probabilities"], first),
        **dict.fromkeys(["teacher_logits", "q"], second),
        **{"labels": 0, "hard_labels": 0, "temperature": 2.0, "alpha": 0.25},
    }
    results = call(name, **arguments | others)
    return results if isinstance(results, tuple) else (results,)


def examples(name, rng, shape):
    """Return two arrays of logits, or of probabilities, that every float dtype can hold."""
    if name in OF_LOGITS:
        return rng.integers(-64, 64, size=(2, *shape)) / 16
    *batch, k = shape
    return (1 + rng.multinomial(64 - k, np.full(k, 1 / k), size=(2, *batch))) / 64


def assert_same(results, expected, eps=EPS):
    """Compare what may be summed in another order: numbers of order 1 to 10."""
    for result, value in zip(results, expected, strict=True):
        assert_allclose(result, value, rtol=16 * eps, atol=16 * eps)


def dtypes_of_results(name, dtype):
    """The dtype of each result: losses of float16 are float32, which has a wider range."""
    of_loss = np.float32 if dtype == np.float16 else dtype
    return (
        [of_loss, dtype] if name == "kd_loss_and_grad" else [of_loss if is_loss(name) else dtype]
    )


def is_loss(name):
    return name.endswith(("loss", "divergence", "entropy"))


def test_no_other_function_is_compiled(rng):
    pytest.importorskip("numba")
    with compiling_nothing():
        for name in set(EVERY) - set(COMPILED):
            evaluate(name, *examples(name, rng, (4, 5)))
        for name in COMPILED:
            with pytest.raises(AssertionError):
                evaluate(name, *examples(name, rng, (4, 5)))


@every
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_float_dtype_is_kept_but_for_losses_of_float16(name, dtype, rng):
    arrays = examples(name, rng, (4, 5)).astype(dtype)
    for results in evaluate(name, *arrays), evaluate(name, *arrays[:, 0]):
        for result, expected in zip(results, dtypes_of_results(name, dtype), strict=True):
            assert result.dtype == expected
            assert isinstance(result, np.ndarray if result.ndim else expected)


@every
def test_float16_computes_in_float32(name, rng):
    arrays = examples(name, rng, (4, 5))
    expected = evaluate(name, *arrays.astype(np.float32))
    results = evaluate(name, *arrays.astype(np.float16))
    dtypes = dtypes_of_results(name, np.float16)
    for result, value, dtype in zip(results, expected, dtypes, strict=True):
        assert_array_equal(result, value.astype(dtype))


@each_engine
def test_losses_of_float16_do_not_overflow():
    student, teacher = np.float16([[600, 1]]), np.float16([[-600, 1]])
    # A quarter of 1200^2, above float16's largest number 65504; kd's limit is half of it.
    assert_array_equal(kd.logit_matching_loss(student, teacher), np.float32([360000]))
    assert kd.logit_matching_loss(student[0], teacher[0]) == 360000
    assert kd.kd_loss(student[0], teacher[0], np.inf) == 180000
    # Cross-entropy is 65504 twice.
    row = np.float16([-65504, 65504])
    assert kd.cross_entropy_loss(row, 0) == 2 * 65504


@each_engine
def test_float16_gradients_overflow_to_inf_without_a_warning():
    student, teacher = np.float16([4, 0, 0]), np.float16([-4, 0, 0])
    # A difference of probabilities over the temperature: 1, -1/2 and -1/2 times 1e5.
    grad = kd.kd_grad(student, teacher, 1e-5, scaled=False)
    assert_array_equal(grad, np.float16([np.inf, -5e4, -5e4]))


@every
@pytest.mark.parametrize("dtype", [np.bool_, np.int8, np.uint16, np.int64])
def test_integers_and_booleans_become_float64(name, dtype):
    first, second = np.eye(4, 5, dtype=dtype), np.eye(4, 5, k=1, dtype=dtype)
    expected = evaluate(name, first.astype(np.float64), second.astype(np.float64))
    for result, value in zip(evaluate(name, first, second), expected, strict=True):
        assert result.dtype == np.float64
        assert_array_equal(result, value)


@of_two
@pytest.mark.parametrize(
    ("one", "other"),
    [(np.float32, np.float64), (np.float16, np.float32), (np.float16, np.float64)],
)
def test_two_float_dtypes_promote(name, one, other, rng):
    first, second = examples(name, rng, (4, 5))
    for a, b in (one, other), (other, one):
        results = evaluate(name, first.astype(a), second.astype(b))
        assert [result.dtype for result in results] == dtypes_of_results(name, other)


@every
@pytest.mark.parametrize("number", [float, int, np.float64, np.float32, np.array])
def test_a_temperature_or_weight_never_promotes(name, number, rng):
    arrays = examples(name, rng, (4, 5)).astype(np.float32)
    expected = evaluate(name, *arrays, temperature=1.0, alpha=1.0)
    results = evaluate(name, *arrays, temperature=number(1.0), alpha=number(1.0))
    for result, value in zip(results, expected, strict=True):
        assert result.dtype == np.float32
        assert_array_equal(result, value)


@of_labels
def test_integer_labels_never_promote(name, rng):
    arrays = examples(name, rng, (4, 5)).astype(np.float32)
    indices = np.array([0, 1, 2, 3])
    for result in evaluate(name, *arrays, labels=indices, hard_labels=indices):
        assert result.dtype == np.float32


@every
def test_plain_lists_give_a_plain_float(name, rng):
    arrays = examples(name, rng, (4, 5))
    for result in evaluate(name, *arrays[:, 0].tolist()):
        assert type(result) is (np.ndarray if np.ndim(result) else float)
    assert_same(evaluate(name, *arrays.tolist()), evaluate(name, *arrays))


@every
@pytest.mark.parametrize("batch", [(), (4,), (2, 3), (0,), (2, 0)])
def test_losses_have_the_batch_shape_and_gradients_the_shape_of_the_logits(name, batch, rng):
    classes = {"softmax_jacobian": [(5, 5)], "kd_loss_and_grad": [(), (5,)]}
    expected = [(*batch, *k) for k in classes.get(name, [() if is_loss(name) else (5,)])]
    arrays = examples(name, rng, (*batch, 5)).astype(np.float32)
    results = evaluate(name, *arrays)
    assert [result.shape for result in results] == expected
    assert {result.dtype for result in results} == {np.dtype(np.float32)}


# Plain logit matching is a distance of logits, and no matter of classes.
@by_each_engine([name for name in EVERY if not name.startswith("logit_matching")])
@pytest.mark.parametrize("temperature", [2.0, np.inf])
def test_one_class_leaves_nothing_to_learn(name, temperature, rng):
    arrays = np.ones((2, 4, 1)) if name in OF_PROBABILITIES else rng.normal(size=(2, 4, 1))
    for result in evaluate(name, *arrays, temperature=temperature):
        assert_array_equal(result, np.full(result.shape, float(name == "softmax")))


@every
def test_a_batch_is_a_loop_over_its_rows(name, rng):
    first, second = examples(name, rng, (2, 3, 5))
    results = evaluate(name, first, second)
    for row in np.ndindex(2, 3):
        assert_same([r[row] for r in results], evaluate(name, first[row], second[row]))


@of_two
def test_batch_shapes_broadcast(name, rng):
    first, second = examples(name, rng, (3, 4, 5))
    first, second = first[:, :1], second[0]
    full = np.broadcast_arrays(first, second)
    assert_same(evaluate(name, first, second), evaluate(name, *full))
    assert_same(evaluate(name, second, first), evaluate(name, *full[::-1]))


@of_labels
def test_labels_broadcast(name, rng):
    arrays = examples(name, rng, (3, 4, 5))
    indices = np.array([2, 0, 4, 1])
    full = np.broadcast_to(indices, (3, 4))
    results = evaluate(name, *arrays, labels=indices, hard_labels=indices)
    assert_same(results, evaluate(name, *arrays, labels=full, hard_labels=full))


def strided(array):
    wide = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
    wide[..., ::2] = array
    return wide[..., ::2]


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


LAYOUTS = {
    "read-only": read_only,
    "Fortran order": np.asfortranarray,
    "strided": strided,
    "backwards": lambda array: array[::-1, ::-1].copy()[::-1, ::-1],
    "big-endian": lambda array: array.astype(array.dtype.newbyteorder(">")),
    "list of rows": list,
}


@every
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_any_layout_gives_the_same(name, layout, dtype, rng):
    first, second = examples(name, rng, (4, 5)).astype(dtype)
    results = evaluate(name, layout(first), layout(second))
    assert_same(results, evaluate(name, first, second), np.finfo(dtype).eps)
    assert all(result.dtype.isnative for result in results)


@every
def test_a_long_row_in_fortran_order_is_added_up_in_the_same_way(name, rng):
    # One after the other, 1000 float32 numbers would lose a digit more.
    p = rng.dirichlet(np.ones(1000), size=(2, 2)).astype(np.float32)
    arrays = p if name in OF_PROBABILITIES else np.log(p)
    results = evaluate(name, *map(np.asfortranarray, arrays))
    for result, expected in zip(results, evaluate(name, *arrays), strict=True):
        assert_array_equal(result, expected)


@every
def test_memory_mapped_arrays_work(name, tmp_path, rng):
    arrays = examples(name, rng, (4, 5))
    np.save(tmp_path / "arrays.npy", arrays)
    mapped = np.load(tmp_path / "arrays.npy", mmap_mode="r")
    assert_same(evaluate(name, *mapped), evaluate(name, *arrays))


@every
@pytest.mark.parametrize("temperature", [2.0, np.inf])
def test_inputs_are_never_written_to(name, temperature, rng):
    arrays = examples(name, rng, (4, 5))
    labels = np.eye(4, 5)
    kept = arrays.copy(), labels.copy()
    evaluate(name, *arrays, temperature=temperature, labels=labels, hard_labels=labels)
    assert_array_equal(arrays, kept[0])
    assert_array_equal(labels, kept[1])


@every
def test_results_do_not_share_memory_with_inputs(name, rng):
    arrays = examples(name, rng, (4, 5))
    for result in evaluate(name, *arrays):
        assert not np.shares_memory(result, arrays)


def assert_row_one_alone_changed(results, clean):
    for result, value in zip(results, clean, strict=True):
        assert_same([np.delete(result, 1, axis=0)], [np.delete(value, 1, axis=0)])


@every
@pytest.mark.parametrize("temperature", [2.0, np.inf])
def test_nan_stays_in_its_own_row(name, temperature, rng):
    arrays = examples(name, rng, (4, 5))
    clean = evaluate(name, *arrays, temperature=temperature)
    for spoiled in [0, 1] if name in OF_TWO else [0]:
        given = arrays.copy()
        given[spoiled, 1, 2] = np.nan
        results = evaluate(name, *given, temperature=temperature)
        assert_row_one_alone_changed(results, clean)
        assert all(np.isnan(result[1]).any() for result in results)


@of_logits
@pytest.mark.parametrize("temperature", [2.0, np.inf])
def test_a_logit_of_plus_inf_spoils_its_own_row_alone(name, temperature, rng):
    arrays = examples(name, rng, (4, 5))
    clean = evaluate(name, *arrays, temperature=temperature)
    arrays[0, 1, 2] = np.inf
    results = evaluate(name, *arrays, temperature=temperature)
    assert_row_one_alone_changed(results, clean)
    assert not any(np.isfinite(result[1]).all() for result in results)


@every
@pytest.mark.parametrize("temperature", [2.0, 1e6, np.inf])
def test_a_class_that_both_exclude_might_as_well_not_be(name, temperature, rng):
    arrays = examples(name, rng, (4, 5))
    nothing = 0 if name in OF_PROBABILITIES else -np.inf
    wider = np.insert(arrays, 2, nothing, axis=-1)
    results = evaluate(name, *wider, temperature=temperature)
    for result in results:
        if result.ndim > 1:
            excluded = -np.inf if name == "log_softmax" else 0
            assert_array_equal(result[..., 2], np.full(result.shape[:-1], excluded))
    left = []
    for result in results:
        for axis in range(1, result.ndim):
            result = np.delete(result, 2, axis)
        left.append(result)
    assert_same(left, evaluate(name, *arrays, temperature=temperature))


@of_logits
@pytest.mark.parametrize("temperature", [2.0, np.inf])
def test_a_row_of_excluded_classes_is_nan_and_alone(name, temperature, rng):
    arrays = examples(name, rng, (4, 5))
    clean = evaluate(name, *arrays, temperature=temperature)
    arrays[:, 1] = -np.inf
    results = evaluate(name, *arrays, temperature=temperature)
    assert_row_one_alone_changed(results, clean)
    assert all(np.isnan(result[1]).all() for result in results)


@of_logits
@pytest.mark.parametrize("temperature", [0.01, 1.0, 1e12, np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_large_logits_stay_finite(name, temperature, dtype, rng):
    arrays = rng.uniform(-1e4, 1e4, size=(2, 4, 5)).astype(dtype)
    for result in evaluate(name, *arrays, temperature=temperature):
        assert np.isfinite(result).all()
