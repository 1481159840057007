"""Every link, anchor, image and equation number in the built pages leads where it says."""

import checks
import pytest
from built import OTHERS, PAGES, SITE

each_page = pytest.mark.parametrize("name", PAGES + OTHERS)


@each_page
def test_every_link_leads_somewhere(name):
    assert checks.dangling(SITE / name) == []


@each_page
def test_every_equation_is_called_by_its_number(name):
    assert checks.misnumbered(SITE / name) == []


def test_there_are_links_between_chapters_to_equations():
    links = [a for name in PAGES for a in checks.links(SITE / name) if "html#equation-" in a]
    assert links


def test_every_icon_is_in_the_subset():
    pages = [checks.parsed(SITE / name) for name in PAGES + OTHERS]
    classes = {c for page in pages for tag in page.select("[class*=fa-]") for c in tag["class"]}
    icons = {name for name in classes if name.startswith("fa-")}
    rules = (SITE / "_static" / "icons.css").read_text()
    assert {"fa-download", "fa-bars"} < icons
    assert [icon for icon in icons if f".{icon}" not in rules] == []
