"""Every refusal: what was wrong, what it must be, and what came."""

import re

import numpy as np
import pytest
from calling import call, names_with

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
        "got dtype object with shape (1, 2)",
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
BAD_NUMBERS = {
    "temperature": [
        (0, ValueError, "must be greater than 0 (inf is allowed); got 0"),
        (-2.0, ValueError, "must be greater than 0 (inf is allowed); got -2.0"),
        (np.nan, ValueError, "must be greater than 0 (inf is allowed); got nan"),
        (True, TypeError, "must be a real number; got True"),
        ("1", TypeError, "must be a real number; got '1'"),
        (None, TypeError, "must be a real number; got None"),
        ([2.0], TypeError, "must be a real number; got [2.0]"),
        (1j, TypeError, "must be a real number; got 1j"),
    ],
    "alpha": [
        (-0.1, ValueError, "must be between 0 and 1; got -0.1"),
        (1.5, ValueError, "must be between 0 and 1; got 1.5"),
        (np.nan, ValueError, "must be between 0 and 1; got nan"),
        (False, TypeError, "must be a real number; got False"),
        ("1", TypeError, "must be a real number; got '1'"),
    ],
    "num_classes": [
        (0, ValueError, "must be at least 1; got 0"),
        (-3, ValueError, "must be at least 1; got -3"),
        (2.0, TypeError, "must be an integer; got 2.0"),
        (True, TypeError, "must be an integer; got True"),
    ],
}


def refuses(name, error, text, **bad):
    with pytest.raises(error, match=f"^{re.escape(text)}$"):
        call(name, **GOOD | bad)


def uses(arguments):
    """Every public function with each of these arguments that it has."""
    return [(name, key) for key in arguments for name in names_with(key)]


@pytest.mark.parametrize("name", kd.__all__)
def test_good_arguments_pass(name):
    call(name, **GOOD)


@pytest.mark.parametrize(("name", "argument"), uses(ARRAYS))
def test_what_is_no_array_with_classes(name, argument):
    for value, error, requirement in BAD_ARRAYS:
        refuses(name, error, f"{argument} {requirement}", **{argument: value})


@pytest.mark.parametrize(("name", "argument"), uses(ARRAYS))
def test_rows_of_different_length(name, argument):
    with pytest.raises(ValueError, match=f"^{argument} must be a rectangular array of numbers; "):
        call(name, **GOOD | {argument: [[1.0, 0.0], [1.0]]})


@pytest.mark.parametrize(
    ("name", "argument"), [pair for pair in uses(DISTRIBUTIONS) if pair[0] != "one_hot"]
)
def test_what_is_no_distribution(name, argument):
    for value, requirement in BAD_DISTRIBUTIONS:
        refuses(name, ValueError, f"{argument} {requirement}", **{argument: value})


@pytest.mark.parametrize(("name", "argument"), uses(["labels", "hard_labels"]))
def test_what_is_no_class(name, argument):
    for value, came in (2, "2 in an array of shape ()"), (-1, "-1 in an array of shape ()"):
        text = f"{argument} must be class indices in 0..1; got {came}"
        refuses(name, ValueError, text, **{argument: value})


def test_which_index_is_no_class():
    text = "labels must be class indices in 0..2; got 7 in an array of shape (2, 3)"
    with pytest.raises(ValueError, match=re.escape(text)):
        kd.one_hot([[0, 1, 2], [2, 7, 9]], 3)
    with pytest.raises(ValueError, match=re.escape(text)):
        kd.cross_entropy_loss(np.zeros((2, 3, 3)), [[0, 1, 2], [2, 7, 9]])


def test_indices_must_be_integers():
    refuses(
        "one_hot", TypeError, "labels must be integer class indices; got dtype float64", labels=1.0
    )


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


def test_indices_are_named_with_the_shape_they_came_in():
    text = "logits and labels must have batch shapes that broadcast; got shapes (2, 3) and (4,)"
    with pytest.raises(ValueError, match=re.escape(text)):
        kd.cross_entropy_loss(np.zeros((2, 3)), [0, 1, 2, 0])


LOGITS = np.zeros((2, 3))
LOCKED = np.zeros((2, 3))
LOCKED.flags.writeable = False


@pytest.mark.parametrize(
    ("out", "error", "text"),
    [
        ([[0.0] * 3] * 2, TypeError, "out must be a NumPy array; got list"),
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


def test_out_that_is_an_input_behind_another_face():
    logits = np.ones((2, 3))
    for student in memoryview(logits), logits[::-1]:
        with pytest.raises(ValueError, match="out must not share memory"):
            kd.kd_loss_and_grad(student, np.ones(3), out=logits)


def test_alpha_is_refused_before_anything_else():
    with pytest.raises(ValueError, match="alpha must be"):
        kd.knowledge_distillation_loss([[1.0]], [["no logits"]], [0], temperature=1, alpha=2)
