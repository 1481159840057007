"""The loss of distillation for PyTorch: a function and a module, with their own backward.

The mathematics is that of `_kernel.py`, whose first lines explain it, in PyTorch's
operations. Eager code on a CPU looks at the numbers, and skips what they do not need. A
compiled graph has no branches, and on another device looking means waiting, so there
everything is computed and `torch.where` chooses.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from kd_notes._checks import as_alpha, as_temperature
from kd_notes._distillation import mixture
from kd_notes._kernel import COTH, NEAR, REACH, TERMS

try:
    import torch
    from torch import Tensor
except ImportError as error:
    raise ImportError(
        'kd_notes.torch needs PyTorch; install it, or, in a clone, `pip install ".[torch]"`'
    ) from error

__all__ = ["KnowledgeDistillationLoss", "kd_loss"]

BLOCK = 2**18  # numbers in one array of a block of rows; about six are at work at a time
REDUCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": torch.mean,
    "sum": torch.sum,
    "none": lambda losses: losses,
}


def kd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float = 1.0,
    *,
    scaled: bool = True,
) -> Tensor:
    r"""Return the knowledge distillation loss, by default times temperature squared.

    Parameters
    ----------
    student_logits, teacher_logits
        `(..., K)`, of one shape, and of any float dtypes. A class that both exclude
        (`-inf`) takes no part; one that only the student excludes makes the loss `inf`;
        one that only the teacher excludes has no teacher probability.
    temperature
        Greater than 0, `inf` allowed.
    scaled
        Whether the loss is multiplied by temperature squared. At infinite temperature the
        scaled loss is half the variance of the logit differences, the plain one is 0.

    Returns
    -------
    tensor `(...)`
        One loss per example, never negative; in nats if not scaled. Its dtype is what the two
        dtypes promote to; float16 and bfloat16 are computed in float32.

    Raises
    ------
    ValueError
        If the shapes differ, there is no class, or the temperature is not above 0.
    TypeError
        If the logits are no tensors of real floating-point numbers, or the temperature is
        no real number.

    Notes
    -----
    Eq. 8 of the note :cite:p:`Che21` and Hinton et al. :cite:p:`HVD15`, with the gradient
    of Eq. 10 for the student's logits. The teacher's logits get none, whether they ask for
    one or not.

    For the backward pass it keeps the student's logits, of which only a second derivative
    makes use, and one tensor of their size: the gradient. Of the teacher it keeps nothing.
    On a CPU it works in blocks of rows that fit the cache; elsewhere `torch.compile` fuses
    the steps.

    Examples
    --------
    In float32, at a temperature of a million:

    >>> import torch
    >>> import torch.nn.functional as F
    >>> from kd_notes.torch import kd_loss
    >>> student = torch.tensor([[1.0, 2.0, 0.0]], requires_grad=True)
    >>> teacher = torch.tensor([[3.0, 1.0, -1.0]])
    >>> loss = kd_loss(student, teacher, temperature=1e6)
    >>> loss
    tensor([1.0000], grad_fn=<...>)
    >>> torch.autograd.grad(loss.sum(), student)[0]
    tensor([[-0.6667,  0.3333,  0.3333]])
    >>> log_p_s, p_t = F.log_softmax(student / 1e6, dim=-1), F.softmax(teacher / 1e6, dim=-1)
    >>> bool((F.kl_div(log_p_s, p_t, reduction="batchmean") * 1e6**2 - 1).abs() > 1000)
    True
    """
    _require_logits(student_logits, teacher_logits)
    loss = _soft_loss(student_logits, teacher_logits, as_temperature(temperature), scaled)
    return loss.to(torch.promote_types(student_logits.dtype, teacher_logits.dtype))


class KnowledgeDistillationLoss(torch.nn.Module):
    r"""The KD loss mixed with cross-entropy on the labels, for a training loop.

    Parameters
    ----------
    temperature
        Of the soft term alone, greater than 0, `inf` allowed; the hard term is at 1.
    alpha
        Weight of the soft term, in [0, 1]; a weight of 0 silences even `inf`.
    scaled
        Whether the soft term is multiplied by temperature squared.
    reduction
        `"mean"` over the examples, as PyTorch's `"batchmean"`; `"sum"` over them; or
        `"none"`, one loss per example.

    Raises
    ------
    ValueError
        If the temperature is not above 0, alpha is outside [0, 1], or there is no such
        reduction.
    TypeError
        If temperature or alpha is no real number.

    Notes
    -----
    :math:`(1-\alpha)\,\mathrm{CE}(y, p^s) + \alpha \tau^2\,\mathrm{KL}(p^t, p^s)`: with
    `scaled=False` and temperature 1, Eq. 13 of the note :cite:p:`Che21`.

    It is called as `loss(student_logits, teacher_logits, labels)`, with logits as `kd_loss`
    takes them, and labels that are class indices `(...)` of an integer dtype or
    distributions `(..., K)`. The result has the dtype that the logits promote to.

    No index means "ignore": -100, which `torch.nn.functional.cross_entropy` skips by
    default, raises `ValueError`, as does every index outside 0..K-1, a row that is no
    distribution, and a shape that does not fit. To skip examples, select those that count
    before the call, or use `reduction="none"` with any valid label and a mask after it.
    In a compiled graph, and on a device other than the CPU, a wrong label fails the
    device's own assertion instead: to look at it in Python would stall the device.

    Examples
    --------
    >>> import torch
    >>> from kd_notes.torch import KnowledgeDistillationLoss
    >>> loss = KnowledgeDistillationLoss(temperature=4, alpha=0.5)
    >>> loss
    KnowledgeDistillationLoss(temperature=4.0, alpha=0.5, scaled=True, reduction='mean')
    >>> student = torch.tensor([[1.0, 2.0, 0.0]], requires_grad=True)
    >>> teacher = torch.tensor([[3.0, 1.0, -1.0]])
    >>> value = loss(student, teacher, torch.tensor([0]))
    >>> round(value.item(), 6)
    1.255233
    >>> value.backward()
    >>> student.grad
    tensor([[-0.7376,  0.5567,  0.1809]])
    """

    def __init__(
        self,
        temperature: float,
        alpha: float,
        *,
        scaled: bool = True,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        self.temperature = as_temperature(temperature)
        self.alpha = as_alpha(alpha)
        self.scaled = scaled
        if reduction not in REDUCTIONS:
            raise ValueError(f"reduction must be one of {[*REDUCTIONS]}; got {reduction!r}")
        self.reduction = reduction

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of a batch, reduced."""
        _require_logits(student_logits, teacher_logits)
        soft = _soft_loss(student_logits, teacher_logits, self.temperature, self.scaled)
        hard = _cross_entropy(student_logits, labels)
        loss = REDUCTIONS[self.reduction](mixture(self.alpha, hard, soft))
        return loss.to(torch.promote_types(student_logits.dtype, teacher_logits.dtype))

    def extra_repr(self) -> str:
        """Return what a printed model says of its loss."""
        return (
            f"temperature={self.temperature}, alpha={self.alpha}, "
            f"scaled={self.scaled}, reduction={self.reduction!r}"
        )


