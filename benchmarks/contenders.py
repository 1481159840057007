"""The contenders: each computes τ² times the KD loss of each example, and its gradient.

A contender is a function `(student, teacher, temperature)` that imports its own library, as it
runs in a process of its own, and returns a function without arguments. That one does what a
user would write, and returns loss and gradient in new memory.
"""

import timeit
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np

HAS_LOOPS = find_spec("numba") and find_spec("kd_notes._compiled")


def kd_notes(student, teacher, temperature):
    from kd_notes import kd_loss_and_grad

    return lambda: kd_loss_and_grad(student, teacher, temperature)


def kd_notes_out(student, teacher, temperature):
    from kd_notes import kd_loss_and_grad

    grad = np.empty_like(student)
    return lambda: kd_loss_and_grad(student, teacher, temperature, out=grad)


def scipy(student, teacher, temperature):
    from scipy.special import log_softmax

    def run():
        log_q, log_p = (log_softmax(z / temperature, axis=-1) for z in (student, teacher))
        q, p = np.exp(log_q), np.exp(log_p)
        return temperature**2 * np.vecdot(p, log_p - log_q), temperature * (q - p)

    return run


def usual_lines(z_s, z_t, temperature):
    from torch.nn import functional

    log_q = functional.log_softmax(z_s / temperature, dim=-1)
    p = functional.softmax(z_t / temperature, dim=-1)
    return functional.kl_div(log_q, p, reduction="none").sum(dim=-1) * temperature**2


def forward_and_backward(loss_of, student, teacher, temperature):
    import torch

    z_s, z_t = torch.from_numpy(student).requires_grad_(), torch.from_numpy(teacher)

    def run():
        loss = loss_of(z_s, z_t, temperature)
        (grad,) = torch.autograd.grad(loss.sum(), z_s)
        return loss.detach(), grad

    return run


def torch_eager(student, teacher, temperature):
    return forward_and_backward(usual_lines, student, teacher, temperature)


@cache
def compiled_lines():
    import torch

    torch._dynamo.config.recompile_limit = 64  # shapes and dtypes
    return torch.compile(usual_lines, dynamic=False)


def torch_compile(student, teacher, temperature):
    import torch

    tau = torch.tensor(temperature)  # for a Python float it would compile again
    return forward_and_backward(compiled_lines(), student, teacher, tau)


def kd_notes_torch(student, teacher, temperature):
    from kd_notes.torch import kd_loss

    return forward_and_backward(kd_loss, student, teacher, temperature)


@cache
def jitted_lines():
    import jax
    import jax.numpy as jnp

    def total(z_s, z_t, temperature):
        log_q = jax.nn.log_softmax(z_s / temperature)
        log_p = jax.nn.log_softmax(z_t / temperature)
        loss = temperature**2 * jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)
        return loss.sum(), loss

    return jax.jit(jax.value_and_grad(total, has_aux=True))


def jax_jit(student, teacher, temperature):
    import jax

    jax.config.update("jax_enable_x64", True)
    z_s, z_t = jax.numpy.asarray(student), jax.numpy.asarray(teacher)

    def run():
        (_, loss), grad = jax.block_until_ready(jitted_lines()(z_s, z_t, temperature))
        return loss, grad

    return run


def addition(student, teacher, temperature):
    """Read and write as many bytes as loss and gradient do, and compute next to nothing."""
    return lambda: (None, np.add(student, teacher))


def exponentials(student, teacher, temperature):
    """Two exponentials for each logit, of numbers that stay in the cache, by the quicker loop."""
    few = student.reshape(-1)[: 2**13].copy()
    out = np.empty_like(few)
    loops = [np.exp, *compiled_exp(few.dtype)]
    exp = min(loops, key=lambda exp: min(timeit.repeat(lambda: exp(few, out), number=9)))

    def run():
        for _ in range(2 * student.size // few.size):
            exp(few, out)
        return None, None

    return run


def compiled_exp(dtype):
    """Return the loop of the library's compiled engine, if there is one."""
    if not HAS_LOOPS:
        return []
    from numba import njit

    from kd_notes import _compiled

    c = _compiled.constants(dtype)

    @njit
    def fill(x, out):
        for k in range(len(x)):
            out[k] = _compiled.exp(x[k], c)

    return [fill]


NUMPY, COMPILED = ({"KD_NOTES_ENGINE": engine} for engine in ("numpy", "compiled"))
ONE_THREAD = COMPILED | {"OMP_NUM_THREADS": "1"}
CONTENDERS: dict[str, tuple[Callable[..., Any], dict[str, str]]]  # and what its process needs
CONTENDERS = {
    "kd_notes, NumPy": (kd_notes, NUMPY),
    "kd_notes, NumPy, out=": (kd_notes_out, NUMPY),
    "kd_notes, compiled": (kd_notes, COMPILED),
    "kd_notes, compiled, out=": (kd_notes_out, COMPILED),
    "kd_notes, compiled, 1 thread": (kd_notes, ONE_THREAD),
    "kd_notes.torch, NumPy": (kd_notes_torch, NUMPY),
    "kd_notes.torch, compiled": (kd_notes_torch, COMPILED),
    "SciPy": (scipy, {}),
    "PyTorch": (torch_eager, {}),
    "torch.compile": (torch_compile, {}),
    "JAX": (jax_jit, {}),
    "addition": (addition, {}),
    "exponentials": (exponentials, {}),
}
if not HAS_LOOPS:
    CONTENDERS = {name: way for name, way in CONTENDERS.items() if "compiled" not in name}
