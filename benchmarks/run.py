"""Measure speed, memory and accuracy of loss and gradient, and write `results.json`.

Run it by `make bench`; `--rounds 2 --out scratch.json` is a quick trial of it. The
implementations are timed in turn, round after round in one process, so that a load on the
machine slows all of them; ratios of medians are the numbers to quote.
A short pause before each call keeps the threads of one, which wait for more work by
spinning, from being timed with the next.
Extra memory is measured in a process of its own for each, as the peak of resident memory
above what was there before the call, less the size of the results. Errors are relative to
mpmath at 60 digits, the gradient's by the largest entry of its row.
"""

import argparse
import ctypes
import json
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
from contenders import WAYS
from mpmath import mp
from tqdm import tqdm

RESULTS = Path(__file__).with_name("results.json")
SHAPES = [(65536, 10), (8192, 100), (4096, 1000), (256, 50257)]
DTYPES = ["float32", "float64"]
TEMPERATURES = [1.0, 4.0, 20.0, 100.0, 1e3, 1e4]
HOTTER = 1e6  # where errors are measured, too
MEMORY_AT = 20.0  # of these temperatures, the one at which kd_notes takes most
ROUNDS = 15
REST = 0.03  # seconds


def random_logits(shape, dtype):
    rng = np.random.default_rng(seed=0)
    return rng.normal(scale=3, size=(2, *shape)).astype(dtype)


def seconds(shape, dtype, temperature, rounds):
    """Return the median time of each implementation, all run in turn."""
    student, teacher = random_logits(shape, dtype)
    runs = {name: way(student, teacher, temperature) for name, way in WAYS.items()}
    times = {name: [] for name in runs}
    for round_ in range(rounds + 1):
        for name, run in runs.items():
            time.sleep(REST)
            start = time.perf_counter()
            run()
            if round_:  # the first one compiles, and warms the caches
                times[name].append(time.perf_counter() - start)
    return {name: float(np.median(values)) for name, values in times.items()}


def extra_mebibytes(name, shape, dtype, temperature):
    """Return the peak memory of one call beside its results, measured in a new process."""
    command = [sys.executable, __file__, "memory", name, *map(str, [*shape, dtype, temperature])]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def measure_memory(name, rows, classes, dtype, temperature):
    shape = (int(rows), int(classes))
    run = WAYS[name](*random_logits(shape, dtype), float(temperature))
    results = sum(array.nbytes for array in run() if array is not None)
    if name in ("kd_notes", "add"):  # these write into memory allocated before
        results = 0
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # else the second call reuses what the first one freed
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    run()
    print(max(resident("VmHWM") - before - results, 0) / 2**20)


def resident(field):
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split(f"{field}:")[1].split()[0])


def reference(student, teacher, temperature):
    """Return τ² times the KD loss and its gradient for one row, from their definitions."""
    with mp.workdps(60):
        tau = mp.mpf(temperature)
        e_s = [mp.exp(mp.mpf(float(z)) / tau) for z in student]
        e_t = [mp.exp(mp.mpf(float(z)) / tau) for z in teacher]
        p_s, p_t = ([x / mp.fsum(e) for x in e] for e in (e_s, e_t))
        loss = tau**2 * mp.fsum(t * mp.log(t / s) for s, t in zip(p_s, p_t, strict=True))
        return loss, [tau * (s - t) for s, t in zip(p_s, p_t, strict=True)]


def errors(dtype, temperature):
    """Return the largest relative errors of each implementation over a few rows of 100 classes."""
    student, teacher = random_logits((20, 100), dtype)
    rows = [reference(*row, temperature) for row in zip(student, teacher, strict=True)]
    found = {}
    for name, way in WAYS.items():
        loss, grad = way(student, teacher, temperature)()
        if loss is None:  # the plain sum
            continue
        of_loss = [
            abs(mp.mpf(float(x)) / true - 1) for x, (true, _) in zip(loss, rows, strict=True)
        ]
        of_grad = [
            max(abs(mp.mpf(float(g)) - t) for g, t in zip(row, true, strict=True))
            / max(map(abs, true))
            for row, (_, true) in zip(grad, rows, strict=True)
        ]
        found[name] = {"loss": float(max(of_loss)), "grad": float(max(of_grad))}
    return found


def machine():
    cpuinfo = Path("/proc/cpuinfo").read_text()
    return {
        "processor": cpuinfo.split("model name\t: ")[1].split("\n")[0],
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: version(name) for name in ("numpy", "scipy", "torch", "jax")},
    }


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=RESULTS, help="default: beside this file")
    return parser.parse_args()


def main():
    args = arguments()
    cases = [(shape, dtype) for shape in SHAPES for dtype in DTYPES]
    timed = [(*case, temperature) for case in cases for temperature in TEMPERATURES]
    results = {
        "machine": machine(),
        "rounds": args.rounds,
        "speed": [
            {
                "shape": shape,
                "dtype": dtype,
                "temperature": temperature,
                "seconds": seconds(shape, dtype, temperature, args.rounds),
            }
            for shape, dtype, temperature in tqdm(timed, desc="speed")
        ],
        "memory": [
            {
                "shape": shape,
                "dtype": dtype,
                "temperature": MEMORY_AT,
                "mebibytes": {
                    name: extra_mebibytes(name, shape, dtype, MEMORY_AT) for name in WAYS
                },
            }
            for shape, dtype in tqdm(cases, desc="memory")
        ],
        "accuracy": [
            {"dtype": dtype, "temperature": temperature, "errors": errors(dtype, temperature)}
            for dtype in DTYPES
            for temperature in tqdm([*TEMPERATURES, HOTTER], desc=f"accuracy {dtype}")
        ],
    }
    args.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    measure_memory(*sys.argv[2:]) if sys.argv[1:2] == ["memory"] else main()