class _SoftLoss(torch.autograd.Function):
    """The soft loss, and as a second output the slope that its backward multiplies by.

    As an output, the slope remembers which logits it came from; so a second derivative is
    the backward of the slope, and a third one that of the backward's own operations.
    """

    @staticmethod
    def forward(
        student: Tensor, teacher: Tensor, temperature: float, scaled: bool
    ) -> tuple[Tensor, Tensor]:
        return _loss_and_slope(student, teacher, temperature, scaled)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        student, _, ctx.temperature, ctx.scaled = inputs
        ctx.save_for_backward(student, output[1])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, None, None, None]:
        """Return loss' · slope (Eq. 10) + slope' · ∂slope/∂z, a multiple of diag q − q qᵀ."""
        of_loss, of_slope = grads
        student, slope = ctx.saved_tensors
        grad = None if of_loss is None else of_loss.unsqueeze(-1) * slope
        if of_slope is not None:
            q = torch.softmax(student.to(slope.dtype) * _beta(ctx.temperature, slope.dtype), -1)
            turned = q * (of_slope - (q * of_slope).sum(-1, keepdim=True))
            turned = turned if ctx.scaled else turned / ctx.temperature / ctx.temperature
            grad = turned if grad is None else grad + turned
        return None if grad is None else grad.to(student.dtype), None, None, None


