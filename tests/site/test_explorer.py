"""The temperature explorer of the Welcome page: its numbers, its controls and its look."""

import numpy as np
import pytest
from built import PAGES, SITE

from kd_notes import kd_grad, kd_loss, softmax
from kd_notes._book.plotting import TEMPERATURES

NAME = "book/intro.html"
TEACHER = [7, 5, 2, 1, 0]
AT_FIRST = [4, 6, 1, 2, 0]
LAST = len(TEMPERATURES) - 1
PLACES = [0, 20, 32, 60, 80, LAST]

# What is drawn, as the chart's own scene has it: the data behind each mark of one kind.
DRAWN = """([chart, kind]) => {
    const marks = group => group.items.flatMap(item =>
        group.marktype === 'group' ? item.items.flatMap(marks)
        : group.marktype === kind && group.role === 'mark' ? [item.datum] : [])
    return marks(document.querySelector('#explorer-' + chart).view.scenegraph().root)
}"""

SETTLED = """async () => {
    for (const chart of document.querySelectorAll('.explorer-chart > div'))
        await chart.view.runAsync()
}"""


@pytest.fixture
def explorer(visit, disk):
    return opened(visit, disk)


def opened(visit, base):
    page = visit(NAME, base)
    page.wait_for_function("document.querySelector('#explorer-losses').view")
    return page


def dial(page):
    return page.get_by_label("Temperature", exact=True)


def move(page, place, student=()):
    dial(page).fill(str(place))
    for k, logit in enumerate(student, start=1):
        page.get_by_label(f"class {k}").fill(str(logit))
    page.evaluate(SETTLED)


def drawn(page, chart, kind, *fields):
    rows = page.evaluate(DRAWN, [chart, kind])
    return np.array([[row[field] for row in rows] for field in fields])


@pytest.mark.parametrize("student", [AT_FIRST, [-2, 6.3, 1.1, 2, 10], TEACHER])
def test_the_bars_are_those_of_kd_notes(explorer, student):
    for place in PLACES:
        temperature = TEMPERATURES[place]
        move(explorer, place, student)
        p = drawn(explorer, "probabilities", "rect", "p")[0].reshape(5, 2)
        expected = np.transpose([softmax(TEACHER, temperature), softmax(student, temperature)])
        np.testing.assert_allclose(p, expected, rtol=1e-13, atol=0)
        gradient, limit = gradient_bars(explorer)
        expected = kd_grad(student, TEACHER, temperature)
        np.testing.assert_allclose(gradient, expected, rtol=1e-13, atol=rounding(place))
        expected = kd_grad(student, TEACHER, np.inf)
        np.testing.assert_allclose(limit, expected, rtol=0, atol=rounding(LAST))


@pytest.mark.parametrize("student", [AT_FIRST, [-2, 6.3, 1.1, 2, 10], TEACHER])
def test_the_loss_and_its_sandwich_are_those_of_kd_notes(explorer, student):
    limit = kd_loss(student, TEACHER, np.inf)
    widest = max(np.ptp(student), np.ptp(TEACHER))
    for place in PLACES:
        temperature = TEMPERATURES[place]
        move(explorer, place, student)
        low, kd, high = drawn(explorer, "losses", "symbol", "low", "kd", "high")[:, 0]
        expected = kd_loss(student, TEACHER, temperature)
        assert kd == pytest.approx(expected, rel=1e-13, abs=rounding(place))
        factor = np.exp(widest / temperature)
        assert (low, high) == pytest.approx((limit / factor, limit * factor), rel=1e-13)


def gradient_bars(page):
    both = drawn(page, "gradients", "rect", "gradient", "gradient_limit")
    np.testing.assert_array_equal(both[:, :5], both[:, 5:])  # the bars, and the marks
    return both[:, :5]


def rounding(place):
    """What float64 does to the textbook formulas; at infinity the limits have no factor."""
    return 4e-16 * max(1, TEMPERATURES[place] ** 2 if place < LAST else 1)


def test_what_is_written_has_no_digit_of_noise(explorer):
    for place in (80, LAST):
        move(explorer, place, AT_FIRST)
        values = drawn(explorer, "losses", "symbol", "low", "kd", "high", "limit")[:, 0]
        low, kd, high, limit = (f"{value:.4f}" for value in values)
        assert f"{kd_loss(AT_FIRST, TEACHER, TEMPERATURES[place]):.4f}" == kd
        written = explorer.locator("#explorer-losses").text_content()
        assert f"{low} ≤ {kd} ≤ {high}" in written
        assert f"the limit: {limit}" in written
    move(explorer, 80, TEACHER)
    assert "0.0000 ≤ 0.0000 ≤ 0.0000" in explorer.locator("#explorer-losses").text_content()


