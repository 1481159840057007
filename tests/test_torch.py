"""`kd_notes.torch` against the NumPy core, PyTorch's own losses, and finite differences."""

import inspect
import itertools
import math
import os
import re
import shutil
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest
from backends import OF_FUNCTIONS, OF_SCRIPTS, branchless
from chapters import ROOT
from numpy.testing import assert_allclose, assert_array_equal
from test_kernel import TEMPERATURES

from kd_notes import (
    cross_entropy_loss,
    kd_loss_and_grad,
    knowledge_distillation_grad,
    knowledge_distillation_loss,
)
from kd_notes._engine import _chosen

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402, N812
from live_memory import LiveMemory  # noqa: E402

import kd_notes.torch as kd_torch  # noqa: E402
from kd_notes.divergences import (  # noqa: E402
    Alpha,
    Jeffreys,
    JensenShannon,
    ReverseKL,
    SkewKL,
    SkewReverseKL,
    TotalVariation,
)
from kd_notes.torch import (  # noqa: E402
    KnowledgeDistillationLoss,
    _drivers,
    _soft_formula,
    kd_loss,
)

INF = math.inf
HALVES = [torch.float16, torch.bfloat16]
PAIRS_OF_DTYPES = [*itertools.permutations([*HALVES, torch.float32, torch.float64], 2)]
each_temperature = pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 1e3, INF])
each_scaled = pytest.mark.parametrize("scaled", [True, False])
each_reduction = pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
pytestmark = pytest.mark.usefixtures("mode")


@pytest.fixture
def pair(rng):
    """Two networks' logits for a batch (2, 3) of five classes."""
    return [torch.tensor(array) for array in rng.normal(scale=2, size=(2, 2, 3, 5))]


@pytest.fixture
def labels(rng):
    return torch.tensor(rng.integers(0, 5, size=(2, 3)))


def loss_and_grad(student, teacher, *args, **kwargs):
    """Return the losses and the gradient of their sum, as NumPy arrays."""
    student = student.detach().clone().requires_grad_()
    loss = kd_loss(student, teacher, *args, **kwargs)
    (grad,) = torch.autograd.grad(loss.sum(), student)
    return loss.detach().numpy(), grad.numpy()


def assert_same_as_numpy(student, teacher, temperature, scaled=True, units=32):
    """Compare with the core, to so many eps of the loss and of the row's largest slope."""
    loss, grad = loss_and_grad(
        torch.tensor(student), torch.tensor(teacher), temperature, scaled=scaled
    )
    true_loss, true_grad = kd_loss_and_grad(student, teacher, temperature, scaled=scaled)
    assert loss.dtype == true_loss.dtype
    assert grad.dtype == true_grad.dtype
    eps, tiny = np.finfo(loss.dtype).eps, np.finfo(loss.dtype).tiny
    assert_allclose(loss, true_loss, rtol=units * eps, atol=tiny)
    largest = np.abs(true_grad).max(axis=-1, keepdims=True)
    assert_allclose(grad / largest, true_grad / largest, rtol=0, atol=units * eps)


# The derivatives


@each_temperature
@each_scaled
def test_gradient_and_curvature_are_the_derivatives(temperature, scaled, pair):
    student, teacher = pair[0].requires_grad_(), pair[1]

    def loss(z):
        return kd_loss(z, teacher, temperature, scaled=scaled)

    # Nothing smaller than these tolerances is compared: at 1e3, unscaled, losses are 1e-6.
    tolerance = 1e-6 if scaled or temperature < 10 else 1e-9
    assert torch.autograd.gradcheck(loss, student, atol=tolerance)
    assert torch.autograd.gradgradcheck(loss, student, atol=tolerance)


@each_temperature
def test_curvature_is_the_softmax_jacobian(temperature, pair):  # proposition 2
    student, teacher = pair[0][0, 0], pair[1][0, 0]
    hessian = torch.autograd.functional.hessian(
        lambda z: kd_loss(z, teacher, temperature), student
    )
    q = torch.softmax(student / temperature, -1)
    torch.testing.assert_close(hessian, torch.diag(q) - torch.outer(q, q), rtol=0, atol=1e-15)


