"""The style of the book's figures, and the explorer: three charts of the KD loss."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import ArrayLike, NDArray

from kd_notes._distillation import kd_grad, kd_loss
from kd_notes._softmax import softmax

# 0.1 to 1000 in twenty logarithmic steps per decade, rounded to two digits, and infinity.
TEMPERATURES = [float(f"{10 ** (step / 20):.2g}") for step in range(-20, 61)] + [math.inf]

# A gray with enough contrast on a white and on a dark page: figures have no background.
INK = "#757575"

# The typeface of the captions. Formulas are set in Computer Modern, as on the pages.
_FONT = Path(__file__).parent / "fonts" / "NotesSans-Regular.ttf"

Logits = NDArray[np.floating[Any]]

_STYLE: dict[str, Any] = {
    "figure.figsize": (5.2, 3.2),
    "figure.dpi": 160,
    "figure.facecolor": "none",
    "figure.constrained_layout.use": True,
    "axes.facecolor": "none",
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.family": ["Notes Sans", "DejaVu Sans"],  # the second for missing glyphs
    "font.size": 10.5,
    "mathtext.fontset": "cm",
    "legend.frameon": False,
    "lines.linewidth": 2,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


def use_book_style() -> None:
    """Set the style of all figures that follow.

    Petroff chose its ten colors, `C0` to `C9`, to be distinct under the common forms of
    color blindness. Class k of the digits is always drawn in `Ck`.
    """
    font_manager.fontManager.addfont(_FONT)
    plt.style.use(["petroff10", _STYLE])


def temperature_name(temperature: float) -> str:
    """Return the temperature as a label: 0.13, 4, 1000, ∞."""
    return "∞" if temperature == math.inf else f"{temperature:g}"


def draw_explorer(
    student_logits: ArrayLike, teacher_logits: ArrayLike, temperature: float
) -> Figure:
    """Draw probabilities and gradient at one temperature, and the loss as a function of it.

    Classes are numbered from 1, and class k has the color `Ck`. The temperature may be
    infinite. All losses and gradients are those of τ²·KD.
    """
    student, teacher = np.asarray(student_logits, float), np.asarray(teacher_logits, float)
    figure, axes = plt.subplots(3, 1, figsize=(5.2, 6.4), height_ratios=[3, 3, 4])
    _draw_probabilities(axes[0], student, teacher, temperature)
    _draw_gradient(axes[1], student, teacher, temperature)
    _draw_loss(axes[2], student, teacher, temperature)
    return figure


def _draw_probabilities(axes: Axes, student: Logits, teacher: Logits, temperature: float) -> None:
    classes = np.arange(1, len(student) + 1)
    colors = [f"C{k}" for k in classes]
    networks = [("teacher", teacher, -0.2, 0.3), ("student", student, 0.2, 1)]
    for _, logits, offset, alpha in networks:
        p = softmax(logits, temperature)
        bars = axes.bar(classes + offset, p, 0.4, color=colors, alpha=alpha)
        axes.bar_label(bars, fmt="%.2f", fontsize="x-small", color=INK)
    axes.set(ylim=(0, 1.1), xlabel="class", ylabel="probability")
    keys = [Patch(facecolor=INK, alpha=alpha, label=network) for network, *_, alpha in networks]
    axes.legend(handles=keys, fontsize="small")


def _draw_gradient(axes: Axes, student: Logits, teacher: Logits, temperature: float) -> None:
    classes = np.arange(1, len(student) + 1)
    gradient = kd_grad(student, teacher, temperature)
    limit = kd_grad(student, teacher, np.inf)
    axes.bar(classes, gradient, 0.6, color=[f"C{k}" for k in classes])
    axes.hlines(limit, classes - 0.4, classes + 0.4, color=INK, label="limit")
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.set(xlabel="class", ylabel="τ (pˢ − pᵗ)")
    axes.legend(fontsize="small")
    values = axes.secondary_xaxis("top")
    labels = [f"{value:.3f}".replace("-", "−") for value in gradient]
    values.set_xticks(classes, labels, fontsize="x-small")
    values.tick_params(length=0)
    values.spines["top"].set_visible(False)


def _draw_loss(axes: Axes, student: Logits, teacher: Logits, temperature: float) -> None:
    x_infinity = 3000.0  # the position of infinity on the axis
    x = np.minimum(TEMPERATURES, x_infinity)
    losses = [float(kd_loss(student, teacher, tau)) for tau in TEMPERATURES]
    limit = losses[-1]
    lower, upper = _bounds(student, teacher, limit)
    top = max(1.15 * np.ptp(student - teacher) ** 2 / 8, 0.1)  # above all losses, by Proposition 5
    axes.fill_between(x, lower, np.minimum(upper, top), color=INK, alpha=0.25, lw=0)
    axes.semilogx(x, losses, color="C0")
    axes.axhline(limit, color=INK, linestyle="--", linewidth=1)
    x_temperature = min(temperature, x_infinity)
    axes.axvline(x_temperature, color=INK, linewidth=1)
    axes.plot(x_temperature, kd_loss(student, teacher, temperature), "o", color="C0")
    axes.set_xticks([0.1, 1, 10, 100, 1000, x_infinity], ["0.1", "1", "10", "100", "1000", "∞"])
    axes.minorticks_off()
    axes.set(xlabel="temperature τ", ylabel="τ²·KD", ylim=(0, top))


def _bounds(student: Logits, teacher: Logits, limit: float) -> tuple[Logits, Logits]:
    """Return the lower and the upper bound of Proposition 4 at all `TEMPERATURES`."""
    larger_range = max(np.ptp(student), np.ptp(teacher))
    exponents = larger_range / np.array(TEMPERATURES)
    factor = np.exp(np.minimum(exponents, 100))  # finite at any range
    return limit / factor, limit * factor
