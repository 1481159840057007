"""The KD loss, its gradient, and its mixture with the labels (Eq. 8, 10, 13)."""

import math

import numpy as np
import pytest
import references
import sympy as sp
from hypothesis import assume, given
from numpy.testing import assert_allclose, assert_array_equal
from references import EPS, central_differences, over_rows, symbolic_gradient
from strategies import LOGIT_PAIRS, SHIFTS, TEMPERATURES

from kd_notes import (
    cross_entropy_grad,
    cross_entropy_loss,
    entropy,
    kd_grad,
    kd_loss,
    kd_loss_and_grad,
    kl_divergence,
    knowledge_distillation_grad,
    knowledge_distillation_loss,
    label_smoothing_grad,
    logit_matching_grad,
    logit_matching_loss,
    regularized_logit_matching_grad,
    regularized_logit_matching_loss,
    softmax,
    softmax_jacobian,
)

ORDINARY = [0.5, 1.0, 2.0, 5.0, 20.0]


@pytest.fixture
def student(rng):
    return rng.normal(scale=2, size=(6, 4))


@pytest.fixture
def teacher(rng):
    return rng.normal(scale=2, size=(6, 4)) + 1


@pytest.fixture
def labels(rng):
    return rng.dirichlet(np.ones(4), size=6)


def assert_close_by_row(actual, expected, tolerance):
    """Compare gradients by the largest entry of each row."""
    largest = np.abs(expected).max(axis=-1, keepdims=True)
    assert_allclose(actual / largest, expected / largest, rtol=0, atol=tolerance)


# The logits differ by about their own size, so that the loss has a condition number of
# 2 to 4 in them, and 16 eps for each unit of it is the promise.
FEW = 64

# Among the logits of the laws, up to 16 and as near as 1/16, the condition number goes up
# to some 1000; shifts are exact and add nothing to it.
LAW = 1e-11


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("temperature", [*ORDINARY, 1e3, 1e6])
def test_loss_is_equation_8_and_gradient_equation_10(temperature, dtype, student, teacher):
    student, teacher = student.astype(dtype), teacher.astype(dtype)
    loss = over_rows(lambda s, t: references.kd_loss(s, t, temperature), student, teacher)
    grad = over_rows(lambda s, t: references.kd_grad(s, t, temperature), student, teacher)
    tolerance = FEW * np.finfo(dtype).eps
    assert_allclose(kd_loss(student, teacher, temperature), loss, rtol=tolerance)
    assert_close_by_row(kd_grad(student, teacher, temperature), grad, tolerance)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_infinite_temperature_is_regularized_logit_matching(dtype, student, teacher):  # Remark 2
    student, teacher = student.astype(dtype), teacher.astype(dtype)
    loss, grad = kd_loss_and_grad(student, teacher, np.inf)
    tolerance = FEW * np.finfo(dtype).eps
    expected = over_rows(references.regularized_logit_matching, student, teacher)
    assert_allclose(loss, expected, rtol=tolerance)
    expected = regularized_logit_matching_loss(student, teacher)
    assert_allclose(loss, expected, rtol=tolerance)
    expected = over_rows(references.regularized_logit_matching_grad, student, teacher)
    assert_close_by_row(grad, expected, tolerance)
    assert_close_by_row(grad, regularized_logit_matching_grad(student, teacher), tolerance)


def test_equal_means_make_it_plain_logit_matching(student, teacher):  # Remark 3
    student = student - student.mean(axis=-1, keepdims=True)
    teacher = teacher - teacher.mean(axis=-1, keepdims=True)
    # The means are equal up to their rounding, which the loss squares.
    loss, grad = kd_loss_and_grad(student, teacher, np.inf)
    assert_allclose(loss, logit_matching_loss(student, teacher), rtol=FEW * EPS)
    assert_close_by_row(grad, logit_matching_grad(student, teacher), FEW * EPS)


