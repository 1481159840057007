"""Search for the rows with the largest errors: hill climbing from many families of rows.

A score is an error in units of eps (1 + condition number): the promise is that none exceeds
16, wherever the condition number is below 1/eps. What lies below the smallest normal number is
exempt, be it a probability, a loss or a gradient. A row that yields a nan, a negative loss, or
a nonzero loss of the student against itself scores infinity.

    python tests/search.py --backend numpy --dtype float32 --seconds 600 --seed 1

prints the worst row of each family, as it can be pasted into `worst_rows.py`, and exits
with 1 if the promise is broken.
"""

import argparse
import sys
import time
import warnings
from collections import defaultdict
from contextlib import suppress
from dataclasses import replace
from itertools import cycle, islice, product
from operator import sub
from typing import NamedTuple

import numpy as np
from backends import BACKENDS, by_numpy, by_triton
from f_divergences import reference_of_row
from families import FAMILIES, begin, limit, mutated
from mpmath import mp
from numpy import inf
from rows import Row, largest, reference

from kd_notes import divergences

PROMISE = 16
ROWS_PER_STEP = 32
PATIENCE = 10  # steps without a larger score
OBJECTIVES = ["loss", "grad", "both"]
KERNELS = BACKENDS | {"triton": by_triton}


class Score(NamedTuple):
    loss: float
    grad: float

    @property
    def both(self):
        return max(self)


class Finding(NamedTuple):
    row: Row
    score: float


def evaluate(rows, backend):
    """Return the scores of rows; those of one shape and temperature are one batch."""
    batches, scores = defaultdict(list), [Score(inf, inf)] * len(rows)
    for i, row in enumerate(rows):
        batches[kind(row)].append(i)
    for members in batches.values():
        with suppress(RuntimeWarning):
            results = compute([rows[i] for i in members], backend)
            for i, loss, grad in zip(members, *results, strict=True):
                scores[i] = score(rows[i], float(loss), grad)
    return scores


def kind(row):
    return row.num_classes, row.tau, row.scaled, row.divergence


def compute(rows, backend):
    z, v = map(np.stack, zip(*(row.logits() for row in rows), strict=True))
    return backend(z, v, rows[0].tau, rows[0].scaled, **options(rows[0]))


def options(row):
    return {} if row.divergence == "forward_kl" else {"divergence": row.divergence}


def score(row, loss, grad):
    if not loss >= 0 or np.isnan(grad).any():
        return Score(inf, inf)
    if options(row) and (np.isinf(row.z) != np.isinf(row.v)).any():
        return Score(0, 0)  # that it is infinite, or what is left of it, has a test of its own
    true = reference_of_row(row) if options(row) else reference(row)
    finfo = np.finfo(row.dtype)
    with mp.workdps(40):
        infinite = loss == inf and true.loss > float(finfo.max) / 2
        error = mp.zero if infinite else abs(loss - true.loss)
        exempt = of_denormal_probabilities(row, finfo)
        of_loss = in_units(error - exempt, true.loss, true.loss_condition, finfo)
        top = largest(true.grad)
        if top > float(finfo.max) / 2 or overflows(row, true.loss, finfo):
            return Score(of_loss, 0.0)
        least, most = row.by_block(grad)
        error = max(largest(map(sub, end, true.grad)) for end in (least, most))
        exempt = exempt and exempt / row.tau
        return Score(of_loss, in_units(error - exempt, top, true.grad_condition, finfo))


def overflows(row, loss, finfo):
    """Whether the loss overflows, of a divergence or for a class that one network excludes.

    Only a finite gradient is promised there.
    """
    is_masked = (np.isinf(row.z) != np.isinf(row.v)).any()
    return loss > float(finfo.max) / 2 and (is_masked or bool(options(row)))


def of_denormal_probabilities(row, finfo):
    """Return what they may amount to in the loss: they are exempt, and count as 0 at worst."""
    spans = [float(np.ptp(x[x > -inf])) for x in (row.z.astype(float), row.v.astype(float))]
    if max(spans) < -np.log(float(finfo.tiny)) * row.tau:
        return 0.0
    unit = row.tau if row.scaled else 1 / row.tau
    return row.num_classes * float(finfo.tiny) * unit * (sum(spans) + row.tau)


def in_units(error, true, condition, finfo):
    """Return an error in units of eps (1 + condition number), 0 where nothing is promised."""
    eps = float(finfo.eps)
    if error <= float(finfo.tiny) or condition * eps >= 1:
        return 0.0
    return float(error / (eps * (1 + condition) * true)) if 0 < true < inf else inf


