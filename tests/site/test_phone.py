"""On a phone nothing is cut without a sign of it, and less and less has to be scrolled."""

import checks
import pytest
from built import LAPTOP, PAGES

# Code is wrapped. In how many outputs, folded ones included, a line is wider than the window,
# where any is. A page may have fewer; lower its number then.
SCROLLED_OUTPUTS = {
    "notebooks/14_a_numerical_core.html": 4,
    "notebooks/15_one_pass.html": 2,
}

# Where each drawn line of a line of code begins, from the left of the code.
LEFTS = """line => {
    const left = line.getBoundingClientRect().left, lefts = new Map()
    const walker = document.createTreeWalker(line, NodeFilter.SHOW_TEXT)
    for (let text; (text = walker.nextNode());)
        for (let i = 0; i < text.length; i++) {
            if (!text.data[i].trim()) continue
            const range = document.createRange()
            range.setStart(text, i)
            range.setEnd(text, i + 1)
            const box = range.getBoundingClientRect(), row = Math.round(box.top)
            lefts.set(row, Math.min(lefts.get(row) ?? Infinity, box.left - left))
        }
    return [...lefts.values()]
}"""


# Where the first letter of each line of an output is, and the width of a letter.
FIRST_LETTERS = """output => {
    const boxes = [...output.querySelectorAll('.line')].map(line => {
        const range = document.createRange(), text = line.firstChild.firstChild ?? line.firstChild
        const at = text.data.search(/\\S/)
        range.setStart(text, at)
        range.setEnd(text, at + 1)
        return range.getBoundingClientRect()
    })
    return [boxes.map(box => box.left), boxes[0].width]
}"""


@pytest.fixture(scope="module", params=PAGES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def page(name, open_page, address):
    page = open_page(address + name)
    yield page
    page.close()


def test_no_formula_is_cut(page):
    assert checks.cut_formulas(page) == []


def test_no_more_outputs_scroll_than_did(page, name):
    assert len(checks.scrolled_code(page)) <= SCROLLED_OUTPUTS.get(name, 0)


def test_what_scrolls_fades(page):
    assert checks.scrolled_without_fade(page) == []


def test_names_in_tables_are_in_one_piece(page):
    assert checks.broken_names(page) == []


def test_the_fade_is_where_more_is(visit):
    page = visit("notebooks/15_one_pass.html")
    output = page.locator("pre.more-right").first
    has = "(pre, edge) => pre.classList.contains(edge)"
    assert [output.evaluate(has, edge) for edge in ("more-left", "more-right")] == [False, True]
    output = output.element_handle()
    output.evaluate("pre => pre.scrollTo(pre.scrollWidth, 0)")
    page.locator("pre.more-left").wait_for()
    assert not output.evaluate(has, "more-right")


def test_a_line_of_code_goes_on_four_characters_further_right_than_it_begins(visit):
    line = (
        visit("notebooks/12_in_pytorch.html").locator(".line", has_text="torch.optim.AdamW").first
    )
    assert line.text_content().startswith("    optimizer = ")
    lefts = line.evaluate(LEFTS)
    width = line.evaluate("line => parseFloat(getComputedStyle(line).paddingLeft)") / 8
    assert len(lefts) > 1
    assert lefts == pytest.approx([4 * width] + [8 * width] * (len(lefts) - 1), abs=1)


@pytest.mark.parametrize(("width", "display"), [(390, "block"), (LAPTOP, "table-cell")])
def test_a_table_far_too_wide_for_a_phone_is_a_list_there(visit, width, display):
    cell = visit("book/notation.html", width=width).locator("main td").first
    assert cell.evaluate("cell => getComputedStyle(cell).display") == display


def test_a_list_repeats_the_heads_of_its_table(visit):
    page = visit("book/equations.html")
    last = page.locator("table.listed td:last-child").first
    content = "cell => getComputedStyle(cell, '::before').content"
    assert last.evaluate(content).startswith('"computed and tested by')


def test_what_code_prints_keeps_its_columns(visit):
    page = visit("notebooks/15_one_pass.html")
    output = page.locator(".output pre", has_text=" move  exp grad")
    lefts, width = output.evaluate(FIRST_LETTERS)
    lines = output.text_content().splitlines()
    expected = [(len(line) - len(line.lstrip(" "))) * width for line in lines]
    assert len({*expected}) == 3
    assert [left - min(lefts) for left in lefts] == pytest.approx(expected, abs=1)