def _soft_loss(student: Tensor, teacher: Tensor, temperature: float, scaled: bool) -> Tensor:
    """Return Eq. 8 on checked logits, in the dtype to compute in."""
    loss: Tensor = _SoftLoss.apply(student, teacher.detach(), temperature, scaled)[0]
    return loss


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return Eq. 1, where a class of label 0 takes no part even if its probability is 0."""
    log_p = torch.log_softmax(logits, -1, dtype=_wide(logits.dtype))
    if _are_indices(labels, logits):
        return -log_p.gather(-1, labels.long().unsqueeze(-1)).squeeze(-1)
    return -(labels * log_p.masked_fill(labels == 0, 0)).sum(-1)


def _loss_and_slope(
    student: Tensor, teacher: Tensor, temperature: float, scaled: bool
) -> tuple[Tensor, Tensor]:
    """Return the loss `(...)` and its gradient `(..., K)`."""
    dtype = _wide(torch.promote_types(student.dtype, teacher.dtype))
    beta = _beta(temperature, dtype)
    unit = 1 / beta if scaled else 1.0
    near = NEAR[_name(dtype)] if unit * unit < torch.finfo(dtype).max else 1e-7
    classes = student.shape[-1]
    z, v = student.reshape(-1, classes), teacher.reshape(-1, classes)
    if _may_look(z):
        step = max(1, BLOCK // classes)
        loss, slope = z.new_empty((len(z), 1), dtype=dtype), torch.empty_like(z, dtype=dtype)
        for rows in (slice(start, start + step) for start in range(0, len(z), step)):
            loss[rows], slope[rows] = _block(
                z[rows].to(dtype), v[rows].to(dtype), beta, unit, near
            )
    else:
        loss, slope = _block(z.to(dtype), v.to(dtype), beta, unit, near)
    if not scaled:
        slope *= 1 / temperature
    return loss.reshape(student.shape[:-1]), slope.reshape(student.shape)


def _block(z: Tensor, v: Tensor, beta: float, unit: float, near: float) -> tuple[Tensor, Tensor]:
    """Return unit²·KL, `(n, 1)`, and unit·(q − p), `(n, K)`, of n rows."""
    a, b = z - z.amax(-1, keepdim=True), v - v.amax(-1, keepdim=True)
    a *= beta
    b *= beta
    x = a - b
    if _may_look(x) and _spans_little(x[:1]) and _spans_little(x).all():
        return _near(z, v, beta, unit)
    kl, slope = _apart(a, b, x, unit)
    loss = kl * unit * unit
    is_near = kl < near
    if _may_look(kl):
        i = is_near[:, 0].nonzero()[:, 0]
        loss[i], slope[i] = _near(z[i], v[i], beta, unit)
        return loss, slope
    near_loss, near_slope = _near(z, v, beta, unit)
    return torch.where(is_near, near_loss, loss), torch.where(is_near, near_slope, slope)


def _spans_little(x: Tensor) -> Tensor:
    return x.amax(-1) - x.amin(-1) <= REACH


def _apart(a: Tensor, b: Tensor, x: Tensor, unit: float) -> tuple[Tensor, Tensor]:
    """Return KL and unit·(q − p) from a = log q, b = log p and x = a − b.

    Both logarithms may be off by a constant. With Z = Σ eᵇ and r = Z / Σ eᵃ,
    log(q/p) = x + log r  and  Z (q − p) = r eᵃ − eᵇ,  so
    Z p φ(log(q/p)) = (r eᵃ − eᵇ) − eᵇ (x + log r).  All is done in place. One rounded
    log r serves both places: what it is off by enters the sum squared.
    """
    if _happens(~x.sum().isfinite()):
        x.masked_fill_(b == -math.inf, 0)  # 0 log 0 = 0
        lost = b.clamp(min=math.log(torch.finfo(b.dtype).tiny))  # not 0 even if p underflows
        b = torch.where(x == -math.inf, lost, b)
    q, p = a.exp_(), b.exp_()
    total = p.sum(-1, keepdim=True)
    log_r = (total / q.sum(-1, keepdim=True)).log()
    q *= log_r.exp()
    q -= p
    x += log_r
    x *= p
    kl = (q - x).sum(-1, keepdim=True) / total
    _balance(q, p, total)
    q *= unit / total
    return kl, q


def _near(z: Tensor, v: Tensor, beta: float, unit: float) -> tuple[Tensor, Tensor]:
    """Return unit²·KL and unit·(q − p) where KL is small.

    They come from d = log(q/p) minus its mean. As Σ p d = 0,
    KL = log Σ p eᵈ = log(1 + S)  with  S = Σ p φ(d),  and  q = p eᵈ / (1 + S),
    so  q − p = p (eᵈ − 1 − S) / (1 + S).  The unit goes with d before it is squared:
    x = unit·d is a difference of logits, which no temperature makes underflow.
    """
    highest = v.amax(-1, keepdim=True)
    p = ((v - highest) * beta).exp_()
    total = p.sum(-1, keepdim=True)
    x = z - v
    excluding = _happens(~x.sum().isfinite())
    if excluding:
        x.masked_fill_(v == -math.inf, 0)
    x, center = _centered(x, p, total, beta)
    d = x * beta
    if unit == 1:
        x = d
    px = p * x
    bend = px * _phi_over_square(d)  # unit·p φ(d) / d
    rise = bend * d + px  # unit·p (eᵈ − 1)
    bend *= x  # unit²·p φ(d)
    if excluding or _happens(~_spans_little(d)):
        # p eᵈ as one exponential: p may underflow, or eᵈ overflow.
        far = unit * (((z - highest - center) * beta).exp_() - p)
        wide = (d.abs() > REACH) | (v == -math.inf)
        rise = torch.where(wide, far, rise)
        bend = torch.where(wide, unit * (far - px), bend)
    t = bend.sum(-1, keepdim=True) / total
    s = t / unit / unit
    loss = t * torch.where(s > 0, s.log1p() / s, 1)
    rise -= p * (t / unit)
    _balance(rise, p, total)
    rise /= (1 + s) * total
    return loss, rise


def _centered(x: Tensor, p: Tensor, total: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """Return x less its mean under p, and that mean."""
    # From the top class, where p is 1, what the others add is a small sum.
    origin = x.masked_fill(p != 1, -math.inf).amax(-1, keepdim=True)
    centered = x - origin
    mean = (p * centered).sum(-1, keepdim=True) / total
    centered -= mean
    mean += origin
    is_far = (mean - origin).abs() * beta > 1
    if _happens(is_far):  # the top is far from the rest, and they were rounded alike
        again = x - mean
        rest = (p * again).sum(-1, keepdim=True) / total
        centered = torch.where(is_far, again - rest, centered)
        mean = torch.where(is_far, mean + rest, mean)
    return centered, mean


def _phi_over_square(x: Tensor) -> Tensor:
    """Return φ(x)/x² up to REACH:  h / (1 − xh)  with  h = ½ − (½x coth ½x − 1)/x."""
    square = x * x
    *coefficients, last = COTH[: TERMS[_name(x.dtype)]]
    h = torch.full_like(x, last)
    for c in reversed(coefficients):
        h *= square
        h += c
    h *= x
    h.neg_().add_(0.5)
    return h.div_((x * h).neg_().add_(1))


def _balance(slope: Tensor, p: Tensor, total: Tensor) -> None:
    """Make Σ slope = 0 where the teacher holds one class likelier than all the others.

    The slope of that class is minus the sum of the others', and may be far smaller than
    the q and p whose difference it is.
    """
    if _happens(total < 2):  # p, not yet divided by its total, is 1 at the top
        slope -= (p > total / 2) * slope.sum(-1, keepdim=True)


def _may_look(x: Tensor) -> bool:
    """Whether the next step may depend on the numbers in a tensor."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def _happens(condition: Tensor) -> bool:
    """Whether a condition holds anywhere, or nobody may look."""
    return not _may_look(condition) or bool(condition.any())