@pytest.mark.parametrize("divergence", ["forward_kl", "reverse_kl"])
def test_at_infinite_temperature_the_curvature_is_that_of_equal_logits(divergence):
    student = torch.tensor([0.0, 0.0, -1e37, -INF])
    hessian = torch.autograd.functional.hessian(
        lambda z: kd_loss(z, torch.zeros_like(z) + z.detach(), INF, divergence=divergence), student
    )
    q = torch.tensor([1.0, 1.0, 1.0, 0.0]) / 3
    torch.testing.assert_close(hessian, torch.diag(q) - torch.outer(q, q))


SMOOTH = [
    ReverseKL(),
    Jeffreys(),
    JensenShannon(0.3),
    JensenShannon(0.1, normalized=False),
    SkewKL(0.2),
    SkewReverseKL(0.2),
    Alpha(0.5),
    Alpha(2),
    Alpha(-1),
]
of_smooth = pytest.mark.parametrize("divergence", SMOOTH, ids=str)


@of_smooth
@each_temperature
@each_scaled
def test_every_divergence_has_its_derivatives(temperature, scaled, divergence, pair):
    student, teacher = pair[0][0, :2].requires_grad_(), pair[1][0, :2]

    def loss(z):
        options = {"divergence": divergence, "teacher_temperature": 2 * temperature}
        return kd_loss(z, teacher, temperature, scaled=scaled, **options)

    tolerance = 1e-6 if scaled or temperature < 10 else 1e-9
    assert torch.autograd.gradcheck(loss, student, atol=tolerance)
    assert torch.autograd.gradgradcheck(loss, student, atol=tolerance)


@of_smooth
def test_every_divergence_has_a_third_derivative(divergence, pair):
    student, teacher = pair[0][0, :1].requires_grad_(), pair[1][0, :1]

    def slope(z):
        loss = kd_loss(z, teacher, 2.0, divergence=divergence).sum()
        return torch.autograd.grad(loss, z, create_graph=True)[0]

    assert torch.autograd.gradgradcheck(slope, student)


def test_a_second_derivative_is_finite_where_a_class_is_excluded(pair):
    student, teacher = pair[0][0].requires_grad_(), pair[1][0]
    with torch.no_grad():
        student[0, 0] = teacher[0, 0] = teacher[1, 1] = student[2, 2] = -INF
    for divergence in [*SMOOTH, TotalVariation()]:
        loss = kd_loss(student, teacher, 2.0, divergence=divergence)
        (grad,) = torch.autograd.grad(loss.sum(), student, create_graph=True)
        assert torch.autograd.grad(grad.square().sum(), student)[0].isfinite().all()


def test_a_third_derivative_is_right(pair):
    student, teacher = pair[0][0, :1].requires_grad_(), pair[1][0, :1]

    def slope(z):
        return torch.autograd.grad(kd_loss(z, teacher, 2.0).sum(), z, create_graph=True)[0]

    assert torch.autograd.gradgradcheck(slope, student)


def test_the_teacher_gets_no_gradient(pair, labels):
    student, teacher = (z.requires_grad_() for z in pair)
    KnowledgeDistillationLoss(4, 0.5)(student, teacher, labels).backward()
    kd_loss(student, teacher, 4).sum().backward()
    assert student.grad is not None
    assert teacher.grad is None
    assert not kd_loss(student.detach(), teacher).requires_grad


def test_one_tensor_is_kept_beside_the_student_and_none_of_the_teacher(pair):
    kept = []
    student = pair[0].requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        kd_loss(student, pair[1], 4.0)
    slope = kd_loss_and_grad(pair[0].detach(), pair[1], 4.0)[1]
    others = [tensor for tensor in kept if tensor.data_ptr() != student.data_ptr()]
    assert len(kept) == 2
    # The same arithmetic as the core's, up to the order of sums.
    assert_allclose(others[0].detach(), slope, rtol=0, atol=1e-14)


def test_a_graph_that_is_retained_can_be_run_backward_again(pair):
    student = pair[0].requires_grad_()
    loss = kd_loss(student, pair[1], 4.0).mean()
    grads = [torch.autograd.grad(loss, student, retain_graph=i < 2)[0] + 0 for i in range(3)]
    assert torch.equal(grads[0], grads[1])
    assert torch.equal(grads[0], grads[2])


