"""Measure speed, memory and accuracy of loss and gradient, and write `results.json`.

Run it by `make bench`, or `make bench ROUNDS=1` for a trial. Each contender has a process of
its own, and they are measured in turn: in each round, in each case, each process makes a few
calls back to back, so that its threads are awake, and reports the median time of a call. A load
on the machine slows all of them alike: quote ratios, whose spread over the rounds is in the file.

Extra memory is the peak of resident memory above what was there before the call, less the
size of new results. Errors are relative to mpmath at 60 digits, the gradient's by the largest
entry of its row.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from contextlib import ExitStack
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from contenders import CONTENDERS
from mpmath import mp
from ratios import OTHERS, ratios
from tqdm import tqdm
from worker import random_logits

RESULTS = Path(__file__).with_name("results.json")
SHAPES = [(65536, 10), (8192, 100), (4096, 1000), (256, 50257)]
DTYPES = ["float32", "float64"]
TEMPERATURES = [1.0, 4.0, 20.0, 1e4]
PASSES_AT = 4.0  # nearly all rows by the quick formula
ERRORS_AT = [1.0, 4.0, 20.0, 100.0, 1e3, 1e4, 1e6]
MEMORY_AT = 20.0  # of these temperatures, the one at which kd_notes takes most
ROUNDS, MINUTES = 5, 12
FIRST_MINUTES, ROUND_MINUTES = 2, 1.7  # on two cores: compilation, memory and errors; a round


class Process:
    """A contender's process, which answers requests."""

    def __init__(self, name):
        self.process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("worker.py"), name],
            env={**os.environ, **CONTENDERS[name][1]},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def ask(self, *request):
        """Return what it measures: `worker.py` says what can be asked."""
        print(json.dumps(request), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()


def case(shape, dtype, temperature, what, values):
    return {"shape": shape, "dtype": dtype, "temperature": temperature, what: values}


def passes():
    """Time each pass of the compiled loops, if there are any."""
    if "kd_notes, compiled" not in CONTENDERS:
        return []
    from passes import time_passes

    cases = [(shape, dtype, PASSES_AT) for shape in SHAPES for dtype in DTYPES]
    return [
        case(*of, "nanoseconds", time_passes(*random_logits(*of[:2]), PASSES_AT))
        for of in tqdm(cases, desc="passes")
    ]


def memory(processes):
    return [
        case(*of, "mebibytes", {name: p.ask("mebibytes", *of) for name, p in processes.items()})
        for shape in SHAPES
        for dtype in tqdm(DTYPES, desc=f"memory {shape}")
        for of in [(shape, dtype, MEMORY_AT)]
    ]


def speed(processes, rounds, deadline):
    """Time each contender in turn, round by round; a round that is late is not counted."""
    cases = [(s, d, t) for s in SHAPES for d in DTYPES for t in TEMPERATURES]
    times = {of: {name: [] for name in processes} for of in cases}
    for number in range(1, rounds + 1):
        started = time.monotonic()
        for of in tqdm(cases, desc=f"speed, round {number} of {rounds}"):
            if time.monotonic() > deadline:
                break
            for name, process in processes.items():
                times[of][name].append(process.ask("seconds", *of))
        took = time.monotonic() - started
        print(f"A round takes {took / 60:.1f} minutes.")
        if time.monotonic() + took > deadline:
            break
    complete = len(times[cases[-1]][OTHERS[-1]])
    return [
        case(*of, "seconds", {name: values[:complete] for name, values in times[of].items()})
        for of in cases
    ]


def reference(student, teacher, temperature):
    """Return τ² times the KD loss and its gradient for one row, from their definitions."""
    with mp.workdps(60):
        tau = mp.mpf(temperature)
        e_s = [mp.exp(mp.mpf(float(z)) / tau) for z in student]
        e_t = [mp.exp(mp.mpf(float(z)) / tau) for z in teacher]
        p_s, p_t = ([x / mp.fsum(e) for x in e] for e in (e_s, e_t))
        loss = tau**2 * mp.fsum(t * mp.log(t / s) for s, t in zip(p_s, p_t, strict=True))
        return loss, [tau * (s - t) for s, t in zip(p_s, p_t, strict=True)]


def largest_errors(losses, grads, rows):
    """Return the largest relative errors over some rows, of the loss and of the gradient."""
    of_loss = [abs(mp.mpf(x) / true - 1) for x, (true, _) in zip(losses, rows, strict=True)]
    of_grad = [
        max(abs(mp.mpf(g) - t) for g, t in zip(row, true, strict=True)) / max(map(abs, true))
        for row, (_, true) in zip(grads, rows, strict=True)
    ]
    return {"loss": float(max(of_loss)), "grad": float(max(of_grad))}


def accuracy(processes):
    found = []
    for dtype in DTYPES:
        for temperature in tqdm(ERRORS_AT, desc=f"accuracy {dtype}"):
            of = (20, 100), dtype, temperature
            student, teacher = random_logits(*of[:2])
            rows = [reference(*row, temperature) for row in zip(student, teacher, strict=True)]
            values = {name: p.ask("values", *of) for name, p in processes.items()}
            errors = {
                name: largest_errors(*pair, rows)
                for name, pair in values.items()
                if pair[0] is not None
            }
            found.append({"dtype": dtype, "temperature": temperature, "errors": errors})
    return found


def machine():
    cpuinfo = Path("/proc/cpuinfo").read_text()
    return {
        "processor": cpuinfo.split("model name\t: ")[1].split("\n")[0],
        "registers": f"{512 if 'avx512f' in cpuinfo else 256 if 'avx2' in cpuinfo else 128} bits",
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: version_of(name) for name in ("numpy", "numba", "scipy", "torch", "jax")},
    }


def version_of(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="default: %(default)s")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=RESULTS, help="default: beside this file")
    return parser.parse_args()


def main():
    args, load = arguments(), os.getloadavg()[0]
    if load > 0.5:
        print(f"Other programs are running (load {load:.1f}), and make ratios unreliable.")
    deadline = time.monotonic() + 60 * args.minutes
    estimate = FIRST_MINUTES + ROUND_MINUTES * args.rounds
    print(f"About {estimate:.0f} minutes on two cores; no round begins that would end after "
          f"{args.minutes:.0f}.", flush=True)  # fmt: skip
    machine_before, of_passes = machine(), passes()  # a load that is of others
    with ExitStack() as stack:
        processes = {name: stack.enter_context(Process(name)) for name in CONTENDERS}
        results = {"machine": machine_before, "passes": of_passes}
        results["memory"] = memory(processes)  # this compiles, too
        results["accuracy"] = accuracy(processes)
        results["speed"] = speed(processes, args.rounds, deadline)
    if not (rounds := len(results["speed"][0]["seconds"]["addition"])):
        sys.exit("There was no time for a round: give it more --minutes.")
    results = {"rounds": rounds, "ratios": ratios(results["speed"]), **results}
    args.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
