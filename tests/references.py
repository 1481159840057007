"""What the library is compared with: the equations at 120 digits, and two derivatives.

Each reference is its equation, term by term, on one example whose numbers are taken
exactly as they are. 120 digits leave 50 beside a probability of 1 - e^-150.
"""

import numpy as np
import sympy as sp
from mpmath import mp

mp.dps = 120
EPS = float(np.finfo(np.float64).eps)


def over_rows(reference, *arrays):
    """Apply a reference to each row of `(N, K)` arrays and round once, to float64."""
    rows = (reference(*map(exact, row)) for row in zip(*arrays, strict=True))
    return np.array(list(rows), float)


def exact(numbers):
    return [mp.mpf(float(x)) for x in numbers]


def softmax(logits, temperature=1.0):  # Eq. 7
    top = max(logits)
    weights = [mp.exp((z - top) / temperature) for z in logits]
    total = sum(weights)  # fsum is exact, but slow for e^-1000000 beside 1
    return [w / total for w in weights]


def log_softmax(logits, temperature=1.0):
    return [mp.log(p) for p in softmax(logits, temperature)]


def softmax_jacobian(logits, temperature=1.0):  # Eq. 9
    p = softmax(logits, temperature)
    return [
        [(p_j * (i == j) - p_j * p_i) / temperature for i, p_i in enumerate(p)]
        for j, p_j in enumerate(p)
    ]


def entropy(p):
    return -mp.fsum(p_i * mp.log(p_i) for p_i in p if p_i > 0)


def cross_entropy(logits, labels):  # Eq. 1
    p = softmax(logits)
    return -mp.fsum(y_i * mp.log(p_i) for y_i, p_i in zip(labels, p, strict=True) if y_i > 0)


def cross_entropy_grad(logits, labels):  # Eq. 3
    return [p_i - y_i for p_i, y_i in zip(softmax(logits), labels, strict=True)]


def kl(p, q):  # Eq. 8, on probabilities
    return mp.fsum(p_i * mp.log(p_i / q_i) for p_i, q_i in zip(p, q, strict=True) if p_i > 0)


def skew_jensen(p, q, alpha):
    alpha = mp.mpf(alpha)
    mixed = [(1 - alpha) * p_i + alpha * q_i for p_i, q_i in zip(p, q, strict=True)]
    jump = entropy(mixed) - (1 - alpha) * entropy(p) - alpha * entropy(q)
    return jump / (alpha * (1 - alpha))


def logit_matching(student, teacher):  # Eq. 6
    return mp.fsum((t - s) ** 2 for s, t in zip(student, teacher, strict=True)) / (
        2 * len(student)
    )


def regularized_logit_matching(student, teacher):  # Eq. 12, its constant 0
    k = len(student)
    excess = mp.fsum(student) - mp.fsum(teacher)
    return logit_matching(student, teacher) - excess**2 / (2 * k**2)


def regularized_logit_matching_grad(student, teacher):  # Eq. 11
    k = len(student)
    excess = mp.fsum(student) - mp.fsum(teacher)
    return [(s - t) / k - excess / k**2 for s, t in zip(student, teacher, strict=True)]


def kd_loss(student, teacher, temperature):  # Eq. 8 times temperature squared
    p_t, p_s = softmax(teacher, temperature), softmax(student, temperature)
    return mp.mpf(temperature) ** 2 * kl(p_t, p_s)


def kd_grad(student, teacher, temperature):  # Eq. 10 times temperature squared
    p_t, p_s = softmax(teacher, temperature), softmax(student, temperature)
    return [temperature * (s - t) for s, t in zip(p_s, p_t, strict=True)]


def symbolic_gradient(loss, logits):
    """Differentiate `loss(z, p)`, p the softmax of the symbols z, and evaluate each row."""
    z = sp.symbols(f"z:{logits.shape[-1]}")
    total = sum(map(sp.exp, z))
    expression = loss(z, [sp.exp(z_i) / total for z_i in z])
    gradient = sp.lambdify(z, [sp.diff(expression, z_i) for z_i in z])
    return np.array([gradient(*row) for row in logits])


def central_differences(loss, logits, step=1e-5):
    """Perturb one class at a time: shifting them all would change nothing."""
    steps = step * np.eye(logits.shape[-1])
    above, below = (
        loss(logits[..., np.newaxis, :] + steps),
        loss(logits[..., np.newaxis, :] - steps),
    )
    return (above - below) / (2 * step)
