"""What a page's buttons do, by keyboard, on a phone, from the server and from disk."""

import json
from urllib.request import urlopen

import pytest
from built import PAGES, SITE

ROOT = SITE.parents[1]
FOLDED = "article :is(summary, button.toggle-button)"


@pytest.fixture(params=["server", "disk"])
def base(request, address, disk):
    return {"server": address, "disk": disk}[request.param]


@pytest.mark.parametrize("name", [name for name in PAGES if name.startswith("notebooks/")])
def test_a_chapter_offers_its_notebook(visit, base, name):
    page = visit(name, base)
    page.get_by_label("Download this page").press("Enter")
    link = page.locator(".btn-download-source-button")
    assert link.is_visible()
    stored = json.loads((ROOT / name).with_suffix(".ipynb").read_text())
    offered = json.loads(urlopen(link.evaluate("link => link.href")).read())
    assert offered["cells"][1:] == stored["cells"]  # the first says what the chapter needs


def test_the_notebook_is_downloaded_not_shown(visit):
    page = visit("notebooks/01_softmax_and_temperature.html")
    page.get_by_label("Download this page").press("Enter")
    link = page.locator(".btn-download-source-button")
    link.evaluate("link => link.removeAttribute('target')")  # Playwright looks on this page
    with page.expect_download() as download:
        link.press("Enter")
    assert download.value.suggested_filename == "01_softmax_and_temperature.ipynb"


def test_the_theme_button_goes_from_light_to_dark(visit, base):
    page = visit("book/intro.html", base)
    theme, ground = set(), set()
    for _ in range(3):
        page.locator("button.theme-switch-button:visible").press("Enter")
        theme.add(page.evaluate("document.documentElement.dataset.theme"))
        ground.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert theme == {"light", "dark"}
    assert len(ground) == 2


def test_a_page_is_dark_before_it_is_drawn(visit):
    page = visit("book/notation.html", theme="dark")
    page.add_init_script("""new MutationObserver(() => {
        window.first ??= document.body && document.documentElement.dataset.theme
    }).observe(document, {childList: true, subtree: true})""")
    page.evaluate("localStorage.clear()")  # as on the first visit
    page.reload()
    assert page.evaluate("first") == "dark"


@pytest.mark.parametrize("name", PAGES)
def test_what_is_folded_opens_by_keyboard(visit, name):
    page = visit(name)
    for button in page.locator(FOLDED).all():
        button.press("Enter")
        assert button.evaluate("e => e.ariaExpanded === 'true' || e.parentElement.open")


def test_something_is_folded(visit):
    assert visit("notebooks/01_softmax_and_temperature.html").locator(FOLDED).count() >= 10


def test_the_root_leads_to_the_welcome_page(visit, base):
    page = visit("book/notation.html", base)
    page.goto(base + "index.html")
    page.wait_for_url("**/book/intro.html")