def test_unscaled_at_infinite_temperature_is_zero(student, teacher):
    loss, grad = kd_loss_and_grad(student, teacher, np.inf, scaled=False)
    assert_array_equal(loss, np.zeros(6))
    assert_array_equal(grad, np.zeros((6, 4)))


@pytest.mark.parametrize("temperature", ORDINARY)
def test_unscaled_is_the_equation_as_printed(temperature, student, teacher):
    loss, grad = kd_loss_and_grad(student, teacher, temperature, scaled=False)
    scaled_loss, scaled_grad = kd_loss_and_grad(student, teacher, temperature)
    # Two ways to the same factor.
    assert_allclose(loss, scaled_loss / temperature**2, rtol=FEW * EPS)
    assert_close_by_row(grad, scaled_grad / temperature**2, FEW * EPS)


@pytest.mark.parametrize("temperature", ORDINARY)
def test_loss_is_kl_of_the_softened_predictions(temperature, student, teacher):
    p_t, p_s = softmax(teacher, temperature), softmax(student, temperature)
    # The probabilities are rounded, within 10 eps; the loss is of order d^2, d = D / 20 at least.
    expected = kl_divergence(p_t, p_s)
    loss = kd_loss(student, teacher, temperature, scaled=False)
    assert_allclose(loss, expected, rtol=1e-12)


@pytest.mark.parametrize("temperature", [1.0, 3.0, np.inf])
@pytest.mark.parametrize("scaled", [True, False])
def test_one_pass_gives_what_two_give(temperature, scaled, student, teacher):
    out = np.full((6, 4), np.nan)
    loss, grad = kd_loss_and_grad(student, teacher, temperature, scaled=scaled, out=out)
    assert grad is out
    # The same arithmetic, which may be arranged otherwise if one result is not asked for.
    expected = kd_loss(student, teacher, temperature, scaled=scaled)
    assert_allclose(loss, expected, rtol=8 * EPS)
    expected = kd_grad(student, teacher, temperature, scaled=scaled)
    assert_allclose(grad, expected, rtol=0, atol=32 * EPS)


def test_out_receives_a_float16_gradient(student, teacher):
    student, teacher = student.astype(np.float16), teacher.astype(np.float16)
    out = np.empty((6, 4), np.float16)
    loss, grad = kd_loss_and_grad(student, teacher, 2.0, out=out)
    assert grad is out
    assert loss.dtype == np.float32
    assert_array_equal(loss, kd_loss(student, teacher, 2.0))
    assert_array_equal(out, kd_grad(student, teacher, 2.0))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("temperature", [*ORDINARY, 1e6, 1e12, np.inf])
def test_a_match_costs_exactly_nothing(temperature, dtype, rng):
    logits = rng.normal(scale=50, size=(8, 100)).astype(dtype)
    loss, grad = kd_loss_and_grad(logits, logits.copy(), temperature)
    assert_array_equal(loss, np.zeros(8))
    assert_array_equal(grad, np.zeros((8, 100)))


def test_two_classes_have_a_logistic_form(rng):
    student, teacher = rng.normal(scale=2, size=(2, 20, 2))
    for temperature in ORDINARY:
        s = np.diff(student, axis=-1)[:, 0] / temperature
        t = np.diff(teacher, axis=-1)[:, 0] / temperature
        p = 1 / (1 + np.exp(-t))
        kl = p * (t - s) + np.logaddexp(0, s) - np.logaddexp(0, t)
        # The closed form cancels: numbers of order 1 to 10, times temperature^2 below.
        loss = kd_loss(student, teacher, temperature, scaled=False)
        assert_allclose(loss, kl, rtol=0, atol=16 * EPS)
        slope = (1 / (1 + np.exp(-s)) - p) * temperature
        grad = kd_grad(student, teacher, temperature)
        # A difference of probabilities, times the temperature.
        assert_allclose(grad, np.stack([-slope, slope], axis=-1), atol=8 * EPS * temperature)


