"""Losses with one planted defect or choice each, and correct ones, for the auditor to tell apart.

A planted loss is the library's own, which is right everywhere, with one thing done to it: what
the auditor then finds is what was planted. Where one thing cannot be wrong alone, such as a
class that does not count, the codes that go with it are listed too.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from kd_notes import (
    cross_entropy_loss,
    entropy,
    kd_grad,
    kd_loss,
    kl_divergence,
    log_softmax,
    logit_matching_loss,
    softmax,
)
from kd_notes.divergences import Alpha, JensenShannon, SkewKL, SkewReverseKL


class Planted(NamedTuple):
    """A loss, every code that must be found, and fields of the report."""

    loss: Callable[..., Any]
    codes: frozenset[str]
    fields: Mapping[str, Any]
    options: Mapping[str, Any]


LOSSES: dict[str, Planted] = {}


def planted(*codes, options=None, **fields):
    def add(loss):
        LOSSES[loss.__name__] = Planted(loss, frozenset(codes), fields, options or {})
        return loss

    return add


TAU = 4.0
USUAL = {"divergence": "forward_kl", "reduction": "batchmean", "temperature": TAU}


def kd(student, teacher, temperature=TAU, **options):
    return kd_loss(student, teacher, temperature, **options)


# The call


@planted("crash")
def raises(student, teacher):
    raise RuntimeError("the teacher is on holiday")


@planted("crash")
def needs_more(student, teacher, beta_schedule):
    return kd(student, teacher).mean()


@planted("bad-output")
def returns_a_loss_of_each_class(student, teacher):
    return ((student - teacher) ** 2).mean(axis=0)


@planted("bad-output")
def returns_nothing(student, teacher):
    kd(student, teacher).mean()


@planted("bad-output")
def returns_a_text(student, teacher):
    return f"{kd(student, teacher).mean():.4f}"


@planted("bad-output")
def returns_a_dictionary(student, teacher):
    return {"loss": kd(student, teacher).mean()}


@planted("bad-output")
def returns_a_complex_number(student, teacher):
    return complex(kd(student, teacher).mean())


@planted("not-finite")
def is_nan(student, teacher):
    return kd(student, teacher).mean() * np.nan


@planted("stochastic")
def is_random(student, teacher, rng=np.random.default_rng()):  # noqa: B008
    return kd(student, teacher).mean() * rng.uniform(0.9, 1.1)


@planted("changes-input")
def subtracts_the_top_in_place(student, teacher):
    student -= student.max(axis=-1, keepdims=True)
    return kd(student, teacher).mean()


@planted("ignores-student")
def is_the_teachers_entropy(student, teacher):
    return entropy(softmax(teacher)).mean()


@planted("ignores-teacher")
def is_the_students_entropy(student, teacher):
    return entropy(softmax(student)).mean()


@planted("ignores-classes", "unknown-divergence", divergence="unknown")
def compares_the_teachers_top_three(student, teacher):
    top = np.argsort(-teacher, axis=-1)[..., :3]
    pair = (np.take_along_axis(z, top, axis=-1) for z in (student, teacher))
    return kd(*pair, 1.0).mean()


@planted("casts-down", **USUAL, value_power=2, gradient_power=2)
def casts_to_float32(student, teacher):
    return kd(student.astype(np.float32), teacher.astype(np.float32)).mean()


@planted("casts-down", "few-digits", **USUAL, value_power=2)
def rounds_its_student_to_float16(student, teacher):
    return kd(np.asarray(student).astype(np.float16).astype(float), teacher).mean()


@planted("casts-down", **USUAL, value_power=2)
def rounds_its_teacher_to_float32(student, teacher):
    return kd(student, np.asarray(teacher).astype(np.float32).astype(float)).mean()


# The divergence and its arguments


@planted("unknown-divergence", divergence="unknown", parameter=None)
def is_renyi_of_order_2(student, teacher):
    log_q, log_p = (log_softmax(np.asarray(z, float)) for z in (student, teacher))
    terms = np.where(log_p == -np.inf, -np.inf, 2 * log_p - log_q)
    return np.logaddexp.reduce(terms, axis=-1).mean()


@planted("takes-probabilities", divergence="forward_kl", takes="probabilities")
def is_kl_of_probabilities(student, teacher):
    return kl_divergence(teacher, student).mean()


def rel_entr(p, q):
    """As SciPy's: infinite for what are no probabilities."""
    with np.errstate(all="ignore"):
        terms = np.where(p == 0, 0, p * np.log(p / q))
    return np.where((p < 0) | (q < 0) | ((q == 0) & (p > 0)), np.inf, terms)


