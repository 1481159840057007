"""The derivatives for the teacher's logits, which a learned temperature needs.

A divergence of p and q is another one of q and p: the slope for the teacher's logits is that
other divergence's, of the two networks exchanged. At temperature 1, with p = softmax(v) and u,
ũ and k as in `_curvature.py`, the student's gradient changes with v by

    ∂(u · gradient)/∂v = −(t − p Σ t)  with  t = q k ũ.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kd_notes._f_divergences import EXCLUDED, Formula, as_formula
from kd_notes.divergences import Alpha, JensenShannon
from kd_notes.torch._curvature import CURVATURES

SWAPPED = {
    "forward_kl": "reverse_kl",
    "reverse_kl": "forward_kl",
    "skew_kl": "skew_reverse_kl",
    "skew_reverse_kl": "skew_kl",
}


def swapped(formula: Formula) -> Formula:
    """Return the formula of the same divergence with its two networks exchanged."""
    name, parameter, factor = formula
    if name == "jensen_shannon":
        return as_formula(JensenShannon(1 - parameter))._replace(factor=factor)
    if name == "alpha":
        return as_formula(Alpha(1 - parameter))
    return Formula(SWAPPED.get(name, name), parameter, factor)


def by_mixed_hessian(student: Tensor, teacher: Tensor, u: Tensor, formula: Formula) -> Tensor:
    """Return ∂(u · gradient)/∂teacher at temperature 1, in float64 where there is one."""
    dtype = u.dtype if u.device.type == "mps" else torch.float64
    log_q, log_p = (torch.log_softmax(z.to(dtype), -1) for z in (student, teacher))
    p, q = log_p.exp(), log_q.exp()
    if formula.name == "forward_kl":  # its k is p/q
        qk = p
    else:
        excluded = (log_q == -math.inf) | (log_p == -math.inf)
        log_x = (log_p - log_q).masked_fill(excluded, -EXCLUDED)
        qk = q * CURVATURES[formula.name](log_x, formula.parameter)[1]
    t = qk * (u - (q * u).sum(-1, keepdim=True))
    return (formula.factor * (p * t.sum(-1, keepdim=True) - t)).to(u.dtype)
