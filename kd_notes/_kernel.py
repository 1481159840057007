"""The soft loss of distillation and its gradient, row by row, without cancellation.

For a row of student logits z and teacher logits v, at the inverse temperature β = 1/τ,

    p = softmax(βv),   q = softmax(βz),   KL = Σ p log(p/q),   ∂KL/∂z = β(q − p).

Since Σ q = Σ p, the divergence is also a sum without a negative term,

    KL = Σ p φ(log(q/p)),   φ(x) = eˣ − 1 − x ≥ 0.

`_apart` computes it so, from the two softmaxes. Where q comes near p, φ itself is a
small difference of large numbers, and `_near` takes over: φ from its series, and its
argument from the difference of the logits.
"""

import numpy as np

BLOCK = 1 << 18  # bytes of one array of a block; a few of them share the cache
FEW = 128  # classes up to which a block is stored class by class, for long inner loops

HALF = 0.5  # |d| up to which the series for φ serves
NEAR = HALF**2 / 8  # no KL is larger whose d spans no more than HALF (Hoeffding)

# B₂ₙ/(2n)!, Bernoulli's numbers: ½x coth ½x = 1 + x²/12 − x⁴/720 + …
COTH = (
    1 / 12,
    -1 / 720,
    1 / 30240,
    -1 / 1209600,
    1 / 47900160,
    -691 / 1307674368000,
    1 / 74724249600,
)


def soft_loss_and_grad(student, teacher, temperature, *, scaled, loss=None, grad=None):
    beta = max(1 / temperature, float(np.finfo(student.dtype).tiny) ** 0.8)
    unit = 1 / beta if scaled else 1.0
    threshold = NEAR if temperature < np.inf else 1e-7
    with np.errstate(all="ignore"):
        for z, v, loss_out, grad_out, i in _blocks(student, teacher, loss, grad):
            block_loss, block_grad = _block(z, v, beta, unit, threshold, grad is not None)
            if loss is not None:
                loss_out[i] = block_loss[:, 0]
            if grad is not None:
                grad_out[i] = block_grad if scaled else block_grad * (1 / temperature)


def _blocks(student, teacher, loss, grad):
    """Blocks of rows: logits, the arrays to fill, and the block's place in them."""
    *batch, classes = student.shape
    try:  # as a matrix, if that takes no copy
        arrays = [a.reshape((-1, classes), copy=False) for a in (student, teacher)]
        arrays += [
            a if a is None else a.reshape(s, copy=False)
            for a, s in ((loss, -1), (grad, (-1, classes)))
        ]
        place = slice
    except ValueError:
        arrays = student, teacher, loss, grad
        place = lambda start, stop: np.unravel_index(np.arange(start, stop), batch)
    rows = student.size // classes
    step = max(1, BLOCK // (classes * student.itemsize))
    for start in range(0, rows, step):
        i = place(start, min(start + step, rows))
        yield _stored(arrays[0][i]), _stored(arrays[1][i]), arrays[2], arrays[3], i


def _stored(rows):
    return np.asarray(rows, order="F" if rows.shape[1] <= FEW else "C")


def _max(rows):
    return np.maximum.reduce(rows, axis=1, keepdims=True)


def _sum(rows):
    """Row sums. Few classes are added in order, be the row alone or among others."""
    if len(rows) == 1 and rows.shape[1] <= FEW:
        return np.add.accumulate(rows, axis=1)[:, -1:]
    return np.add.reduce(rows, axis=1, keepdims=True)


def _block(z, v, beta, unit, threshold, want_grad):
    a = z - _max(z)
    a *= beta
    b = v - _max(v)
    b *= beta
    x = a - b
    spread = _max(x) + _max(-x)
    if (spread <= HALF).all():
        return _near(z, v, beta, unit, want_grad)
    kl, grad = _apart(a, b, x, unit, want_grad, np.isfinite(spread).all())
    loss = kl * (unit * unit)
    near = np.flatnonzero(kl < threshold)
    if near.size:
        nl, ng = _near(_stored(z[near]), _stored(v[near]), beta, unit, want_grad)
        loss[near] = nl
        if want_grad:
            grad[near] = ng
    return loss, grad


def _apart(a, b, x, unit, want_grad, finite):
    q = np.exp(a, out=a)
    excluded = None if finite else b == -np.inf
    p = np.exp(b, out=b)
    if not finite:
        x[excluded] = 0
        p[x == -np.inf] += np.finfo(p.dtype).tiny
    total = _sum(p)
    ratio = total / _sum(q)
    q *= ratio
    x += np.log(ratio)
    x *= p
    q -= p
    x -= q
    kl = _sum(x) / -total
    if want_grad:
        q *= unit / total
    return kl, q


def _near(z, v, beta, unit, want_grad):
    excluded = v == -np.inf
    top = v.argmax(axis=1)[:, None]
    v_top = np.take_along_axis(v, top, axis=1)
    z_top = np.take_along_axis(z, top, axis=1)
    p = v - v_top
    p *= beta
    np.exp(p, out=p)
    total = _sum(p)
    p /= total
    x = z - v
    x -= z_top - v_top
    if excluded.any():
        x[excluded] = 0
    mean = _sum(p * x)
    x -= mean
    d = x * beta
    if unit == 1:
        x = d
    y = d * d
    c = COTH[:3] if z.dtype == np.float32 else COTH
    h = c[-1] * y
    for k in c[-2:0:-1]:
        h += k
        h *= y
    h += c[0]
    h *= d
    np.subtract(0.5, h, out=h)
    y = np.multiply(d, h, out=y)
    np.subtract(1, y, out=y)
    h /= y
    px = p * x
    h *= px
    bend = x * h
    rise = h
    rise *= d
    rise += px
    wide = np.abs(d) > 0.5
    wide |= excluded
    if wide.any():
        r = z - z_top
        r -= mean
        r *= beta
        np.exp(r, out=r)
        r /= total
        r -= p
        r *= unit
        np.copyto(rise, r, where=wide)
        r -= px
        r *= unit
        np.copyto(bend, r, where=wide)
    t = _sum(bend)
    s = t / unit / unit
    loss = t * np.divide(np.log1p(s), s, out=np.ones_like(s), where=s > 0)
    if want_grad:
        p *= t / unit
        rise -= p
        rise *= 1 / (1 + s)
    return loss, rise
