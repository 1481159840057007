"""Every page, from the server on a phone in the dark, and from disk on a laptop in the light."""

import checks
import pytest
from built import LAPTOP, OTHERS, PAGES, PHONE, SITE


@pytest.fixture(scope="module", params=PAGES + OTHERS)
def name(request):
    return request.param


@pytest.fixture(scope="module", params=["phone", "laptop"])
def page(request, name, open_page, address, disk):
    """One page in one window, shared by the tests below in the order they stand in."""
    views = {"phone": (address, PHONE, "dark"), "laptop": (disk, LAPTOP, "light")}
    base, width, theme = views[request.param]
    page = open_page(base + name, width, theme)
    yield page
    page.close()


def test_the_browser_has_no_complaint(page):
    assert page.said == []


def test_it_asks_nobody_else(page, address, disk):
    assert checks.foreign_requests(page, (address, disk)) == []


def test_every_formula_is_typeset(page):
    assert checks.untypeset_formulas(page) == []


def test_nothing_is_wider_than_the_window(page):
    assert checks.too_wide(page) == []


def test_headings_skip_no_level(page):
    assert checks.heading_jumps(page) == []


def test_every_image_has_alt_text(page):
    assert checks.images_without_alt(page) == []


def test_tab_reaches_everything(page):
    assert checks.unreachable(page) == []


def test_there_are_no_barriers(page):
    assert checks.barriers(page) == []


def test_the_sidebar_has_none_in_the_dark(visit):
    assert checks.barriers(visit("book/intro.html", width=LAPTOP, theme="dark")) == []


@pytest.mark.parametrize("file", PAGES)
def test_no_line_begins_with_what_ends_a_formula(file):
    formulas = checks.parsed(SITE / file).select("main :not(.one-line) > span.math")
    loose = [formula for formula in formulas if str(formula.next_sibling)[0] in ".,;:)"]
    assert loose == []
