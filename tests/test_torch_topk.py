"""`kd_notes.torch.topk_kd_loss`: its derivatives, dtypes, and compiled graphs."""

import math

import pytest
from backends import OF_FUNCTIONS, OF_SCRIPTS

torch = pytest.importorskip("torch")

from live_memory import LiveMemory  # noqa: E402
from torch.autograd import gradcheck, gradgradcheck  # noqa: E402

from kd_notes.torch import kd_loss, topk_kd_loss  # noqa: E402

INF = math.inf
each_tail = pytest.mark.parametrize("tail", ["bucket", "renormalize"])
each_scaled = pytest.mark.parametrize("scaled", [True, False])
HALVES = [torch.float16, torch.bfloat16]
pytestmark = pytest.mark.usefixtures("mode")


@pytest.fixture
def pair(rng):
    """Two networks' logits for a batch (2, 2) of five classes."""
    return [torch.tensor(array) for array in rng.normal(scale=2, size=(2, 2, 2, 5))]


def top(teacher, k, temperature=1.0):
    """Return the teacher's k best logits, their indices, and the log-normalizer of all."""
    return *teacher.topk(k), torch.logsumexp(teacher / temperature, -1)


def slope(student, *args, **options):
    student = student.detach().clone().requires_grad_()
    loss = topk_kd_loss(student, *args, **options)
    return torch.autograd.grad(loss.sum(), student)[0]


@pytest.mark.parametrize("temperature", [1.0, 4.0, 1e3, INF])
@pytest.mark.parametrize("k", [1, 3, 5])
@each_tail
@each_scaled
def test_gradient_and_curvature_are_the_derivatives(scaled, tail, k, temperature, pair):
    student, (values, indices, normalizer) = pair[0].requires_grad_(), top(pair[1], k, temperature)
    if scaled and temperature == INF and k < 5:
        return  # the loss is infinite or refused

    def loss(z):
        options = {"tail": tail, "teacher_log_normalizer": normalizer, "scaled": scaled}
        return topk_kd_loss(z, values, indices, temperature, **options)

    # Nothing smaller than these tolerances is compared: at 1e3, unscaled, losses are 1e-6.
    tolerance = 1e-6 if scaled or temperature < 10 else 1e-9
    assert gradcheck(loss, student, atol=tolerance)
    assert gradgradcheck(loss, student, atol=tolerance)


@each_tail
def test_excluded_classes_have_derivatives_without_nan(tail, pair):
    student, (values, indices, normalizer) = pair[0].flatten(0, 1), top(pair[1], 3)
    values, indices, normalizer = (
        x.flatten(0, 1) for x in (values, indices, normalizer[..., None])
    )
    rest = [[*{*range(5)} - {*row}] for row in indices.tolist()]
    student[0, rest[0][0]] = -INF  # of the rest
    student[1, indices[1, 0]] = values[1, 0] = -INF  # of both
    student[2, indices[2]] = -INF  # all of S
    student[3, rest[3]] = -INF  # all of the rest
    student.requires_grad_()
    options = {"tail": tail, "teacher_log_normalizer": normalizer[:, 0]}
    loss = topk_kd_loss(student, values, indices, **options)
    assert loss.isfinite().tolist() == [True, True, False, tail == "renormalize"]
    (grad,) = torch.autograd.grad(loss.sum(), student, create_graph=True)
    assert grad.isfinite().all()
    assert (grad[0, rest[0][0]], grad[1, indices[1, 0]]) == (0, 0)
    assert torch.autograd.grad(grad.square().sum(), student)[0].isfinite().all()


@each_tail
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_temperature_yields_nan(dtype, tail, pair):
    student, teacher = (x.to(dtype) for x in pair)
    student[0, 0, 0] = -INF
    for temperature in (1e-30, 1e-3, 1e10, 1e19, 1e25, 1e200, INF):
        values, indices, normalizer = top(teacher, 2, temperature)
        if tail == "bucket" and temperature == INF:
            continue  # refused
        options = {"tail": tail, "teacher_log_normalizer": normalizer}
        assert (topk_kd_loss(student, values, indices, temperature, **options) >= 0).all()
        assert slope(student, values, indices, temperature, **options).isfinite().all()


def test_the_teacher_gets_no_gradient(pair):
    teacher = pair[1].requires_grad_()
    values, indices, normalizer = top(teacher, 2)
    options = {"teacher_log_normalizer": normalizer}
    assert not topk_kd_loss(pair[0], values, indices, **options).requires_grad
    topk_kd_loss(pair[0].requires_grad_(), values, indices, **options).sum().backward()
    assert teacher.grad is None


