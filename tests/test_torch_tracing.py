"""`kd_notes.torch` where Python sees no values: traced, exported, fake and distributed tensors."""

import math
import os

import pytest
from backends import OF_FUNCTIONS, OF_SCRIPTS

torch = pytest.importorskip("torch")

from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402
from torch.func import grad  # noqa: E402
from torch.fx.experimental.proxy_tensor import make_fx  # noqa: E402

from kd_notes.torch import KnowledgeDistillationLoss, kd_loss, topk_kd_loss  # noqa: E402

# What PyTorch itself warns of when it traces.
pytestmark = pytest.mark.filterwarnings(
    OF_SCRIPTS,
    OF_FUNCTIONS,
)


@pytest.fixture
def pair(rng):
    """Two networks' logits for a batch of four and five classes."""
    return [torch.tensor(x) for x in rng.normal(scale=2, size=(2, 4, 5))]


def assert_close(actual, expected):
    """Compare to a few roundings: sums may be added up in another order."""
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_fake_tensors_have_shapes_and_no_values(alpha, pair):
    loss = KnowledgeDistillationLoss(4, alpha)
    with FakeTensorMode() as fake:
        student, teacher, labels = map(fake.from_tensor, (*pair, torch.arange(4)))
        student.requires_grad_()
        loss(student, teacher, labels).backward()
        assert student.grad.shape == student.shape
        assert kd_loss(student, teacher).shape == (4,)


@pytest.mark.parametrize("tracing_mode", ["real", "fake", "symbolic"])
def test_a_traced_graph_depends_on_its_inputs(tracing_mode, pair):
    def slope(student, teacher):
        return grad(lambda z: kd_loss(z, teacher, 4.0).sum())(student)

    graph = make_fx(slope, tracing_mode=tracing_mode)(*pair)
    others = pair[1] * 2, pair[0] + 1
    assert_close(graph(*others), slope(*others))


@pytest.mark.parametrize("divergence", ["forward_kl", "reverse_kl"])
def test_padding_masks_and_accumulation_compile_without_a_break(divergence, pair):
    torch.compiler.reset()
    loss = KnowledgeDistillationLoss(2, 0.5, divergence=divergence)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    labels, mask = torch.tensor([0, 1, -100, 4]), torch.tensor([True, False, True, True])
    pair[0][2], pair[1][1] = math.nan, math.nan
    for count in (torch.tensor(2), torch.tensor(5)):
        results = []
        for function in (compiled, loss):
            student = pair[0].clone().requires_grad_()
            value = function(student, pair[1], labels, mask=mask, num_items=count)
            results += [value, torch.autograd.grad(value, student)[0]]
        assert_close(results[:2], results[2:])


class Distilled(torch.nn.Module):
    """A student with its loss, as it is exported."""

    def __init__(self, **settings):
        super().__init__()
        self.layer = torch.nn.Linear(5, 5, dtype=torch.float64)
        self.loss = KnowledgeDistillationLoss(4, **settings)

    def forward(self, inputs, teacher, labels):
        return self.loss(self.layer(inputs), teacher, labels)


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("divergence", ["forward_kl", "jensen_shannon"])
def test_an_exported_module_has_a_backward_pass(divergence, strict, pair):
    model = Distilled(alpha=0.5, divergence=divergence)
    labels = torch.tensor([0, 1, -100, 4])
    exported = torch.export.export(model, (*pair, labels), strict=strict).module()
    inputs, teacher = pair[1] + 1, pair[0] * 3
    teacher[2], teacher[0, 1] = math.nan, -math.inf
    expected = model(inputs, teacher, labels)
    expected_grads = torch.autograd.grad(expected, list(model.parameters()))
    actual = exported(inputs, teacher, labels)
    assert_close(actual, expected)
    assert_close(torch.autograd.grad(actual, list(exported.parameters())), expected_grads)


class WithTemperatures(torch.nn.Module):
    """The loss of logits and learned soft labels at learned temperatures, as it is exported."""

    def __init__(self, **settings):
        super().__init__()
        learned = torch.nn.Parameter(torch.tensor(2.0, dtype=torch.float64))
        self.loss = KnowledgeDistillationLoss(learned, 0.5, **settings)

    def forward(self, student, teacher, scores, mask, own):
        loss = self.loss(student, teacher, torch.softmax(scores, -1), mask=mask)
        pair, tau = (student[:2], teacher[:2]), self.loss.temperature
        soft = kd_loss(*pair, tau, teacher_temperature=own, divergence=self.loss.divergence)
        return loss + soft.sum()


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("divergence", ["forward_kl", "jensen_shannon"])
def test_exported_temperatures_and_soft_labels_have_their_gradients(divergence, strict, pair):
    model = WithTemperatures(divergence=divergence)
    mask, own = torch.tensor([True, True, False, True]), torch.full((2,), 3.0, dtype=torch.float64)
    inputs = [*pair, pair[0] + pair[1], mask, own]
    exported = torch.export.export(model, tuple(inputs), strict=strict).module()
    inputs = [pair[1] + 1, pair[0] * 3, pair[0] - pair[1], mask, own / 2]
    inputs[0][2], inputs[1][2], inputs[1][0, 1] = math.nan, math.nan, -math.inf
    results = []
    for function in (exported, model):
        leaves = [inputs[i].clone().requires_grad_() for i in (0, 2, 4)]
        value = function(leaves[0], inputs[1], leaves[1], mask, leaves[2])
        grads = torch.autograd.grad(value, [*leaves, *function.parameters()])
        results.append([value, *grads])
    assert all(x.isfinite().all() and x.any() for x in results[1])
    assert_close(*results)