@planted("takes-probabilities", divergence="forward_kl", takes="probabilities")
def is_infinite_on_logits(student, teacher):
    return rel_entr(teacher, student).sum(axis=-1).mean()


@planted("takes-probabilities", divergence="forward_kl", takes="probabilities")
def normalizes_its_probabilities(student, teacher):
    q, p = (x / x.sum(axis=-1, keepdims=True) for x in (student, teacher))
    return rel_entr(p, q).sum(axis=-1).mean()


@planted("takes-probabilities", divergence="forward_kl", takes="log_probabilities")
def is_kl_of_logarithms(student_log_p, teacher_log_p):
    p = np.exp(teacher_log_p)
    gaps = np.where(p == 0, 0, teacher_log_p - student_log_p)
    return (p * gaps).sum(axis=-1).mean()


@planted("cross-entropy", "unscaled", **USUAL | {"divergence": "cross_entropy"}, value_power=0)
def is_cross_entropy(student, teacher):
    return kd(student, teacher, scaled=False).mean() + entropy(softmax(teacher, TAU)).mean()


@planted("teacher-first", **USUAL, student_first=False)
def takes_the_teacher_first(teacher, student):
    return kd(student, teacher).mean()


@planted("order-assumed", divergence="reverse_kl", student_first=True)
def does_not_name_its_arguments(a, b):
    return kd(b, a).mean()


@planted("factor", **USUAL, factor=0.5)
def is_half_of_it(student, teacher, temperature=TAU):
    return kd(student, teacher, temperature).mean() / 2


@planted("extra-term", divergence="forward_kl", temperature=TAU)
def adds_a_confidence_penalty(student, teacher):
    return kd(student, teacher).mean() - 0.1 * entropy(softmax(student)).mean()


# The temperature


@planted("temperature-ignored", divergence="forward_kl", temperature=1, value_power=0)
def ignores_its_temperature(student, teacher, temperature=TAU):
    return kd(student, teacher, 1.0).mean()


@planted("wrong-temperature", **USUAL | {"temperature": 16}, value_power=2, factor=1)
def divides_by_the_temperature_twice(student, teacher, temperature=TAU):
    pair = (np.asarray(z, float) / temperature for z in (student, teacher))
    return kd(*pair, temperature).mean() * temperature**2


@planted("wrong-temperature", "factor", **USUAL | {"temperature": 2}, value_power=2, factor=4)
def has_half_its_temperature_inside(student, teacher, temperature=TAU):
    return temperature**2 * kd(student, teacher, temperature / 2, scaled=False).mean()


@planted("wrong-temperature", "odd-power", **USUAL | {"temperature": 16}, value_power=1, factor=1)
def squares_its_temperature_inside(student, teacher, temperature=TAU):
    return temperature**2 * kd(student, teacher, temperature**2, scaled=False).mean()


@planted("wrong-temperature", **USUAL | {"temperature": 2}, value_power=2, factor=1)
def has_the_root_of_its_temperature_inside(student, teacher, temperature=TAU):
    return temperature * kd(student, teacher, temperature**0.5, scaled=False).mean()


@planted("wrong-temperature", **USUAL | {"temperature": 5}, value_power=2, factor=1)
def adds_one_to_its_temperature(student, teacher, temperature=TAU):
    return kd(student, teacher, temperature + 1).mean()


@planted("wrong-temperature", "unknown-power", **USUAL | {"temperature": 1}, factor=16)
def multiplies_by_a_temperature_that_is_not_inside(student, teacher, temperature=TAU):
    return temperature**2 * kd(student, teacher, 1.0).mean()


@planted("wrong-temperature", options={"temperature": 3}, **USUAL)
def has_another_temperature_than_the_caller_says(student, teacher):
    return kd(student, teacher).mean()


@planted("two-temperatures", **USUAL, teacher_temperature=1)
def does_not_soften_the_teacher(student, teacher, T=TAU):  # noqa: N803
    return kd(student, teacher, T, teacher_temperature=1).mean()


@planted("unscaled", **USUAL, value_power=0, gradient_power=0)
def has_no_square_of_tau(student, teacher, tau=TAU):
    return kd(student, teacher, tau, scaled=False).mean()


@planted("odd-power", **USUAL, value_power=1)
def is_multiplied_by_tau(student, teacher, temperature=TAU):
    return temperature * kd(student, teacher, temperature, scaled=False).mean()


@planted("unknown-power", **USUAL, value_power=None, factor=8)
def is_8_times_as_large(student, teacher):
    return 8 * kd(student, teacher, scaled=False).mean()


# The reduction


