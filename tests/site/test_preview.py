"""A link shows what it leads to where the pointer rests on it."""

import pytest
from built import LAPTOP
from checks import UNFOLD

SAME_PAGE = "main a.reference[href^='#equation-']"
OTHER_PAGE = "main a.reference[href*='html#equation-']"
CITATION = "a.reference[href*='references.html#']"
FIGURE = "a.reference[href*='08_every_divergence.html#fig-pull']"
PROPOSITION = "a.reference[href*='06_every_temperature.html#prop-sharp-sandwich']"
CHAPTER = "notebooks/06_every_temperature.html"


def hover(page, selector):
    page.evaluate(UNFOLD)
    page.locator(selector).first.hover()
    return page.locator(".preview.placed")


@pytest.mark.parametrize(
    ("name", "link", "content"),
    [
        (CHAPTER, SAME_PAGE, "mjx-container svg"),
        ("notebooks/07_distillation_as_regularization.html", OTHER_PAGE, "mjx-container svg"),
        (CHAPTER, CITATION, "p"),
        ("book/questions.html", FIGURE, "img"),
        ("book/equations.html", PROPOSITION, "mjx-container svg"),
    ],
)
def test_a_link_shows_what_it_leads_to(visit, name, link, content):
    page = visit(name, width=LAPTOP)
    preview = hover(page, link)
    preview.locator(content).first.wait_for()
    inside = "e => { const b = e.getBoundingClientRect(); return b.left >= 0 && b.width > 40 }"
    assert preview.evaluate(inside)
    assert page.said == []


def test_it_goes_with_the_pointer_and_with_escape(visit):
    page = visit(CHAPTER, width=LAPTOP)
    hover(page, SAME_PAGE).wait_for()
    page.mouse.move(0, 0)
    assert page.locator(".preview").count() == 0
    hover(page, SAME_PAGE).wait_for()
    page.keyboard.press("Escape")
    assert page.locator(".preview").count() == 0


def test_from_disk_it_shows_what_is_on_the_page_and_asks_for_no_other(visit, disk):
    page = visit(CHAPTER, disk, LAPTOP)
    hover(page, SAME_PAGE).wait_for()
    hover(page, CITATION)
    page.wait_for_timeout(500)
    assert page.locator(".preview").count() == 0
    assert page.said == []
