"""Ship what the pages need, and nothing that a browser refuses to load from disk.

A page opened from disk may run scripts and styles that lie beside it, but the browser lets
it neither load fonts from files nor fetch other pages.
"""

import importlib.util
import shutil
from pathlib import Path

from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform

# The parts of MathJax that our formulas need, in this order: the files in which it joins its parts
# bring a menu too. Formulas drawn with SVG need no fonts from files.
MATHJAX = ["startup", "core", "input/tex", "output/svg", "output/svg/fonts/tex"]
MATHJAX += ["a11y/assistive-mml"]
POINTS = "-.,;:!?)’”"
# The search page fetches every page it found, for a summary.
NO_SUMMARY = "DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = location.protocol !== 'file:'"
# The theme's own script decides after the page is drawn: who reads in the dark sees a flash.
THEME_AT_ONCE = """if (document.documentElement.dataset.theme === 'auto')
    document.documentElement.dataset.theme =
        matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light'"""
UNUSED = ["vendor", "locales", "images", "*webpack-macros.html", "**/*.map"]


def join_mathjax(app):
    """Write in one file what MathJax's loader fetches part by part.

    The parts are in the package sphinx-mathjax-offline, whose extension would copy 24 MB. Each
    announces itself to the first, which sets to work when the last has run.
    """
    if app.builder.format != "html":
        return
    parts = Path(importlib.util.find_spec("sphinx-mathjax-offline").origin).parent / "static"
    joined = "\n".join((parts / "mathjax" / f"{part}.js").read_text() for part in MATHJAX)
    static = Path(app.outdir) / "_static"
    static.mkdir(parents=True, exist_ok=True)
    (static / "mathjax.js").write_text(joined)
    app.config.mathjax_path = "mathjax.js"


def finish(app, exception):
    """Take out what the theme brings and no page asks for."""
    if exception or app.builder.format != "html":
        return
    static = Path(app.outdir) / "_static"
    for pattern in UNUSED:
        for path in list(static.glob(pattern)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


class KeepPointWithFormula(SphinxPostTransform):
    """Make one piece of a formula and what ends it: a browser would begin a line with a comma."""

    default_priority = 900
    formats = ("html",)

    def run(self):
        """Wrap each formula that such a character follows."""
        for formula in list(self.document.findall(nodes.math)):
            after = formula.next_node(descend=False, siblings=True)
            if isinstance(after, nodes.Text) and after.startswith(tuple(POINTS)):
                rest = after.lstrip(POINTS)
                points = nodes.Text(after.removesuffix(rest))
                piece = nodes.inline("", "", formula, points, classes=["one-line"])
                start = after.parent.index(after) - 1
                after.parent[start : start + 2] = [piece, nodes.Text(rest)]


def visit_citation(self, node):
    """Begin a reference as docutils does, but with the role that its list needs."""
    if not isinstance(node.previous_sibling(), nodes.citation):
        self.body.append('<div role="list" class="citation-list">\n')
    self.body.append(self.starttag(node, "div", classes=["citation"], role="listitem"))


def setup(app):
    """Connect the above to Sphinx."""
    app.connect("builder-inited", join_mathjax)
    app.add_post_transform(KeepPointWithFormula)
    app.add_node(nodes.citation, override=True, html=(visit_citation, None))
    app.connect("build-finished", finish)
    app.add_js_file(None, body=THEME_AT_ONCE, priority=100)
    app.add_js_file(None, body=NO_SUMMARY, priority=300)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