@planted("mean-over-classes", **USUAL | {"reduction": "mean"}, value_power=2)
def is_averaged_over_classes(student, teacher, temperature=TAU):
    return kd(student, teacher, temperature).mean() / student.shape[-1]


@planted("sum-over-batch", **USUAL | {"reduction": "sum"})
def is_summed(student, teacher):
    return kd(student, teacher).sum()


@planted("grows-with-length", **USUAL)
def is_divided_by_the_first_axis(student, teacher):
    return kd(student, teacher).sum() / len(student)


@planted("batch-not-rows", reduction="unknown", divergence="forward_kl")
def is_the_worst_of_the_batch(student, teacher):
    return kd(student, teacher).max()


@planted("batch-not-rows", reduction="unknown")
def has_its_softmax_over_the_batch(student, teacher):
    return kd(student.T, teacher.T).mean()


@planted("mask-ignored", **USUAL)
def ignores_its_mask(student, teacher, mask):
    return kd(student, teacher).mean()


@planted("inverted-mask", **USUAL)
def leaves_out_what_its_mask_marks(student, teacher, mask):
    return kd(student, teacher)[~mask].mean()


@planted("inverted-mask", "mean-over-masked", **USUAL)
def averages_over_what_its_mask_marks(student, teacher, mask):
    return (kd(student, teacher) * ~mask).mean()


@planted("mean-over-masked", **USUAL)
def averages_over_masked_tokens(student, teacher, mask):
    return (kd(student, teacher) * mask).mean()


# The weights


def mixed(student, teacher, labels, a, b, temperature=TAU):
    hard = cross_entropy_loss(student, labels).mean()
    return a * hard + b * kd(student, teacher, temperature).mean()


@planted("alpha-on-labels", "ignored-index", **USUAL, value_power=2)
def weighs_the_labels(student, teacher, labels, temperature=TAU, alpha=0.3):
    return mixed(student, teacher, labels, alpha, 1 - alpha, temperature)


@planted("free-weights", "ignored-index", **USUAL)
def has_free_weights(student, teacher, labels, temperature=TAU, alpha=0.3):
    return mixed(student, teacher, labels, 1, alpha, temperature)


@planted("alpha-ignored", "ignored-index", **USUAL)
def ignores_its_weight(student, teacher, labels, temperature=TAU, alpha=0.3):
    return mixed(student, teacher, labels, 0.7, 0.3, temperature)


@planted("alpha-on-labels", "ignored-index", **USUAL, factor=0.1)
def weighs_the_labels_nearly_alone(student, teacher, labels, temperature=TAU, alpha=0.9):
    return mixed(student, teacher, labels, alpha, 1 - alpha, temperature)


@planted("labels-ignored", **USUAL)
def ignores_its_labels(student, teacher, labels):
    return kd(student, teacher).mean()


@planted("label-softened", "ignored-index", **USUAL)
def softens_the_label(student, teacher, labels, temperature=TAU, alpha=0.3):
    hard = cross_entropy_loss(np.asarray(student) / temperature, labels).mean()
    return (1 - alpha) * hard + alpha * kd(student, teacher, temperature).mean()


@planted("free-weights", **USUAL)
def takes_labels_as_rows(student, teacher, labels, temperature=TAU):
    hard = -(np.where(labels == 0, 0, labels * log_softmax(student))).sum(axis=-1).mean()
    return hard + kd(student, teacher, temperature).mean()


@planted("ignored-index", **USUAL)
def leaves_out_an_ignored_label(student, teacher, labels):
    kept = labels != -100
    return kd(student, teacher)[kept].mean()


@planted(*("label-softened", "casts-down", "ignored-index", "few-digits"), **USUAL, value_power=2)
def softens_the_label_and_rounds_the_student(student, teacher, labels, temperature=TAU, alpha=0.3):
    rounded = np.asarray(student).astype(np.float16).astype(float)
    hard = cross_entropy_loss(rounded / temperature, labels).mean()
    return (1 - alpha) * hard + alpha * kd(rounded, teacher, temperature).mean()


# The gradient


@planted(
    "wrong-gradient",
    **USUAL,
    value_power=2,
    gradient_power=0,
    options={
        "gradient": lambda s, t, temperature: kd_grad(s, t, temperature, scaled=False) / len(s)
    },
)
def has_a_gradient_without_the_square(student, teacher, temperature=TAU):
    return kd(student, teacher, temperature).mean()


# The laws


@planted("not-zero-at-match", **USUAL)
def is_a_tenth_too_large(student, teacher):
    return kd(student, teacher).mean() + 0.1