@pytest.mark.parametrize("is_batched", [False, True])
def test_the_last_backward_pass_takes_the_memory_of_what_was_kept(is_batched, pair):
    student = pair[0].requires_grad_()
    loss = kd_loss(student, pair[1], 4.0)
    kept = loss.grad_fn.saved_tensors[1]
    expected = kept / 2
    factors = torch.full_like(loss, 0.5)
    if is_batched:
        (grads,) = torch.autograd.grad(loss, student, factors[None], is_grads_batched=True)
        assert torch.equal(grads[0], expected)
        return
    loss.backward(factors)
    assert student.grad.data_ptr() == kept.data_ptr()
    assert torch.equal(student.grad, expected)


def test_a_saved_gradient_that_hooks_give_out_twice_is_not_written_to(pair):
    stored = {}

    def pack(tensor):
        key = tensor.detach().numpy().tobytes()
        stored.setdefault(key, tensor.detach().clone())
        return key

    students = [pair[0].clone().requires_grad_() for _ in range(2)]
    with torch.autograd.graph.saved_tensors_hooks(pack, stored.get):
        losses = [kd_loss(student, pair[1], 4.0).sum() for student in students]
    for factor, loss in zip((2, 3), losses, strict=True):
        (factor * loss).backward()
    torch.testing.assert_close(students[0].grad / 2, students[1].grad / 3, rtol=1e-14, atol=0)


def test_a_backward_pass_that_failed_is_not_repeated_with_a_spent_gradient(pair):
    student = pair[0].requires_grad_()
    loss = kd_loss(student, pair[1], 4.0)
    kept, handle = loss.grad_fn.saved_tensors[1], loss.grad_fn.register_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        (loss / 10).sum().backward()
    handle.remove()
    assert kept._version > 0
    with pytest.raises(RuntimeError, match=r"modified by an inplace|second time"):
        (loss / 10).sum().backward()


def test_a_gradient_to_be_differentiated_has_memory_of_its_own(pair):
    student = pair[0].requires_grad_()
    loss = kd_loss(student, pair[1], 4.0)
    (grad,) = torch.autograd.grad(loss.sum(), student, create_graph=True)
    before = grad.detach().clone()
    (again,) = torch.autograd.grad(loss.mean(), student, create_graph=True, retain_graph=False)
    assert again.requires_grad
    assert torch.equal(grad, before)


@pytest.mark.parametrize("shape", [(7, 3), (0, 3), (2, 3, 4)])
def test_rows_are_multiplied_by_several_threads(shape, monkeypatch):
    monkeypatch.setattr("kd_notes._engine.LEAST", 1)
    rows, factors = torch.randn(shape), torch.randn(shape[:-1])
    rows[..., 0], factors[:1] = 0, math.inf
    expected = rows * factors.unsqueeze(-1)
    with mock.patch("kd_notes._engine._engine", _chosen("engine", "numpy", threads=3)):
        _drivers.multiply_rows(rows, factors)
    assert_array_equal(rows, expected)


# The values


# Summed in another order: a few eps for each unit of the condition number, which is below 4.
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("temperature", TEMPERATURES)
@each_scaled
def test_ordinary_logits_give_what_numpy_gives(scaled, temperature, dtype, rng):
    for classes in [1, 2, 10, 65, 1000]:
        student, teacher = rng.normal(scale=3, size=(2, 20, classes)).astype(dtype)
        student[::2] = teacher[::2] + student[::2] * dtype(0.05)  # rows near and far, mixed
        with np.errstate(invalid="ignore"):  # 0/0 where there is one class
            assert_same_as_numpy(student, teacher, temperature, scaled, units=64)


@pytest.mark.parametrize("temperature", [0.5, 4.0, 1e4, INF])
def test_a_hundred_thousand_classes(temperature, rng):
    student, teacher = rng.normal(scale=3, size=(2, 3, 100_000)).astype(np.float32)
    # Sums of so many terms, added in another order.
    assert_same_as_numpy(student, teacher, temperature, units=256)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_match_costs_exactly_nothing_and_nothing_is_negative(temperature, dtype, rng):
    size = 10 ** rng.uniform(-3, 4, size=(50, 1))
    logits = torch.tensor(rng.normal(size=(50, 20)) * size, dtype=dtype)
    loss, grad = loss_and_grad(logits, logits.clone(), temperature)
    assert not loss.any()
    assert not grad.any()
    nearly = logits * (1 + torch.finfo(dtype).eps * torch.tensor(rng.integers(-2, 3, (50, 20))))
    assert (kd_loss(nearly.to(dtype), logits, temperature) >= 0).all()


