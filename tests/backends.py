"""Every way in which the library computes the soft loss and its gradient, called alike.

PyTorch runs the formulas without branches where it does not read the values: in a compiled
graph, and on a device other than the CPU. `torch-branchless` does so on the CPU. `by_triton`
takes a tenth of a second for each row without a GPU, so `test_triton.py` has its own tests.
"""

import os
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from unittest import mock

import numpy as np

from kd_notes import kd_loss_and_grad
from kd_notes._engine import _chosen

# What PyTorch itself calls deprecated where it traces a function or computes in forward mode.
OF_FUNCTIONS = "ignore:<class 'torch.autograd.function.Function'> should not:DeprecationWarning"
OF_SCRIPTS = "ignore:`torch.jit.script"


def by_torch(student, teacher, temperature, scaled=True, device="cpu", **options):
    import torch

    from kd_notes.torch import kd_loss

    student = torch.tensor(student, requires_grad=True, device=device)
    teacher = torch.tensor(teacher, device=device)
    with one_thread(torch):
        loss = kd_loss(student, teacher, temperature, scaled=scaled, **options)
        (grad,) = torch.autograd.grad(loss.sum(), student)
    return loss.detach().cpu().numpy(), grad.cpu().numpy()


@contextmanager
def one_thread(torch):
    """Run PyTorch on one thread: on a busy machine its threads wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def by_torch_branchless(student, teacher, temperature, scaled=True, **options):
    with branchless():
        return by_torch(student, teacher, temperature, scaled, **options)


def by_triton(student, teacher, temperature, scaled=True, **options):
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    with triton_on(device):
        return by_torch(student, teacher, temperature, scaled, device=device, **options)


@contextmanager
def triton_on(device):
    """Let `kd_notes.torch` use its Triton kernel; on a CPU, Triton must have been told so."""
    environment = mock.patch.dict(os.environ, KD_NOTES_TRITON="1")
    gpu = mock.patch("kd_notes.torch._drivers.GPU", device)
    with branchless(), environment, gpu, np.errstate(all="ignore"):
        yield


def by_numpy(student, teacher, temperature, scaled=True, **options):
    with engine("numpy"):
        return kd_loss_and_grad(student, teacher, temperature, scaled=scaled, **options)


def by_compiled(student, teacher, temperature, scaled=True, **options):
    with compiled():
        return kd_loss_and_grad(student, teacher, temperature, scaled=scaled, **options)


def by_compiled_rows(student, teacher, temperature, scaled=True, **options):
    with compiled_rows():
        return kd_loss_and_grad(student, teacher, temperature, scaled=scaled, **options)


def engine(name):
    return mock.patch("kd_notes._engine._engine", _chosen("engine", name, threads=1))


def compiled():
    """Let the compiled loops compute."""
    return engine("compiled")


@contextmanager
def compiled_rows():
    """Let the compiled loops compute, one row at a time for few classes too."""
    with compiled(), mock.patch("kd_notes._kernel.GROUPED", 0):
        yield


@contextmanager
def compiling_nothing():
    """Fail where the compiled loops are asked for."""
    with compiled(), mock.patch("kd_notes._engine._loops", side_effect=AssertionError):
        yield


def branchless():
    """Let `kd_notes.torch` compute on a CPU as it does on other devices."""
    return mock.patch("kd_notes.torch._soft_formula.numpy_can_read", _no)


def _no(*tensors):  # no mock object: `torch.compile` must be able to read it
    return False


BACKENDS = {"numpy": by_numpy}
ENGINES = {"numpy": nullcontext}
if find_spec("numba"):
    BACKENDS |= {"compiled": by_compiled, "compiled-rows": by_compiled_rows}
    ENGINES |= {"compiled": compiled, "compiled-rows": compiled_rows}
if find_spec("torch"):
    BACKENDS |= {"torch": by_torch, "torch-branchless": by_torch_branchless}
