"""Every refused input: the argument, what it must be, and what was given."""

import re
from fractions import Fraction

import numpy as np
import pytest
from calling import call, names_with
from numpy.lib.stride_tricks import as_strided

import kd_notes as kd

GOOD = {
    "logits": [1.0, 2.0],
    "student_logits": [1.0, 2.0],
    "teacher_logits": [0.0, 1.0],
    "labels": 0,
    "hard_labels": 0,
    "num_classes": 2,
    "probabilities": [0.5, 0.5],
    "p": [0.5, 0.5],
    "q": [0.25, 0.75],
    "temperature": 2.0,
    "alpha": 0.5,
    "scaled": True,
}
ARRAYS = ["logits", "student_logits", "teacher_logits", "probabilities", "p", "q"]
COMBINED = {"knowledge_distillation_loss", "knowledge_distillation_grad"}
DISTRIBUTIONS = ["probabilities", "p", "q", "labels", "hard_labels"]
BAD_ARRAYS = [
    (
        3.0,
        ValueError,
        "must have shape (..., K) with at least one class on its last axis; got shape ()",
    ),
    (
        [],
        ValueError,
        "must have shape (..., K) with at least one class on its last axis; got shape (0,)",
    ),
    (
        np.ones((4, 0)),
        ValueError,
        "must have shape (..., K) with at least one class on its last axis; got shape (4, 0)",
    ),
    (
        [1.0, 1j],
        TypeError,
        "must hold real numbers (integers, float16, float32 or float64); "
        "got dtype complex128 with shape (2,)",
    ),
    (
        [[1.0, None]],
        TypeError,
        "must hold real numbers (integers, float16, float32 or float64); "
        "got dtype object with shape (1, 2): convert it, from pandas by .to_numpy(dtype=float)",
    ),
    (
        ["a", "b"],
        TypeError,
        "must hold real numbers (integers, float16, float32 or float64); "
        "got dtype <U1 with shape (2,)",
    ),
    (
        np.ones(2, np.longdouble),
        TypeError,
        "must hold real numbers (integers, float16, float32 or float64); "
        f"got dtype {np.dtype(np.longdouble)} with shape (2,)",
    ),
]
BAD_DISTRIBUTIONS = [
    ([1.5, -0.5], "must be non-negative; got -0.5 in an array of shape (2,)"),
    (
        [[0.5, 0.5], [0.5, 0.6]],
        "must sum to 1 over the last axis (within 1e-05); "
        "got a sum of 1.1 in an array of shape (2, 2)",
    ),
    (
        np.float16([0.5, 0.25]),
        "must sum to 1 over the last axis (within 0.01); "
        "got a sum of 0.75 in an array of shape (2,)",
    ),
    (
        [np.inf, 0.0],
        "must sum to 1 over the last axis (within 1e-05); "
        "got a sum of inf in an array of shape (2,)",
    ),
]
TOO_LARGE = [
    (
        number,
        ValueError,
        f"must fit in a float, whose largest finite value is 1.8e+308; got a larger {kind}",
    )
    for number, kind in [
        (10**400, "int"),
        (-(10**5000), "int"),
        (Fraction(10**400), "Fraction"),
        (np.longdouble(10) ** 400, "longdouble"),
    ]
]
BAD_NUMBERS = {
    "temperature": [
        (0, ValueError, "must be greater than 0 (inf is allowed); got 0"),
        (-2.0, ValueError, "must be greater than 0 (inf is allowed); got -2.0"),
        (np.nan, ValueError, "must be greater than 0 (inf is allowed); got nan"),
        (True, TypeError, "must be a real number; got True"),
        ("1", TypeError, "must be a real number; got '1'"),
        (None, TypeError, "must be a real number; got None"),
        ([2.0], TypeError, "must be a real number; got [2.0]"),
        (
            np.ones(3),
            TypeError,
            "must be a real number; got an array of shape (3,) and dtype float64",
        ),
        (
            np.ma.masked_array(2.0),
            TypeError,
            "must be a real number; got a masked array of shape () and dtype float64",
        ),
        *TOO_LARGE,
        (1j, TypeError, "must be a real number; got 1j"),
    ],
    "alpha": [
        (-0.1, ValueError, "must be between 0 and 1; got -0.1"),
        (1.5, ValueError, "must be between 0 and 1; got 1.5"),
        (np.nan, ValueError, "must be between 0 and 1; got nan"),
        (False, TypeError, "must be a real number; got False"),
        ("1", TypeError, "must be a real number; got '1'"),
        *TOO_LARGE,
    ],
    "num_classes": [
        (0, ValueError, "must be at least 1; got 0"),
        (-3, ValueError, "must be at least 1; got -3"),
        (2.0, TypeError, "must be an integer; got 2.0"),
        (True, TypeError, "must be an integer; got True"),
        (
            np.array([2, 3]),
            TypeError,
            "must be an integer; got an array of shape (2,) and dtype int64",
        ),
    ],
    "scaled": [
        ("no", TypeError, "must be True or False; got 'no'"),
        (1, TypeError, "must be True or False; got 1"),
        (None, TypeError, "must be True or False; got None"),
        (
            np.array([True, False]),
            TypeError,
            "must be True or False; got an array of shape (2,) and dtype bool",
        ),
    ],
}