@pytest.mark.parametrize("temperature", [*ORDINARY, np.inf])
def test_gradient_is_the_derivative(temperature, student, teacher):
    def loss(z):
        return kd_loss(z, teacher[:, np.newaxis], temperature)

    # A step of 1e-5 cuts off 1e-10 and rounds off 1e-9 of losses up to 20.
    expected = central_differences(loss, student)
    assert_allclose(kd_grad(student, teacher, temperature), expected, atol=2e-9)


def test_gradient_is_sympys(student):
    row = np.array([0.5, -1.0, 2.0, 0.25])

    def loss(z, p):
        weights = [sp.exp(z_i / 3) for z_i in z]
        p_s = [w / sum(weights) for w in weights]
        return 9 * sum(
            p_t * sp.log(p_t / p_s) for p_t, p_s in zip(softmax(row, 3), p_s, strict=True)
        )

    # The derived expression cancels numbers of order 1, times 3.
    assert_allclose(kd_grad(student, row, 3), symbolic_gradient(loss, student), atol=1e-14)


@given(LOGIT_PAIRS, TEMPERATURES)
def test_gradient_sums_to_zero(pair, temperature):
    grad = kd_grad(*pair, temperature)
    # At most seven terms, each right to a few eps of the largest.
    assert abs(grad.sum()) <= FEW * EPS * np.abs(grad).max()


def test_curvature_is_the_jacobian_of_softmax(student, teacher):  # proposition 2
    hessian = central_differences(
        lambda z: kd_grad(z, teacher[:, np.newaxis], 2.0, scaled=False), student
    )
    # A step of 1e-5 cuts off 1e-11 and rounds off 1e-11.
    assert_allclose(hessian, softmax_jacobian(student, 2.0) / 2, atol=1e-10)


@given(LOGIT_PAIRS, TEMPERATURES)
def test_loss_is_never_negative(pair, temperature):
    student, teacher = pair
    assert kd_loss(student, teacher, temperature) >= 0
    assert kd_loss(student, student + 5, temperature) < 1e-40  # rounding, to the fourth power


@given(LOGIT_PAIRS, SHIFTS, TEMPERATURES)
def test_a_shift_of_all_logits_changes_nothing(pair, shift, temperature):
    student, teacher = pair
    loss, grad = kd_loss_and_grad(student, teacher, temperature)
    moved_loss, moved_grad = kd_loss_and_grad(student + shift, teacher - 3, temperature)
    assert_allclose(moved_loss, loss, rtol=LAW, atol=0)
    assert_allclose(moved_grad, grad, rtol=0, atol=LAW * np.abs(grad).max())


@given(LOGIT_PAIRS, TEMPERATURES)
def test_reversed_classes_have_the_same_loss_and_reversed_gradients(pair, temperature):
    student, teacher = pair
    loss, grad = kd_loss_and_grad(student, teacher, temperature)
    turned_loss, turned_grad = kd_loss_and_grad(student[::-1], teacher[::-1], temperature)
    assert_allclose(turned_loss, loss, rtol=LAW, atol=0)
    assert_allclose(turned_grad[::-1], grad, rtol=0, atol=LAW * np.abs(grad).max())


@given(LOGIT_PAIRS, TEMPERATURES)
def test_loss_lies_between_multiples_of_its_limit(pair, temperature):  # proposition 8
    student, teacher = pair
    loss, limit = kd_loss(student, teacher, temperature), regularized_logit_matching_loss(*pair)
    factor = np.exp(max(np.ptp(student), np.ptp(teacher)) / temperature)
    # Both ends touch as the temperature grows: this allows for the rounding of both losses.
    assert limit / factor * (1 - LAW) <= loss <= limit * factor * (1 + LAW)


