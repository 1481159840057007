"""Audit the losses of other libraries and write what was found to `results.json`.

Each library is loaded in a process of its own, for what they import gets in each other's way.
"""

import argparse
import importlib
import inspect
import json
import multiprocessing
import pkgutil
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import torch

from audits import libraries
from audits.agreement import digits_of_agreement
from audits.case import Case, body
from kd_notes.audit import audit

RESULTS = Path(__file__).parent / "results.json"
NAMES = [module.name for module in pkgutil.iter_modules(libraries.__path__)]


def audit_library(name):
    """Return a library's name and version, and what is to say of its losses."""
    torch.set_num_threads(1)
    module = importlib.import_module(f"audits.libraries.{name}")
    cases = [value for value in vars(module).values() if isinstance(value, Case)]
    return {
        "library": module.LIBRARY,
        "package": module.DISTRIBUTION,
        "in_short": module.IN_SHORT,
        "file": f"audits/libraries/{name}.py",
        "version": version(module.DISTRIBUTION).partition("+")[0],
        "losses": [audit_case(case) for case in cases],
    }


def audit_case(case):
    """Return what the audit finds of a loss, and how it is converted."""
    options = {"backend": "numpy" if "gradient" in case.options else "torch", **case.options}
    report = audit(case.theirs, **options)
    found = asdict(report)
    del found["digits"], found["name"], found["residual"]
    ours = None
    if case.ours is not None:
        digits = digits_of_agreement(case)
        if digits < case.digits:
            raise AssertionError(f"{case.theirs.__doc__} agrees to {digits} digits only")
        ours = {"code": body(case.ours), "digits": case.digits}
    loss, _, advice = inspect.getdoc(case.theirs).partition("\n\n")
    return {
        "loss": loss,
        "advice": " ".join(advice.split()),
        "code": body(case.theirs),
        "ours": ours,
        "summary": case.headline or report.summary,
        "found": rounded(found),
    }


def rounded(value):
    """Round the numbers, whose last digits differ from one machine to the next."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {str(key): rounded(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(entry) for entry in value]
    return value


def main():
    """Audit the libraries named on the command line, or all; keep the results of the others."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"some of: {', '.join(NAMES)}")
    names = parser.parse_args().names or NAMES
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=spawn, max_tasks_per_child=1) as pool:
        for name, result in zip(names, pool.map(audit_library, names), strict=True):
            results[name] = result
            kept = {name: results[name] for name in NAMES if name in results}
            RESULTS.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
