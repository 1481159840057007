"""The KD loss of a teacher of whom k classes are known: accuracy, ends, Theorem I, errors.

The reference is the definition, summed by mpmath, as `topk_reference.py` writes it.
"""

import functools
import warnings
from importlib.util import find_spec

import numpy as np
import pytest
import topk_reference
from backends import branchless, one_thread
from mpmath import mp
from numpy import inf
from numpy.testing import assert_allclose, assert_array_equal
from references import central_differences, exact
from rows import largest

import kd_notes as kd
from kd_notes import kd_grad, kd_loss, topk_kd_grad, topk_kd_loss

PROMISE = 16
SIZES = [(10, 1), (10, 2), (10, 9), (10, 10), (64, 20), (64, 63), (1000, 1), (1000, 20)]


def by_numpy(*args, **options):
    return topk_kd_loss(*args, **options), topk_kd_grad(*args, **options)


def by_torch(student, values, indices, temperature, teacher_log_normalizer=None, **options):
    import torch

    from kd_notes.torch import topk_kd_loss

    if teacher_log_normalizer is not None:
        options["teacher_log_normalizer"] = torch.tensor(teacher_log_normalizer)
    student = torch.tensor(student, requires_grad=True)
    with one_thread(torch):
        args = torch.tensor(values), torch.tensor(indices), temperature
        loss = topk_kd_loss(student, *args, **options)
        (grad,) = torch.autograd.grad(loss.sum(), student)
    return loss.detach().numpy(), grad.numpy()


def by_torch_branchless(*args, **options):
    with branchless():
        return by_torch(*args, **options)


BACKENDS = {"numpy": by_numpy}
if find_spec("torch"):
    BACKENDS |= {"torch": by_torch, "torch-branchless": by_torch_branchless}

each_backend = pytest.mark.parametrize("backend", BACKENDS.values(), ids=BACKENDS)
each_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])
each_tail = pytest.mark.parametrize("tail", ["bucket", "renormalize"])


def log_normalizer(logits, temperature):
    """Return log Σ exp(v/τ)."""
    return np.logaddexp.reduce(np.asarray(logits, float) / temperature, axis=-1)


def top(teacher, k):
    """Return the k largest values, in no order, and their indices."""
    indices = np.argpartition(teacher, -k, axis=-1)[..., -k:]
    return np.take_along_axis(teacher, indices, axis=-1), indices


@pytest.fixture
def pair(rng):
    """Two networks' logits for a batch (2, 3) of six classes."""
    return rng.normal(scale=2, size=(2, 2, 3, 6))


# Accuracy


def examples(rng, tau, num_classes, k):
    """Yield student and teacher logits, S the first k classes, in units of the temperature.

    The rest has four different values, so that the reference is quick.
    """
    unit, classes = min(tau, 1e4), np.arange(num_classes)
    in_s, first, last = classes < k, classes == 0, classes == num_classes - 1
    levels = k + rng.integers(4, size=num_classes - k)

    def logits():
        return rng.normal(size=k + 4)[np.concatenate([classes[:k], levels])] * unit

    z, v = logits(), logits() + 3 * unit * in_s
    yield "ordinary", 3 * z, 2 * v
    yield "near", v + 1e-5 * z, v
    yield "small", z * 1e-3, v
    yield "one dominant class", z, v + 60 * unit * first
    yield "one dominant class in both", z + 20 * unit * first, v + 20 * unit * first
    yield "a rest near eps", z + 34 * unit * first, v + 35 * unit * first
    yield "tied", np.sign(z) * unit, np.sign(v) * unit
    yield "large", z / unit * 3e3, v / unit * 2e3
    yield "offset", z + 1e4, v
    yield "masked", np.where(last, -1e4, z), v
    yield "ignores S", z - 100 * unit * in_s, v
    if 1 < k < num_classes - 1:
        yield "excluded in S", np.where(first, -inf, z), np.where(first, -inf, v)
        yield "excluded in the rest", np.where(last, -inf, z), np.where(last, -inf, v)


def true_values(z, values, normalizer, tau):
    """Return the reference, and the block of each class: S is the first classes, one block each.

    400 digits, as a result may be 1e-300.
    """
    k = values.size
    rest, block, counts = np.unique(z[k:], return_inverse=True, return_counts=True)
    with mp.workdps(400):
        normalizer = None if normalizer is None or k == z.size else mp.mpf(float(normalizer))
        args = exact([*z[:k], *rest]), exact(values), counts.tolist(), k, normalizer, mp.mpf(tau)
        return topk_reference.reference(*args), np.concatenate([np.arange(k), k + block])


def assert_promise(z, values, normalizer, tau, kind, backends=BACKENDS):
    """Compare every backend with the reference; no normalizer means a renormalized teacher."""
    eps, tiny = np.finfo(z.dtype).eps, np.finfo(z.dtype).tiny
    true, block = true_values(z, values, normalizer, tau)
    options = {"tail": "renormalize"} if normalizer is None else {}
    if normalizer:
        options = {"teacher_log_normalizer": normalizer}
    bounds = [PROMISE * eps * (1 + condition) for condition in true[2:]]
    order = np.random.default_rng(z.size).permutation(z.size)
    student = np.empty_like(z)
    student[order] = z
    for name, backend in backends.items():
        loss, grad = backend(student, values, order[: values.size], tau, **options)
        assert loss >= 0, (name, kind)
        assert np.isfinite(grad).all(), (name, kind)
        in_blocks = [grad[order[block == i]] for i in range(len(true.grad))]
        ends = [[mp.mpf(float(g)) for g in (x.min(), x.max())] for x in in_blocks]
        pairs = zip(ends, true.grad, strict=True)
        errors = abs(float(loss) - true.loss), largest(g - t for end, t in pairs for g in end)
        sizes = true.loss, largest(true.grad)
        for error, size, bound in zip(errors, sizes, bounds, strict=True):
            assert bound >= PROMISE or error <= max(bound * size, tiny), (name, kind)


@each_dtype
@each_tail
@pytest.mark.parametrize("temperature", [1e-3, 0.5, 1.0, 4.0, 1e3, 1e6, 1e12])
@pytest.mark.parametrize(("num_classes", "k"), [(10, 1), (10, 2), (10, 9), (10, 10), (64, 20)])
def test_the_promise_is_kept(num_classes, k, temperature, tail, dtype, rng):
    for kind, z, v in examples(rng, temperature, num_classes, k):
        normalizer = dtype(log_normalizer(v, temperature))
        z, values = z.astype(dtype), v[:k].astype(dtype)
        if temperature == 1:
            values, normalizer = (v[:k] - log_normalizer(v, 1)).astype(dtype), 0.0
        if tail == "renormalize":
            assert_promise(z, values, None, temperature, kind)
        elif mass(values, normalizer, temperature) < 1:  # rounding may make it larger
            assert_promise(z, values, normalizer, temperature, kind)


def mass(values, normalizer, temperature):
    tau = mp.mpf(temperature)
    return sum(mp.exp(x / tau - mp.mpf(float(normalizer))) for x in exact(values))


@each_dtype
@each_tail
@pytest.mark.parametrize(
    ("num_classes", "k"), [(64, 63), (1000, 1), (1000, 20), (50_257, 2), (50_257, 20)]
)
def test_the_promise_is_kept_for_many_classes(num_classes, k, tail, dtype, rng):
    for kind, z, v in [*examples(rng, 2.0, num_classes, k)][:3]:
        normalizer = None if tail == "renormalize" else dtype(log_normalizer(v, 2.0))
        assert_promise(z.astype(dtype), v[:k].astype(dtype), normalizer, 2.0, kind)