def test_keys_move_the_temperature(explorer):
    shown = explorer.locator(".explorer-temperature output")
    assert shown.text_content() == "τ = 4"
    before = drawn(explorer, "losses", "symbol", "kd")
    dial(explorer).press("ArrowRight")
    assert shown.text_content() == "τ = 4.5"
    assert drawn(explorer, "losses", "symbol", "kd") < before
    dial(explorer).press("End")
    assert shown.text_content() == "τ = ∞"
    assert dial(explorer).get_attribute("aria-valuetext") == "τ = infinity"
    low, kd, high = drawn(explorer, "losses", "symbol", "low", "kd", "high")
    assert low == kd == high


def test_the_gradient_answers_a_logit(explorer):
    before = gradient_bars(explorer)[0]
    slider = explorer.get_by_label("class 2")
    slider.press("ArrowRight")
    assert slider.locator("+ output").text_content() == "6.1"
    after = gradient_bars(explorer)[0]
    assert np.all((after > before) == [False, True, False, False, False])
    slider.press("Home")
    assert slider.locator("+ output").text_content() == "−2"


def test_the_mouse_drags_to_infinity(explorer):
    dial(explorer).scroll_into_view_if_needed()
    box = dial(explorer).bounding_box()
    explorer.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    explorer.mouse.down()
    explorer.mouse.move(box["x"] + box["width"] + 20, box["y"] + box["height"] / 2, steps=5)
    explorer.mouse.up()
    assert explorer.locator(".explorer-temperature output").text_content() == "τ = ∞"


def test_it_asks_nobody_and_says_nothing(visit, address, disk):
    for base in (address, disk):
        page = opened(visit, base)
        before = len(page.requested)
        move(page, LAST, TEACHER)
        move(page, 0, [10, -2, 10, -2, 10])
        assert page.requested[before:] == []
        assert page.said == []


def test_no_other_page_loads_it():
    with_vega = [page for page in SITE.rglob("*.html") if "vegaEmbed" in page.read_text()]
    assert with_vega == [SITE / NAME]
    assert NAME in PAGES
    assert not [script for script in SITE.rglob("*.js") if "vegaEmbed" in script.read_text()]


def test_without_scripts_there_is_a_picture(browser, address):
    page = browser.new_page(java_script_enabled=False)
    page.goto(address + NAME)
    picture = page.locator("noscript img")
    assert picture.is_visible()
    assert "temperature 4" in picture.get_attribute("alt")
    assert page.locator(".explorer").is_hidden()
    page.close()


@pytest.mark.parametrize("mark", ["text", ".role-axis-domain line", ".layer_1_marks path"])
def test_the_chart_follows_the_theme(explorer, mark):
    colors = []
    for theme in ("light", "dark"):
        explorer.evaluate(f"document.documentElement.dataset.theme = '{theme}'")
        look = "e => [getComputedStyle(e).fill, getComputedStyle(e).stroke]"
        fill, stroke = explorer.locator(f"#explorer-gradients {mark}").first.evaluate(look)
        colors.append(fill if fill != "none" else stroke)
        ink = explorer.locator("#explorer-gradients").evaluate("e => getComputedStyle(e).color")
        assert colors[-1] == ink
    assert len(set(colors)) == 2


def test_the_charts_fit_the_window(visit):
    for width in (390, 1280):
        page = visit(NAME, width=width)
        for chart in page.locator(".explorer-chart").all():
            column, svg = chart.bounding_box(), chart.locator("svg").bounding_box()
            assert column["width"] - 10 <= svg["width"] <= column["width"]
            assert svg["x"] + svg["width"] <= width


def test_every_chart_and_slider_has_a_name(explorer):
    for chart in ("probabilities", "gradients", "losses"):
        description = explorer.locator(f"#explorer-{chart}").get_attribute("aria-label")
        assert description.startswith(("Bars: ", "Curve: "))
    names = explorer.locator(".explorer label").all_text_contents()
    assert names == ["Temperature", *(f"class {k}" for k in range(1, 6))]