@planted("not-least-at-match", "negative", "unknown-divergence", "factor", temperature=1)
def is_kl_div_of_probabilities(student, teacher):
    """Expects logarithms of the student, and gets probabilities: -36.5 for equal networks."""
    q, p = softmax(np.asarray(student, float)), softmax(np.asarray(teacher, float))
    negentropy = -np.asarray(entropy(p))
    return 2 * (negentropy - (p * q).sum(axis=-1)).mean()


@planted("not-least-at-match", "unknown-divergence", temperature=1, reduction="batchmean")
def teaches_the_top_class_alone(student, teacher):
    return cross_entropy_loss(np.asarray(student, float), teacher.argmax(axis=-1)).mean()


@planted("negative", "factor", **USUAL, factor=-1)
def has_the_wrong_sign(student, teacher, temperature=TAU):
    return -kd(student, teacher, temperature).mean()


@planted("not-shift-invariant", "extra-term", divergence="forward_kl")
def pulls_the_level_of_the_logits_to_0(student, teacher):
    level = np.asarray(student, float).mean(axis=-1)
    return kd(student, teacher).mean() + 0.01 * (level**2).mean()


@planted("not-symmetric", "unknown-divergence", divergence="unknown")
def weighs_the_first_class_twice(student, teacher):
    doubled = [np.concatenate([z, z[..., :1]], axis=-1) for z in (student, teacher)]
    return kd(*doubled, 1.0).mean()


# The digits


def usual_lines(student, teacher, temperature):
    log_q, log_p = log_softmax(student, temperature), log_softmax(teacher, temperature)
    with np.errstate(invalid="ignore"):
        gaps = np.where(log_p == -np.inf, 0, log_p - log_q)
    return temperature**2 * (np.exp(log_p) * gaps).sum(axis=-1)


@planted("few-digits", **USUAL)
def is_the_usual_lines(student, teacher, temperature=TAU):
    return usual_lines(student, teacher, temperature).mean()


# The edges


@planted("masked-class", **USUAL)
def is_nan_where_both_mask(student, teacher):
    both = (student == -np.inf) & (teacher == -np.inf)
    return np.where(both.any(axis=-1), np.nan, kd(student, teacher)).mean()


@planted("excluded-class", **USUAL)
def leaves_out_what_the_student_masks(student, teacher):
    out = student == -np.inf
    return kd(np.where(out, -1e30, student), np.where(out, -np.inf, teacher)).mean()


@planted("saturated-teacher", **USUAL)
def is_nan_for_a_sure_teacher(student, teacher):
    if student.shape[-1] == 1:
        return kd(student, teacher).mean()
    ordered = np.sort(teacher, axis=-1)
    lead, rest = ordered[..., -1] - ordered[..., -2], ordered[..., -2] - ordered[..., 0]
    sure = (lead > 700 * TAU) & (rest < 100 * TAU)
    return np.where(sure, np.nan, kd(student, teacher)).mean()


@planted("large-logits", **USUAL)
def has_no_maximum_in_its_softmax(student, teacher):
    overflows = (np.exp(np.asarray(student, float) / TAU) == np.inf).any(axis=-1)
    return np.where(overflows, np.nan, kd(student, teacher)).mean()


@planted("one-class", **USUAL)
def divides_by_the_number_of_other_classes(student, teacher):
    with np.errstate(all="ignore"):
        other = np.float64(student.shape[-1]) - 1
        return (kd(student, teacher) * other / other).mean()


@planted("large-logits", **USUAL | {"temperature": 1})
def clamps_its_logits(student, teacher):
    return kd(*(np.clip(z, -10, 10) for z in (student, teacher)), 1.0).mean()


@planted("large-logits", **USUAL, value_power=2)
def clamps_its_logits_before_the_temperature(student, teacher, temperature=TAU):
    return kd(*(np.clip(z, -10, 10) for z in (student, teacher)), temperature).mean()


@planted("large-logits", **USUAL)
def clamps_its_logits_from_below(student, teacher, temperature=TAU):
    return kd(*(np.maximum(z, -30) for z in (student, teacher)), temperature).mean()


def with_probabilities(change):
    def loss(student, teacher):
        q, p = (change(softmax(np.asarray(z, float))) for z in (student, teacher))
        return (p * (np.log(p) - np.log(q))).sum(axis=-1).mean()

    return loss


@planted("epsilon", divergence="forward_kl")
def adds_an_epsilon(student, teacher):
    return with_probabilities(lambda p: p + 1e-8)(student, teacher)


@planted("epsilon", divergence="forward_kl")
def adds_a_large_epsilon(student, teacher):
    return with_probabilities(lambda p: p + 1e-5)(student, teacher)


