"""The reader finds the chapter that a term is from, on the web and on disk."""

import checks
import pytest
from built import PAGES, SITE

CHAPTERS = [name for name in PAGES if name.startswith("notebooks/")]


def search(page, words):
    """Type into the field that Ctrl+K opens; return the pages that the answer links to."""
    page.keyboard.press("Control+k")
    page.locator("#search-input").fill(words)
    page.keyboard.press("Enter")
    page.wait_for_url("**/search.html?*")
    page.locator("#search-results > h2", has_text="Search Results").wait_for(state="attached")
    page.wait_for_load_state("networkidle")
    return page.locator("#search-results li a").evaluate_all("all => all.map(a => a.href)")


@pytest.mark.parametrize("name", CHAPTERS)
def test_search_finds_what_a_chapter_is_about(visit, name):
    title = checks.parsed(SITE / name).select_one("article h1")
    page = visit("book/intro.html")
    answer = search(page, title.find(string=True, recursive=False))
    assert any(name in link for link in answer)
    assert page.said == []


def test_search_works_from_disk(visit, disk):
    page = visit("book/intro.html", disk)
    assert any("14_a_numerical_core" in link for link in search(page, "cancellation"))
    assert page.said == []


def test_search_finds_nothing_where_there_is_nothing(visit):
    assert search(visit("book/intro.html"), "platypus") == []
