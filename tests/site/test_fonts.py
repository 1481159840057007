"""The book's typefaces have every character that a page shows."""

import checks
import pytest
from built import OTHERS, PAGES, SITE

from tools import fonts

IN_FONTS = {*map(chr, fonts.characters(fonts.RANGES)), "\n", "\t"}


@pytest.mark.parametrize("name", PAGES + OTHERS)
def test_the_fonts_have_every_character_of_a_page(name):
    assert set(checks.parsed(SITE / name).text) <= IN_FONTS


def test_the_fonts_have_every_character_that_the_explorer_writes():
    assert set((SITE / "_static" / "explorer.js").read_text()) <= IN_FONTS
