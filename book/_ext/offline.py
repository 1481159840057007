"""Ship what the pages need, and nothing that a browser refuses to load from disk.

A page opened from disk may run scripts and styles that lie beside it, but the browser lets
it neither load fonts from files nor fetch other pages.
"""

import importlib.util
import re
import shutil
from pathlib import Path

# Formulas drawn with SVG need no fonts, and this one file holds all that our formulas use.
MATHJAX = "tex-svg.js"
FORMULA_AND_POINT = re.compile(r"(<span class=\"math [^<]*</span>[-.,;:!?)’”]+)")
# The search page fetches every page it found, for a summary.
NO_SUMMARY = "DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = location.protocol !== 'file:'"
# The theme's own script decides after the page is drawn: who reads in the dark sees a flash.
THEME_AT_ONCE = """if (document.documentElement.dataset.theme === 'auto')
    document.documentElement.dataset.theme =
        matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light'"""
UNUSED = ["vendor", "locales", "images", "*webpack-macros.html", "**/*.map"]


def use_mathjax_from_one_file(app, config):
    """Find it in the package sphinx-mathjax-offline, whose extension would copy 24 MB."""
    package = Path(importlib.util.find_spec("sphinx-mathjax-offline").origin).parent
    config.html_static_path.append(str(package / "static" / "mathjax" / MATHJAX))
    config.mathjax_path = MATHJAX


def finish(app, exception):
    """Take out what the theme brings and no page asks for."""
    if exception or app.builder.format != "html":
        return
    static = Path(app.outdir) / "_static"
    for pattern in UNUSED:
        for path in list(static.glob(pattern)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def mend(app, pagename, templatename, context, doctree):
    """Mend in a page's HTML what Sphinx writes."""
    body = context.get("body", "")
    # The role that the list around references needs for a screen reader.
    body = body.replace("doc-biblioentry", "listitem")
    # A browser would begin a line with the comma after a formula.
    context["body"] = FORMULA_AND_POINT.sub(r'<span class="one-line">\1</span>', body)


def setup(app):
    """Connect the above to Sphinx."""
    app.connect("config-inited", use_mathjax_from_one_file)
    app.connect("html-page-context", mend)
    app.connect("build-finished", finish)
    app.add_js_file(None, body=THEME_AT_ONCE, priority=100)
    app.add_js_file(None, body=NO_SUMMARY, priority=300)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