@pytest.mark.parametrize("temperature", [0.5, 2.0, 1e6, INF])
@pytest.mark.parametrize("classes", [4, 50])
@each_scaled
def test_excluded_classes_and_nan_mean_what_they_mean_to_numpy(scaled, classes, temperature, rng):
    student, teacher = rng.normal(size=(2, 9, classes)).astype(np.float32)
    student[1, 1] = teacher[1, 1] = -np.inf  # by both
    teacher[2, 1] = -np.inf
    student[3, 1] = -np.inf
    student[4, 1] = teacher[4, 2] = -np.inf  # by each one of its own
    student[5, 1], teacher[5, 1] = -np.inf, -1e4  # a probability that may underflow
    student[6, 0] = np.nan
    teacher[7, 0] = np.nan
    student[8] = teacher[8] = -np.inf  # no class is left
    with np.errstate(invalid="ignore"):
        assert_same_as_numpy(student, teacher, temperature, scaled)


@each_temperature
@each_scaled
def test_it_is_kl_div_where_that_is_accurate(scaled, temperature, pair):
    student, teacher = pair
    tau = min(temperature, 1e5)
    log_q, p = F.log_softmax(student / tau, -1), F.softmax(teacher / tau, -1)
    expected = F.kl_div(log_q, p, reduction="none").sum(-1) * (tau**2 if scaled else 1)
    if temperature == INF and not scaled:
        expected = torch.zeros(2, 3, dtype=torch.float64)
    # The error of kl_div is some eps tau^2; and 1e5 differs from infinity by 1e-4.
    tolerance = {INF: 1e-3, 1e3: 1e-8}.get(temperature, 1e-12)
    loss = kd_loss(student, teacher, temperature, scaled=scaled)
    torch.testing.assert_close(loss, expected, rtol=tolerance, atol=0)


@pytest.mark.parametrize("temperature", [4.0, 1e4])
@pytest.mark.parametrize("classes", [10, 300])
def test_no_seam_shows_between_blocks(classes, temperature, rng, monkeypatch):
    student, teacher = torch.tensor(rng.normal(size=(2, 50, classes)))
    student[::3] = teacher[::3] + student[::3] * 0.05
    loss, grad = loss_and_grad(student, teacher, temperature)
    monkeypatch.setattr(_drivers, "BLOCK", 7 * classes)
    in_blocks, grad_in_blocks = loss_and_grad(student, teacher, temperature)
    # PyTorch may add up a row in another order when there are fewer beside it.
    assert_allclose(in_blocks, loss, rtol=1e-13)
    assert_allclose(grad_in_blocks, grad, rtol=0, atol=1e-13)


@pytest.mark.parametrize("temperature", [1e-320, 1e-40, 1e20, 5e19, 1e160, 1e300])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@each_scaled
def test_extreme_temperatures_give_what_numpy_gives(scaled, dtype, temperature, rng):
    student, teacher = rng.normal(size=(2, 5, 10)).astype(dtype)
    teacher[0, 0] = student[1, 1] = teacher[1, 1] = -np.inf
    with np.errstate(invalid="ignore"):  # where the row's largest slope is inf or 0
        assert_same_as_numpy(student, teacher, temperature, scaled)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@each_scaled
def test_every_divergence_gives_what_numpy_gives(scaled, dtype, rng):
    student, teacher = rng.normal(scale=2, size=(2, 8, 30)).astype(dtype)
    student[::2] = teacher[::2] + student[::2] * dtype(0.05)
    for divergence in SMOOTH:
        for options in ({}, {"teacher_temperature": 8.0}):
            args = student, teacher, 4.0
            options = {"divergence": divergence, "scaled": scaled, **options}
            loss, grad = loss_and_grad(*map(torch.tensor, args[:2]), 4.0, **options)
            expected, expected_grad = kd_loss_and_grad(*args, **options)
            eps = np.finfo(dtype).eps  # a few for each unit of the condition number
            assert_allclose(loss, expected, rtol=256 * eps)
            largest = np.abs(expected_grad).max(axis=-1, keepdims=True)
            assert_allclose(grad / largest, expected_grad / largest, rtol=0, atol=256 * eps)


# Shapes, dtypes, layouts


