"""The style of the book's figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from cycler import cycler
from matplotlib import font_manager

# A gray with enough contrast on a white and on a dark page: figures have no background.
INK = "#757575"

# Petroff's ten colors, distinct under the common forms of color blindness; those too light for a
# white page or too dark for a dark one are mixed with black or white, until the contrast is 3.
COLORS = ["#3f90da", "#c7840b", "#c12c10", "#879593", "#8f41bd"]
COLORS += ["#a96b59", "#e76300", "#9d925f", "#717581", "#689b9d"]

# The typeface of the captions. Formulas are set in Computer Modern, as on the pages.
_FONT = Path(__file__).parent / "fonts" / "NotesSans-Regular.ttf"

_STYLE: dict[str, Any] = {
    "figure.figsize": (5.2, 3.2),
    "figure.dpi": 160,
    "figure.facecolor": "none",
    "figure.constrained_layout.use": True,
    "axes.facecolor": "none",
    "axes.edgecolor": INK,
    "axes.prop_cycle": cycler(color=COLORS),
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
    "image.interpolation": "none",  # an SVG then holds the pixels themselves, sharp at any size
    "svg.hashsalt": "kd-notes",  # or the names inside a figure would be random
}

# The date would differ between two drawings of the same figure; the rest tells readers nothing.
_NO_METADATA = dict.fromkeys(["Creator", "Date", "Format", "Type"])


def use_book_style() -> None:
    """Set the style of all figures that follow.

    Class k of the digits is always drawn in `Ck`. A notebook shows SVG, which is the same file
    whenever the same figure is drawn.
    """
    font_manager.fontManager.addfont(_FONT)
    plt.style.use(_STYLE)
    if "inline" in plt.get_backend():  # a notebook's, which has two names
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("svg", metadata=_NO_METADATA)  # type: ignore[no-untyped-call]