def refuses(name, error, text, **bad):
    with pytest.raises(error, match=f"^{re.escape(text)}$"):
        call(name, **GOOD | bad)


def uses(arguments):
    """Every public function with each of these arguments that it has."""
    return [(name, key) for key in arguments for name in names_with(key)]


@pytest.mark.parametrize("name", sorted({*kd.__all__} - {"set_engine"}))
def test_good_arguments_pass(name):
    call(name, **GOOD)


@pytest.mark.parametrize(("name", "argument"), uses(ARRAYS))
def test_an_array_without_classes_or_numbers(name, argument):
    for value, error, requirement in BAD_ARRAYS:
        refuses(name, error, f"{argument} {requirement}", **{argument: value})


@pytest.mark.parametrize(("name", "argument"), uses(ARRAYS))
def test_rows_of_different_length(name, argument):
    with pytest.raises(ValueError, match=f"^{argument} must be a rectangular array of numbers; "):
        call(name, **GOOD | {argument: [[1.0, 0.0], [1.0]]})


@pytest.mark.parametrize(
    ("name", "argument"), [pair for pair in uses(DISTRIBUTIONS) if pair[0] != "one_hot"]
)
def test_an_invalid_distribution(name, argument):
    for value, requirement in BAD_DISTRIBUTIONS:
        refuses(name, ValueError, f"{argument} {requirement}", **{argument: value})


@pytest.mark.parametrize(("dtype", "classes"), [(np.float16, 4096), (np.float32, 100_000)])
def test_a_long_distribution_is_added_up_in_float64(dtype, classes):
    # In its own dtype, one after the other, float16 comes to 0.5 and float32 to 1.001.
    uniform = np.full((2, classes), 1 / classes, dtype, order="F")
    np.testing.assert_allclose(kd.entropy(uniform), np.log(classes), rtol=1e-6)


@pytest.mark.parametrize(("name", "argument"), uses(["labels", "hard_labels"]))
def test_an_index_outside_the_classes(name, argument):
    for value in 2, -1:
        text = f"{argument} must be class indices in 0..1; got {value} in an array of shape ()"
        refuses(name, ValueError, text, **{argument: value})


def test_the_message_shows_the_first_index_outside_the_classes():
    text = "labels must be class indices in 0..2; got 7 in an array of shape (2, 3)"
    with pytest.raises(ValueError, match=re.escape(text)):
        kd.one_hot([[0, 1, 2], [2, 7, 9]], 3)
    with pytest.raises(ValueError, match=re.escape(text)):
        kd.cross_entropy_loss(np.zeros((2, 3, 3)), [[0, 1, 2], [2, 7, 9]])


@pytest.mark.parametrize(("name", "argument"), uses([*ARRAYS, "labels", "hard_labels"]))
def test_masked_arrays(name, argument):
    text = (
        f"{argument} must not be masked; got a masked array: leave the masked entries out, "
        "or replace them by .filled(value)"
    )
    masked = np.ma.masked_array([1, 0], [False, True])
    for value in masked, [masked], ((0.0, 1.0), masked), [1.0, np.ma.masked]:
        refuses(name, TypeError, text, **{argument: value})


class NullableIntegers:
    """What NumPy sees of a column of pandas' nullable integers."""

    dtype = "Int64"

    def __array__(self, dtype=None, copy=None):
        return np.array([0, 1], dtype or object)