@pytest.mark.parametrize("batch", [(), (4,), (2, 3), (0,), (2, 0)])
@pytest.mark.parametrize("classes", [1, 5])
def test_any_batch_shape(batch, classes):
    student = torch.ones(*batch, classes, requires_grad=True)
    loss = kd_loss(student, torch.arange(1.0, classes + 1).expand(*batch, classes), 2.0)
    assert loss.shape == batch
    assert bool((loss > 0).all()) is (classes > 1 or 0 in batch)
    (grad,) = torch.autograd.grad(loss.sum(), student)
    assert grad.shape == student.shape


def test_layouts_give_the_same_and_inputs_are_not_written_to(pair):
    loss, grad = loss_and_grad(*pair, 2.0)
    before = [z.clone() for z in pair]
    turned = [z.transpose(0, 2).contiguous().transpose(0, 2) for z in pair]
    strided = [torch.stack([z, z], -1)[..., 0] for z in pair]
    for student, teacher in (turned, strided, (turned[0], strided[1])):
        assert not student.is_contiguous()
        other_loss, other_grad = loss_and_grad(student, teacher, 2.0)
        # Summed in another order.
        assert_allclose(other_loss, loss, rtol=1e-14)
        assert_allclose(other_grad, grad, rtol=0, atol=1e-15)
    assert all(map(torch.equal, pair, before))


def test_a_view_that_negates_is_read_as_it_is(pair):
    negated = torch._neg_view(pair[0])
    expected = kd_loss(-pair[0], pair[1])
    torch.testing.assert_close(kd_loss(negated, pair[1]), expected, rtol=1e-13, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_second_derivative_at_an_extreme_temperature_is_finite(dtype, pair):
    student, teacher = pair[0].to(dtype).requires_grad_(), pair[1].to(dtype)
    (grad,) = torch.autograd.grad(
        kd_loss(student, teacher, 1e-40).sum(), student, create_graph=True
    )
    assert torch.autograd.grad(grad[..., 0].sum(), student)[0].isfinite().all()


@pytest.mark.parametrize("temperature", [4.0, 1e4, INF])
@pytest.mark.parametrize("dtype", HALVES)
def test_half_precisions_compute_in_float32(dtype, temperature, pair):
    student, teacher = (z.to(dtype) for z in pair)
    wide_loss, wide_grad = loss_and_grad(student.float(), teacher.float(), temperature)
    student.requires_grad_()
    loss = kd_loss(student, teacher, temperature)
    # The gradient, with the weight 1, is rounded once, at the end; the loss is not.
    assert torch.equal(loss, torch.tensor(wide_loss))
    loss.sum().backward()
    assert torch.equal(student.grad, torch.tensor(wide_grad).to(dtype))


@pytest.mark.parametrize("dtypes", PAIRS_OF_DTYPES)
def test_two_dtypes_promote_and_the_gradient_has_the_students(dtypes, pair, labels):
    student, teacher = (z.to(dtype) for z, dtype in zip(pair, dtypes, strict=True))
    student.requires_grad_()
    for loss in (
        kd_loss(student, teacher, 2.0),
        KnowledgeDistillationLoss(2, 0.5)(student, teacher, labels),
    ):
        assert loss.dtype == torch.promote_types(torch.promote_types(*dtypes), torch.float32)
        assert torch.autograd.grad(loss.sum(), student)[0].dtype == dtypes[0]


def test_autocast_lowers_nothing(pair, labels):
    student, teacher = (z.float() for z in pair)
    loss = KnowledgeDistillationLoss(1e4, 0.5)
    expected, soft = loss(student, teacher, labels), kd_loss(student, teacher, 1e4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(loss(student, teacher, labels), expected)
        assert torch.equal(kd_loss(student, teacher, 1e4), soft)
        weight = torch.eye(5, requires_grad=True)
        lowered = F.linear(student, weight)  # as a network's last layer gives it
        assert lowered.dtype == torch.bfloat16
        loss(lowered, teacher, labels).backward()
    assert weight.grad.isfinite().all()


# torch.compile traces `torch.autograd.Function` and imports TorchScript by ways that PyTorch
# itself calls deprecated.
traces = pytest.mark.filterwarnings(
    OF_FUNCTIONS,
    OF_SCRIPTS,
)
# A compiled graph has no branches in either mode.
compared_with_eager = pytest.mark.parametrize("mode", ["eager"], indirect=True)


INDUCTOR = pytest.param(
    "inductor",
    [4.0],
    marks=pytest.mark.skipif(
        not shutil.which(os.environ.get("CXX", "g++")), reason="there is no C++ compiler"
    ),
)


@traces
@compared_with_eager
@pytest.mark.parametrize(("backend", "temperatures"), [("aot_eager", [4.0, 1e5, INF]), INDUCTOR])
def test_it_compiles_without_a_break(backend, temperatures, rng):
    student, teacher = torch.tensor(rng.normal(size=(2, 6, 50)), dtype=torch.float32)
    student[1, 1] = teacher[1, 1] = teacher[2, 1] = student[3, 1] = -INF
    student[4] = teacher[4] * 1.001
    torch.compiler.reset()
    compiled = torch.compile(kd_loss, fullgraph=True, backend=backend)
    for temperature in temperatures:  # from the second on, it is a variable of the graph
        a, b = (student.clone().requires_grad_() for _ in range(2))
        loss, expected = compiled(a, teacher, temperature), kd_loss(b, teacher, temperature)
        torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
        for total in (loss.sum(), expected.sum()):
            total.backward()
        largest = b.grad.abs().amax(-1, keepdim=True)
        torch.testing.assert_close(a.grad / largest, b.grad / largest, rtol=0, atol=1e-6)


@traces
@compared_with_eager
@pytest.mark.parametrize(
    "divergence", ["reverse_kl", JensenShannon(0.3), SkewKL(), Alpha(0.5), TotalVariation()]
)
def test_every_divergence_compiles(divergence, rng):
    student, teacher = torch.tensor(rng.normal(size=(2, 6, 50)), dtype=torch.float32)
    torch.compiler.reset()
    compiled = torch.compile(kd_loss, fullgraph=True, backend="aot_eager")
    for temperature in [4.0, 1e5, INF]:
        options = {"divergence": divergence, "teacher_temperature": temperature}
        a, b = (student.clone().requires_grad_() for _ in range(2))
        loss, expected = (
            f(z, teacher, temperature, **options) for f, z in [(compiled, a), (kd_loss, b)]
        )
        torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
        for total in (loss.sum(), expected.sum()):
            total.backward()
        largest = b.grad.abs().amax(-1, keepdim=True)
        torch.testing.assert_close(a.grad / largest, b.grad / largest, rtol=0, atol=1e-6)


@traces
def test_the_module_compiles_and_refuses_a_wrong_label(pair, labels):
    torch.compiler.reset()
    module = KnowledgeDistillationLoss(4, 0.5)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*pair, labels), module(*pair, labels))
    labels[1, 1] = 5
    with pytest.raises(RuntimeError, match=r"indices in 0\.\.4"):
        compiled(*pair, labels)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("temperature", [4.0, 1e4, INF])
