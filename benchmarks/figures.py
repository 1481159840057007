"""Draw what `run.py` measured: `speed.png` and `accuracy.png`, beside the results."""

import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from kd_notes._book.plotting import INK, use_book_style

FOLDER = Path(__file__).parent
STYLES = {
    "kd_notes": "-",
    "kd_notes.torch": (0, (1, 3)),
    "SciPy": ":",
    "PyTorch": "--",
    "JAX": "-.",
}
COLORS = {name: f"C{number}" for number, name in enumerate(STYLES)}


def draw_speed(results, temperature):
    """Draw how many times as long as kd_notes each way takes, shape by shape."""
    cases = [case for case in results["speed"] if case["temperature"] == temperature]
    labels = [f"{n:,} × {k:,}\n{case['dtype']}" for case in cases for n, k in [case["shape"]]]
    figure, axis = plt.subplots(figsize=(7, 5.6))
    for offset, name in enumerate(["kd_notes.torch", "SciPy", "PyTorch", "JAX"]):
        ratios = [case["seconds"][name] / case["seconds"]["kd_notes"] for case in cases]
        places = np.arange(len(cases)) + 0.21 * (offset - 1.5)
        axis.barh(places, ratios, 0.19, label=name, color=COLORS[name])
        for place, ratio in zip(places, ratios, strict=True):
            right = max(ratio, 1)  # not on the line at 1
            axis.text(right, place, f" {ratio:.1f}", va="center", fontsize="x-small", color=INK)
    axis.axvline(1, color=INK, linewidth=0.8)
    above = {"transform": axis.get_xaxis_transform(), "ha": "center", "va": "bottom"}
    axis.text(1, 1, "kd_notes = 1", **above, fontsize="x-small", color=INK)
    axis.set(xlabel=f"time at τ = {temperature}, in units of kd_notes' (median)")
    axis.set_yticks(range(len(cases)), labels, fontsize="x-small")
    axis.invert_yaxis()
    axis.legend(fontsize="small")
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
    draw_speed(results, temperature=4)
    draw_accuracy(results)
