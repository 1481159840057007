"""What a training loop asks of `kd_notes.torch`: padding, accumulation, logs, settings, axes."""

import math

import pytest
from backends import OF_SCRIPTS

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402, N812

from kd_notes.divergences import Alpha, JensenShannon  # noqa: E402
from kd_notes.torch import KnowledgeDistillationLoss, kd_loss  # noqa: E402

NAN = math.nan
DIVERGENCES = ["forward_kl", "reverse_kl", JensenShannon(0.3), Alpha(2)]
pytestmark = pytest.mark.usefixtures("mode")


@pytest.fixture
def batch(rng):
    """Two networks' logits for a batch (2, 3) of five classes, and labels."""
    student, teacher = (torch.tensor(x) for x in rng.normal(scale=2, size=(2, 2, 3, 5)))
    return student.requires_grad_(), teacher, torch.tensor(rng.integers(0, 5, size=(2, 3)))


def value_and_grad(loss, student, *args, **kwargs):
    student = student.detach().clone().requires_grad_()
    value = loss(student, *args, **kwargs)
    return value.detach(), torch.autograd.grad(value.sum(), student)[0]


def assert_close(first, second):
    """Compare values and gradients, which are added up in another order."""
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-15)


# What is not kept


@pytest.mark.parametrize("divergence", DIVERGENCES, ids=str)
@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_ignored_tokens_are_as_if_they_were_not_there(reduction, alpha, divergence, batch):
    student, teacher, labels = batch
    loss = KnowledgeDistillationLoss(2, alpha, divergence=divergence, reduction=reduction)
    labels[0, 1] = labels[1, 2] = -100
    kept = labels != -100
    with torch.no_grad():
        student[0, 1], student[1, 2, 3], teacher[1, 2] = NAN, math.inf, NAN
    value, grad = value_and_grad(loss, student, teacher, labels)
    expected, expected_rows = value_and_grad(loss, student[kept], teacher[kept], labels[kept])
    assert_close([value, grad[kept]], [expected, expected_rows])
    assert not grad[~kept].any()


def test_a_mask_does_what_a_label_does_and_both_join(batch):
    student, teacher, labels = batch
    loss, mask = KnowledgeDistillationLoss(2, 0.5), torch.ones(2, 3, dtype=torch.bool)
    ignored = labels.index_fill(1, torch.tensor(1), -100)
    mask[:, 1] = False
    expected = value_and_grad(loss, student, teacher, ignored)
    assert_close(value_and_grad(loss, student, teacher, labels, mask=mask), expected)
    assert_close(value_and_grad(loss, student, teacher, ignored, mask=mask), expected)
    mask[0, 0] = False
    ignored[0, 0] = -100
    expected = value_and_grad(loss, student, teacher, ignored)
    ignored[0, 0] = 1
    assert_close(value_and_grad(loss, student, teacher, ignored, mask=mask), expected)


def test_a_mask_is_enough_without_labels_and_beside_distributions(batch):
    student, teacher, labels = batch
    mask = torch.tensor([[True, False, True], [True, True, False]])
    soft = KnowledgeDistillationLoss(2, 1)
    assert_close(
        value_and_grad(soft, student, teacher, mask=mask),
        value_and_grad(soft, student, teacher, labels.masked_fill(~mask, -100)),
    )
    both = KnowledgeDistillationLoss(2, 0.5)
    rows = F.one_hot(labels, 5).double()
    rows[~mask] = NAN
    assert_close(
        value_and_grad(both, student, teacher, rows, mask=mask),
        value_and_grad(both, student, teacher, labels, mask=mask),
    )


def test_an_ignored_example_has_the_loss_0_without_a_reduction(batch):
    student, teacher, labels = batch
    labels[0, 1] = -100
    losses = KnowledgeDistillationLoss(2, 0.5, reduction="none")(student, teacher, labels)
    assert losses.shape == (2, 3)
    assert losses[0, 1] == 0
    assert (losses != 0).sum() == 5


def test_another_ignore_index_and_unsigned_labels(batch):
    student, teacher, labels = batch
    labels[0, 1] = -100
    expected = KnowledgeDistillationLoss(2, 0.5)(student, teacher, labels)
    labels[0, 1] = 255
    loss = KnowledgeDistillationLoss(2, 0.5, ignore_index=255)
    assert torch.equal(loss(student, teacher, labels), expected)
    assert torch.equal(loss(student, teacher, labels.to(torch.uint8)), expected)
    with pytest.raises(ValueError, match=r"indices in 0\.\.4; got 255"):
        KnowledgeDistillationLoss(2, 0.5)(student, teacher, labels.to(torch.uint8))


