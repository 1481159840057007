"""What other libraries compute, transcribed here in plain NumPy, and its conversion to ours."""

import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose

from kd_notes import (
    cross_entropy_loss,
    entropy,
    kd_grad,
    kd_loss,
    knowledge_distillation_grad,
    knowledge_distillation_loss,
    label_smoothing_grad,
    label_smoothing_loss,
    logit_matching_loss,
)
from kd_notes.divergences import JensenShannon, SkewKL, SkewReverseKL

N, K, TAU = 6, 4, 3.0
REDUCTIONS = ["none", "sum", "batchmean", "mean"]

# The transcriptions add up rounded logarithms of order 1 to 10 that largely cancel, to
# losses of order 0.1 to 10.
CANCELED = 1e-13


def softmax(logits, temperature=1.0):
    weights = np.exp((logits - logits.max(axis=-1, keepdims=True)) / temperature)
    return weights / weights.sum(axis=-1, keepdims=True)


def log_softmax(logits, temperature=1.0):
    return np.log(softmax(logits, temperature))


def kl_div(input, target, reduction="mean", log_target=False):
    """Do as PyTorch's F.kl_div: the student's logarithms first, then the teacher."""
    if log_target:
        terms = np.exp(target) * (target - input)
    else:
        log_target = np.log(target, out=np.zeros_like(target), where=target > 0)
        terms = target * (log_target - input)
    if reduction == "none":
        return terms
    return terms.sum() / {"sum": 1, "batchmean": len(input), "mean": input.size}[reduction]


@pytest.fixture
def student():
    return np.random.default_rng(seed=1).normal(scale=2, size=(N, K))


@pytest.fixture
def teacher():
    return np.random.default_rng(seed=2).normal(scale=2, size=(N, K)) + 1


@pytest.fixture
def labels():
    return np.array([0, 3, 1, 1, 2, 0])


def hard(student, labels):
    return -log_softmax(student)[np.arange(N), labels].mean()


def soft(student, teacher, reduction="batchmean"):
    return kl_div(log_softmax(student, TAU), softmax(teacher, TAU), reduction)


@pytest.mark.parametrize(("reduction", "factor"), [("sum", N), ("batchmean", 1), ("mean", 1 / K)])
@pytest.mark.parametrize("log_target", [False, True])
def test_kl_div_of_pytorch(reduction, factor, log_target, student, teacher):
    target = log_softmax(teacher, TAU) if log_target else softmax(teacher, TAU)
    theirs = kl_div(log_softmax(student, TAU), target, reduction, log_target)
    kd = kd_loss(student, teacher, TAU, scaled=False)
    assert_allclose(theirs, factor * kd.mean(), rtol=CANCELED)


def test_kl_div_unreduced_sums_to_the_loss_over_classes(student, teacher):
    terms = soft(student, teacher, "none")
    assert terms.shape == (N, K)
    assert terms.min() < 0  # the entries themselves are no divergences
    kd = kd_loss(student, teacher, TAU, scaled=False)
    assert_allclose(terms.sum(axis=-1), kd, rtol=0, atol=CANCELED)


def test_kl_div_batchmean_of_sequences_divides_by_the_first_axis_alone(student, teacher):
    pairs = student.reshape(2, 3, K), teacher.reshape(2, 3, K)
    assert_allclose(soft(*pairs), 3 * kd_loss(*pairs, TAU, scaled=False).mean(), rtol=CANCELED)


def test_kl_div_with_its_arguments_swapped_is_the_other_direction(student, teacher):
    theirs = kl_div(log_softmax(teacher, TAU), softmax(student, TAU), "batchmean")
    reversed_loss = kd_loss(teacher, student, TAU, scaled=False).mean()
    assert_allclose(theirs, reversed_loss, rtol=CANCELED)
    assert abs(theirs / kd_loss(student, teacher, TAU, scaled=False).mean() - 1) > 0.01


def tutorials(student, teacher, labels, alpha):
    return (1 - alpha) * hard(student, labels) + alpha * TAU**2 * soft(student, teacher)