@given(LOGIT_PAIRS, TEMPERATURES)
def test_one_temperature_is_high_for_all_standardized_logits(pair, temperature):  # proposition 23
    assume(all(np.ptp(z) > 0 for z in pair))
    student, teacher = ((z - z.mean()) / z.std() for z in pair)
    loss, limit = kd_loss(student, teacher, temperature), 1 - np.mean(student * teacher)
    factor = np.exp(np.sqrt(2 * len(student)) / temperature)
    # The limit is a difference of numbers up to 1.
    assert limit / factor - 16 * EPS <= loss * (1 + LAW)
    assert loss * (1 - LAW) <= (limit + 16 * EPS) * factor


def test_for_two_classes_the_loss_never_falls_as_the_temperature_rises():  # proposition 24
    margins = np.linspace(-9, 9, 19)
    student = np.stack([margins, 0 * margins], axis=-1)
    temperatures = np.geomspace(0.1, 1e4, 200)
    losses = np.stack([kd_loss(student, student[:, np.newaxis], t) for t in temperatures])
    # The rounding of the loss, whose condition number is up to 18/0.1.
    assert np.all(np.diff(losses, axis=0) >= -1e-13 * losses[1:])
    assert kd_loss([-1.0, 1.0, -9.0], [1.0, -1.0, -9.0], 3) > 1.4 * 4 / 3  # its limit is 4/3


@given(LOGIT_PAIRS, TEMPERATURES)
def test_loss_is_below_an_eighth_of_the_squared_range(pair, temperature):  # proposition 9
    student, teacher = pair
    # Two classes attain it at infinite temperature: this allows for the rounding of the loss.
    bound = np.ptp(student - teacher) ** 2 / 8
    assert kd_loss(student, teacher, temperature) <= bound * (1 + LAW)


def sharp_sandwich(num_classes, ratio):
    """Return both sides of proposition 7, for a ratio of R to the temperature."""
    a, k = np.exp(ratio), num_classes
    return k**2 * a / ((k - 1) * a + 1) ** 2, k * a / (2 * a + k - 2)


@given(LOGIT_PAIRS, TEMPERATURES)
def test_loss_lies_in_the_sharp_sandwich(pair, temperature):  # proposition 7
    student, teacher = pair
    loss, limit = kd_loss(student, teacher, temperature), regularized_logit_matching_loss(*pair)
    ratio = max(np.ptp(student), np.ptp(teacher)) / temperature
    lower, upper = sharp_sandwich(len(student), ratio)
    assert lower * limit * (1 - LAW) <= loss <= upper * limit * (1 + LAW)


@pytest.mark.parametrize("ratio", [0.1, 1.0, 5.0])
@pytest.mark.parametrize("num_classes", [3, 10])
def test_the_sharp_sandwich_is_attained(num_classes, ratio):  # proposition 7
    one_low = np.r_[0.0, np.full(num_classes - 1, ratio)]
    two_high = np.r_[ratio, ratio, np.zeros(num_classes - 2)]
    lower, upper = sharp_sandwich(num_classes, ratio)
    step = np.eye(num_classes)[0] * 1e-6
    found = kd_loss(one_low + step, one_low) / kd_loss(step, 0 * step, np.inf)
    assert_allclose(found, lower, rtol=1e-5)  # the step changes the ratio by about itself
    step -= np.eye(num_classes)[1] * 1e-6
    found = kd_loss(two_high + step, two_high) / kd_loss(step, 0 * step, np.inf)
    assert_allclose(found, upper, rtol=1e-5)


def sharp_bound(x):
    """Return the bound of proposition 10, for x the range of D over the temperature."""
    if x < 0.1:  # the series, as the closed form cancels
        return x**2 / 8 - x**4 / 576 + x**6 / 25920
    return np.log(np.expm1(x) / x) - 1 + x / np.expm1(x)


@given(LOGIT_PAIRS, TEMPERATURES)
def test_loss_is_below_the_sharp_bound(pair, temperature):  # proposition 10
    student, teacher = pair
    x = np.ptp(student - teacher) / temperature
    assert kd_loss(student, teacher, temperature, scaled=False) <= sharp_bound(x) * (1 + LAW)