@each_tail
@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision_is_computed_in_float32(dtype, tail, pair):
    student, teacher = (x.to(dtype) for x in pair)
    log_p, indices = teacher.log_softmax(-1).topk(2)
    for values in (log_p, log_p.float()):
        loss = topk_kd_loss(student, values, indices, tail=tail)
        expected = topk_kd_loss(student.float(), values.float(), indices, tail=tail)
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, expected, rtol=0, atol=0)
        grad = slope(student, values, indices, tail=tail)
        expected = slope(student.float(), values.float(), indices, tail=tail)
        torch.testing.assert_close(grad, expected.to(dtype), rtol=0, atol=0)


def test_half_precision_log_probabilities_may_sum_to_a_little_more_than_one():
    log_p = torch.tensor([0.503, 0.503, 0.0, 0.0]).log().bfloat16()
    loss = topk_kd_loss(torch.zeros(4), log_p[:2], torch.tensor([0, 1]))
    torch.testing.assert_close(loss, torch.tensor(math.log(2)), rtol=1e-2, atol=0)
    with pytest.raises(ValueError, match=r"at most 1.*for logits, pass teacher_log_normalizer"):
        topk_kd_loss(torch.zeros(4), log_p[:2].float(), torch.tensor([0, 1]))


@pytest.mark.parametrize("batch", [(), (3,), (2, 0)])
def test_any_batch_shape_and_index_dtype(batch):
    student, teacher = torch.zeros(*batch, 5), torch.arange(5.0).expand(*batch, 5)
    values, indices = teacher.log_softmax(-1).topk(2)
    loss = topk_kd_loss(student, values, indices)
    assert loss.shape == batch
    assert torch.equal(topk_kd_loss(student, values, indices.int()), loss)
    assert slope(student, values, indices).shape == student.shape


# What is not kept


def padded(teacher):
    """Return a teacher `(2, 2)` of whom two positions are padding, as they come, and the mask."""
    values, indices, normalizer = (x.clone() for x in teacher)
    mask = torch.tensor([[True, False], [False, True]])
    values[0, 1], indices[0, 1], normalizer[0, 1] = math.nan, -1, math.nan
    values[1, 0], indices[1, 0], normalizer[1, 0] = 0, 0, 0
    return values, indices, normalizer, mask


def with_nan(student, mask):
    return student.masked_fill(~mask.unsqueeze(-1), math.nan)


@each_tail
@pytest.mark.parametrize("k", [2, 5])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_masked_tokens_are_as_if_they_were_not_there(dtype, k, tail, pair):
    student, teacher = (x.to(dtype) for x in pair)
    *masked, normalizer, mask = padded(top(teacher.double(), k))
    options = {"tail": tail, "teacher_log_normalizer": normalizer, "mask": mask}
    student = with_nan(student, mask).requires_grad_()
    loss = topk_kd_loss(student, *masked, **options)
    (grad,) = torch.autograd.grad(loss.sum(), student, create_graph=True)
    kept = (x[mask] for x in (student.detach(), *masked))
    options = {"tail": tail, "teacher_log_normalizer": normalizer[mask]}
    (student_rows, *rows) = kept
    torch.testing.assert_close(loss[mask], topk_kd_loss(student_rows, *rows, **options))
    torch.testing.assert_close(grad[mask], slope(student_rows, *rows, **options))
    assert not loss[~mask].any()
    assert not grad[~mask].any()
    (second,) = torch.autograd.grad(grad.square().sum(), student)
    assert second[mask].isfinite().all()
    assert not second[~mask].any()


def test_log_probabilities_of_masked_tokens_may_sum_to_more_than_one(pair):
    values, indices = pair[1].log_softmax(-1).topk(2)
    values[0, 1] = 3.0
    mask = torch.tensor([[True, False], [True, True]])
    expected = topk_kd_loss(pair[0][mask], values[mask], indices[mask])
    torch.testing.assert_close(topk_kd_loss(pair[0], values, indices, mask=mask)[mask], expected)
    with pytest.raises(ValueError, match="at most 1"):
        topk_kd_loss(pair[0], values, indices)


