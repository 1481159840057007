"""Make an element of each line of code, so that on a phone what is too long can be wrapped.

What follows in the next line then stands further right than where its line begins.
"""

import re
from itertools import starmap

from pygments.formatters import HtmlFormatter
from sphinx.highlighting import PygmentsBridge

MARKUP = re.compile("<[^>]*>")


class ByLine(HtmlFormatter):
    """Write code as HTML, line by line."""

    def wrap(self, source):
        """Put each line into an element that says where it begins."""
        return super().wrap(starmap(as_element, source))


def as_element(is_code, line):
    """Return the line in an element, and anything else as it is."""
    if not is_code:
        return is_code, line
    text = MARKUP.sub("", line)
    indent = len(text) - len(text.lstrip(" "))
    style = f' style="--indent: {indent}ch"' if indent else ""
    return is_code, f'<span class="line"{style}>{line}</span>'


def setup(app):
    """Have Sphinx write code with it."""
    PygmentsBridge.html_formatter = ByLine
    return {"parallel_read_safe": True, "parallel_write_safe": True}
