"""The look of the book's figures: one style, and one color for each class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib import font_manager

# A gray that is read on white paper and on a dark page alike; the background stays clear.
INK = "#757575"

# The letters of the captions; formulas in the letters of TeX, as on the pages.
_FONT = Path(__file__).parent / "fonts" / "NotesSans-Regular.ttf"

_STYLE: dict[str, Any] = {
    "figure.figsize": (5.2, 3.2),
    "figure.dpi": 200,
    "figure.facecolor": "none",
    "figure.constrained_layout.use": True,
    "savefig.facecolor": "none",
    "axes.facecolor": "none",
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "font.family": ["Notes Sans", "DejaVu Sans"],  # the second where a sign is missing
    "font.size": 10.5,
    "mathtext.fontset": "cm",
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "lines.linewidth": 2,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


def use_book_style() -> None:
    """Draw what follows in the style of the book.

    Its ten colors, `C0` to `C9`, were chosen by Petroff to be told apart under every
    common color blindness; class k of the digits is always drawn in `Ck`.
    """
    font_manager.fontManager.addfont(_FONT)
    plt.style.use(["petroff10", _STYLE])
