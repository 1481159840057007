"""`kd_notes.torch` under PyTorch's transforms: torch.func, fake tensors, export, DTensor."""

import math
import os

import pytest
from backends import MODES

torch = pytest.importorskip("torch")

import torch.autograd.forward_ad as forward_ad  # noqa: E402
from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402
from torch.func import grad, hessian, jacrev, jvp, vmap  # noqa: E402
from torch.fx.experimental.proxy_tensor import make_fx  # noqa: E402

from kd_notes.divergences import Alpha, JensenShannon, SkewKL  # noqa: E402
from kd_notes.torch import KnowledgeDistillationLoss, kd_loss  # noqa: E402

DIVERGENCES = ["forward_kl", "reverse_kl", "jeffreys", JensenShannon(0.3), SkewKL(), Alpha(2)]
of_divergences = pytest.mark.parametrize("divergence", DIVERGENCES, ids=str)
# What PyTorch itself warns of when it computes forward derivatives, or traces.
pytestmark = pytest.mark.filterwarnings(
    "ignore:`torch.jit.script` is deprecated:DeprecationWarning",
    "ignore:`torch.jit.script_method` is deprecated:DeprecationWarning",
    "ignore:<class 'torch.autograd.function.Function'> should not:DeprecationWarning",
)


@pytest.fixture(params=MODES, ids=["eager", "branchless"], autouse=True)
def mode(request):
    with request.param():
        yield


@pytest.fixture
def pair(rng):
    """Two networks' logits for a batch of four and five classes."""
    return [torch.tensor(x) for x in rng.normal(scale=2, size=(2, 4, 5))]


def assert_close(actual, expected):
    """Compare to a few roundings: sums may be added up in another order."""
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-14)


def gradients(loss, student):
    """Return the gradients by the ordinary backward pass."""
    student = student.clone().requires_grad_()
    return torch.autograd.grad(loss(student).sum(), student)[0]


@of_divergences
def test_vmap_gives_the_gradient_of_each_example(divergence, pair):
    def loss(student, teacher):
        return kd_loss(student, teacher, 4.0, divergence=divergence)

    expected = gradients(lambda z: loss(z, pair[1]), pair[0])
    assert_close(vmap(grad(loss))(*pair), expected)
    examples_last = [x.T.contiguous() for x in pair]
    assert_close(vmap(loss, in_dims=(1, 1))(*examples_last), loss(*pair))


@of_divergences
def test_vmap_over_one_network_alone(divergence, pair):
    student, teacher = pair

    def loss(z):
        return kd_loss(z, teacher[0], 2.0, divergence=divergence)

    assert_close(vmap(loss)(student), torch.stack([loss(z) for z in student]))


def test_vmap_of_the_module_with_labels_and_masks(pair):
    loss = KnowledgeDistillationLoss(2, 0.5, reduction="sum")
    labels, mask = torch.tensor([0, 1, -100, 4]), torch.tensor([True, False, True, True])

    def of_example(student, teacher, label, kept):
        return loss(student, teacher, label, mask=kept)

    expected = gradients(lambda z: loss(z, pair[1], labels, mask=mask), pair[0])
    assert_close(vmap(grad(of_example))(*pair, labels, mask), expected)
    with pytest.raises(ValueError, match=r"labels must be indices in 0\.\.4"):
        vmap(of_example)(*pair, labels + 1, mask)


@of_divergences
def test_forward_mode_is_the_gradient_along_a_direction(divergence, pair):
    student, teacher = pair

    def loss(z):
        return kd_loss(z, teacher, 4.0, divergence=divergence)

    expected = (gradients(loss, student) * teacher).sum(-1)
    value, tangent = jvp(loss, (student,), (teacher,))
    assert_close(value, loss(student))
    assert_close(tangent, expected)
    with forward_ad.dual_level():
        dual = loss(forward_ad.make_dual(student, teacher))
        assert_close(forward_ad.unpack_dual(dual).tangent, expected)


@of_divergences
def test_hessians_agree_forward_over_reverse_and_reverse_over_reverse(divergence, pair):
    student, teacher = pair[0][0], pair[1][0]

    def loss(z):
        return kd_loss(z, teacher, 4.0, divergence=divergence)

    assert_close(hessian(loss)(student), jacrev(jacrev(loss))(student))
    assert_close(hessian(loss)(student), torch.autograd.functional.hessian(loss, student))


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
        assert kd_loss(*parts[:2]).to_local().shape == (parts[0].to_local().shape[0],)
    by_class = [distribute_tensor(x, mesh, [Shard(1)]) for x in (student, teacher)]
    for pair in (by_class, [parts[0], teacher]):
        with pytest.raises(ValueError, match="the same placements, which do not divide the clas"):
            kd_loss(*pair)
    torch.distributed.destroy_process_group()


@pytest.mark.skipif(not torch.distributed.is_available(), reason="built without distribution")
def test_a_batch_may_be_distributed(rng, mode, request):
    if "branchless" in request.node.name:
        pytest.skip("the processes do not see the forced mode")
    student, teacher = (torch.tensor(x) for x in rng.normal(size=(2, 5, 7)))
    labels = torch.tensor([0, 1, -100, 3, 6])

    def loss(z):
        return KnowledgeDistillationLoss(4, 0.5)(z, teacher, labels)

    expected = student, teacher, labels, loss(student), gradients(loss, student)
    port = 20_000 + os.getpid() % 10_000
    torch.multiprocessing.spawn(distributed_losses, (port, expected), nprocs=2)
