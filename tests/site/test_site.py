"""The built site in a real browser, without a network.

`make site-test` runs these on what `make book` built; they are no part of `make test`,
which needs neither a site nor a browser.
"""

import functools
import http.server
import shutil
import threading
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

SITE = Path(__file__).parents[2] / "_build" / "html"
PAGES = sorted(
    str(page.relative_to(SITE))
    for folder in ("book", "notebooks")
    for page in SITE.glob(f"{folder}/*.html")
)


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture(scope="session")
def address():
    handler = functools.partial(QuietHandler, directory=SITE)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="session")
def browser():
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    assert chromium, "the site tests need a browser: install Debian's chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, address):
    """Open a page; what the browser asked for and said is on the page's lists."""
    context = browser.new_context(viewport={"width": 390, "height": 800})

    def visit(name):
        page = context.new_page()
        page.requested, page.said = [], []
        page.on("request", lambda request: page.requested.append(request.url))
        page.on("console", lambda m: page.said.append(m.text) if m.type != "log" else None)
        page.on("pageerror", lambda error: page.said.append(str(error)))
        page.goto(address + name)
        page.evaluate("async () => { await window.MathJax?.startup.promise }")
        return page

    yield visit
    context.close()


def test_the_site_has_been_built():
    assert "notebooks/05_infinite_temperature.html" in PAGES


@pytest.mark.parametrize("name", PAGES)
def test_a_page_asks_nobody_else_and_says_no_error(visit, address, name):
    page = visit(name)
    local = (address, "data:", "blob:")
    assert [url for url in page.requested if not url.startswith(local)] == []
    assert page.said == []


@pytest.mark.parametrize("name", PAGES)
def test_every_formula_is_typeset(visit, name):
    page = visit(name)
    formulas = page.locator(".math").count()
    assert page.locator(".math mjx-container").count() >= formulas
    assert page.locator("mjx-merror").count() == 0


@pytest.mark.parametrize("name", PAGES)
def test_no_page_is_wider_than_a_phone(visit, name):
    assert visit(name).evaluate("document.documentElement.scrollWidth") <= 390
