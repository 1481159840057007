"""The built site from a local server and from disk, in a real browser without a network.

`make site-test` runs the tests in this folder on what `make book` built; they are no part of
`make test`, which needs neither a site nor a browser.
"""

import functools
import http.server
import re
import shutil
import threading

import pytest
from built import PHONE, PICTURES, SITE
from playwright.sync_api import sync_playwright

OPENED = []  # every page of this process


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    """Take a picture of each page that is open where a test fails."""
    report = yield
    if report.when == "call" and report.failed:
        name = re.sub(r"[^\w.-]+", "-", item.nodeid)
        for number, page in enumerate(page for page in OPENED if not page.is_closed()):
            page.screenshot(path=PICTURES / f"{name}-{number}.png")
    return report


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


def said(message):
    return f"{message.text} ({message.location['url']})"


@pytest.fixture(scope="session")
def open_page(browser):
    """Open a page in a window of its own; the caller closes it.

    What the browser asked for and said is on the page's lists. Colors change at once: the
    reader has asked for no motion.
    """

    def open_page(url, width=PHONE, theme="light"):
        window = {"width": width, "height": 800}
        page = browser.new_page(viewport=window, color_scheme=theme, reduced_motion="reduce")
        OPENED.append(page)
        page.set_default_timeout(10_000)
        page.requested, page.said = [], []
        page.on("request", lambda request: page.requested.append(request.url))
        page.on("console", lambda m: page.said.append(said(m)) if m.type != "log" else None)
        page.on("pageerror", lambda error: page.said.append(str(error)))
        page.goto(url)
        page.evaluate("async () => { await window.MathJax?.startup.promise }")
        return page

    return open_page


@pytest.fixture
def visit(open_page, address):
    """Open a page of the site on a phone, from the server."""
    opened = []

    def visit(name, base=address, width=PHONE, theme="light"):
        opened.append(open_page(base + name, width, theme))
        return opened[-1]

    yield visit
    for page in opened:
        page.close()


@pytest.fixture(scope="session")
def disk():
    return SITE.as_uri() + "/"