@pytest.mark.parametrize(
    ("classes", "dtype"), [(256, torch.uint8), (32_768, torch.int16), (300, torch.uint16)]
)
def test_a_narrow_dtype_of_labels_need_not_hold_the_number_of_classes(classes, dtype, rng):
    student, teacher = (torch.tensor(x) for x in rng.normal(size=(2, 2, classes)))
    loss, labels = KnowledgeDistillationLoss(2, 0.5), torch.tensor([0, 255])
    assert loss(student, teacher, labels.to(dtype)) == loss(student, teacher, labels)


def test_distributions_may_be_bools(batch):
    student, teacher, labels = batch
    one_hot, loss = F.one_hot(labels, 5), KnowledgeDistillationLoss(2, 0.5)
    first = value_and_grad(loss, student, teacher, one_hot.bool())
    assert_close(first, value_and_grad(loss, student, teacher, one_hot))


@pytest.mark.parametrize("divergence", DIVERGENCES, ids=str)
def test_the_teacher_labels_and_mask_may_come_from_inference_mode(divergence, batch):
    student, *others = batch
    mask = torch.tensor([[True, False, True]] * 2)
    with torch.inference_mode():
        teacher, labels, mask_too = (x.clone() for x in (*others, mask))
        distributions = teacher.softmax(-1)
    loss = KnowledgeDistillationLoss(2, 0.5, divergence=divergence)
    actual = value_and_grad(loss, student, teacher, labels, mask=mask_too)
    assert_close(actual, value_and_grad(loss, student, *others, mask=mask))
    actual = value_and_grad(loss, student, teacher, distributions)
    assert_close(actual, value_and_grad(loss, student, others[0], distributions.clone()))


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_nothing_kept_gives_0_with_a_gradient_of_0(alpha, batch):
    student, teacher, labels = batch
    loss = KnowledgeDistillationLoss(2, alpha)
    value, grad = value_and_grad(loss, student * NAN, teacher, labels.fill_(-100))
    assert value == 0
    assert not grad.any()
    empty = value_and_grad(loss, student[:0], teacher[:0], labels[:0])
    assert_close(empty, [torch.tensor(0.0, dtype=torch.float64), student[:0]])


@pytest.mark.parametrize("count", [int, torch.tensor])
def test_accumulation_over_uneven_batches_is_the_mean_of_all_tokens(count, batch):
    student, teacher, labels = batch
    labels[0, 0] = labels[0, 2] = labels[1, 1] = -100  # one token is left, and two
    loss = KnowledgeDistillationLoss(2, 0.5)
    expected = value_and_grad(loss, student, teacher, labels)
    parts = [
        value_and_grad(loss, *(x[i : i + 1] for x in batch), num_items=count(3)) for i in range(2)
    ]
    value, grad = sum(v for v, _ in parts), torch.cat([g for _, g in parts])
    assert_close([value, grad], expected)


def test_ignored_tokens_cost_no_copy_of_the_logits(batch):
    student, teacher, labels = batch
    labels[0, 1] = -100
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        KnowledgeDistillationLoss(2, 1)(student, teacher, labels)
    large = [x for x in kept if x.shape == student.shape]
    assert [x.data_ptr() == student.data_ptr() for x in large] == [True, False]  # and a gradient


# The terms


def test_both_terms_come_for_a_log(batch):
    student, teacher, labels = batch
    labels[0, 1] = -100
    loss = KnowledgeDistillationLoss(2, 0.3)
    value, soft, hard = loss.terms(student, teacher, labels)
    assert torch.equal(value, loss(student, teacher, labels))
    kept = labels != -100
    torch.testing.assert_close(soft, kd_loss(student, teacher, 2)[kept].mean())
    torch.testing.assert_close(hard, F.cross_entropy(student[kept], labels[kept]))
    torch.testing.assert_close(value, 0.7 * hard + 0.3 * soft)


def test_a_term_of_weight_0_is_not_computed(batch):
    terms = KnowledgeDistillationLoss(2, 1).terms(*batch[:2])
    assert terms.hard is None
    assert torch.equal(terms.soft, terms.loss)
    terms = KnowledgeDistillationLoss(2, 0).terms(*batch)
    assert terms.soft is None
    assert torch.equal(terms.hard, terms.loss)


