"""Six implementations of the KD loss and its gradient.

Each is a function `prepare(student, teacher, temperature)` that returns a function
without arguments. That one computes τ² times the KD loss of each example and the gradient
of their sum, and returns both as NumPy arrays.
"""

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from scipy.special import log_softmax, softmax

from kd_notes import kd_loss_and_grad
from kd_notes.torch import kd_loss

jax.config.update("jax_enable_x64", True)


def kd_notes_way(student, teacher, temperature):
    grad = np.empty_like(student)
    return lambda: kd_loss_and_grad(student, teacher, temperature, out=grad)


def scipy_way(student, teacher, temperature):
    def run():
        z_s, z_t = student / temperature, teacher / temperature
        p_s, p_t = softmax(z_s, axis=-1), softmax(z_t, axis=-1)
        log_ratio = log_softmax(z_t, axis=-1) - log_softmax(z_s, axis=-1)
        loss = temperature**2 * np.sum(p_t * log_ratio, axis=-1)
        return loss, temperature * (p_s - p_t)

    return run


def torch_kl_div(z_s, z_t, temperature):
    log_s = F.log_softmax(z_s / temperature, dim=-1)
    p_t = F.softmax(z_t / temperature, dim=-1)
    return F.kl_div(log_s, p_t, reduction="none").sum(dim=-1) * temperature**2


def torch_way(student, teacher, temperature, loss_of=torch_kl_div):
    z_s, z_t = torch.tensor(student, requires_grad=True), torch.tensor(teacher)

    def run():
        loss = loss_of(z_s, z_t, temperature)
        (grad,) = torch.autograd.grad(loss.sum(), z_s)
        return loss.detach().numpy(), grad.numpy()

    return run


def kd_notes_torch_way(student, teacher, temperature):
    return torch_way(student, teacher, temperature, loss_of=kd_loss)


def jax_way(student, teacher, temperature):
    def total(z_s, z_t):
        log_s = jax.nn.log_softmax(z_s / temperature)
        log_t = jax.nn.log_softmax(z_t / temperature)
        loss = temperature**2 * jnp.sum(jnp.exp(log_t) * (log_t - log_s), axis=-1)
        return loss.sum(), loss

    compiled = jax.jit(jax.value_and_grad(total, has_aux=True))
    z_s, z_t = jnp.asarray(student), jnp.asarray(teacher)

    def run():
        (_, loss), grad = jax.block_until_ready(compiled(z_s, z_t))
        return np.asarray(loss), np.asarray(grad)

    return run


def plain_add(student, teacher, temperature):
    """Add both arrays into a third, which measures the access to memory alone."""
    total = np.empty_like(student)
    return lambda: (None, np.add(student, teacher, out=total))


WAYS = {
    "kd_notes": kd_notes_way,
    "kd_notes.torch": kd_notes_torch_way,
    "SciPy": scipy_way,
    "PyTorch": torch_way,
    "JAX": jax_way,
    "add": plain_add,
}
