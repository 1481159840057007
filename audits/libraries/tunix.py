"""Google Tunix, which computes with JAX."""

import jax

from audits.case import FLOAT32_DIGITS, case
from audits.imports import without_init
from kd_notes.torch import KnowledgeDistillationLoss

without_init("tunix", "tunix.distillation", "tunix.distillation.strategies")
from tunix.distillation.strategies.logit import LogitStrategy  # noqa: E402

jax.config.update("jax_enable_x64", True)

LIBRARY = "Tunix"
DISTRIBUTION = "google-tunix"
IN_SHORT = "OK. `LogitStrategy` mixes as `kd_notes` does, and has the factor τ²."


def gradient(*arguments, **keywords):
    """Return the student's gradient."""
    return jax.grad(logit_strategy.theirs)(*arguments, **keywords)


@case(FLOAT32_DIGITS, gradient=gradient)
def logit_strategy(student, teacher, labels, temperature=4.0, alpha=0.7):
    """`LogitStrategy`"""
    strategy = LogitStrategy(None, None, None, temperature, alpha)
    one_hot = jax.nn.one_hot(labels, student.shape[-1], dtype="float32")
    return strategy.compute_loss(student, teacher, one_hot)[0]


@logit_strategy.equals
def _(student, teacher, labels, temperature, alpha):
    return KnowledgeDistillationLoss(temperature, alpha)(student, teacher, labels)