def torchdistill(student, teacher, labels, alpha):  # and the Keras example
    return alpha * hard(student, labels) + (1 - alpha) * TAU**2 * soft(student, teacher)


def rep_distiller(student, teacher, labels, alpha, gamma=0.5):
    return gamma * hard(student, labels) + alpha * TAU**2 * soft(student, teacher)


def text_brewer(student, teacher, labels, alpha, hard_weight=0.5):
    cross_entropy = -(softmax(teacher, TAU) * log_softmax(student, TAU)).sum(axis=-1).mean()
    return hard_weight * hard(student, labels) + alpha * cross_entropy


def tf_kd(student, teacher, labels, alpha):  # and DeiT
    soft_loss = soft(student, teacher, "mean")
    return (1 - alpha) * hard(student, labels) + alpha * TAU**2 * soft_loss


# Each recipe as a CE + b KL: the two weights, and our alpha in the table of the book.
RECIPES = {
    "tutorials": (tutorials, lambda x: (1 - x, x * TAU**2), lambda x: x),
    "torchdistill": (torchdistill, lambda x: (x, (1 - x) * TAU**2), lambda x: 1 - x),
    "RepDistiller": (rep_distiller, lambda x: (0.5, x * TAU**2), lambda x: x / (0.5 + x)),
    "TextBrewer": (text_brewer, lambda x: (0.5, x), lambda x: x / (0.5 * TAU**2 + x)),
    "Tf-KD": (tf_kd, lambda x: (1 - x, x * TAU**2 / K), lambda x: x / (K * (1 - x) + x)),
}


@pytest.mark.parametrize("theirs", [0.1, 0.7, 0.9])
@pytest.mark.parametrize("name", RECIPES)
def test_recipe(name, theirs, student, teacher, labels):
    recipe, weights, our_alpha = RECIPES[name]
    expected = recipe(student, teacher, labels, theirs)
    if name == "TextBrewer":  # its cross-entropy is ours plus what no student can change
        expected -= theirs * entropy(softmax(teacher, TAU)).mean()
    a, b = weights(theirs)
    kd = kd_loss(student, teacher, TAU, scaled=False)
    two_calls = a * cross_entropy_loss(student, labels) + b * kd
    assert_allclose(two_calls.mean(), expected, rtol=CANCELED)
    alpha = our_alpha(theirs)
    assert_allclose(alpha, b / (a * TAU**2 + b), rtol=1e-15)
    one_call = knowledge_distillation_loss(student, teacher, labels, TAU, alpha)
    assert_allclose((a + b / TAU**2) * one_call.mean(), expected, rtol=CANCELED)


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_has_the_gradient_of_its_conversion(name, student, teacher, labels):
    recipe, weights, our_alpha = RECIPES[name]
    a, b = weights(0.7)
    grad = knowledge_distillation_grad(student, teacher, labels, TAU, our_alpha(0.7))
    step = 1e-5 * np.eye(N * K).reshape(N * K, N, K)
    slopes = [
        (recipe(student + s, teacher, labels, 0.7) - recipe(student - s, teacher, labels, 0.7))
        / 2e-5
        for s in step
    ]
    # The steps cut off 1e-10 and round off 1e-10 of losses up to 10.
    assert_allclose(np.ravel((a + b / TAU**2) * grad / N), slopes, rtol=0, atol=1e-9)


def test_equation_13_as_printed_softens_the_label_too(student, teacher, labels):
    printed = 0.3 * hard(student / TAU, labels) + 0.7 * soft(student, teacher)
    ours = knowledge_distillation_loss(student / TAU, teacher / TAU, labels, 1.0, 0.7)
    assert_allclose(ours.mean(), printed, rtol=CANCELED)


def kl(p, q):
    return np.sum(p * np.log(p / q), axis=-1)


def soft_cross_entropy(p, q):
    return -np.sum(p * np.log(q), axis=-1)


def trl(p, q, beta=0.1):  # Liger and ms-swift too
    if beta in (0, 1):
        return kl(q, p) if beta else kl(p, q)
    mixture = beta * p + (1 - beta) * q
    return beta * kl(p, mixture) + (1 - beta) * kl(q, mixture)