def test_an_exported_top_k_loss_has_a_backward_pass(pair):
    class TopK(torch.nn.Module):
        def forward(self, student, values, indices):
            return topk_kd_loss(student, values, indices)

    top = pair[1].log_softmax(-1).topk(3)
    exported = torch.export.export(TopK(), (pair[0], *top)).module()
    slopes = []
    for function in (exported, topk_kd_loss):
        student = (pair[0] + 1).requires_grad_()
        slopes.append(torch.autograd.grad(function(student, *top).sum(), student)[0])
    assert_close(*slopes)


@pytest.mark.parametrize("strict", [True, False])
def test_the_batch_of_an_exported_module_may_be_dynamic(strict, pair):
    loss, labels = KnowledgeDistillationLoss(4, 0.5), torch.tensor([0, 1, -100, 4])
    axes = ({0: torch.export.Dim("batch", min=2)},) * 3
    exported = torch.export.export(loss, (*pair, labels), dynamic_shapes=axes, strict=strict)
    first = [x[:3] for x in (*pair, labels)]
    assert_close(exported.module()(*first), loss(*first))


def distributed_losses(rank, port, expected):
    """Compare, in each of two processes, with what one process computes of the whole batch."""
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor, init_device_mesh

    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    student, teacher, labels, loss, slope = expected
    for placement in (Shard(0), Replicate()):
        parts = [distribute_tensor(x, mesh, [placement]) for x in (student, teacher, labels)]
        parts[0].requires_grad_()
        actual = KnowledgeDistillationLoss(4, 0.5)(*parts)
        actual.backward()
        assert_close(actual.full_tensor(), loss)
        assert_close(parts[0].grad.full_tensor(), slope)
        count = (parts[2] != -100).sum()
        actual = KnowledgeDistillationLoss(4, 0.5)(*parts, num_items=count)
        assert_close(actual.full_tensor(), loss)
        values, indices = teacher.log_softmax(-1).topk(3)
        top = [distribute_tensor(x, mesh, [placement]) for x in (values, indices)]
        mask = parts[2] != -100
        actual = topk_kd_loss(parts[0], *top, mask=mask).full_tensor()
        expected_losses = topk_kd_loss(student, values, indices, mask=labels != -100)
        assert_close(actual, expected_losses)
        assert kd_loss(*parts[:2]).to_local().shape == (parts[0].to_local().shape[0],)
        for own in (torch.arange(1.0, 6).double(), torch.tensor(2.0).double()):
            compare_temperatures(own, mesh, placement, parts[0].detach(), parts[1])
    by_class = [distribute_tensor(x, mesh, [Shard(1)]) for x in (student, teacher)]
    for args in (by_class, [parts[0], teacher], [*parts[:2], torch.ones(5)]):
        with pytest.raises(ValueError, match="the same placements, which do not divide the clas"):
            kd_loss(*args)
    torch.distributed.destroy_process_group()


def compare_temperatures(values, mesh, placement, student, teacher):
    """Compare the gradients of both temperatures, one for all examples or one for each."""
    from torch.distributed.tensor import Replicate, distribute_tensor

    def loss(z, v, tau):
        module = KnowledgeDistillationLoss(tau, 1)
        return kd_loss(z, v, 2 * tau, teacher_temperature=tau).sum() + module(z, v)

    tau = values.clone().requires_grad_()
    loss(student.full_tensor(), teacher.full_tensor(), tau).backward()
    if not values.ndim:
        losses = kd_loss(student, teacher, values).full_tensor()
        assert_close(losses, kd_loss(student.full_tensor(), teacher.full_tensor(), values))
        placement = Replicate()
    distributed = distribute_tensor(values, mesh, [placement]).requires_grad_()
    loss(student, teacher, distributed).backward()
    assert_close(distributed.grad.full_tensor(), tau.grad)
    with pytest.raises(ValueError, match=r"temperature must be finite and greater than 0; got"):
        KnowledgeDistillationLoss(distributed - 9, 1)


@pytest.mark.skipif(not torch.distributed.is_available(), reason="built without distribution")
def test_a_batch_may_be_distributed(rng):
    student, teacher = (torch.tensor(x) for x in rng.normal(size=(2, 5, 7)))
    labels = torch.tensor([0, 1, -100, 3, 6])

    def loss(z):
        return KnowledgeDistillationLoss(4, 0.5)(z, teacher, labels)

    expected = student, teacher, labels, loss(student), torch.func.grad(loss)(student)
    port = 20_000 + os.getpid() % 10_000
    torch.multiprocessing.spawn(distributed_losses, (port, expected), nprocs=2)
