"""Draw the book's mark, `book/_static/logo.svg`.

Two classes, and their probabilities as the temperature rises from left to right: one falls,
the other rises, until they cannot be told apart.
"""

from pathlib import Path

import numpy as np

from kd_notes import softmax

FILE = Path(__file__).parents[1] / "book" / "_static" / "logo.svg"
COLORS = ("#ffa90e", "#3f90da")  # C1 and C0 of the figures; both are seen on paper and in the dark

SVG = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">
  <g fill="none" stroke-width="5" stroke-linecap="round" stroke-linejoin="round">
{curves}
  </g>
</svg>
"""
CURVE = '    <path stroke="{color}" d="M{points}"/>'


def main() -> None:
    """Write the mark as SVG."""
    temperatures = np.geomspace(0.25, 12, 25)
    probability = np.array([softmax([1.0, -1.0], temperature) for temperature in temperatures])
    across = np.linspace(3, 29, 25)
    curves = []
    for color, p in zip(COLORS, probability.T, strict=True):
        points = " ".join(f"{x:.1f},{29 - 26 * y:.1f}" for x, y in zip(across, p, strict=True))
        curves.append(CURVE.format(color=color, points=points))
    FILE.write_text(SVG.format(curves="\n".join(curves)))


if __name__ == "__main__":
    main()
