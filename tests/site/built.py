"""The built site as the tests see it."""

from pathlib import Path

SITE = Path(__file__).parents[2] / "_build" / "html"
PICTURES = SITE.parent / "pictures"  # of pages, where a test failed
PAGES = sorted(
    str(page.relative_to(SITE))
    for folder in ("book", "notebooks")
    for page in SITE.glob(f"{folder}/*.html")
)
OTHERS = ["search.html"]
PHONE, LAPTOP = 390, 1280
