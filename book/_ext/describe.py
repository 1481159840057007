"""Say of each page what it is about, for search engines, previews and the site's own search."""

from pathlib import Path

import yaml
from docutils import nodes

DESCRIPTIONS = "book/descriptions.yml"


def read(app, env, docnames):
    """Read what is said of the pages; a page of which nothing is said is an error."""
    env.descriptions = yaml.safe_load(Path(app.srcdir, DESCRIPTIONS).read_text(encoding="utf-8"))
    if env.descriptions.keys() != env.found_docs:
        differing = sorted(env.descriptions.keys() ^ env.found_docs)
        raise ValueError(f"{DESCRIPTIONS} must describe each page, and no other: {differing}")


def describe(app, doctree):
    """Add the description and the keywords to a page's head."""
    said = app.env.descriptions[app.env.docname]
    for name, content in said.items():
        doctree.append(nodes.meta(name=name, content=content))
    app.env.metadata[app.env.docname]["og:description"] = said["description"]


def setup(app):
    """Connect the above to Sphinx."""
    app.connect("env-before-read-docs", read)
    app.connect("doctree-read", describe)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
