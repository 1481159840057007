"""A temperature that is a tensor: its values, and the gradient that it gets (Proposition 24)."""

import math

import mpmath
import pytest
from backends import OF_FUNCTIONS, OF_SCRIPTS

torch = pytest.importorskip("torch")

from kd_notes.divergences import (  # noqa: E402
    Alpha,
    JensenShannon,
    SkewKL,
    SkewReverseKL,
    TotalVariation,
)
from kd_notes.torch import KnowledgeDistillationLoss, kd_loss  # noqa: E402

SMOOTH = [
    "forward_kl",
    "reverse_kl",
    "jeffreys",
    JensenShannon(0.3),
    JensenShannon(1e-20, normalized=False),
    SkewKL(0.2),
    SkewReverseKL(0.2, normalized=False),
    Alpha(2),
    Alpha(0.5),
]
of_smooth = pytest.mark.parametrize("divergence", SMOOTH, ids=str)
pytestmark = pytest.mark.usefixtures("mode")


@pytest.fixture
def pair(rng):
    return [torch.tensor(x) for x in rng.normal(scale=2, size=(2, 3, 4))]


def tensor(*values, **options):
    return torch.tensor(values, dtype=torch.float64, **options)


@pytest.mark.parametrize("divergence", [*SMOOTH, TotalVariation()], ids=str)
@pytest.mark.parametrize("scaled", [True, False])
def test_each_example_may_have_its_own_temperature(scaled, divergence, pair):
    taus, others = (0.5, 3.0, 1e6), (2.0, 2.0, 1e5)
    settings = {"divergence": divergence, "scaled": scaled}
    actual = kd_loss(*pair, tensor(*taus), teacher_temperature=tensor(*others), **settings)
    for i in range(3):
        row = [x[i] for x in pair]
        expected = kd_loss(*row, taus[i], teacher_temperature=others[i], **settings)
        torch.testing.assert_close(actual[i], expected, rtol=1e-13, atol=0)


@of_smooth
@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("shape", ["one", "each"])
def test_its_gradients_are_derivatives_of_every_order(shape, scaled, divergence, pair):
    taus = tensor(1.0, 2.0, 8.0, requires_grad=True)
    student = pair[0].requires_grad_()

    def loss(z, tau):
        tau = tau[1] if shape == "one" else tau
        return kd_loss(z, pair[1], tau, divergence=divergence, scaled=scaled)

    assert torch.autograd.gradcheck(loss, (student, taus))
    assert torch.autograd.gradgradcheck(loss, (student, taus))


@of_smooth
@pytest.mark.filterwarnings(OF_SCRIPTS)
def test_forward_mode_goes_through_both_temperatures(divergence, pair):
    def loss(z, tau, own):
        return kd_loss(z, pair[1], tau, teacher_temperature=own, divergence=divergence)

    inputs = pair[0], tensor(1.0, 2.0, 8.0), tensor(3.0)[0]
    inputs = tuple(x.requires_grad_() for x in inputs)
    assert torch.autograd.gradcheck(loss, inputs, check_forward_ad=True)


def slope_of_temperature(z, v, tau):
    """Return d(τ²KL)/dτ = 2τ KL − (Σ z (q − p) − Cov_p(v, z − v)/τ), at 60 digits."""
    with mpmath.workdps(60):
        z, v, tau = [mpmath.mpf(float(x)) for x in z], [mpmath.mpf(float(x)) for x in v], tau
        p, q = (softmax([x / tau for x in row]) for row in (v, z))
        kl = sum(a * mpmath.log(a / b) for a, b in zip(p, q, strict=True))
        d = [a - b for a, b in zip(z, v, strict=True)]
        mean = [sum(a * b for a, b in zip(p, x, strict=True)) for x in (v, d)]
        cov = sum(w * (a - mean[0]) * (b - mean[1]) for w, a, b in zip(p, v, d, strict=True))
        return 2 * tau * kl - sum(a * (y - x) for a, x, y in zip(z, p, q, strict=True)) + cov / tau


def softmax(row):
    exponentials = [mpmath.exp(x) for x in row]
    return [x / sum(exponentials) for x in exponentials]