def _beta(temperature: float, dtype: torch.dtype) -> float:
    """Return 1/τ, not quite 0 at infinity: -inf β is -inf, and 1 + β is 1; nor infinite."""
    info = torch.finfo(dtype)
    return min(max(1 / temperature, math.pow(info.tiny, 0.8)), info.max)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _wide(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype to compute in: float32, or wider."""
    return torch.promote_types(dtype, torch.float32)


def _require_logits(student: Tensor, teacher: Tensor) -> None:
    for name, logits in {"student_logits": student, "teacher_logits": teacher}.items():
        if not isinstance(logits, Tensor) or not logits.is_floating_point():
            came = logits.dtype if isinstance(logits, Tensor) else type(logits).__name__
            raise TypeError(f"{name} must be a tensor of real floating-point numbers; got {came}")
    if student.shape != teacher.shape:
        raise ValueError(
            "student_logits and teacher_logits must have the same shape; "
            f"got shapes {tuple(student.shape)} and {tuple(teacher.shape)}"
        )
    if student.ndim == 0 or student.shape[-1] == 0:
        raise ValueError(
            "student_logits and teacher_logits must have shape (..., K) with at least one "
            f"class on the last axis; got shape {tuple(student.shape)}"
        )


def _are_indices(labels: Tensor, logits: Tensor) -> bool:
    """Whether the labels are class indices; refuse what is neither they nor distributions."""
    if not isinstance(labels, Tensor) or labels.is_complex():
        came = labels.dtype if isinstance(labels, Tensor) else type(labels).__name__
        raise TypeError(f"labels must be a tensor of indices or of distributions; got {came}")
    if labels.shape == logits.shape:
        tolerance = 1e-2 if labels.dtype in (torch.float16, torch.bfloat16) else 1e-5
        off = (labels.sum(-1, dtype=_wide(labels.dtype)) - 1).abs() > tolerance
        _require(~(off | (labels < 0).any(-1)), labels, "distributions over the last axis")
        return False
    if labels.shape == logits.shape[:-1] and not labels.is_floating_point():
        classes = logits.shape[-1]
        _require((labels >= 0) & (labels < classes), labels, f"indices in 0..{classes - 1}")
        return True
    raise ValueError(
        f"labels must be integer indices of shape {tuple(logits.shape[:-1])} or distributions "
        f"of shape {tuple(logits.shape)}; got {labels.dtype} of shape {tuple(labels.shape)}"
    )


def _require(holds: Tensor, labels: Tensor, what: str) -> None:
    if not _may_look(holds):
        torch._assert_async(holds.all(), f"labels must be {what}")
    elif not holds.all():
        first = labels[~holds][0]
        came = f"a sum of {first.sum():.6g} and a least entry of {first.min():.6g}"
        raise ValueError(
            f"labels must be {what}; got {came if first.ndim else first.item()} "
            f"in a tensor of shape {tuple(labels.shape)}"
        )