def test_a_gpu_gives_the_same(temperature, pair, labels):
    for z, v, y in [(*pair, labels), (*(z.cuda() for z in pair), labels.cuda())]:
        z.requires_grad_()
        KnowledgeDistillationLoss(temperature, 0.5)(z, v, y).backward()
    on_gpu, on_cpu = z.grad.cpu(), pair[0].grad
    torch.testing.assert_close(on_gpu, on_cpu, rtol=0, atol=1e-14)


# The module


@each_temperature
@each_scaled
@each_reduction
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_the_module_is_numpys_mixture(alpha, reduction, scaled, temperature, pair, labels):
    student, teacher = pair[0].requires_grad_(), pair[1]
    loss = KnowledgeDistillationLoss(temperature, alpha, scaled=scaled, reduction=reduction)
    value = loss(student, teacher, labels)
    args = student.detach().numpy(), teacher.numpy(), labels.numpy(), temperature, alpha
    expected = knowledge_distillation_loss(*args, scaled=scaled)
    grad = knowledge_distillation_grad(*args, scaled=scaled)
    reduced, weight = {
        "mean": (expected.mean(), 1 / expected.size),
        "sum": (expected.sum(), 1),
        "none": (expected, 1),
    }[reduction]
    value.sum().backward()
    # Summed in another order.
    assert_allclose(value.detach(), reduced, rtol=1e-13)
    assert_allclose(student.grad, grad * weight, rtol=0, atol=1e-14)