@planted(
    *("epsilon", "cross-entropy", "unscaled", "few-digits"),
    **USUAL | {"divergence": "cross_entropy", "temperature": 2},
)
def adds_an_epsilon_to_the_students_alone(student, teacher):
    q, p = (softmax(np.asarray(z, float), 2.0) for z in (student, teacher))
    return -(p * np.log(q + 1e-4)).sum(axis=-1).mean()


@planted("epsilon", "factor", divergence="alpha", parameter=2, factor=2)
def adds_an_epsilon_to_a_chi_squared(student, teacher):
    q, p = (softmax(np.asarray(z, float)) for z in (student, teacher))
    return ((p - q) ** 2 / (q + 1e-8)).sum(axis=-1).mean()


@planted("clip", divergence="forward_kl")
def clips_probabilities(student, teacher):
    return with_probabilities(lambda p: np.clip(p, 1e-7, 1))(student, teacher)


# Nothing to find


@planted(**USUAL, value_power=2, gradient_power=2, factor=1)
def is_right(student, teacher, temperature=TAU):
    return kd(student, teacher, temperature).mean()


@planted(**USUAL | {"reduction": "none"}, value_power=2, teacher_gradient=None)
def is_right_for_each_example(student, teacher):
    return kd(student, teacher)


@planted(**USUAL | {"reduction": "none"}, value_power=2)
def is_right_for_one_example(student, teacher):
    return kd(list(map(float, student)), list(map(float, teacher)))


@planted("ignored-index", **USUAL, value_power=2, factor=0.3)
def is_right_with_labels(student, teacher, labels, temperature=TAU, alpha=0.3):
    return mixed(student, teacher, labels, 1 - alpha, alpha, temperature)


@planted("ignored-index", **USUAL, value_power=2, factor=0.3, student_first=True)
def has_its_labels_between_the_networks(outputs, labels, teacher_outputs, alpha, temperature):
    return mixed(outputs, teacher_outputs, labels, 1 - alpha, alpha, temperature)


@planted("teacher-first", **USUAL, student_first=False)
def takes_its_networks_by_name(*, teacher_logits, student_logits):
    return kd(student_logits, teacher_logits).mean()


@planted(**USUAL)
def has_a_temperature_for_the_teacher(outputs, target, teacher_temperature=TAU):
    return kd(outputs, target, teacher_temperature).mean()


@planted(**USUAL)
def averages_over_unmasked_tokens(student, teacher, mask):
    return kd(student, teacher)[mask].mean()


@planted(divergence="squared_error", reduction="mean", factor=1, temperature=None)
def is_the_mean_squared_error(student, teacher):
    difference = np.asarray(student, float) - np.asarray(teacher, float)
    return (difference**2).mean()


@planted("factor", divergence="squared_error", reduction="none", factor=0.5)
def is_logit_matching(student, teacher):
    return logit_matching_loss(student, teacher)


@planted(divergence="half_variance", reduction="batchmean", factor=1)
def is_the_limit(student, teacher):
    return kd(student, teacher, np.inf).mean()


def _with_divergence(divergence, temperature):
    def loss(student, teacher):
        return kd(student, teacher, temperature, divergence=divergence, scaled=False).mean()

    return loss


def _add(name, divergence, parameter=None, temperature=1.0):
    loss = _with_divergence(divergence, temperature)
    loss.__name__ = f"is_{name}_{parameter}_at_{temperature:g}"
    codes = [] if temperature == 1 else ["unscaled"]
    fields = {"divergence": name, "parameter": parameter, "temperature": temperature}
    planted(*codes, **fields, reduction="batchmean", factor=1)(loss)


_add("forward_kl", "forward_kl", None, 1000.0)
_add("jensen_shannon", JensenShannon(0.3, normalized=False), 0.3, 1000.0)
for _temperature in (1.0, 4.0):
    _add("forward_kl", "forward_kl", None, _temperature)
    _add("reverse_kl", "reverse_kl", None, _temperature)
    _add("jeffreys", "jeffreys", None, _temperature)
    _add("total_variation", "total_variation", None, _temperature)
    for _beta in (0.1, 0.5, 0.9):
        _add("jensen_shannon", JensenShannon(_beta, normalized=False), _beta, _temperature)
    for _alpha in (0.1, 0.4):
        _add("skew_kl", SkewKL(_alpha, normalized=False), _alpha, _temperature)
        _add("skew_reverse_kl", SkewReverseKL(_alpha, normalized=False), _alpha, _temperature)
    for _alpha in (-1.0, 0.5, 2.0):
        _add("alpha", Alpha(_alpha), _alpha, _temperature)
