"""What a page says of itself to search engines, and to whoever previews a link to it."""

import checks
import pytest
from built import PAGES, SITE


def description(name):
    return checks.parsed(SITE / name).select_one("meta[name=description]")["content"]


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_a_title_and_a_description(name):
    assert checks.parsed(SITE / name).title.text.strip().endswith(" — kd-notes")
    assert 40 <= len(description(name)) <= 200


def test_no_two_pages_have_the_same_description():
    assert len({description(name) for name in PAGES}) == len(PAGES)