def js_distance(p, q, lam=0.9):  # of DistiLLM, as the next three
    mixture = (1 - lam) * p + lam * q
    of_student = soft_cross_entropy(q, mixture) - entropy(q)
    of_teacher = soft_cross_entropy(p, mixture) - entropy(p)
    return lam * of_student + (1 - lam) * of_teacher


def skewed_forward_kl(p, q, lam=0.1):
    return soft_cross_entropy(p, lam * p + (1 - lam) * q)


def skewed_reverse_kl(p, q, lam=0.1):
    return soft_cross_entropy(q, (1 - lam) * p + lam * q) - entropy(q)


def tv_distance(p, q):
    return 0.5 * np.sum(np.abs(p - q), axis=-1)


def symmetric_kl(p, q, ratio=0.5):  # of torchtune
    return ratio * soft_cross_entropy(p, q) + (1 - ratio) * kl(q, p)


# Their loss, ours, and how often theirs has the teacher's entropy added.
DIVERGENCES = {
    "TRL": (trl, JensenShannon(0.1, normalized=False), 0),
    "TRL at 0": (lambda p, q: trl(p, q, beta=0), "forward_kl", 0),
    "TRL at 1": (lambda p, q: trl(p, q, beta=1), "reverse_kl", 0),
    "DistiLLM's JS": (js_distance, JensenShannon(1 - 0.9, normalized=False), 0),
    "DistiLLM's skew KL": (skewed_forward_kl, SkewKL(0.1, normalized=False), 1),
    "DistiLLM's skew reverse KL": (skewed_reverse_kl, SkewReverseKL(0.1, normalized=False), 0),
    "DistiLLM's TV": (tv_distance, "total_variation", 0),
    "torchtune's forward KL": (soft_cross_entropy, "forward_kl", 1),
    "torchtune's symmetric KL": (symmetric_kl, "jeffreys", 0.5),
}
each_divergence = pytest.mark.parametrize("name", DIVERGENCES)


@each_divergence
def test_divergence(name, student, teacher):
    theirs, ours, entropies = DIVERGENCES[name]
    p, q = softmax(teacher, TAU), softmax(student, TAU)
    loss = kd_loss(student, teacher, TAU, divergence=ours, scaled=False)
    assert_allclose(loss + entropies * entropy(p), theirs(p, q), rtol=CANCELED, atol=1e-15)


@each_divergence
def test_divergence_has_the_gradient_of_its_conversion(name, student, teacher):
    theirs, ours, _ = DIVERGENCES[name]
    p, step = softmax(teacher, TAU), 1e-5 * np.eye(K)
    up, down = (theirs(p[:, None], softmax(student[:, None] + s, TAU)) for s in (step, -step))
    grad = kd_grad(student, teacher, TAU, divergence=ours, scaled=False)
    # The steps cut off and round off 1e-10 of losses up to 10.
    assert_allclose(grad, (up - down) / 2e-5, rtol=0, atol=1e-9)


def test_trl_jumps_at_both_ends(student, teacher):
    p, q = softmax(teacher, TAU), softmax(student, TAU)
    for end, inside in (0, 1e-6), (1, 1 - 1e-6):
        ratio = trl(p, q, beta=inside) / trl(p, q, beta=end)
        assert_allclose(ratio, 1e-6, rtol=1e-3)  # small differences of rounded numbers


def test_label_smoothing_of_tf_kd(student, labels):
    eps = 0.1
    smoothed = np.full((N, K), eps / (K - 1))
    smoothed[np.arange(N), labels] = 1 - eps
    theirs = -(log_softmax(student) * smoothed).sum(axis=-1)
    alpha = eps * K / (K - 1)
    ours = label_smoothing_loss(student, labels, alpha) + alpha * np.log(K)
    assert_allclose(ours, theirs, rtol=CANCELED)
    grad = label_smoothing_grad(student, labels, alpha)
    # A difference of two probabilities.
    assert_allclose(grad, softmax(student) - smoothed, rtol=0, atol=1e-15)


