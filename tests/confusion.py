"""How often the auditor finds what was planted, and what it invents: `python tests/confusion.py`.

A row for each code: in how many planted losses it is, in how many of these it was found, and in
how many others it was found too.
"""

from importlib.util import find_spec

import numpy as np
from planted_losses import LOSSES

from kd_notes.audit import CODES, audit

if find_spec("torch"):
    import planted_torch_losses  # noqa: F401  # adds to LOSSES


def differences(name):
    """Return what of a planted loss is missed, and what invented: codes, and fields' values."""
    planted = LOSSES[name]
    report = audit(planted.loss, **planted.options)
    found = {finding.code for finding in report.findings}
    fields = {key: (getattr(report, key), value) for key, value in planted.fields.items()}
    wrong = {key: pair for key, pair in fields.items() if not _same(*pair)}
    return planted.codes - found, found - planted.codes, wrong


def _same(found, expected):
    if isinstance(expected, float | int) and isinstance(found, float):
        return np.isclose(found, expected, rtol=1e-5)
    return found == expected


def main():
    missed, invented = dict.fromkeys(CODES, 0), dict.fromkeys(CODES, 0)
    for name in LOSSES:
        lost, extra, wrong = differences(name)
        for code in lost:
            missed[code] += 1
        for code in extra:
            invented[code] += 1
        if lost or extra or wrong:
            print(f"{name}: missed {set(lost)}, invented {set(extra)}, wrong {wrong}")
    print(f"{len(LOSSES)} losses\n\n| code | planted | found | invented |\n|---|---|---|---|")
    planted = {code: sum(code in p.codes for p in LOSSES.values()) for code in CODES}
    for code, count in planted.items():
        print(f"| {code} | {count} | {count - missed[code]} | {invented[code]} |")
    total = sum(planted.values())
    print(f"| all | {total} | {total - sum(missed.values())} | {sum(invented.values())} |")


if __name__ == "__main__":
    main()
