"""Optax, which computes with JAX."""

import jax
import optax.losses

from audits.case import case
from kd_notes.torch import kd_loss

jax.config.update("jax_enable_x64", True)

LIBRARY = "Optax"
DISTRIBUTION = "optax"
IN_SHORT = (
    "OK. The temperature, the factor τ² and the mean over the examples are left to the caller."
)


def gradient_of(loss, student=0):
    """Return the gradient of the sum of a loss for its argument of that number."""
    return jax.grad(lambda *args: loss(*args).sum(), argnums=student)


@case(
    takes=("log_probabilities", "probabilities"),
    gradient=gradient_of(optax.losses.kl_divergence),
)
def kl_divergence(student, teacher):
    """`kl_divergence`

    The student's log-probabilities come first.
    """
    return optax.losses.kl_divergence(student, teacher)


@kl_divergence.equals
def _(student, teacher, temperature):
    return kd_loss(student, teacher, temperature, scaled=False)


@case(
    takes="log_probabilities",
    gradient=gradient_of(optax.losses.kl_divergence_with_log_targets),
)
def log_targets(student, teacher):
    """`kl_divergence_with_log_targets`

    Give it the log-probabilities of both, the student's first.
    """
    return optax.losses.kl_divergence_with_log_targets(student, teacher)


@log_targets.equals
def _(student, teacher, temperature):
    return kd_loss(student, teacher, temperature, scaled=False)
