"""Print the whole book as one PDF: `make pdf`, after `make book`.

The pages follow each other in the order of the contents, solutions open. Code that the pages
fold, checks and plots, is left out: on paper nobody could unfold it, and the site has it.
"""

import posixpath
import shutil
from pathlib import Path
from urllib.parse import urlsplit

from bs4 import BeautifulSoup
from playwright.sync_api import sync_playwright

SITE = Path(__file__).parents[1] / "_build" / "html"
FIRST = "book/intro.html"
PRINTED = SITE / "kd-notes.pdf"
# The theme prints a title and a table of contents of its own in the place of a page's title.
UNPRINTED = "#jb-print-docs-body, .prev-next-footer, .bd-sidebar-secondary"
STYLE = """
.bd-main .bd-content .bd-article h1:first-of-type { display: block; }
article + article { break-before: page; }
"""
PAGE_NUMBER = '<p style="font-size: 8px; width: 100%; text-align: center" class="pageNumber"></p>'
READY = """async () => {
    document.querySelectorAll("details").forEach(fold => { fold.open = true })
    await MathJax.startup.promise
    await document.fonts.ready
}"""


def parsed(name: str) -> BeautifulSoup:
    """Return a page of the site."""
    return BeautifulSoup((SITE / name).read_text(), "html.parser")


def pages() -> list[str]:
    """Return the pages in the order of the book."""
    links = parsed(FIRST).select("nav.bd-links a.internal[href$='.html']")
    return [FIRST, *(posixpath.normpath(f"book/{link['href']}") for link in links)]


def place(name: str, fragment: str = "") -> str:
    """Return the id that a place of a page has in the whole book."""
    page = name.removesuffix(".html").replace("/", "-")
    if not fragment:
        return page
    return fragment if name == FIRST else f"{page}--{fragment}"


def article(name: str, names: list[str]) -> BeautifulSoup:
    """Return the text of a page, whose links to others lead to places of the whole book."""
    text = parsed(name).select_one("article")
    for tag in text.select(".headerlink, details.hide, script:not([src])"):
        tag.decompose()
    for tag in text.select("[id]"):
        tag["id"] = place(name, tag["id"])
    for link in text.select("a[href]"):
        url = urlsplit(link["href"])
        target = posixpath.normpath(f"{posixpath.dirname(name)}/{url.path}") if url.path else name
        if not url.scheme and target in names:
            link["href"] = "#" + place(target, url.fragment)
    text["id"] = place(name)
    return text


def whole_book() -> str:
    """Return all pages as one, which may stand beside the first."""
    book, names = parsed(FIRST), pages()
    for tag in book.select(f"body script, {UNPRINTED}"):
        tag.decompose()
    book.title.string = "kd-notes"
    book.head.append(style := book.new_tag("style"))
    style.string = STYLE
    first = book.select_one("article")
    first.insert_after(*(article(name, names) for name in names))
    first.decompose()
    return str(book)


def main() -> None:
    """Write `kd-notes.pdf` beside the site's front page."""
    page_file = (SITE / FIRST).with_name("whole-book.html")
    page_file.write_text(whole_book())
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(color_scheme="light")
        page.goto(page_file.as_uri(), timeout=600_000)
        page.evaluate(READY)
        page.pdf(
            path=PRINTED,
            format="A4",
            margin=dict.fromkeys(("top", "right", "bottom", "left"), "18mm"),
            display_header_footer=True,
            header_template="<span></span>",
            footer_template=PAGE_NUMBER,
            outline=True,
            tagged=True,  # or there is no outline
        )
        browser.close()
    page_file.unlink()


if __name__ == "__main__":
    main()
