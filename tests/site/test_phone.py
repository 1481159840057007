"""On a phone nothing is cut without a sign of it, and less and less has to be scrolled."""

import checks
import pytest
from built import LAPTOP, PAGES

# In how many blocks of code or output, folded ones included, a line is wider than the window,
# where any is. A page may have fewer; lower its number then.
SCROLLED_CODE = {
    "book/api.html": 37,
    "book/conventions.html": 23,
    "book/intro.html": 1,
    "book/outputs.html": 1,
    "book/questions.html": 22,
    "book/training.html": 3,
    "notebooks/01_softmax_and_temperature.html": 30,
    "notebooks/02_learning_from_labels.html": 31,
    "notebooks/03_softer_labels.html": 29,
    "notebooks/04_the_distillation_gradient.html": 22,
    "notebooks/05_infinite_temperature.html": 22,
    "notebooks/06_every_temperature.html": 25,
    "notebooks/07_distillation_as_regularization.html": 40,
    "notebooks/08_every_divergence.html": 18,
    "notebooks/09_half_a_teacher.html": 16,
    "notebooks/10_two_temperatures.html": 18,
    "notebooks/11_distilling_a_network.html": 45,
    "notebooks/12_in_pytorch.html": 18,
    "notebooks/13_which_loss_is_this.html": 69,
    "notebooks/14_a_numerical_core.html": 42,
    "notebooks/15_one_pass.html": 31,
}


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


def test_no_more_code_scrolls_than_did(page, name):
    assert len(checks.scrolled_code(page)) <= SCROLLED_CODE.get(name, 0)


def test_what_scrolls_fades(page):
    assert checks.scrolled_without_fade(page) == []


def test_names_in_tables_are_in_one_piece(page):
    assert checks.broken_names(page) == []


def test_the_fade_is_where_more_is(visit):
    page = visit("notebooks/01_softmax_and_temperature.html")
    code = page.locator("pre.more-right").first
    has = "(pre, edge) => pre.classList.contains(edge)"
    assert [code.evaluate(has, edge) for edge in ("more-left", "more-right")] == [False, True]
    code = code.element_handle()
    code.evaluate("pre => pre.scrollTo(pre.scrollWidth, 0)")
    page.locator("pre.more-left").wait_for()
    assert not code.evaluate(has, "more-right")


@pytest.mark.parametrize(("width", "display"), [(390, "block"), (LAPTOP, "table-cell")])
def test_a_table_far_too_wide_for_a_phone_is_a_list_there(visit, width, display):
    cell = visit("book/notation.html", width=width).locator("main td").first
    assert cell.evaluate("cell => getComputedStyle(cell).display") == display


def test_a_list_repeats_the_heads_of_its_table(visit):
    page = visit("book/equations.html")
    last = page.locator("table.listed td:last-child").first
    content = "cell => getComputedStyle(cell, '::before').content"
    assert last.evaluate(content).startswith('"computed and tested by')
