"""Draw what `run.py` measured: `speed.png` and `accuracy.png`; fill in the table of the README."""

import json
import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from kd_notes._book.plotting import INK, use_book_style

FOLDER = Path(__file__).parent
README = FOLDER.parent / "README.md"
STYLES = {
    "kd_notes, compiled": ("C0", "-"),
    "kd_notes, NumPy": ("C0", "--"),
    "kd_notes.torch, compiled": ("C6", "-"),
    "kd_notes.torch, NumPy": ("C6", "--"),
    "SciPy": ("C5", (0, (5, 1, 1, 1, 1, 1))),
    "PyTorch": ("C2", "--"),
    "torch.compile": ("C2", "-"),
    "JAX": ("C4", "-."),
    "addition": (INK, (0, (1, 2))),
}
IN_README = ["SciPy", "PyTorch", "torch.compile", "JAX"]


def draw_speed(results):
    """Draw time per logit against temperature, a panel for each shape and dtype."""
    dtypes = ["float32", "float64"]
    shapes = list(dict.fromkeys(tuple(case["shape"]) for case in results["speed"]))
    figure, panels = plt.subplots(2, 4, figsize=(9, 4.8), sharex=True, sharey=True)
    for row, dtype in zip(panels, dtypes, strict=True):
        for axes, shape in zip(row, shapes, strict=True):
            cases = [
                case
                for case in results["speed"]
                if (tuple(case["shape"]), case["dtype"]) == (shape, dtype)
            ]
            temperatures = [case["temperature"] for case in cases]
            for name, (color, style) in present(cases[0]["seconds"]).items():
                times = np.array([np.median(case["seconds"][name]) for case in cases])
                axes.loglog(
                    temperatures,
                    1e9 * times / np.prod(shape),
                    linestyle=style,
                    color=color,
                    linewidth=2.6 if name.startswith("kd_notes,") else 1.4,
                    label=name,
                )
        row[0].set_ylabel(f"ns per logit, {dtype}")
    above = {"xy": (0.5, 1), "xycoords": "axes fraction", "ha": "center", "va": "bottom"}
    for axes, (rows, classes) in zip(panels[0], shapes, strict=True):
        axes.annotate(f"{rows:,} × {classes:,}", **above, fontsize="small")
    for axes in panels[1]:
        axes.set_xlabel("temperature τ")
    handles = panels[0, 0].get_legend_handles_labels()
    figure.legend(*handles, ncols=5, loc="outside upper center", fontsize="small")
    figure.savefig(FOLDER / "speed.png")


def draw_accuracy(results):
    """Draw the largest relative error of the loss against temperature, for both dtypes."""
    figure, axes = plt.subplots(1, 2, figsize=(7, 3.2), sharey=True)
    for axis, dtype in zip(axes, ["float32", "float64"], strict=True):
        cases = [case for case in results["accuracy"] if case["dtype"] == dtype]
        temperatures = [case["temperature"] for case in cases]
        for name, (color, style) in present(cases[0]["errors"]).items():
            errors = [case["errors"][name]["loss"] for case in cases]
            axis.loglog(temperatures, errors, linestyle=style, color=color, label=name)
        axis.set(xlabel=f"temperature τ, {dtype}")
    axes[0].set_ylabel("relative error of τ²·KD")
    axes[1].legend(fontsize="x-small")
    figure.savefig(FOLDER / "accuracy.png")


def present(measured):
    return {name: style for name, style in STYLES.items() if name in measured}


def speed_table(results):
    """Return the rows of the README's table: ratios at two temperatures, with their spread."""
    rows = [f"| `kd_loss_and_grad` | {' | '.join(IN_README)} |", "|---" * 5 + "|"]
    for own in ["kd_notes, NumPy", "kd_notes, compiled"]:
        for way in [own, f"{own}, out="]:
            if way in results["ratios"]:
                rows += [speed_row(way, results["ratios"][way], tau) for tau in (4, 20)]
    return "\n".join(rows)


def speed_row(way, ratios, temperature):
    found = [
        next(r for r in ratios[other] if r["temperature"] == temperature) for other in IN_README
    ]
    cells = ["{ratio:.1f} ({least:.1f}–{most:.1f})".format(**r) for r in found]
    how = way.removeprefix("kd_notes, ").replace("out=", "`out=`")
    return f"| {how}, τ = {temperature} | {' | '.join(cells)} |"


def fill_in(readme, results):
    """Return the README with the table of these results."""
    table = re.compile(r"^\| `kd_loss_and_grad` \|.*\n(\|.*\n)+", re.MULTILINE)
    assert table.search(readme), "The README has no table of speed."
    return table.sub(lambda _: speed_table(results) + "\n", readme)


if __name__ == "__main__":
    use_book_style()
    results = json.loads((FOLDER / "results.json").read_text())
    draw_speed(results)
    draw_accuracy(results)
    README.write_text(fill_in(README.read_text(), results))