@pytest.mark.parametrize(("name", "argument"), uses(["logits", "labels", "hard_labels", "p"]))
def test_nullable_integers(name, argument):
    indices = " (class indices: dtype=int)" if "labels" in argument else ""
    text = (
        f"{argument} must hold real numbers (integers, float16, float32 or float64); got dtype "
        "object with shape (2,): convert it, from pandas by .to_numpy(dtype=float)" + indices
    )
    refuses(name, TypeError, text, **{argument: NullableIntegers()})


@pytest.mark.parametrize("labels", [1.0, [0.0, 1.0], np.float32([[0], [2]]), np.empty(0)])
def test_one_hot_needs_integers(labels):
    array = np.asarray(labels)
    text = (
        f"labels must be integer class indices; got dtype {array.dtype} with shape {array.shape}"
        ": convert whole numbers by .astype(int)"
    )
    refuses("one_hot", TypeError, text, labels=labels)


WITH_LABELS = sorted(
    set(names_with("labels", "hard_labels")) & set(names_with("logits", "student_logits"))
)
with_labels = pytest.mark.parametrize("name", WITH_LABELS)


def labeled(shape, labels):
    """Logits of one shape everywhere, and labels."""
    logits = dict.fromkeys(["logits", "student_logits", "teacher_logits"], np.zeros(shape))
    return logits | {"labels": labels, "hard_labels": labels}


@with_labels
@pytest.mark.parametrize(
    ("shape", "labels"),
    [
        ((2, 2), [0.0, 1.0]),  # a distribution for both rows, or an index for each?
        ((4, 2, 2), [0.0, 1.0]),
        ((3, 3), np.float32([0, 0, 1])),
        ((4, 7), [0.0, 6.0, 3.0, 1.0]),
        ((5, 3), [1.0, 0.0]),
        ((5, 3), 1.0),
        ((3,), 1.0),
        ((0, 3), np.empty(0)),
    ],
)
def test_floats_that_may_be_class_indices(name, shape, labels):
    argument = "labels" if name not in COMBINED else "hard_labels"
    array = np.asarray(labels)
    text = (
        f"{argument} must be integer class indices (...) or distributions (..., K); got whole "
        f"numbers of dtype {array.dtype} with shape {array.shape}: convert class indices by "
        ".astype(int), or give a distribution as many axes as the logits"
    )
    refuses(name, TypeError, text, **labeled(shape, labels))


@with_labels
@pytest.mark.parametrize(
    ("shape", "labels"),
    [
        ((2, 2), [0.5, 0.5]),
        ((5, 3), [0.25, 0.25, 0.5]),
        ((5, 3), [0.0, 1.0, 0.0]),  # five rows would have five indices
        ((1, 3), [0.0, 1.0, 0.0]),
        ((2, 2), [[0.0, 1.0]]),
        ((4, 5, 3), np.eye(3)[[0, 2, 1, 1, 0]]),
    ],
)
def test_floats_that_can_only_be_distributions(name, shape, labels):
    results = call(name, **GOOD | labeled(shape, labels))
    full = np.broadcast_to(labels, shape)
    np.testing.assert_array_equal(results, call(name, **GOOD | labeled(shape, full)))


@pytest.mark.parametrize("name", sorted(COMBINED))
def test_floats_with_the_axes_of_one_network_are_distributions(name):
    networks = {"student_logits": np.arange(2.0), "teacher_logits": np.zeros((2, 2))}
    results = call(name, **GOOD | networks | {"hard_labels": [0.0, 1.0]})
    expected = call(name, **GOOD | networks | {"hard_labels": [[0.0, 1.0]] * 2})
    np.testing.assert_array_equal(results, expected)


@with_labels
def test_integers_with_the_axes_of_the_logits_are_distributions(name):
    one_hot = np.array([[0, 1], [0, 1], [1, 0]])
    results = call(name, **GOOD | labeled((3, 2), one_hot))
    expected = call(name, **GOOD | labeled((3, 2), one_hot.astype(float)))
    np.testing.assert_array_equal(results, expected)