@pytest.mark.parametrize("x", [0.2, 1.0, 5.0, 30.0])
def test_the_sharp_bound_is_attained(x):  # proposition 10
    w = 1 / x - 1 / np.expm1(x)
    teacher = np.log([w / 4, 3 * w / 4, 1 - w])
    # The bound cancels at small x: 1e-16 of numbers near 1, over 0.005.
    assert_allclose(kd_loss(np.add(teacher, [x, x, 0]), teacher), sharp_bound(x), rtol=1e-12)


def test_the_bounds_hold_at_infinite_temperature():  # propositions 8 and 9
    # Two classes, where all three are equal; 1/8 is exact but for the last few bits.
    assert_allclose(kd_loss([1.0, 0.0], [0.0, 0.0], np.inf), 1 / 8, rtol=4 * EPS)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_loss_is_an_integral_of_variances(temperature, student, teacher):  # proposition 5
    nodes, weights = np.polynomial.legendre.leggauss(60)
    nodes, weights = (nodes + 1) / 2, weights / 2
    difference = student - teacher
    path = teacher[:, np.newaxis] + nodes[:, np.newaxis] * difference[:, np.newaxis]
    p = softmax(path, temperature)
    mean = (p * difference[:, np.newaxis]).sum(axis=-1, keepdims=True)
    variance = (p * (difference[:, np.newaxis] - mean) ** 2).sum(axis=-1)
    # Sixty nodes leave about 1e-14 of an integrand this smooth.
    expected = (weights * (1 - nodes) * variance).sum(axis=-1)
    assert_allclose(kd_loss(student, teacher, temperature), expected, rtol=1e-12)


def test_first_correction_is_a_third_moment(student, teacher):  # proposition 11
    difference, mixed = (
        (z - z.mean(-1, keepdims=True)) for z in (student - teacher, student + 2 * teacher)
    )
    correction = (difference**2 * mixed).mean(axis=-1) / 6
    limit = kd_loss(student, teacher, np.inf)
    # At temperature 1e4 the next term is 1e-4 of the first, and rounding 1e-16 * 1e4 of it.
    assert_allclose(1e4 * (kd_loss(student, teacher, 1e4) - limit), correction, rtol=1e-2)


def test_temperature_to_zero_is_the_perceptron(student, teacher):  # proposition 12
    tau = 1e-3
    top = teacher.argmax(axis=-1)
    margin = student.max(axis=-1) - student[np.arange(6), top]
    # What is left is tau times a logarithm, below 1 unless classes are tied.
    assert_allclose(tau * kd_loss(student, teacher, tau, scaled=False), margin, atol=tau)
    expected = np.eye(4)[student.argmax(axis=-1)] - np.eye(4)[top]
    # The logits' gaps are above 0.05 = 50 tau.
    assert_allclose(tau * kd_grad(student, teacher, tau, scaled=False), expected, atol=1e-15)


