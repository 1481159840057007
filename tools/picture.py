"""Take the README's screenshots of the site: `python tools/picture.py`, after `make book`."""

import shutil
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "_build" / "html" / "book" / "intro.html"


def main() -> None:
    """Write `book/picture-light.png` and `book/picture-dark.png`."""
    with sync_playwright() as playwright:
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for theme in ("light", "dark"):
            page = browser.new_page(
                viewport={"width": 1280, "height": 1250},  # all of the explorer fits
                color_scheme=theme,
                reduced_motion="reduce",  # without smooth scrolling, which may not finish
            )
            page.goto(PAGE.as_uri())
            page.evaluate("async () => { await window.MathJax?.startup.promise }")
            page.evaluate("async () => { await document.fonts.ready }")
            file = ROOT / "book" / f"picture-{theme}.png"
            page.screenshot(path=file, animations="disabled")
        browser.close()


if __name__ == "__main__":
    main()
