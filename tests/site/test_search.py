"""The reader finds the page that answers, on the web and on disk."""

from urllib.parse import quote, urlsplit

import checks
import pytest
from built import LAPTOP, PAGES, SITE
from queries import ANSWERS, FIRST, TOP_THREE

CHAPTERS = [name for name in PAGES if name.startswith("notebooks/")]


def search(page, words):
    """Type into the field that Ctrl+K opens; return the pages that the answer links to."""
    page.keyboard.press("Control+k")
    page.locator("#search-input").fill(words)
    page.keyboard.press("Enter")
    page.wait_for_url("**/search.html?*")
    links = results(page)
    page.wait_for_load_state("networkidle")  # the summaries are there
    return links


def results(page):
    page.locator("#search-results > h2", has_text="Search Results").wait_for(state="attached")
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


@pytest.fixture(scope="module")
def search_page(open_page, address):
    page = open_page(address + "search.html", LAPTOP)
    yield page
    page.close()


def place(page, address, query):
    """At which place of the results a page is that answers; a large number for none."""
    page.goto(f"{address}search.html?q={quote(query)}")
    names = [urlsplit(link).path.rpartition("/")[2] for link in results(page)]
    answers = tuple(ANSWERS[query].split())
    return next((i for i, name in enumerate(names, 1) if name.startswith(answers)), 99)


def test_the_first_results_answer(search_page, address):
    places = {query: place(search_page, address, query) for query in ANSWERS}
    later = {query: place for query, place in places.items() if place > 1}
    assert len(ANSWERS) - len(later) >= FIRST, later
    assert sum(place <= 3 for place in places.values()) >= TOP_THREE, later


@pytest.mark.parametrize("query", ["batchmean", "autocast", "dark knowledge"])
def test_a_result_quotes_the_text(visit, query):
    page = visit(f"search.html?q={quote(query)}")
    page.wait_for_load_state("networkidle")
    quotes = page.locator("#search-results p.context").all_text_contents()
    assert quotes
    for text in quotes:
        assert query.split()[-1] in text.lower()
        assert "  " not in text
        assert "\n" not in text
        assert not {"Contents", "Print to PDF", ".ipynb"} & set(text.split())
