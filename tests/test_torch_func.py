"""`kd_notes.torch` under `torch.func`: derivatives of each example, forward mode, Hessians."""

import pytest
from backends import OF_SCRIPTS

torch = pytest.importorskip("torch")

import torch.autograd.forward_ad as forward_ad  # noqa: E402
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vmap  # noqa: E402

from kd_notes.divergences import Alpha, JensenShannon, SkewKL  # noqa: E402
from kd_notes.torch import KnowledgeDistillationLoss, kd_loss  # noqa: E402

DIVERGENCES = ["forward_kl", "reverse_kl", "jeffreys", JensenShannon(0.3), SkewKL(), Alpha(2)]
of_divergences = pytest.mark.parametrize("divergence", DIVERGENCES, ids=str)
pytestmark = [
    pytest.mark.usefixtures("mode"),
    # What PyTorch itself warns of when it computes forward derivatives.
    pytest.mark.filterwarnings(OF_SCRIPTS),
]


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


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_labels_that_are_indices_have_a_hessian_and_a_forward_mode(alpha, pair):
    loss, labels = KnowledgeDistillationLoss(2, alpha), torch.tensor([0, 1, -100, 4])
    student, teacher = pair

    def of(z):
        return loss(z, teacher, labels)

    assert_close(hessian(of)(student), torch.autograd.functional.hessian(of, student))
    expected = (gradients(of, student) * teacher).sum()
    assert_close(jvp(of, (student,), (teacher,))[1], expected)


def test_forward_mode_of_padding_in_a_batch_of_sequences(pair):
    loss = KnowledgeDistillationLoss(2, 0.5)
    student, teacher = (torch.cat([x, x + 1]).reshape(4, 2, 5) for x in pair)
    student[0, 1], labels = torch.nan, torch.tensor([[0, -100], [1, 4], [2, 2], [3, 0]])
    expected = (gradients(lambda z: loss(z, teacher, labels), student) * teacher).sum()
    assert_close(jvp(lambda z: loss(z, teacher, labels), (student,), (teacher,))[1], expected)


def test_a_second_forward_derivative_is_refused_instead_of_0(pair):
    with pytest.raises(NotImplementedError, match=r"for 0: use torch\.func\.hessian"):
        jacfwd(jacfwd(lambda z: kd_loss(z, pair[1]).sum()))(pair[0])
