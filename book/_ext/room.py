"""Keep the room of what is drawn late, so that no text moves under the reader's eyes.

Nothing is shown before the fonts are there, which are in a style sheet; and a formula in the text
has its size before MathJax draws it. Matplotlib knows the size, of the same font, for all but a
few formulas.
"""

import re
from functools import cache

import matplotlib as mpl
from docutils import nodes
from matplotlib.font_manager import FontProperties
from matplotlib.mathtext import MathTextParser

SHOW_WITH_FONTS = """document.documentElement.style.visibility = 'hidden'
Promise.all(Array.from(document.fonts, face => face.load()))
    .finally(() => document.documentElement.style.visibility = '')"""
EM = 1000  # points: sizes are rounded to whole ones
EX = 0.43 * EM  # of Computer Modern; MathJax makes it as large as that of the text
# What Matplotlib reads, of what MathJax reads too.
LONG_FORMS = [
    (r"\\([lg]e)\b", r"\\\1q"),
    (r"\\tfrac", r"\\frac"),
    (r"\\frac ?(\w|\\tau) ?(\w|\\tau)", r"\\frac{\1}{\2}"),
    (r"\\[lr]Vert", r"\\|"),
    (r"\\[lr]vert", "|"),
]


@cache
def room(formula):
    """Return the style of a formula's place, or nothing where its size is unknown."""
    for short, long in LONG_FORMS:
        formula = re.sub(short, long, formula)
    try:
        with mpl.rc_context({"mathtext.fontset": "cm"}):
            drawn = MathTextParser("path").parse(f"${formula}$", prop=FontProperties(size=EM))
    except ValueError:
        return {}
    width, height, depth = (f"{size / EX:.2f}ex" for size in drawn[:3])
    return {"style": f"--width: {width}; --height: {height}; --depth: -{depth}"}


def visit_math(self, node):
    """Write a formula as Sphinx does, and its size."""
    formula = node.astext()
    start, end = self.builder.config.mathjax_inline
    classes = "math notranslate nohighlight"
    self.body.append(self.starttag(node, "span", "", CLASS=classes, **room(formula)))
    self.body.append(f"{start}{self.encode(formula)}{end}</span>")
    raise nodes.SkipNode


def setup(app):
    """Connect the above to Sphinx."""
    app.add_node(nodes.math, override=True, html=(visit_math, None))
    app.add_js_file(None, body=SHOW_WITH_FONTS, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