def test_excluded_classes():
    inf, log3 = np.inf, np.log(3)
    # By both: the classes left are two.
    assert_allclose(
        kd_loss([0.0, -inf, 1.0], [2.0, -inf, 0.0], 2.0),
        kd_loss([0, 1], [2, 0], 2.0),
        rtol=4 * EPS,
    )
    # By the teacher: KL of (1/2, 1/2, 0) from (1/3, 1/3, 1/3) is log 3/2.
    loss, grad = kd_loss_and_grad([0.0, 0.0, 0.0], [0.0, 0.0, -inf])
    assert_allclose(loss, log3 - np.log(2), rtol=4 * EPS)
    assert_allclose(grad, [-1 / 6, -1 / 6, 1 / 3], atol=EPS)
    # By the teacher, of a student whose probability for it is tiny too: 16 eps a unit of 20.
    loss, grad = kd_loss_and_grad([0.0, 0.0, -20.0], [0.0, 0.0, -inf])
    rest = np.exp(-20) / 2
    assert_allclose(loss, np.log1p(rest), rtol=320 * EPS)
    share = rest / (1 + rest)
    assert_allclose(grad, [-share / 2, -share / 2, share], rtol=320 * EPS)
    # By the student: the loss is inf, the gradient finite.
    loss, grad = kd_loss_and_grad([-inf, 0.0, 0.0], [0.0, 0.0, 0.0])
    assert loss == inf
    assert_allclose(grad, [-1 / 3, 1 / 6, 1 / 6], atol=EPS)
    # By the student, where the teacher's probability underflows but is not excluded.
    assert kd_loss([-inf, 0.0, 0.0], [-1e4, 0.0, 0.0]) == inf
    # By each a class of its own.
    loss, grad = kd_loss_and_grad([-inf, 0.0, 0.0], [0.0, -inf, 0.0])
    assert loss == inf
    assert_allclose(grad, [-1 / 2, 1 / 2, 0], atol=EPS)


@pytest.mark.parametrize("excluded_by", [[0], [1], [0, 1]])
def test_excluded_classes_at_infinite_temperature(excluded_by):
    pair = np.array([[3.0, 1.0, 2.0, 0.5], [1.0, 1.0, 4.0, 0.0]])
    pair[excluded_by, 1] = -np.inf
    # The same three classes, or inf twice.
    expected = regularized_logit_matching_loss(*pair)
    assert_allclose(kd_loss(*pair, np.inf), expected, rtol=8 * EPS)


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_combined_loss_is_equation_13(alpha, scaled, student, teacher, labels):
    def equation(s, t, y):
        soft = references.kd_loss(s, t, 4.0) / (1 if scaled else 16)
        return (1 - references.mp.mpf(alpha)) * references.cross_entropy(s, y) + alpha * soft

    expected = over_rows(equation, student, teacher, labels)
    loss = knowledge_distillation_loss(student, teacher, labels, 4.0, alpha, scaled=scaled)
    assert_allclose(loss, expected, rtol=FEW * EPS)


@pytest.mark.parametrize("scaled", [True, False])
def test_combined_gradient_is_the_derivative(scaled, student, teacher, labels):
    def loss(z):
        return knowledge_distillation_loss(
            z, teacher[:, np.newaxis], labels[:, np.newaxis], 4.0, 0.3, scaled=scaled
        )

    grad = knowledge_distillation_grad(student, teacher, labels, 4.0, 0.3, scaled=scaled)
    # A step of 1e-5 cuts off 1e-10 and rounds off 1e-9 of losses up to 20.
    assert_allclose(grad, central_differences(loss, student), atol=2e-9)
    # Four terms of order 1, each from two.
    assert_allclose(grad.sum(axis=-1), 0, atol=16 * EPS)


@pytest.mark.parametrize("temperature", [2.0, np.inf])
def test_ends_of_alpha_are_the_terms_themselves(temperature, student, teacher):
    student[0, 1] = -np.inf  # the label and the teacher give it probability: both terms are inf
    args = student, teacher, [1, 0, 2, 3, 1, 0], temperature
    hard, soft = (student, args[2]), (student, teacher, temperature)
    assert_array_equal(knowledge_distillation_loss(*args, 0), cross_entropy_loss(*hard))
    assert_array_equal(knowledge_distillation_grad(*args, 0), cross_entropy_grad(*hard))
    assert_array_equal(knowledge_distillation_loss(*args, 1), kd_loss(*soft))
    assert_array_equal(knowledge_distillation_grad(*args, 1), kd_grad(*soft))


def test_a_weight_of_zero_silences_even_inf():
    student, teacher = [-np.inf, 0.0, 0.0], [0.0, 0.0, 0.0]
    loss = knowledge_distillation_loss(student, teacher, 1, 1.0, 0)
    assert_allclose(loss, np.log(2), rtol=2 * EPS)  # log1p(1), rounded once


