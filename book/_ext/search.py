"""Let the search page know how often a page says a word: Sphinx's index knows only whether."""

import json
from collections import Counter
from pathlib import Path

from docutils import nodes
from sphinx.search import WordCollector

SCORER = Path(__file__).with_suffix(".js")
COUNTS = "word-counts.js"
MIN_COUNT = 3  # below, the index is enough
KEYWORD = 20  # so often a page says its keywords


def keywords(doctree):
    """Return those that describe.py has added."""
    metas = [meta for meta in doctree.findall(nodes.meta) if meta["name"] == "keywords"]
    return [word.strip() for meta in metas for word in meta["content"].split(",")]


def count_words(app, doctree, docname):
    """Count the stems of a page's words as the index does."""
    if app.builder.name != "html":
        return
    language = app.builder.indexer.lang
    collected = WordCollector(doctree, language)
    doctree.walk(collected)
    words = collected.found_words + KEYWORD * keywords(doctree)
    stems = Counter(language.stem(word.lower()) for word in words)
    app.word_counts[docname] = {
        stem: count
        for stem, count in sorted(stems.items())
        if count >= MIN_COUNT and len(stem) > 2 and language.word_filter(stem)
    }


def write(app, exception):
    """Write the counts for the search page."""
    if not exception and app.builder.name == "html":
        counts = json.dumps(app.word_counts, ensure_ascii=False, separators=(",", ":"))
        path = Path(app.outdir, "_static", COUNTS)
        path.write_text(f"const WORD_COUNTS = {counts}\n", encoding="utf-8")


def load(app, pagename, templatename, context, doctree):
    """Load the counts on the search page alone."""
    if pagename == "search":
        app.add_js_file(COUNTS)


def setup(app):
    """Connect the above to Sphinx."""
    app.word_counts = {}
    app.config.html_search_scorer = str(SCORER)
    app.connect("doctree-resolved", count_words)
    app.connect("html-page-context", load)
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": False}
