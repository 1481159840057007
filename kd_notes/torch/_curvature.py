"""The second derivatives of the divergences, for PyTorch, which differentiates them further.

Along a row u, with ũ = u − Σ q u, h = f(x) − x f'(x), k = x² f''(x) and x = p/q, the gradient
β q (h − Σ q h) changes by  β² q (w − Σ q w)  with  w = ũ (h − Σ q h + k).

With the teacher's logits, times β, it changes by  −β (t − p Σ t)  with  t = q k ũ.
"""

from __future__ import annotations

import math
from collections.abc import Callable

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
    q, _, log_x = _compared(student, teacher, beta, u)
    h, k = CURVATURES[formula.name](log_x, formula.parameter)
    w = (u - _mean(q, u)) * (h - _mean(q, h) + k)
    return (formula.factor * q * (w - _mean(q, w))).to(u.dtype)


def by_mixed_hessian(
    student: Tensor, teacher: Tensor, u: Tensor, beta: float, formula: Formula
) -> Tensor:
    """Return the derivative of u times the gradient, over β, for β times the teacher's logits."""
    q, p, log_x = _compared(student, teacher, beta, u)
    qk = p if formula == FORWARD else q * CURVATURES[formula.name](log_x, formula.parameter)[1]
    t = qk * (u - _mean(q, u))
    return (formula.factor * (p * t.sum(-1, keepdim=True) - t)).to(u.dtype)


def _compared(
    student: Tensor, teacher: Tensor, beta: float, u: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return q, p and log(p/q), of which none is infinite.

    In float64 where there is one: a probability whose reciprocal float32 cannot hold counts.
    """
    dtype = u.dtype if u.device.type == "mps" else torch.float64
    over_tau = (times(OPERATIONS, x.to(dtype), beta) for x in (student, teacher))
    log_q, log_p = (torch.log_softmax(x, -1) for x in over_tau)
    excluded = (log_q == -math.inf) | (log_p == -math.inf)
    return log_q.exp(), log_p.exp(), (log_p - log_q).masked_fill(excluded, -EXCLUDED)


def _mean(q: Tensor, x: Tensor) -> Tensor:
    return (q * x).sum(-1, keepdim=True)


def reverse_kl(log_x: Tensor, _: float) -> tuple[Tensor, Tensor]:
    return -log_x, torch.ones_like(log_x)


def jeffreys(log_x: Tensor, _: float) -> tuple[Tensor, Tensor]:
    x = log_x.exp()
    return -(log_x + torch.expm1(log_x)) / 2, (1 + x) / 2


def skew_kl(log_x: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    x, expm1 = log_x.exp(), torch.expm1(log_x)
    mixture = 1 + alpha * expm1
    return -expm1 / mixture, x / mixture**2


def skew_reverse_kl(log_x: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    a, expm1 = 1 - alpha, torch.expm1(log_x)
    w = torch.log1p(a * expm1)
    return -(w + alpha * torch.expm1(-w)) / a**2, (log_x.exp() / (1 + a * expm1)) ** 2


def jensen_shannon(log_x: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    expm1 = torch.expm1(log_x)
    return -torch.log1p(beta * expm1) / beta, log_x.exp() / (1 + beta * expm1)


def alpha(log_x: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    return -torch.expm1(alpha * log_x) / alpha, torch.exp(alpha * log_x)


def total_variation(log_x: Tensor, _: float) -> tuple[Tensor, Tensor]:
    return -torch.sign(log_x) / 2, torch.zeros_like(log_x)


CURVATURES: dict[str, Callable[[Tensor, float], tuple[Tensor, Tensor]]] = {
    "reverse_kl": reverse_kl,
    "jeffreys": jeffreys,
    "skew_kl": skew_kl,
    "skew_reverse_kl": skew_reverse_kl,
    "jensen_shannon": jensen_shannon,
    "alpha": alpha,
    "total_variation": total_variation,
}
