"""Draw the book's logo, `book/_static/logo.svg`, and `preview.png`, for previews of links to it.

It shows the probabilities of two classes as the temperature rises from left to right: one
falls and the other rises towards 1/2.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from kd_notes import softmax
from kd_notes._book.plotting import use_book_style

FOLDER = Path(__file__).parents[1] / "book" / "_static"
COLORS = ("#ffa90e", "#3f90da")  # C1 and C0 of the figures, for light and dark mode

SVG = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">
  <g fill="none" stroke-width="5" stroke-linecap="round" stroke-linejoin="round">
{curves}
  </g>
</svg>
"""
CURVE = '    <path stroke="{color}" d="M{points}"/>'


TEMPERATURES = np.geomspace(0.25, 12, 25)
PROBABILITIES = np.array([softmax([1.0, -1.0], temperature) for temperature in TEMPERATURES])


def logo() -> str:
    """Return the logo as SVG."""
    positions = np.linspace(3, 29, 25)
    curves = []
    for color, p in zip(COLORS, PROBABILITIES.T, strict=True):
        points = " ".join(f"{x:.1f},{29 - 26 * y:.1f}" for x, y in zip(positions, p, strict=True))
        curves.append(CURVE.format(color=color, points=points))
    return SVG.format(curves="\n".join(curves))


def draw_preview() -> None:
    """Draw the logo beside the title, in the size that previews of links have."""
    use_book_style()
    figure = plt.figure(figsize=(12, 6.3), dpi=100, facecolor="#fefdfa")
    figure.set_layout_engine("none")
    axes = figure.add_axes((0.06, 0.2, 0.32, 0.6))
    axes.axis("off")
    for color, p in zip(COLORS, PROBABILITIES.T, strict=True):
        axes.plot(p, color=color, linewidth=44, solid_capstyle="round", clip_on=False)
    figure.text(0.46, 0.55, "kd-notes", fontsize=64, color="#24221e")
    subtitle = "The knowledge distillation loss,\nderived and computed"
    figure.text(0.46, 0.33, subtitle, fontsize=28, color="#625d55", linespacing=1.2)


def main() -> None:
    """Write both."""
    (FOLDER / "logo.svg").write_text(logo())
    draw_preview()
    plt.savefig(FOLDER / "preview.png", dpi=100, bbox_inches=None, transparent=False)


if __name__ == "__main__":
    main()
