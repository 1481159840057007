"""Draw what `run.py` measured: `speed.png` and `accuracy.png`, beside the results."""

import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from kd_notes._book.plotting import INK, use_book_style

FOLDER = Path(__file__).parent
STYLES = {
    "kd_notes": "-",
    "kd_notes.torch": (0, (1, 1)),
    "SciPy": (0, (5, 1, 1, 1, 1, 1)),
    "PyTorch": "--",
    "JAX": "-.",
}
COLORS = {name: f"C{number}" for number, name in enumerate(STYLES)}


def draw_speed(results):
    """Draw time per logit against temperature, a panel for each shape and dtype."""
    dtypes = ["float32", "float64"]
    shapes = list(dict.fromkeys(tuple(case["shape"]) for case in results["speed"]))
    figure, panels = plt.subplots(2, 4, figsize=(9, 4.6), sharex=True, sharey=True)
    for row, dtype in zip(panels, dtypes, strict=True):
        for axes, shape in zip(row, shapes, strict=True):
            cases = [
                case
                for case in results["speed"]
                if (tuple(case["shape"]), case["dtype"]) == (shape, dtype)
            ]
            temperatures = [case["temperature"] for case in cases]
            for name, style in {**STYLES, "add": (0, (3, 3))}.items():
                times = [case["seconds"][name] for case in cases]
                axes.loglog(
                    temperatures,
                    1e9 * np.array(times) / np.prod(shape),
                    linestyle=style,
                    color=COLORS.get(name, INK),
                    linewidth=2.6 if name == "kd_notes" else 1.4,
                    label="plain sum" if name == "add" else name,
                )
        row[0].set_ylabel(f"ns per logit, {dtype}")
    above = {"xy": (0.5, 1), "xycoords": "axes fraction", "ha": "center", "va": "bottom"}
    for axes, (rows, classes) in zip(panels[0], shapes, strict=True):
        axes.annotate(f"{rows:,} × {classes:,}", **above, fontsize="small")
    for axes in panels[1]:
        axes.set_xlabel("temperature τ")
    handles = panels[0, 0].get_legend_handles_labels()
    figure.legend(*handles, ncols=6, loc="outside upper center", fontsize="small")
    figure.savefig(FOLDER / "speed.png")


def draw_accuracy(results):
    """Draw the largest relative error of the loss against temperature, for both dtypes."""
    figure, axes = plt.subplots(1, 2, figsize=(7, 3.2), sharey=True)
    for axis, dtype in zip(axes, ["float32", "float64"], strict=True):
        cases = [case for case in results["accuracy"] if case["dtype"] == dtype]
        temperatures = [case["temperature"] for case in cases]
        for name, style in STYLES.items():
            errors = [case["errors"][name]["loss"] for case in cases]
            axis.loglog(temperatures, errors, linestyle=style, color=COLORS[name], label=name)
        axis.set(xlabel=f"temperature τ, {dtype}")
    axes[0].set_ylabel("relative error of τ²·KD")
    axes[0].legend(fontsize="small")
    figure.savefig(FOLDER / "accuracy.png")


if __name__ == "__main__":
    use_book_style()
    results = json.loads((FOLDER / "results.json").read_text())
    draw_speed(results)
    draw_accuracy(results)