@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize("tau", [0.5, 1.0, 4.0, 100.0])
def test_its_gradient_is_the_derivative_of_proposition_24(tau, offset, pair):
    student, teacher = pair[0] + offset, pair[1] - offset
    temperature = torch.full((3,), tau, dtype=torch.float64, requires_grad=True)
    kd_loss(student, teacher, temperature).sum().backward()
    for i in range(3):
        expected = float(slope_of_temperature(student[i], teacher[i], mpmath.mpf(tau)))
        # Two digits are lost at 100, and four in the rounding of the offset.
        assert temperature.grad[i].item() == pytest.approx(expected, rel=1e-12 * tau + 1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("tau", [1e8, 2e19, 1e30])
def test_a_very_high_one_gives_the_limit(tau, dtype, pair):
    student, teacher = (x.to(dtype) for x in pair)
    student[1] = teacher[1]
    student.requires_grad_()
    limit = kd_loss(student, teacher, math.inf)
    of_limit = torch.autograd.grad(limit.sum(), student)[0]
    loss = kd_loss(student, teacher, torch.tensor(tau, requires_grad=True))
    grad = torch.autograd.grad(loss.sum(), student)[0]
    rounding = 64 * torch.finfo(dtype).eps + 10 / tau
    torch.testing.assert_close(loss, limit, rtol=rounding, atol=0)
    torch.testing.assert_close(grad, of_limit, rtol=0, atol=rounding * of_limit.abs().max())


def test_where_one_network_excludes_a_class_the_loss_grows_with_it(pair):
    student, teacher = (x.float() for x in pair)
    teacher[0, 0] = -math.inf
    for tau in (1e8, 1e9):
        loss = kd_loss(student, teacher, torch.tensor(tau))
        torch.testing.assert_close(loss[0], kd_loss(student, teacher, tau)[0])


def test_excluded_classes_and_ignored_tokens_leave_its_gradient_finite(pair):
    student, teacher = pair
    student[0, 1] = teacher[0, 1] = teacher[1, 2] = -math.inf
    student[2] = math.nan
    loss = KnowledgeDistillationLoss(torch.nn.Parameter(torch.tensor(2.0)), 0.5)
    student.requires_grad_()
    value = loss(student, teacher, torch.tensor([0, 1, -100]))
    value.backward()
    assert loss.temperature.grad.isfinite()
    assert student.grad.isfinite().all()
    fixed = KnowledgeDistillationLoss(2, 0.5)(student[:2], teacher[:2], torch.tensor([0, 1]))
    torch.testing.assert_close(value, fixed, rtol=1e-13, atol=0)


def test_a_learned_temperature_is_a_parameter_that_descends(pair):
    loss = KnowledgeDistillationLoss(torch.nn.Parameter(torch.tensor(2.0)), 1)
    assert [name for name, _ in loss.named_parameters()] == ["temperature"]
    optimizer = torch.optim.SGD(loss.parameters(), lr=0.01)
    before = loss(*pair)
    before.backward()
    optimizer.step()
    assert loss(*pair) < before


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_its_dtype_does_not_change_the_losss(dtype, pair):
    student, teacher = (x.to(dtype) for x in pair)
    for temperature in (tensor(2.0)[0], torch.tensor(2, dtype=torch.bfloat16)):
        loss = kd_loss(student, teacher, temperature)
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, kd_loss(student, teacher, 2), rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"temperature": torch.tensor(2)}, TypeError, "temperature must be .* got torch.int64"),
        ({"temperature": tensor(1.0, 0.0, 2.0)}, ValueError, "temperature must be .*; got 0.0 in"),
        ({"temperature": tensor(math.inf)[0]}, ValueError, "finite and greater than 0; got inf"),
        (
            {"temperature": tensor(1.0, 2.0)},
            ValueError,
            r"temperature must have shape \(\) or, with a number for each .*\(3,\); got .*\(2,\)",
        ),
        (
            {"temperature": math.inf, "teacher_temperature": tensor(1.0)[0]},
            ValueError,
            "temperature must be finite if teacher_temperature is a tensor; got inf",
        ),
        (
            {"temperature": 1.0, "teacher_temperature": tensor(-1.0)[0]},
            ValueError,
            "teacher_temperature must be finite and greater than 0; got -1.0",
        ),
    ],
)
def test_refused_are(options, error, message, pair):
    with pytest.raises(error, match=message):
        kd_loss(*pair, **options)


@pytest.mark.filterwarnings(OF_FUNCTIONS)
def test_it_compiles(pair):
    torch.compiler.reset()
    compiled = torch.compile(kd_loss, fullgraph=True, backend="aot_eager")
    for tau in (tensor(1.0, 2.0, 8.0), tensor(3.0, 3.0, 3.0)):
        results = []
        for function in (compiled, kd_loss):
            temperature = tau.clone().requires_grad_()
            loss = function(*pair, temperature)
            results += [loss, torch.autograd.grad(loss.sum(), temperature)[0]]
        torch.testing.assert_close(results[:2], results[2:], rtol=1e-11, atol=1e-13)


def test_one_number_may_stay_on_the_cpu():
    logits = torch.zeros(2, 3, device="meta")
    assert kd_loss(logits, logits, torch.tensor(2.0)).device.type == "meta"


def test_a_teachers_temperature_of_another_shape_is_refused_by_its_name(pair):
    with pytest.raises(ValueError, match=r"^teacher_temperature must have shape"):
        kd_loss(*pair, 2.0, teacher_temperature=torch.ones(7))