def test_the_hard_term_is_not_rounded_away_where_the_student_is_sure():
    student = torch.tensor([[40.0, 0.0, 0.0]], dtype=torch.float32, requires_grad=True)
    loss = KnowledgeDistillationLoss(1, 0)(student, student.detach(), torch.tensor([0]))
    (grad,) = torch.autograd.grad(loss, student)
    tail = math.exp(-40)  # the loss is 2 tail to first order, and q − 1 is −2 tail
    torch.testing.assert_close(loss, torch.tensor(2 * tail), rtol=1e-6, atol=0)
    torch.testing.assert_close(grad, torch.tensor([[-2 * tail, tail, tail]]), rtol=1e-6, atol=0)


@pytest.mark.filterwarnings(OF_SCRIPTS)
def test_labels_that_are_distributions_have_derivatives_too(batch):
    student, teacher, _ = batch
    labels = torch.softmax(teacher, -1)

    def loss(z, scores):
        y = torch.softmax(scores, -1)
        return KnowledgeDistillationLoss(2, 0.5, reduction="none")(z, labels, y)

    inputs = student, teacher.clone().requires_grad_()
    assert torch.autograd.gradcheck(loss, inputs, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(loss, inputs)


def test_soft_labels_of_ignored_tokens_get_a_gradient_of_0(batch):
    student, teacher, _ = batch
    mask = torch.tensor([[True, False, True], [True, True, False]])
    labels = torch.softmax(teacher, -1).requires_grad_()
    with torch.no_grad():
        student[0, 1] = NAN
    KnowledgeDistillationLoss(2, 0.5)(student, teacher, labels, mask=mask).backward()
    assert not labels.grad[~mask].any()
    assert labels.grad[mask].all()


# Settings


def test_settings_are_checked_when_they_are_set():
    loss = KnowledgeDistillationLoss(2, 0.5)
    loss.temperature = 4
    assert loss.temperature == 4.0
    for name, value, error in [
        ("temperature", 0, ValueError),
        ("alpha", 2, ValueError),
        ("divergence", "kl", ValueError),
        ("teacher_temperature", -1, ValueError),
        ("scaled", "no", TypeError),
        ("reduction", "batchmean", ValueError),
        ("ignore_index", 1.5, TypeError),
        ("class_dim", None, TypeError),
    ]:
        with pytest.raises(error, match=name):
            setattr(loss, name, value)
    assert "temperature=4.0, alpha=0.5" in repr(loss)


def test_temperatures_are_checked_against_each_other():
    loss, own = KnowledgeDistillationLoss(2, 1, teacher_temperature=3), torch.tensor(3.0)
    for temperature, message in [(math.inf, "must be finite"), (1e-320, "between")]:
        with pytest.raises(ValueError, match=message):
            loss.temperature = temperature
    assert (loss.temperature, loss.teacher_temperature) == (2, 3)
    loss.teacher_temperature = math.inf  # to infinity and back
    loss.temperature = math.inf
    for temperature, message in [(3, "must be finite"), (own, "finite if teacher_temp")]:
        with pytest.raises(ValueError, match=message):
            loss.teacher_temperature = temperature
        with pytest.raises(ValueError, match=message):
            KnowledgeDistillationLoss(math.inf, 1, teacher_temperature=temperature)
    loss.temperature, loss.teacher_temperature = 2, own
    with pytest.raises(ValueError, match="finite if teacher_temp"):
        loss.temperature = math.inf
    loss.teacher_temperature = None
    loss.temperature = math.inf


def test_a_module_with_other_settings_shows_them():
    loss = KnowledgeDistillationLoss(
        torch.nn.Parameter(torch.tensor(2.0)), 1, divergence="jeffreys", class_dim=1
    )
    assert repr(loss) == (
        "KnowledgeDistillationLoss(temperature=Parameter of shape (), alpha=1.0, "
        "divergence='jeffreys', scaled=True, reduction='mean', class_dim=1)"
    )


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        ({}, ValueError, "labels must be given unless alpha is 1; got alpha=0.5"),
        ({"mask": torch.ones(2)}, TypeError, "mask must be a tensor of bools.* torch.float32"),
        ({"mask": [True, False]}, TypeError, "mask must be a tensor of bools.* got list"),
        (
            {"mask": torch.ones(3, dtype=torch.bool)},
            ValueError,
            r"mask must have shape \(2,\); got shape \(3,\)",
        ),
        ({"num_items": 0}, ValueError, "num_items must be at least 1; got 0"),
        ({"num_items": 1.5}, TypeError, "num_items must be an integer; got 1.5"),
        ({"num_items": torch.tensor(0)}, ValueError, "num_items must be greater than 0; got 0"),
        ({"num_items": torch.ones(2)}, ValueError, r"num_items must have shape \(\)"),
    ],
)
def test_a_call_refuses(call, error, message):
    logits = torch.zeros(2, 3)
    with pytest.raises(error, match=message):
        KnowledgeDistillationLoss(2, 0.5)(logits, logits, **call)