@pytest.mark.parametrize("temperature", [1.0, 4.0, 1e3, INF])
@each_tail
def test_derivatives_with_masked_tokens(tail, temperature, pair):
    *teacher, normalizer, mask = padded(top(pair[1], 3, temperature))
    options = {"tail": tail, "teacher_log_normalizer": normalizer, "mask": mask}

    def loss(rows):  # differences of nan are nan
        z = with_nan(pair[0], mask).masked_scatter(mask.unsqueeze(-1), rows)
        return topk_kd_loss(z, *teacher, temperature, scaled=temperature < INF, **options)

    rows = pair[0][mask].requires_grad_()
    tolerance = 1e-6 if temperature < INF else 1e-9
    assert gradcheck(loss, rows, atol=tolerance)
    assert gradgradcheck(loss, rows, atol=tolerance)


@each_tail
def test_a_mask_costs_no_copy_of_the_logits(tail, rng):
    student, teacher = (torch.tensor(x) for x in rng.normal(size=(2, 2, 2, 10_000)))
    peaks, student = [], student.requires_grad_()
    for *rows, normalizer, mask in ((*top(teacher, 2), None), padded(top(teacher, 2))):
        options = {"tail": tail, "teacher_log_normalizer": normalizer, "mask": mask}
        with LiveMemory() as memory:
            topk_kd_loss(student, *rows, **options).sum().backward()
        peaks.append(memory.peak)
    assert peaks[1] - peaks[0] < student.nbytes / 10


def test_nothing_kept_gives_0_even_where_the_loss_is_infinite(pair):
    mask = torch.zeros(2, 2, dtype=torch.bool)
    student = torch.full_like(pair[0], -INF).requires_grad_()
    rows = torch.full((2, 2, 3), INF, dtype=torch.float64), torch.full((2, 2, 3), 99)
    loss = topk_kd_loss(student, *rows, INF, tail="renormalize", mask=mask)
    (grad,) = torch.autograd.grad(loss.sum(), student)
    assert not loss.any()
    assert not grad.any()


def test_the_mask_may_come_from_inference_mode(pair):
    *teacher, normalizer, mask = padded(top(pair[1], 2))
    options = {"teacher_log_normalizer": normalizer}
    expected = slope(pair[0], *teacher, mask=mask, **options)
    with torch.inference_mode():
        mask = mask.clone()
    assert torch.equal(slope(pair[0], *teacher, mask=mask, **options), expected)


def test_all_classes_are_the_whole_loss(pair):
    values, indices, _ = top(pair[1], 5)
    loss = topk_kd_loss(pair[0], values, indices, 4.0)
    torch.testing.assert_close(loss, kd_loss(*pair, 4.0), rtol=1e-14, atol=0)


# torch.compile traces `torch.autograd.Function` by a way that PyTorch itself calls deprecated.
@pytest.mark.filterwarnings(OF_FUNCTIONS)
@pytest.mark.parametrize("mode", ["eager"], indirect=True)  # it has no branches in either
@each_tail
def test_a_compiled_graph_is_whole_and_gives_the_same(tail, rng):
    student, teacher = (torch.tensor(x).bfloat16() for x in rng.normal(size=(2, 4, 50)))
    student[1, 1] = -INF
    torch.compiler.reset()
    compiled = torch.compile(topk_kd_loss, fullgraph=True, backend="aot_eager")
    for temperature in (1.0, 4.0):  # the second time, it is a variable of the graph
        values, indices, normalizer = top(teacher.float(), 5, temperature)
        options = {"tail": tail, "teacher_log_normalizer": normalizer}
        z = student.clone().requires_grad_()
        loss = compiled(z, values, indices, temperature, **options)
        (grad,) = torch.autograd.grad(loss.sum(), z)
        expected = topk_kd_loss(student, values, indices, temperature, **options)
        torch.testing.assert_close(loss, expected, rtol=1e-4, atol=0)
        expected = slope(student, values, indices, temperature, **options)
        torch.testing.assert_close(grad, expected, rtol=1e-2, atol=1e-5)
    mask = torch.arange(4) != 2
    for rows in (student, values, normalizer):
        rows[2] = math.nan
    indices[2] = -1
    results = []
    for function in (compiled, topk_kd_loss):
        z = student.clone().requires_grad_()
        loss = function(z, values, indices, temperature, mask=mask, **options)
        results.append((loss, *torch.autograd.grad(loss.sum(), z)))
    torch.testing.assert_close(*results, rtol=1e-2, atol=1e-5)
    with pytest.raises(RuntimeError, match="distinct within a row"):
        compiled(student, values, torch.zeros_like(indices), temperature, **options)