@each_reduction
def test_the_module_is_the_usual_two_lines(reduction, pair, labels):
    student, teacher = (z.flatten(0, 1) for z in pair)
    hard = F.cross_entropy(student, labels.flatten(), reduction=reduction)
    log_q, p = F.log_softmax(student / 3, -1), F.softmax(teacher / 3, -1)
    soft = F.kl_div(log_q, p, reduction={"mean": "batchmean"}.get(reduction, reduction))
    soft = soft.sum(-1) if reduction == "none" else soft
    value = KnowledgeDistillationLoss(3, 0.7, reduction=reduction)(
        student, teacher, labels.flatten()
    )
    # kl_div cancels a digit or two.
    torch.testing.assert_close(value, 0.3 * hard + 0.7 * 9 * soft, rtol=1e-12, atol=0)


def test_labels_may_be_distributions(pair, rng):
    student, teacher = pair
    y = rng.dirichlet(np.ones(5), size=(2, 3))
    value = KnowledgeDistillationLoss(2, 0, reduction="none")(student, teacher, torch.tensor(y))
    assert_allclose(value, cross_entropy_loss(student.numpy(), y), rtol=1e-13)
    hard = torch.tensor([[0, 1, 2], [3, 4, 0]])
    loss = KnowledgeDistillationLoss(2, 0.5)
    for dtype in (torch.int64, torch.float32):
        one_hot = F.one_hot(hard, 5).to(dtype)
        torch.testing.assert_close(loss(student, teacher, one_hot), loss(student, teacher, hard))
    for dtype in (torch.uint8, torch.int32):
        assert torch.equal(loss(student, teacher, hard.to(dtype)), loss(student, teacher, hard))


def test_a_class_that_the_student_excludes_takes_no_part_in_a_label(pair):
    student = pair[0].index_fill(-1, torch.tensor(1), -INF).requires_grad_()
    y = torch.tensor([0.5, 0, 0.5, 0, 0]).expand(2, 3, 5)
    value = KnowledgeDistillationLoss(2, 0)(student, pair[1], y)
    assert value.isfinite()
    value.backward()
    assert student.grad.isfinite().all()


def test_half_precision_labels_and_logits_are_mixed_in_float32(pair, labels):
    student, teacher = (z.bfloat16() for z in pair)
    loss = KnowledgeDistillationLoss(1e3, 0.5)
    wide = loss(student.float(), teacher.float(), labels)
    assert torch.equal(loss(student, teacher, labels), wide)


def test_the_module_says_what_it_is():
    shown = "KnowledgeDistillationLoss(temperature=4.0, alpha=0.5, scaled=True, reduction='sum')"
    assert repr(KnowledgeDistillationLoss(4, 0.5, reduction="sum")) == shown
    assert not list(KnowledgeDistillationLoss(4, 0.5).parameters())


# What is refused

Z = torch.zeros(2, 3)
Y = torch.tensor([0, 1])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((Z, Z[:1]), ValueError, r"must have the same shape; got shapes \(2, 3\) and \(1, 3\)"),
        ((Z, Z[0]), ValueError, "must have the same shape"),
        ((Z[:, :0], Z[:, :0]), ValueError, r"at least one class; got shape \(2, 0\)"),
        ((Z[0, 0], Z[0, 0]), ValueError, r"must have shape \(\.\.\., K\)"),
        ((Z.long(), Z), TypeError, "student_logits must be .* floating-point .* torch.int64"),
        ((Z, Z.to(torch.complex64)), TypeError, "teacher_logits must .* got torch.complex64"),
        ((Z, Z.numpy()), TypeError, "teacher_logits must be a tensor .* got ndarray"),
        ((Z, Z.to_sparse()), TypeError, "teacher_logits must be a dense .* got .*sparse_coo"),
        ((Z, Z, 0), ValueError, "temperature must be greater than 0"),
        ((Z, Z, "hot"), TypeError, "temperature must be a real number; got 'hot'"),
    ],
)
def test_kd_loss_refuses(arguments, error, message):
    with pytest.raises(error, match=message):
        kd_loss(*arguments)


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (torch.tensor([0, -1]), ValueError, r"labels must be indices in 0\.\.2; got -1 in"),
        (torch.tensor([3, 0]), ValueError, r"got 3 in a batch of shape \(2,\)"),
        (Y[:1], ValueError, r"shape \(2,\) .* \(2, 3\); got torch.int64 of shape \(1,\)"),
        (torch.tensor([0.0, 1.0]), ValueError, r"got torch.float32 of shape \(2,\)"),
        (Z, ValueError, "labels must be distributions .*; got a sum of 0 and a least"),
        (Z + torch.tensor([2, -1, 0]), ValueError, "a sum of 1 and a least entry of -1 in"),
        (Z + torch.tensor([1.0001, 0, 0]), ValueError, r"got a sum of 1\.0001"),
        (Z.to(torch.complex64), TypeError, "labels must be .* got torch.complex64"),
        ([0, 1], TypeError, "labels must be .* got list"),
    ],
)
def test_the_module_refuses_labels(labels, error, message):
    with pytest.raises(error, match=message):
        KnowledgeDistillationLoss(2, 0.5)(Z, Z, labels)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": -1, "alpha": 0}, "temperature must be greater than 0"),
        ({"temperature": 1, "alpha": 1.5}, "alpha must be between 0 and 1; got 1.5"),
        ({"temperature": 1, "alpha": 1, "reduction": "batchmean"}, "reduction .* 'batchmean'"),
    ],
)
def test_the_module_refuses_to_be_made(arguments, message):
    with pytest.raises(ValueError, match=message):
        KnowledgeDistillationLoss(**arguments)


