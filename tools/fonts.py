"""Subset the book's fonts to the characters and features that it uses, and the theme's icons.

Adobe's Source Serif 4, Source Sans 3 and Source Code Pro are free under the SIL Open Font
License, which reserves the name "Source" for the original fonts; so the subsets are called
Notes Serif, Notes Sans and Notes Mono. So is Font Awesome Free, of which the theme brings a
copy, and so its subset is called Notes Icons. To make them again, in an empty folder:

    npm pack source-serif@4.5.1 source-sans@3.52.0 source-code-pro@2.42.0
    for archive in *.tgz; do mkdir "${archive%-*}"; tar xzf "$archive" -C "${archive%-*}"; done
    pip install fonttools==4.68.0 brotli==1.2.1 pydata-sphinx-theme==0.15.4
    python <the book>/tools/fonts.py .

The pages get one style sheet with the fonts embedded, because a browser that opens a page
from disk refuses to load separate font files. The figures get one TrueType file.
"""

import base64
import io
import sys
from pathlib import Path

import pydata_sphinx_theme
from fontTools import subset
from fontTools.ttLib import TTFont

ROOT = Path(__file__).parents[1]
STYLE_SHEET = ROOT / "book" / "_static" / "notes-fonts.css"
ICON_SHEET = STYLE_SHEET.with_name("icons.css")
FIGURE_FONT = ROOT / "kd_notes" / "_book" / "fonts" / "NotesSans-Regular.ttf"

# Of the pages: Latin with the accents of western Europe, Greek, and what else they show, as a
# test compares. Each face is part of every first visit.
RANGES = [(0x20, 0x7E), (0xA0, 0xFF), (0x391, 0x3A9), (0x3B1, 0x3C9)]
OTHERS = "ăŁˢˣᵀᵃᵇᵈᵗ–—‘’“”„…⁰⁴⁵⁶⁷⁸⁹⁺⁻ⁿ₀₁₂₃₄₅₆₇₈₉→←↑↓⇒⇔−∂∑∏√∝∞≈≠≤≥∈ℓ€™✓"
# Of the figures, whose font no page loads: Latin with European diacritics, all Greek, sub- and
# superscripts, arrows, mathematical operators.
FIGURE_RANGES = [(0x20, 0x17F), (0x2B0, 0x2FF), (0x370, 0x3FF), (0x1D43, 0x1D61)]
FIGURE_RANGES += [(0x2010, 0x203A), (0x2070, 0x209C), (0x2190, 0x2195), (0x2200, 0x2265)]
FEATURES = ["kern", "liga", "mark", "mkmk", "ccmp", "tnum", "lnum"]

FACES = [
    ("Notes Serif", 400, "normal", "source-serif/package/TTF/SourceSerif4-Regular.ttf"),
    ("Notes Serif", 400, "italic", "source-serif/package/TTF/SourceSerif4-It.ttf"),
    ("Notes Serif", 600, "normal", "source-serif/package/TTF/SourceSerif4-Semibold.ttf"),
    ("Notes Sans", 400, "normal", "source-sans/package/TTF/SourceSans3-Regular.ttf"),
    ("Notes Sans", 400, "italic", "source-sans/package/TTF/SourceSans3-It.ttf"),
    ("Notes Sans", 600, "normal", "source-sans/package/TTF/SourceSans3-Semibold.ttf"),
    ("Notes Mono", 400, "normal", "source-code-pro/package/TTF/SourceCodePro-Regular.ttf"),
]

THEME = Path(pydata_sphinx_theme.__file__).parent / "theme/pydata_sphinx_theme/static"
[ICON_FONT] = THEME.glob("vendor/fontawesome/*/webfonts/fa-solid-900.ttf")
ICONS = {
    "angle-left": 0xF104,
    "angle-right": 0xF105,
    "arrow-up": 0xF062,
    "bars": 0xF0C9,
    "circle-half-stroke": 0xF042,
    "code": 0xF121,
    "download": 0xF019,
    "file": 0xF15B,
    "file-pdf": 0xF1C1,
    "list": 0xF03A,
    "magnifying-glass": 0xF002,
    "moon": 0xF186,
    "sun": 0xF185,
    "xmark": 0xF00D,
}
# What the theme's style sheets write before titles and links: of admonitions, folds, exercises.
OF_STYLES = [0xF010, 0xF057, 0xF058, 0xF05A, 0xF064, 0xF06A, 0xF071, 0xF0EB, 0xF0F3, 0xF107]
OF_STYLES += [0xF303, 0xF35D]
ICON_RULES = """\
:root {
  --fa-font-solid: normal 900 1em/1 "Notes Icons";
}

.fas,
.fa-solid {
  display: inline-block;
  font: var(--fa-font-solid);
  text-rendering: auto;
  -moz-osx-font-smoothing: grayscale;
  -webkit-font-smoothing: antialiased;
}

.fa-lg {
  font-size: 1.25em;
  line-height: 0.05em;
  vertical-align: -0.075em;
}
"""
ICON_RULE = """
.fa-{name}::before {{
  content: "\\{code:x}";
}}
"""
RULE = """\
@font-face {{
  font-family: "{family}";
  font-weight: {weight};
  font-style: {style};
  src: url(data:font/woff2;base64,{data}) format("woff2");
}}
"""


def characters(ranges: list[tuple[int, int]]) -> list[int]:
    """Return the codes of the characters in some ranges, and of the others."""
    codes = [code for first, last in ranges for code in range(first, last + 1)]
    return [*codes, *map(ord, OTHERS)]


def subset_font(path: Path, family: str, codes: list[int]) -> TTFont:
    """Keep the characters and features that the book uses, and rename the font."""
    options = subset.Options(layout_features=FEATURES, hinting=False, recalc_timestamp=False)
    font = subset.load_font(path, options)
    subsetter = subset.Subsetter(options)
    subsetter.populate(unicodes=codes)
    subsetter.subset(font)
    for name_id, name in {1: family, 3: family, 4: family, 6: family.replace(" ", "")}.items():
        font["name"].setName(name, name_id, 3, 1, 0x409)
    return font


def font_face_rule(font: TTFont, family: str, weight: int, style: str) -> str:
    """Return one face as a CSS rule with the font embedded."""
    font.flavor = "woff2"
    font.save(file := io.BytesIO())
    data = base64.b64encode(file.getvalue()).decode()
    return RULE.format(family=family, weight=weight, style=style, data=data)


def icon_sheet() -> str:
    """Return the font of the icons, and the rules that the theme's own style sheet has."""
    font = subset_font(ICON_FONT, "Notes Icons", [*ICONS.values(), *OF_STYLES])
    names = (ICON_RULE.format(name=name, code=code) for name, code in ICONS.items())
    return font_face_rule(font, "Notes Icons", 900, "normal") + "\n" + ICON_RULES + "".join(names)


def main(packages: Path) -> None:
    """Write the style sheets of the pages and the font of the figures."""
    head = "/* Made by tools/fonts.py. SIL Open Font License: notes-fonts-LICENSE.txt. */\n"
    ICON_SHEET.write_text(head + icon_sheet())
    codes = characters(RANGES)
    rules = [
        font_face_rule(subset_font(packages / source, family, codes), family, weight, style)
        for family, weight, style, source in FACES
    ]
    STYLE_SHEET.write_text(head + "".join(rules))
    FIGURE_FONT.parent.mkdir(exist_ok=True)
    codes = characters(FIGURE_RANGES)
    subset_font(packages / FACES[3][3], "Notes Sans", codes).save(FIGURE_FONT)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
