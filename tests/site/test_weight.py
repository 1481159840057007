"""The site is small enough to copy to another machine."""

import gzip
from urllib.parse import urlsplit

import checks
import pytest
from built import LAPTOP, OTHERS, PAGES, SITE

MB = 10**6
MATHJAX = SITE / "_static" / "mathjax.js"
PDF = SITE / "kd-notes.pdf"


def size(files):
    return sum(file.stat().st_size for file in files)


def test_the_site_without_mathjax_and_pdf_is_below_14_megabytes():
    files = {file for file in SITE.rglob("*") if file.is_file()}
    assert size(files - {MATHJAX, PDF}) < 14 * MB


@pytest.mark.parametrize("name", PAGES + OTHERS)
def test_a_page_and_its_pictures_are_below_1_megabyte_and_200_kilobytes_compressed(name):
    sources = {tag["src"] for tag in checks.parsed(SITE / name).select("[src]")}
    own = {checks.target(SITE / name, source) for source in sources if "_images/" in source}
    assert size({SITE / name, *own}) < MB
    assert sum(len(gzip.compress(file.read_bytes())) for file in {SITE / name, *own}) < 200_000


def test_the_first_visit_weighs_less_than_900_kilobytes_compressed(visit):
    page = visit("book/intro.html", width=LAPTOP)
    page.wait_for_load_state("networkidle")
    sources = {urlsplit(url).path for url in page.requested if not url.startswith("data:")}
    weights = {name: len(gzip.compress((SITE / name[1:]).read_bytes())) for name in sources}
    assert {"/_static/mathjax.js", "/_static/notes-fonts.css"} <= weights.keys()
    assert sum(weights.values()) < 900_000, sorted(weights.items(), key=lambda item: -item[1])


def test_mathjax_is_one_file():
    own = "mjx-assistive-mml"  # what no script says that only uses it
    assert [file for file in SITE.rglob("*.js") if own in file.read_text()] == [MATHJAX]


@pytest.mark.skipif(not PDF.exists(), reason="`make pdf` has not printed the book")
def test_the_whole_book_is_below_25_megabytes():
    assert size([PDF]) < 25 * MB
