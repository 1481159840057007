"""What is printed as one PDF has every page, and its links lead to places of it."""

from collections import Counter

import pytest
from bs4 import BeautifulSoup
from built import PAGES

from tools import pdf


@pytest.fixture(scope="module")
def book():
    return BeautifulSoup(pdf.whole_book(), "html.parser")


def test_every_page_is_printed_once(book):
    printed = [article["id"] for article in book.select("article")]
    assert sorted(printed) == sorted(map(pdf.place, PAGES))
    assert len(book.select("article h1")) == len(PAGES)


def test_a_link_inside_the_book_leads_to_one_place(book):
    names = Counter(tag["id"] for tag in book.select("[id]"))
    links = {link["href"][1:].partition("?")[0] for link in book.select("article a[href^='#']")}
    assert {names[link] for link in links} == {1}
    assert len(links) > 300
    assert not book.select("article a[href*='.html#']:not([href^='http'])")


def test_solutions_stay_and_folded_code_goes(book):
    assert book.select("article .solution")
    assert not book.select("article details.hide, article .headerlink")