@pytest.mark.parametrize("name", sorted(COMBINED))
def test_integers_that_may_be_indices_or_distributions(name):
    one_hot = np.array([[0, 1, 0], [1, 0, 0]])
    networks = {"student_logits": np.zeros((2, 3)), "teacher_logits": np.zeros((4, 2, 3))}
    text = (
        "hard_labels of dtype int64 and shape (2, 3) could be class indices or distributions for "
        "logits of shapes {} and {}: give distributions as floats, or all logits the same number "
        "of axes"
    )
    for student, teacher in (networks.values(), reversed(networks.values())):
        arguments = {"student_logits": student, "teacher_logits": teacher}
        shapes = text.format(student.shape, teacher.shape)
        refuses(name, ValueError, shapes, **arguments, hard_labels=one_hot)
        as_floats = call(name, **GOOD | arguments | {"hard_labels": one_hot.astype(float)})
        wide = np.broadcast_to(student, (4, 2, 3))
        arguments = {
            "student_logits": wide,
            "teacher_logits": np.broadcast_to(teacher, wide.shape),
        }
        full = np.broadcast_to(one_hot, wide.shape)
        expected = call(name, **GOOD | arguments | {"hard_labels": full})
        np.testing.assert_array_equal(as_floats, expected)


@pytest.mark.parametrize("name", sorted(COMBINED))
def test_integers_that_can_only_be_indices_beside_unequal_axes(name):
    networks = {"student_logits": np.arange(3.0), "teacher_logits": np.zeros((4, 2, 3))}
    indices = np.array([[0, 2], [1, 1], [2, 0], [0, 0]])
    results = call(name, **GOOD | networks | {"hard_labels": indices})
    full = {"student_logits": np.broadcast_to(np.arange(3.0), (4, 2, 3))}
    expected = call(name, **GOOD | networks | full | {"hard_labels": indices})
    np.testing.assert_array_equal(results, expected)


@with_labels
def test_an_empty_list_has_the_indices_of_an_empty_batch(name):
    results = call(name, **GOOD | labeled((0, 3), []))
    assert results.shape == ((0, 3) if name.endswith("grad") else (0,))
    argument = "labels" if name not in COMBINED else "hard_labels"
    text = (
        f"{argument} must have shape (..., K) with at least one class on its last axis; "
        "got shape (0,)"
    )
    refuses(name, ValueError, text, **labeled((3,), []))


def test_one_hot_of_an_empty_list_is_empty():
    assert kd.one_hot([], 3).shape == (0, 3)
    assert kd.one_hot([[], []], 3).shape == (2, 0, 3)
    assert kd.one_hot(np.empty((2, 0), int), 3).shape == (2, 0, 3)


@pytest.mark.parametrize(("name", "argument"), uses(BAD_NUMBERS))
def test_bad_number(name, argument):
    for value, error, requirement in BAD_NUMBERS[argument]:
        refuses(name, error, f"{argument} {requirement}", **{argument: value})


@pytest.mark.parametrize(
    ("first", "second", "names"),
    [
        ("student_logits", "teacher_logits", set(names_with("teacher_logits")) - COMBINED),
        ("p", "q", names_with("q")),
        ("logits", "labels", set(names_with("logits")) & set(names_with("labels"))),
    ],
)
def test_shapes_that_do_not_match(first, second, names):
    both = f"{first} and {second}"
    for name in names:
        text = (
            f"{both} must have the same number of classes on the last axis; "
            "got shapes (2,) and (3,)"
        )
        refuses(name, ValueError, text, **{first: [0.5, 0.5], second: [0.5, 0.25, 0.25]})
        text = f"{both} must have batch shapes that broadcast; got shapes (3, 2) and (4, 2)"
        halves = {first: np.full((3, 2), 0.5), second: np.full((4, 2), 0.5)}
        refuses(name, ValueError, text, **halves)


@pytest.mark.parametrize("name", sorted(COMBINED))
def test_three_shapes_that_do_not_match(name):
    three = "student_logits, teacher_logits and hard_labels"
    text = (
        f"{three} must have the same number of classes on the last axis; "
        "got shapes (2,) and (3,) and ()"
    )
    refuses(name, ValueError, text, teacher_logits=[0.0, 1.0, 2.0])
    text = f"{three} must have batch shapes that broadcast; got shapes (2,) and (3, 2) and (4, 2)"
    arrays = {"teacher_logits": np.zeros((3, 2)), "hard_labels": np.full((4, 2), 0.5)}
    refuses(name, ValueError, text, **arrays)