@pytest.mark.parametrize("dtype", HALVES)
def test_labels_in_half_precision_may_be_rounded(dtype):
    loss = KnowledgeDistillationLoss(2, 0.5)
    y = torch.tensor([[0.5, 0.5, 0], [0.75, 0.25, 0]], dtype=dtype)
    assert loss(Z, Z, y + torch.tensor([0, 0, 0.0078125], dtype=dtype)).isfinite()
    with pytest.raises(ValueError, match=r"got a sum of 1\.01"):
        loss(Z, Z, y + torch.tensor([0, 0, 0.015625], dtype=dtype))


def test_scaled_is_a_bool():
    with pytest.raises(TypeError, match=r"scaled must be .*'no'"):
        kd_loss(Z, Z, scaled="no")
    with pytest.raises(TypeError, match=r"scaled must be .*'no'"):
        KnowledgeDistillationLoss(1, 0, scaled="no")


@pytest.mark.parametrize("page", ["README.md", "book/training.md"])
def test_the_lines_to_copy_run(page):
    x, labels = torch.ones(6, 4), torch.arange(6) % 3
    student, teacher = torch.nn.Linear(4, 3), torch.nn.Linear(4, 3)
    names = {"x": x, "labels": labels, "student": student, "teacher": teacher}
    blocks = [part.split("```")[0] for part in (ROOT / page).read_text().split("```python")[1:]]
    for block in blocks:
        if ">>>" not in block:  # else it is a doctest
            exec(block, names)
    names["loss"].backward()
    assert student.weight.grad is not None
    assert teacher.weight.grad is None
    if "accumulate" in names:
        names["accumulate"](student, teacher, [(x, labels), (x[:2], labels[:2])])


@pytest.mark.parametrize("name", kd_torch.__all__)
def test_docstring_begins_with_one_sentence_that_the_api_page_does_not_cut(name):
    first = inspect.getdoc(getattr(kd_torch, name)).splitlines()[0]
    assert re.fullmatch(r"[^.]+\.", first)


def test_a_missing_pytorch_is_named_with_the_command_that_brings_it():
    code = "import sys; sys.modules['torch'] = None; import kd_notes.torch"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "ImportError: kd_notes.torch needs PyTorch" in run.stderr
    assert 'pip install ".[torch]"' in run.stderr


def test_extra_memory_on_another_device_is_a_few_blocks_beside_the_gradient(rng, monkeypatch):
    monkeypatch.setattr(_drivers, "BLOCK", 2**14)
    student = torch.tensor(rng.normal(size=(512, 1000)), dtype=torch.float32)
    teacher = student * 1.01
    with branchless(), LiveMemory() as memory:
        kd_loss(student, teacher, 4.0)
    # The gradient is one tensor more; both networks' logits are seen through views.
    assert memory.peak < 3.7 * student.nbytes


def test_half_precision_is_converted_block_by_block(rng, monkeypatch):
    monkeypatch.setattr(_drivers, "SMALL_BLOCK", 2**14)
    student = torch.tensor(rng.normal(size=(512, 1000)), dtype=torch.bfloat16)
    can_read = mock.patch.object(_soft_formula, "numpy_can_read", return_value=True)
    with can_read, LiveMemory() as memory:
        kd_loss(student, student, 4.0)
    assert memory.peak < (1 + 2.5) * student.nbytes  # the gradient is in float32
