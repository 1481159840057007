"""Subset the book's fonts to the characters and features that it uses.

Adobe's Source Serif 4, Source Sans 3 and Source Code Pro are free under the SIL Open Font
License, which reserves the name "Source" for the original fonts; so the subsets are called
Notes Serif, Notes Sans and Notes Mono. To make them again, in an empty folder:

    npm pack source-serif@4.5.1 source-sans@3.52.0 source-code-pro@2.42.0
    for archive in *.tgz; do mkdir "${archive%-*}"; tar xzf "$archive" -C "${archive%-*}"; done
    pip install fonttools==4.68.0 brotli==1.2.1
    python <the book>/tools/fonts.py .

The pages get one style sheet with the fonts embedded, because a browser that opens a page
from disk refuses to load separate font files. The figures get one TrueType file.
"""

import base64
import io
import sys
from pathlib import Path

from fontTools import subset
from fontTools.ttLib import TTFont

ROOT = Path(__file__).parents[1]
STYLE_SHEET = ROOT / "book" / "_static" / "notes-fonts.css"
FIGURE_FONT = ROOT / "kd_notes" / "_book" / "fonts" / "NotesSans-Regular.ttf"

# Latin with European diacritics, Greek, sub- and superscripts, arrows, mathematical operators.
RANGES = [(0x20, 0x17F), (0x2B0, 0x2FF), (0x370, 0x3FF), (0x1D43, 0x1D61), (0x2010, 0x203A)]
RANGES += [(0x2070, 0x209C), (0x2190, 0x2195), (0x2200, 0x2265)]
OTHERS = "ℓ⇒⇔€™✓"
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

RULE = """\
@font-face {{
  font-family: "{family}";
  font-weight: {weight};
  font-style: {style};
  src: url(data:font/woff2;base64,{data}) format("woff2");
}}
"""


def subset_font(path: Path, family: str) -> TTFont:
    """Keep the characters and features that the book uses, and rename the font."""
    options = subset.Options(layout_features=FEATURES, hinting=False, recalc_timestamp=False)
    font = subset.load_font(path, options)
    subsetter = subset.Subsetter(options)
    codes = [code for first, last in RANGES for code in range(first, last + 1)]
    subsetter.populate(unicodes=codes, text=OTHERS)
    subsetter.subset(font)
    for name_id, name in {1: family, 3: family, 4: family, 6: family.replace(" ", "")}.items():
        font["name"].setName(name, name_id, 3, 1, 0x409)
    return font


def font_face_rule(packages: Path, family: str, weight: int, style: str, source: str) -> str:
    """Return one face as a CSS rule with the font embedded."""
    font = subset_font(packages / source, family)
    font.flavor = "woff2"
    font.save(file := io.BytesIO())
    data = base64.b64encode(file.getvalue()).decode()
    return RULE.format(family=family, weight=weight, style=style, data=data)


def main(packages: Path) -> None:
    """Write the style sheet of the pages and the font of the figures."""
    head = "/* Made by tools/fonts.py. SIL Open Font License: notes-fonts-LICENSE.txt. */\n"
    STYLE_SHEET.write_text(head + "".join(font_face_rule(packages, *face) for face in FACES))
    FIGURE_FONT.parent.mkdir(exist_ok=True)
    subset_font(packages / FACES[3][3], "Notes Sans").save(FIGURE_FONT)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
