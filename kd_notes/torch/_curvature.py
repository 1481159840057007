"""The second derivatives of the divergences, for PyTorch, which differentiates them further.

Along a row u, with ũ = u − Σ q u, h = f(x) − x f'(x), k = x² f''(x) and x = p/q, the gradient
β q (h − Σ q h) changes by  β² (w − q Σ w)  with  w = ũ (q h − q Σ q h + q k).

With the teacher's logits, times β, it changes by  −β (t − p Σ t)  with  t = q k ũ.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from kd_notes._divergence_terms import EXCLUDED
from kd_notes._f_divergences import FORWARD, Formula
from kd_notes._formulas import times
from kd_notes.torch._operations import OPERATIONS


def by_hessian(
    student: Tensor, teacher: Tensor, u: Tensor, beta: float, formula: Formula
) -> Tensor:
    """Return a row times the Hessian, over β²."""
    compared = _compared(student, teacher, beta, u, formula)
    q, (qh, qk) = compared.q, CURVATURES[formula.name](compared, formula.parameter)
    w = (u - _sum(q * u)) * (qh - q * _sum(qh) + qk)
    return (formula.factor * (w - q * _sum(w))).to(u.dtype)


def by_mixed_hessian(
    student: Tensor, teacher: Tensor, u: Tensor, beta: float, formula: Formula
) -> Tensor:
    """Return the derivative of u times the gradient, over β, for β times the teacher's logits."""
    compared = _compared(student, teacher, beta, u, formula)
    q, p = compared.q, compared.p
    qk = p if formula == FORWARD else CURVATURES[formula.name](compared, formula.parameter)[1]
    t = qk * (u - _sum(q * u))
    return (formula.factor * (p * _sum(t) - t)).to(u.dtype)


class _Compared(NamedTuple):
    """Both networks' probabilities, and logarithms of which none makes q h or q k nan."""

    q: Tensor
    p: Tensor
    log_q: Tensor
    log_x: Tensor  # log(p/q)

    def bounded_log_x(self) -> Tensor:
        """Return log(p/q) no larger than where x overflows, and q h and q k are next to 0."""
        largest = torch.finfo(self.log_x.dtype).max
        return self.log_x.clamp(max=math.log(largest) - 1)


def _compared(
    student: Tensor, teacher: Tensor, beta: float, u: Tensor, formula: Formula
) -> _Compared:
    """Compare both networks, in float64 where there is one.

    A probability whose reciprocal float32 cannot hold counts.
    """
    dtype = u.dtype if u.device.type == "mps" else torch.float64
    over_tau = (times(OPERATIONS, x.to(dtype), beta) for x in (student, teacher))
    log_q, log_p = (torch.log_softmax(x, -1) for x in over_tau)
    log_x = (log_p - log_q).masked_fill(log_p == -math.inf, _log_of_zero(formula))
    log_x = log_x.masked_fill(log_q == -math.inf, 0)  # it is multiplied by q
    return _Compared(log_q.exp(), log_p.exp(), log_q, log_x)


def _log_of_zero(formula: Formula) -> float:
    """Return what counts as log 0 where only the teacher excludes a class."""
    is_infinite = formula.name in ("reverse_kl", "jeffreys") or formula.parameter < 0
    return -EXCLUDED if is_infinite else -math.inf


def _sum(x: Tensor) -> Tensor:
    return x.sum(-1, keepdim=True)


def reverse_kl(of: _Compared, _: float) -> tuple[Tensor, Tensor]:
    return -of.q * of.log_x, of.q


def jeffreys(of: _Compared, _: float) -> tuple[Tensor, Tensor]:
    return -(of.q * of.log_x + of.p - of.q) / 2, (of.q + of.p) / 2


def skew_kl(of: _Compared, alpha: float) -> tuple[Tensor, Tensor]:
    log_x = of.bounded_log_x()
    expm1 = torch.expm1(log_x)
    mixture = 1 + alpha * expm1
    return -of.q * expm1 / mixture, of.q * (log_x.exp() / mixture) / mixture


def skew_reverse_kl(of: _Compared, alpha: float) -> tuple[Tensor, Tensor]:
    log_x, a = of.bounded_log_x(), 1 - alpha
    x, expm1 = log_x.exp(), torch.expm1(log_x)
    mixture = alpha + a * x  # 1 + a expm1 is 0 for x = 0 and a tiny alpha
    w = torch.where(x < 0.5, mixture.log(), torch.log1p(a * expm1.clamp(min=-0.5)))
    return -of.q * (w + alpha * torch.expm1(-w)) / a**2, of.q * (x / mixture) ** 2


def jensen_shannon(of: _Compared, beta: float) -> tuple[Tensor, Tensor]:
    log_x = of.bounded_log_x()
    expm1 = torch.expm1(log_x)
    return -of.q * torch.log1p(beta * expm1) / beta, of.q * log_x.exp() / (1 + beta * expm1)


def alpha(of: _Compared, alpha: float) -> tuple[Tensor, Tensor]:
    exponent = alpha * of.log_x
    geometric = torch.exp(of.log_q + exponent)  # q x^alpha, where x may overflow
    near = of.q * torch.expm1(exponent.clamp(-1, 1))
    qh = -torch.where(exponent.abs() < 1, near, geometric - of.q) / alpha
    return qh, geometric


def total_variation(of: _Compared, _: float) -> tuple[Tensor, Tensor]:
    return -of.q * torch.sign(of.log_x) / 2, torch.zeros_like(of.q)


CURVATURES: dict[str, Callable[[_Compared, float], tuple[Tensor, Tensor]]] = {
    "reverse_kl": reverse_kl,
    "jeffreys": jeffreys,
    "skew_kl": skew_kl,
    "skew_reverse_kl": skew_reverse_kl,
    "jensen_shannon": jensen_shannon,
    "alpha": alpha,
    "total_variation": total_variation,
}