def test_distillation_is_label_smoothing_by_the_teacher(student, teacher, labels):  # Remark 4
    mixed = 0.7 * labels + 0.3 * softmax(teacher)
    grad = knowledge_distillation_grad(student, teacher, labels, 1.0, 0.3)
    # Probabilities and labels below 1, rounded a few times each.
    assert_allclose(grad, cross_entropy_grad(student, mixed), atol=16 * EPS)
    # The losses differ by the teacher's entropy, which no student can change.
    loss = knowledge_distillation_loss(student, teacher, labels, 1.0, 0.3)
    expected = cross_entropy_loss(student, mixed) - 0.3 * entropy(softmax(teacher))
    assert_allclose(loss, expected, rtol=1e-14, atol=1e-14)


def test_a_uniform_teacher_is_label_smoothing(student, labels):  # Remark 4
    grad = knowledge_distillation_grad(student, np.zeros(4), labels, 1.0, 0.3)
    # Probabilities and labels below 1, rounded a few times each.
    assert_allclose(grad, label_smoothing_grad(student, labels, 0.3), atol=16 * EPS)


def test_two_temperatures_do_not_merge(student, teacher, labels):  # proposition 13
    mixed = 0.7 * labels + 0.3 * softmax(teacher, 4.0)
    grad = knowledge_distillation_grad(student, teacher, labels, 4.0, 0.3, scaled=False)
    assert (np.abs(grad - cross_entropy_grad(student, mixed)).max(axis=-1) > 1e-2).all()


def exercise_solution(student, teacher, labels, temperature, alpha):
    """The exercise's loss as its text defines it, with 1e-12 inside each logarithm."""

    def probabilities(logits, tau):
        weights = [math.exp(z / tau) for z in logits]
        return [w / math.fsum(weights) for w in weights]

    tiny = 1e-12
    hard = [
        -y * math.log(p + tiny) for y, p in zip(labels, probabilities(student, 1), strict=True)
    ]
    both = zip(
        probabilities(teacher, temperature), probabilities(student, temperature), strict=True
    )
    soft = [t * (math.log(t + tiny) - math.log(s + tiny)) for t, s in both]
    combined = (1 - alpha) * math.fsum(hard) + alpha * temperature**2 * math.fsum(soft)
    return round(combined, 6)


@pytest.mark.parametrize("k", [2, 3, 10])
def test_reference_solution_of_the_exercise(k, rng):
    for _ in range(50):
        student, teacher = rng.uniform(-2, 2, size=(2, k)).tolist()
        labels = rng.permutation(np.eye(k)[0]).tolist()
        temperature, alpha = float(rng.uniform(0.5, 8)), float(rng.uniform())
        args = student, teacher, labels, temperature, alpha
        loss = knowledge_distillation_loss(*args)
        assert type(loss) is float
        assert round(loss, 6) == exercise_solution(*args)


def test_where_the_reference_solution_meets_its_epsilon():
    student, teacher, labels = [0.0, -40.0, 3.0], [1.0, 2.0, 0.0], [0.0, 1.0, 0.0]
    loss = knowledge_distillation_loss(student, teacher, labels, 1.0, 0.5)
    s, t, y = map(references.exact, (student, teacher, labels))
    truth = (references.cross_entropy(s, y) + references.kd_loss(s, t, 1.0)) / 2
    # A loss of 33 from sums of one sign; the exercise's is 11 less.
    assert_allclose(loss, float(truth), rtol=16 * EPS)
    assert abs(exercise_solution(student, teacher, labels, 1.0, 0.5) - truth) > 10


def test_examples_of_the_exercise():
    # The value is the exercise's own solution, run once.
    args = [1.0, 2.0, 3.0], [1.5, 2.5, 3.5], [0.0, 0.0, 1.0], 2.0, 0.5
    assert round(knowledge_distillation_loss(*args), 6) == 0.203803