def breaks_a_law(row, rows, backend):
    """Whether a result depends on the rows beside it, or breaks a law that holds for each row.

    The loss of the student against itself is 0, and so is the sum of the gradient.
    """
    beside = [other for other in rows if kind(other) == kind(row)][:3]
    alone, among = compute([row], backend), compute([*beside, row], backend)
    differs = any(a[-1].tobytes() != b[-1].tobytes() for a, b in zip(alone, among, strict=True))
    z = row.logits()[0][np.newaxis]
    has_self_loss = np.any(backend(z, z, row.tau, row.scaled, **options(row))[0])
    return has_self_loss or (differs and backend is by_numpy) or has_wrong_sum(row, alone[1])


def has_wrong_sum(row, grad):
    """Whether the gradient's sum exceeds what the rounding of the probabilities explains."""
    included = np.maximum(row.z, row.v) > -inf
    size = float(np.max(abs(row.z[included]) + abs(row.v[included])))  # inf: excluded by one
    unit = min(row.tau, size) if row.scaled else 1 / row.tau
    unit = max(unit, float(np.sum(abs(grad), dtype=np.longdouble))) if options(row) else unit
    finfo = np.finfo(row.dtype)
    excess = abs(grad.sum(dtype=np.longdouble)) - grad.size * float(finfo.tiny)
    return excess > PROMISE * float(finfo.eps) * unit


def search(
    backend,
    dtype,
    seed,
    families=tuple(FAMILIES),
    objectives=OBJECTIVES,
    steps=100,
    divergence="forward_kl",
):
    """Yield family, row and score of each step, climb after climb, without end."""
    rng = np.random.default_rng(seed)
    for objective, family in cycle(product(objectives, families)):
        rows = [
            replace(begin(family, dtype, rng), divergence=divergence) for _ in range(ROWS_PER_STEP)
        ]
        for step in islice(climb(rows, backend, objective, rng, limit(family)), steps):
            yield family, *step


def climb(rows, backend, objective, rng, largest_logit):
    """Yield the worst of the rows and its score, and again for random changes to it."""
    worst, idle = -1.0, 0
    while idle < PATIENCE and worst < inf:
        scores = evaluate(rows, backend)
        i = max(range(len(rows)), key=lambda i: getattr(scores[i], objective))
        row, found = rows[i], scores[i]
        if found.both < inf and breaks_a_law(row, rows, backend):
            found = Score(inf, inf)
        idle = 0 if getattr(found, objective) > worst else idle + 1
        worst = getattr(found, objective)
        yield row, found
        rows = [row, *(mutated(row, rng, largest_logit) for _ in range(ROWS_PER_STEP - 1))]


def worst_rows(steps, seconds=inf):
    """Return the worst finding of each family and objective, loss or gradient."""
    findings, begun = {}, time.monotonic()
    for number, (family, row, found) in enumerate(steps, 1):
        for objective, value in found._asdict().items():
            if value > findings.get((family, objective), Finding(None, 0)).score:
                findings[family, objective] = Finding(row, value)
        elapsed = time.monotonic() - begun
        if seconds < inf:
            report_progress(number, elapsed, findings)
        if elapsed > seconds:
            break
    return findings


def report_progress(steps, elapsed, findings):
    worst = max((finding.score for finding in findings.values()), default=0)
    rate = steps * ROWS_PER_STEP / elapsed
    line = f"\r{elapsed:6.0f} s  {steps:7} steps  {rate:5.0f} rows/s  worst {worst:8.3g}"
    print(line, end="", file=sys.stderr, flush=True)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backend", choices=KERNELS, default="numpy")
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--objective", choices=OBJECTIVES, help="all of them, if not given")
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=[*FAMILIES])
    parser.add_argument("--divergence", type=smooth_divergence, default="ForwardKL()")
    return parser.parse_args()


def smooth_divergence(expression):
    """Return the divergence of an expression; nothing is promised of total variation."""
    divergence = eval(expression, vars(divergences))
    if isinstance(divergence, divergences.TotalVariation):
        raise argparse.ArgumentTypeError(f"the divergence must be smooth; got {expression}")
    return "forward_kl" if divergence == divergences.ForwardKL() else divergence


def main():
    args = arguments()
    objectives = [args.objective] if args.objective else OBJECTIVES
    steps = search(
        *(KERNELS[args.backend], args.dtype, args.seed, args.families, objectives),
        divergence=args.divergence,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        findings = worst_rows(steps, args.seconds)
    print(file=sys.stderr)
    for (family, objective), (row, value) in sorted(findings.items()):
        print(f"{value:9.3g}  {objective}  {family:18} {row}")
    return int(any(finding.score > PROMISE for finding in findings.values()))


if __name__ == "__main__":
    sys.exit(main())
