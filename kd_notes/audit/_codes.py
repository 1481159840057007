"""Every finding that there can be: its code, its severity, the page that explains it."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

Severity: TypeAlias = Literal["defect", "warning", "choice", "unknown"]

_CONVENTIONS = "book/conventions.md#sec-"
_QUESTIONS = "book/questions.md#sec-question-"
_GRADIENT = "notebooks/04_the_distillation_gradient.ipynb#sec-"
_NUMERICS = "notebooks/14_a_numerical_core.ipynb#sec-"


class Code(NamedTuple):
    """What a code stands for."""

    severity: Severity
    section: str
    meaning: str


_FAILURES = _CONVENTIONS + "failures-worth-knowing"

#: The findings by code. A `defect` is wrong under every convention; a `warning` is legal and
#: seldom meant; a `choice` must be known to convert the loss; `unknown` could not be told.
CODES: dict[str, Code] = {
    # The call
    "crash": Code("defect", _FAILURES, "It raises an exception on an ordinary batch."),
    "bad-output": Code("defect", _FAILURES, "It returns no number for the batch or example."),
    "not-finite": Code("defect", _FAILURES, "It is nan or infinite on ordinary logits."),
    "stochastic": Code("defect", _FAILURES, "Two calls with equal arguments differ."),
    "changes-input": Code("defect", _FAILURES, "It writes to its arguments."),
    "ignores-student": Code("defect", _FAILURES, "No logit of the student changes it."),
    "ignores-teacher": Code("defect", _FAILURES, "No logit of the teacher changes it."),
    "ignores-classes": Code("warning", _FAILURES, "Some classes do not count."),
    "casts-down": Code("choice", _NUMERICS + "promise", "It rounds float64 to a smaller dtype."),
    # The divergence and its arguments
    "unknown-divergence": Code("unknown", _CONVENTIONS + "to-convert", "No divergence fits."),
    "takes-probabilities": Code(
        "choice", _FAILURES, "It is given probabilities or their logarithms, not logits."
    ),
    "cross-entropy": Code(
        "choice", _GRADIENT + "ce-or-kl", "Its value is the teacher's entropy at a match."
    ),
    "teacher-first": Code("choice", _CONVENTIONS + "kl-div", "Its first argument is the teacher."),
    "order-assumed": Code(
        "unknown", _QUESTIONS + "direction", "Which argument is the student was assumed."
    ),
    "factor": Code("choice", _CONVENTIONS + "to-convert", "A constant factor is left."),
    "extra-term": Code("unknown", _CONVENTIONS + "two-weights", "The student pays for more."),
    # The temperature
    "temperature-ignored": Code(
        "defect", _QUESTIONS + "inside-outside", "It does not use the temperature it is given."
    ),
    "wrong-temperature": Code(
        "defect", _QUESTIONS + "inside-outside", "Another temperature is inside than is given."
    ),
    "two-temperatures": Code(
        "warning", _QUESTIONS + "inside-outside", "The two networks have different temperatures."
    ),
    "unscaled": Code("choice", _QUESTIONS + "tau-squared", "There is no factor τ²."),
    "odd-power": Code(
        "warning", _GRADIENT + "why-tau-squared", "The power of τ is neither 0 nor 2."
    ),
    "unknown-power": Code(
        "unknown", _QUESTIONS + "tau-squared", "The power of τ cannot be told from a factor."
    ),
    # The reduction
    "mean-over-classes": Code(
        "warning", _QUESTIONS + "reduction", "It is divided by the number of classes."
    ),
    "sum-over-batch": Code(
        "choice", _CONVENTIONS + "kl-div", "It grows with the number of examples."
    ),
    "grows-with-length": Code(
        "choice", _QUESTIONS + "reduction", "It grows with the length of a sequence."
    ),
    "batch-not-rows": Code(
        "defect", _CONVENTIONS + "kl-div", "The loss of a batch is not made of those of its rows."
    ),
    "mask-ignored": Code("defect", _QUESTIONS + "reduction", "Masked tokens count."),
    "inverted-mask": Code(
        "choice", _QUESTIONS + "padding", "Its mask is true for what is left out."
    ),
    "mean-over-masked": Code(
        "warning", _QUESTIONS + "reduction", "The mean also runs over the masked tokens."
    ),
    # The weights
    "alpha-on-labels": Code(
        "choice", _QUESTIONS + "alpha", "The weight multiplies the label's part."
    ),
    "free-weights": Code("choice", _CONVENTIONS + "two-weights", "The weights do not sum to one."),
    "alpha-ignored": Code("defect", _QUESTIONS + "alpha", "The weight changes nothing."),
    "labels-ignored": Code("warning", _QUESTIONS + "alpha", "The labels change nothing."),
    "label-softened": Code(
        "warning",
        "notebooks/07_distillation_as_regularization.ipynb#sec-remark-4",
        "The label's part has a temperature.",
    ),
    # The gradient
    "wrong-gradient": Code(
        "defect", _GRADIENT + "eq-10", "The gradient is not the derivative of the value."
    ),
    "no-gradient": Code("defect", _QUESTIONS + "detach", "The student gets no gradient."),
    "teacher-gradient": Code("choice", _QUESTIONS + "detach", "The teacher gets a gradient."),
    # The laws
    "not-least-at-match": Code(
        "defect", _QUESTIONS + "negative-or-nan", "Another student costs less than the teacher's."
    ),
    "not-zero-at-match": Code(
        "warning", _QUESTIONS + "negative-or-nan", "It is not 0 for equal networks."
    ),
    "negative": Code("defect", _QUESTIONS + "negative-or-nan", "It is negative."),
    "not-shift-invariant": Code(
        "warning", _GRADIENT + "kd-blind-direction", "It changes with a common shift of logits."
    ),
    "not-symmetric": Code("warning", _FAILURES, "It changes with the order of the classes."),
    # The digits
    "few-digits": Code(
        "warning", _NUMERICS + "textbook-fails", "Fewer than three digits are right."
    ),
    # The edges
    "masked-class": Code("warning", _FAILURES, "It is wrong where both networks mask a class."),
    "excluded-class": Code(
        "warning", _FAILURES, "It is wrong where only one network masks a class."
    ),
    "saturated-teacher": Code("defect", _FAILURES, "It is wrong for a teacher that is sure."),
    "large-logits": Code("defect", _FAILURES, "It is wrong for logits of ten thousand."),
    "one-class": Code("warning", _FAILURES, "It is wrong for a single class."),
    "epsilon": Code(
        "warning", _NUMERICS + "textbook-fails", "There is an epsilon inside the logarithm."
    ),
    "clip": Code("warning", _NUMERICS + "textbook-fails", "Probabilities are clipped from below."),
    "edge-gradient": Code("warning", _FAILURES, "The value is right and the gradient is not."),
    "ignored-index": Code("choice", _FAILURES, "What a label of -100 does."),
}