def test_mean_squared_error_of_pytorch_is_twice_logit_matching(student, teacher):
    theirs = np.mean((student - teacher) ** 2)
    assert_allclose(2 * logit_matching_loss(student, teacher).mean(), theirs, rtol=1e-14)


@pytest.fixture
def teachers():
    return np.random.default_rng(seed=3).normal(scale=2, size=(5, 1, K))


def test_mean_loss_over_teachers_is_the_loss_against_their_mean_probabilities(student, teachers):
    p = softmax(teachers, TAU)
    mean_teacher = TAU * np.log(p.mean(axis=0))
    gap = kd_loss(student, teachers, TAU).mean(axis=0) - kd_loss(student, mean_teacher, TAU)
    disagreement = TAU**2 * (entropy(p.mean(axis=0)) - entropy(p).mean(axis=0))
    # One constant for all students, rounded like losses up to 10.
    assert_allclose(gap, np.full(N, disagreement[0]), rtol=0, atol=1e-13)
    mean_grad = kd_grad(student, teachers, TAU).mean(axis=0)
    assert_allclose(kd_grad(student, mean_teacher, TAU), mean_grad, rtol=0, atol=1e-14)


def test_mean_reversed_loss_is_the_reversed_loss_against_the_mean_logits(student, teachers):
    mean_teacher = teachers.mean(axis=0)
    backward = kd_loss(teachers, student, TAU).mean(axis=0)
    gap = backward - kd_loss(mean_teacher, student, TAU)
    geometric_mean = np.exp(log_softmax(teachers, TAU).mean(axis=0))
    disagreement = -(TAU**2) * np.log(geometric_mean.sum(axis=-1))
    # One constant for all students, rounded like losses up to 10.
    assert_allclose(gap, np.full(N, disagreement[0]), rtol=0, atol=1e-13)


def test_means_of_teachers_agree_at_infinite_temperature(student, teachers):
    def apart(temperature):
        mean_teacher = temperature * np.log(softmax(teachers, temperature).mean(axis=0))
        of_probabilities = kd_loss(student, mean_teacher, temperature)
        of_logits = kd_loss(student, teachers.mean(axis=0), temperature)
        return np.abs(of_probabilities - of_logits).max()

    assert apart(1.0) > 0.05
    # They approach each other like 1/tau, to within the next term, a hundredth here.
    assert_allclose(apart(1e4) / apart(1e3), 0.1, rtol=0.05)


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides:UserWarning")
def test_transcription_is_pytorchs(student, teacher):
    torch = pytest.importorskip("torch")
    shapes = [(N, K), (2, 3, K)]
    for shape, reduction, log_target in itertools.product(shapes, REDUCTIONS, [False, True]):
        log_q = log_softmax(student, TAU).reshape(shape)
        target = softmax(teacher, TAU).reshape(shape)
        if log_target:
            target = np.log(target)
        else:
            target[0] = np.eye(K)[0]  # with classes of probability 0
        theirs = torch.nn.functional.kl_div(
            torch.from_numpy(log_q),
            torch.from_numpy(target),
            reduction=reduction,
            log_target=log_target,
        )
        ours = kl_div(log_q, target, reduction, log_target)
        # The same terms of order 1, added up in another order.
        assert_allclose(theirs.numpy(), ours, rtol=CANCELED, atol=1e-15)


def test_pytorch_fails_where_the_book_says_so(student, teacher):
    torch = pytest.importorskip("torch")

    def theirs(student, teacher, temperature):
        log_q = torch.log_softmax(torch.from_numpy(student) / temperature, dim=-1)
        p = torch.softmax(torch.from_numpy(teacher) / temperature, dim=-1)
        kl = torch.nn.functional.kl_div(log_q, p, reduction="batchmean")
        return temperature**2 * kl.item()

    pair = student.astype(np.float32), teacher.astype(np.float32)
    truth = kd_loss(*pair, 1e5).mean()
    assert abs(theirs(*pair, 1e5) / truth - 1) > 1
    for logits in pair:
        logits[:, 1] = -np.inf
    assert np.isnan(theirs(*pair, 1.0))
