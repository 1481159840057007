"""Draw the book's logo, `book/_static/logo.svg`.

It shows the probabilities of two classes as the temperature rises from left to right: one
falls and the other rises towards 1/2.
"""

from pathlib import Path

import numpy as np

from kd_notes import softmax

FILE = Path(__file__).parents[1] / "book" / "_static" / "logo.svg"
COLORS = ("#ffa90e", "#3f90da")  # C1 and C0 of the figures, for light and dark mode

SVG = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">
  <g fill="none" stroke-width="5" stroke-linecap="round" stroke-linejoin="round">
{curves}
  </g>
</svg>
"""
CURVE = '    <path stroke="{color}" d="M{points}"/>'


def main() -> None:
    """Write the logo as SVG."""
    temperatures = np.geomspace(0.25, 12, 25)
    probabilities = np.array([softmax([1.0, -1.0], temperature) for temperature in temperatures])
    positions = np.linspace(3, 29, 25)
    curves = []
    for color, p in zip(COLORS, probabilities.T, strict=True):
        points = " ".join(f"{x:.1f},{29 - 26 * y:.1f}" for x, y in zip(positions, p, strict=True))
        curves.append(CURVE.format(color=color, points=points))
    FILE.write_text(SVG.format(curves="\n".join(curves)))


if __name__ == "__main__":
    main()