@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_num_items_is_for_means(reduction):
    logits = torch.zeros(2, 3)
    with pytest.raises(ValueError, match=f"num_items.*reduction='{reduction}'; got 4"):
        KnowledgeDistillationLoss(2, 1, reduction=reduction)(logits, logits, num_items=4)


@pytest.mark.parametrize(
    ("sizes", "class_dim", "advice"),
    [
        ((7, 5), -1, r"last 2 classes of student_logits .*student_logits.narrow\(-1, 0, 5\)"),
        ((5, 7), -1, r"last 2 classes of teacher_logits .*teacher_logits.narrow\(-1, 0, 5\)"),
        ((5, 7), 1, r"teacher_logits.narrow\(1, 0, 5\)"),
    ],
)
def test_vocabularies_of_different_size_are_refused_with_advice(sizes, class_dim, advice):
    student, teacher = (torch.zeros(2, n, 3).movedim(1, class_dim) for n in sizes)
    with pytest.raises(ValueError, match=f"must have the same classes; got .*{advice}"):
        kd_loss(student, teacher, class_dim=class_dim)
    smaller = min(sizes)
    student, teacher = (x.narrow(class_dim, 0, smaller) for x in (student, teacher))
    assert not kd_loss(student, teacher, class_dim=class_dim).any()


# Layouts and precisions


@pytest.mark.parametrize("divergence", ["forward_kl", "jensen_shannon"])
def test_classes_may_stand_on_another_axis(divergence, rng):
    student, teacher = (torch.tensor(x) for x in rng.normal(size=(2, 2, 5, 3, 4)))  # (N, K, H, W)
    labels = torch.tensor(rng.integers(0, 5, size=(2, 3, 4)))
    labels[1, 2] = -100
    soft_labels = torch.softmax(teacher, 1)
    last = [x.movedim(1, -1) for x in (student, teacher, soft_labels)]
    settings = {"temperature": 2, "alpha": 0.5, "divergence": divergence}
    of_images = KnowledgeDistillationLoss(**settings, class_dim=1)
    of_rows = KnowledgeDistillationLoss(**settings)
    for y, y_last in [(labels, labels), (soft_labels, last[2])]:
        value, grad = value_and_grad(of_images, student, teacher, y)
        expected, expected_grad = value_and_grad(of_rows, *last[:2], y_last)
        assert_close([value, grad.movedim(1, -1)], [expected, expected_grad])
    assert kd_loss(student, teacher, 2, class_dim=1).shape == (2, 3, 4)


def test_class_dim_must_be_an_axis():
    logits = torch.zeros(2, 3)
    for axis in (2, -3):
        with pytest.raises(ValueError, match=rf"K on axis {axis}, .*got shape \(2, 3\)"):
            kd_loss(logits, logits, class_dim=axis)


def test_float16_trains_with_a_gradient_scaler(rng):
    inputs, teacher = (torch.tensor(x, dtype=torch.float16) for x in rng.normal(size=(2, 8, 5)))
    labels = torch.arange(8) % 5
    model = torch.nn.Linear(5, 5)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**14)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    loss = KnowledgeDistillationLoss(4, 0.5)

    def gradient(dtype):
        model.zero_grad()
        with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
            value = loss(model(inputs.to(dtype)), teacher, labels)
        assert value.dtype == torch.float32
        return value

    gradient(torch.float32).backward()
    expected = model.weight.grad.clone()
    scaler.scale(gradient(torch.float16)).backward()
    scaler.unscale_(optimizer)
    torch.testing.assert_close(model.weight.grad, expected, rtol=1e-2, atol=1e-4)
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 2.0**14  # nothing overflowed