def test_a_student_learns_from_the_top_k(rng):
    """Descent ends where the k probabilities, and what they leave, are the teacher's."""
    teacher, student = torch.tensor(rng.normal(size=(2, 3, 8)))
    values, indices, normalizer = top(teacher, 3)
    for _ in range(300):
        options = {"teacher_log_normalizer": normalizer}
        student = student - 4 * slope(student, values, indices, **options)
    p, q = (x.softmax(-1).gather(-1, indices) for x in (teacher, student))
    torch.testing.assert_close(q, p, rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        ({"values": [0.0]}, TypeError, "teacher_values must be a tensor of real .* got list"),
        ({"indices": [0]}, TypeError, "teacher_indices must be a tensor of integers; got list"),
        ({"indices": torch.ones(2) > 0}, TypeError, "must be a tensor of integers; .* torch.bool"),
        ({"indices": torch.zeros(2)}, TypeError, "integers; got torch.float32"),
        ({"normalizer": 0.0}, TypeError, "teacher_log_normalizer must be a tensor .* got float"),
        ({"normalizer": torch.zeros(1)}, ValueError, r"the batch, \(\); got \(1,\)"),
        ({"mask": torch.ones(())}, TypeError, "mask must be a tensor of bools.* torch.float32"),
        ({"mask": torch.ones(1) > 0}, ValueError, r"mask must have shape \(\); got shape \(1,\)"),
        ({"student": torch.zeros(1, 4)}, ValueError, r"got shapes \(1, 4\), \(2,\) and \(2,\)"),
        ({"student": torch.tensor(0.0)}, ValueError, r"shape \(\.\.\., K\)"),
    ],
)
def test_what_is_no_teacher_is_refused(bad, error, message):
    student, values, indices = torch.zeros(4), torch.full((2,), -1.0), torch.tensor([1, 2])
    good = {"student": student, "values": values, "indices": indices}
    good |= {"normalizer": None, "mask": None}
    given = good | bad
    with pytest.raises(error, match=message):
        topk_kd_loss(
            *(given["student"], given["values"], given["indices"]),
            teacher_log_normalizer=given["normalizer"],
            mask=given["mask"],
        )


@pytest.mark.filterwarnings(
    OF_SCRIPTS,
    OF_FUNCTIONS,
)
def test_it_goes_through_transforms(rng):
    student, teacher = (torch.tensor(x) for x in rng.normal(size=(2, 4, 7)))
    values, indices = teacher.log_softmax(-1).topk(3)

    def loss(z, v, i):
        return topk_kd_loss(z, v, i)

    z = student.clone().requires_grad_()
    (expected,) = torch.autograd.grad(loss(z, values, indices).sum(), z)
    each = torch.func.vmap(torch.func.grad(loss))(student, values, indices)
    torch.testing.assert_close(each, expected, rtol=1e-12, atol=1e-15)
    mask = torch.tensor([True, True, False, True])
    each = torch.func.vmap(torch.func.grad(lambda z, v, i, m: topk_kd_loss(z, v, i, mask=m)))
    expected[2], indices[2] = 0, -1
    torch.testing.assert_close(each(student, values, indices, mask), expected, rtol=1e-12, atol=0)
    row = student[0], values[0], indices[0]
    by_forward = torch.func.hessian(loss)(*row)
    by_reverse = torch.autograd.functional.hessian(lambda z: loss(z, *row[1:]), row[0])
    torch.testing.assert_close(by_forward, by_reverse, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    ("classes", "dtype"), [(256, torch.uint8), (32_768, torch.int16), (300, torch.uint16)]
)
def test_a_narrow_dtype_of_indices_need_not_hold_the_number_of_classes(classes, dtype, rng):
    student = torch.tensor(rng.normal(size=(2, classes)))
    values, indices = torch.full((2, 2), -1.0), torch.tensor([[0, 255], [7, 3]])
    expected = topk_kd_loss(student, values, indices)
    assert torch.equal(topk_kd_loss(student, values, indices.to(dtype)), expected)


def test_the_teacher_may_come_from_inference_mode(pair):
    expected = slope(pair[0], *pair[1].log_softmax(-1).topk(2))
    with torch.inference_mode():
        teacher = pair[1].log_softmax(-1).topk(2)
    assert torch.equal(slope(pair[0], *teacher), expected)