def test_the_message_shows_the_original_shape_of_indices():
    text = "logits and labels must have batch shapes that broadcast; got shapes (2, 3) and (4,)"
    with pytest.raises(ValueError, match=re.escape(text)):
        kd.cross_entropy_loss(np.zeros((2, 3)), [0, 1, 2, 0])


LOGITS = np.zeros((2, 3))
LOCKED = np.zeros((2, 3))
LOCKED.flags.writeable = False
ONE_ROW_TWICE = as_strided(np.zeros(3), (2, 3), (0, 8))
SLIDING = as_strided(np.zeros(5), (2, 3), (16, 8))


@pytest.mark.parametrize(
    ("out", "error", "text"),
    [
        ([[0.0] * 3] * 2, TypeError, "out must be a NumPy array; got list"),
        (np.ma.zeros((2, 3)), TypeError, "out must be a NumPy array; got MaskedArray"),
        (
            ONE_ROW_TWICE,
            ValueError,
            "out must have entries that do not share memory with each other; "
            "got shape (2, 3) with strides (0, 8)",
        ),
        (
            SLIDING,
            ValueError,
            "out must have entries that do not share memory with each other; "
            "got shape (2, 3) with strides (16, 8)",
        ),
        (
            np.zeros((3, 3)),
            ValueError,
            "out must be a writeable array of shape (2, 3) and dtype float64; "
            "got shape (3, 3), dtype float64, writeable=True",
        ),
        (
            np.zeros((2, 3), np.float32),
            ValueError,
            "out must be a writeable array of shape (2, 3) and dtype float64; "
            "got shape (2, 3), dtype float32, writeable=True",
        ),
        (
            LOCKED,
            ValueError,
            "out must be a writeable array of shape (2, 3) and dtype float64; "
            "got shape (2, 3), dtype float64, writeable=False",
        ),
        (
            LOGITS,
            ValueError,
            "out must not share memory with the logits: inputs are never written to",
        ),
    ],
)
def test_out_that_cannot_receive_the_gradient(out, error, text):
    for student, teacher in (LOGITS, np.ones(3)), (np.ones(3), LOGITS):
        with pytest.raises(error, match=f"^{re.escape(text)}$"):
            kd.kd_loss_and_grad(student, teacher, out=out)


def test_out_that_is_another_view_of_an_input():
    buffer = np.ones((2, 4))
    out = buffer[:, :3]
    for student in memoryview(out), out[::-1], buffer[:, 1:]:
        with pytest.raises(ValueError, match="out must not share memory"):
            kd.kd_loss_and_grad(student, np.ones(3), out=out)


def test_out_may_be_interleaved_with_an_input(rng):
    # Their memory overlaps as a range, but no entry of one is an entry of the other.
    buffer = rng.normal(size=(2, 6))
    student, out = buffer[:, ::2], buffer[:, 1::2]
    kept = student.copy()
    expected = kd.kd_grad(kept, np.ones(3))
    assert kd.kd_loss_and_grad(student, np.ones(3), out=out)[1] is out
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(student, kept)


@pytest.mark.parametrize(
    "out",
    [
        np.zeros((3, 2)).T,
        np.zeros((4, 6))[::-2, ::-2],
        as_strided(np.zeros(6), (2, 3), (24, 8)),
        np.zeros((2, 3), order="F"),
        as_strided(np.zeros(3), (1, 3), (0, 8)),
    ],
)
def test_out_in_any_layout(out, rng):
    student = rng.normal(size=out.shape)
    kd.kd_loss_and_grad(student, np.ones(3), out=out)
    np.testing.assert_array_equal(out, kd.kd_grad(student, np.ones(3)))


def test_out_may_be_empty():
    out = np.empty((0, 3))
    assert kd.kd_loss_and_grad(np.ones((0, 3)), np.ones(3), out=out)[1] is out


def test_alpha_is_refused_before_anything_else():
    with pytest.raises(ValueError, match="alpha must be"):
        kd.knowledge_distillation_loss([[1.0]], [["no logits"]], [0], temperature=1, alpha=2)


def test_a_numpy_boolean_is_a_boolean():
    arguments = GOOD | {"scaled": np.False_}
    for name in names_with("scaled"):
        np.testing.assert_equal(call(name, **arguments), call(name, **GOOD | {"scaled": False}))
