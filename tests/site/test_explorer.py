"""The explorer of the Welcome page: its numbers, what a reader can do with it, and its look."""

import statistics
from urllib.parse import parse_qs

import checks
import numpy as np
import pytest
from built import LAPTOP, PAGES, PHONE, SITE

from kd_notes import kd_grad, kd_loss, softmax

NAME = "book/intro.html"
CLASSES = ["cat", "dog", "fox", "car", "bus"]
TEACHER = [5.03, 4, 2.2, 0, -1]
AT_FIRST = [2, 6, 1, 1, 0]
SHIFTED = [8.03, 7, 5.2, 3, 2]
SURE = [10, 0, 0, 0, 0]
FAR = [-4, 9.5, 0, 3.3, -3]
PAIRS = [(AT_FIRST, TEACHER), (FAR, TEACHER), (FAR, SURE), ([10, -4, 10, -4, 10], SURE)]
# Logits have two decimals: this is as near as a student can come without being the teacher.
NEARLY = [5.03, 4, 2.2, 0, -1.01]
TEMPERATURES = ["0.1", "1", "4", "100", "10000", "inf"]
DIVERGENCES = ["forward_kl", "reverse_kl", "jensen_shannon"]
NOW = "document.querySelector('.explorer').now"


@pytest.fixture
def explorer(visit, disk):
    return visit(NAME, disk)


def show(page, **state):
    """Set the state by an address."""
    state = {key: ",".join(map(str, x)) if isinstance(x, list) else x for key, x in state.items()}
    page.evaluate("hash => { location.hash = hash }", f"explorer?{query(state)}")
    page.wait_for_function(f"{NOW} !== window.last && (window.last = {NOW})")


def query(state):
    return "&".join(f"{key}={value}" for key, value in state.items())


def now(page):
    return page.evaluate(NOW)


def shown(page, name):
    return page.locator(f".explorer .shown-{name}").text_content()


def state(page):
    """What the address says, as it stands."""
    _, _, parameters = page.evaluate("location.hash").partition("?")
    return {key: values[0] for key, values in parse_qs(parameters).items()}


def dial(page):
    return page.get_by_label("Temperature", exact=True)


def temperature(page):
    return page.locator(".explorer-temperature output").text_content()


def bar(page, network, name):
    return page.get_by_role("slider", name=f"The {network}’s logit of {name}")


def logits(page, network):
    values = [bar(page, network, name).get_attribute("aria-valuenow") for name in CLASSES]
    return [float(value) for value in values]


# Its numbers


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize(("student", "teacher"), [*PAIRS, (NEARLY, TEACHER)])
def test_the_numbers_are_those_of_kd_notes(explorer, student, teacher, divergence):
    for tau in TEMPERATURES:
        show(explorer, tau=tau, student=student, teacher=teacher, divergence=divergence)
        numbers, arguments = now(explorer), (student, teacher, float(tau))
        np.testing.assert_allclose(numbers["teacher"], softmax(teacher, float(tau)), rtol=1e-13)
        np.testing.assert_allclose(numbers["student"], softmax(student, float(tau)), rtol=1e-13)
        loss = kd_loss(*arguments, divergence=divergence)
        assert numbers["loss"] == pytest.approx(loss, rel=1e-12, abs=0)
        gradient = kd_grad(*arguments, divergence=divergence)
        rounding = max(1e-12 * np.abs(gradient).max(), 1e-15)  # where all of it is less
        np.testing.assert_allclose(numbers["gradient"], gradient, rtol=1e-12, atol=rounding)


def test_without_its_square_the_temperature_divides_twice(explorer):
    for tau in TEMPERATURES[:-1]:
        show(explorer, tau=tau, squared="no")
        numbers, arguments = now(explorer), (AT_FIRST, TEACHER, float(tau))
        assert numbers["loss"] == pytest.approx(
            kd_loss(*arguments, scaled=False), rel=1e-12, abs=0
        )
        gradient = kd_grad(*arguments, scaled=False)
        np.testing.assert_allclose(numbers["gradient"], gradient, rtol=1e-12)
        limit = kd_loss(AT_FIRST, TEACHER, np.inf) / float(tau) ** 2
        assert numbers["limit"] == pytest.approx(limit, rel=1e-13, abs=0)


@pytest.mark.parametrize("divergence", ["forward_kl", "reverse_kl"])
@pytest.mark.parametrize(("student", "teacher"), PAIRS)
def test_the_bounds_are_those_of_proposition_8(explorer, student, teacher, divergence):
    limit = kd_loss(student, teacher, np.inf)
    widest = max(np.ptp(student), np.ptp(teacher))
    for tau in TEMPERATURES:
        show(explorer, tau=tau, student=student, teacher=teacher, divergence=divergence)
        numbers, factor = now(explorer), np.exp(widest / float(tau))
        assert numbers["limit"] == pytest.approx(limit, rel=1e-13, abs=0)
        assert numbers["low"] == pytest.approx(limit / factor, rel=1e-12, abs=0)
        assert numbers["high"] == pytest.approx(limit * factor, rel=1e-12, abs=0)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_what_is_written_has_no_digit_of_noise(explorer, divergence):
    for tau in TEMPERATURES:
        show(explorer, tau=tau, divergence=divergence)
        loss = kd_loss(AT_FIRST, TEACHER, float(tau), divergence=divergence)
        assert shown(explorer, "loss") == f"{loss:.4f}"
        assert shown(explorer, "limit") == f"{kd_loss(AT_FIRST, TEACHER, np.inf):.4f}"
        gradient = kd_grad(AT_FIRST, TEACHER, float(tau), divergence=divergence)
        written = explorer.locator(".explorer-gradient .value").all_text_contents()
        expected = [f"{value:.3f}".replace("-0.000", "0.000") for value in gradient]
        assert written == [text.replace("-", "−") for text in expected]
        p = softmax([TEACHER, AT_FIRST], float(tau)).T.ravel()
        written = explorer.locator(".explorer-probabilities .value").all_text_contents()
        assert written == [f"{value:.2f}" for value in p]


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_networks_that_agree_have_no_loss(explorer, divergence):
    for preset in ("agree", "shifted"):
        for tau in TEMPERATURES:
            show(explorer, preset=preset, tau=tau, divergence=divergence)
            numbers = now(explorer)
            assert numbers["loss"] == numbers["limit"] == 0
            assert not np.any(numbers["gradient"])
            assert shown(explorer, "loss") == "0.0000"


def test_a_small_loss_is_written_with_its_power_of_ten(explorer):
    show(explorer, tau="10000", squared="no")
    loss = kd_loss(AT_FIRST, TEACHER, 1e4, scaled=False)
    digits, power = f"{loss:.1e}".split("e-0")
    assert shown(explorer, "loss") == f"{digits} × 10⁻{'⁰¹²³⁴⁵⁶⁷⁸⁹'[int(power)]}"


def test_the_picture_shows_the_same_example(explorer):
    says = explorer.locator(".distillation").text_content()
    p = softmax(TEACHER)
    assert f"cat the probability {p[0]:.2f}" in says.replace("\n", " ")
    assert f"= {kd_loss(AT_FIRST, TEACHER, 4):.2f}" in says
    explorer.reload()
    drawn = explorer.locator(".distillation svg text").all_text_contents()
    beside = explorer.locator(".explorer-probabilities .value").all_text_contents()
    assert [text for text in drawn if text.startswith("0.")] == beside[0::2] + beside[1::2]


# What a reader can do


def test_keys_move_the_temperature(explorer):
    for slider in (dial(explorer), explorer.get_by_label("Temperature, on the curve")):
        explorer.get_by_role("button", name="Reset").press("Enter")
        assert temperature(explorer) == "τ = 4"
        slider.press("ArrowRight")
        assert temperature(explorer) == "τ = 4.5"
        slider.press("End")
        assert temperature(explorer) == "τ = ∞"
        assert slider.get_attribute("aria-valuetext") == "τ = infinity"
        assert now(explorer)["low"] == now(explorer)["loss"] == now(explorer)["high"]
        slider.press("Home")
        assert temperature(explorer) == "τ = 0.1"


@pytest.mark.parametrize("network", ["teacher", "student"])
def test_keys_move_a_logit(explorer, network):
    before = now(explorer)["gradient"]
    slider = bar(explorer, network, "dog")
    start = float(slider.get_attribute("aria-valuenow"))
    for key, expected in [
        ("ArrowRight", start + 0.1),
        ("ArrowDown", start),
        ("PageUp", start + 1),
        ("Home", -4),
        ("PageDown", -4),
        ("End", 10),
        ("ArrowUp", 10),
    ]:
        slider.press(key)
        assert float(slider.get_attribute("aria-valuenow")) == pytest.approx(expected)
    moved = np.sign(np.subtract(now(explorer)["gradient"], before))
    assert moved.tolist() == ([1, -1, 1, 1, 1] if network == "teacher" else [-1, 1, -1, -1, -1])


def press_and_move(page, locator, *across, y=None):
    """Press the mouse on an element, and move it to places across its drawing."""
    locator.scroll_into_view_if_needed()
    box = locator.bounding_box()
    svg = locator.locator("xpath=ancestor-or-self::*[name()='svg'][1]").bounding_box()
    height = y or box["y"] + box["height"] / 2
    for n, part in enumerate(across):
        page.mouse.move(svg["x"] + part * svg["width"], height, steps=5)
        if n == 0:
            page.mouse.down()


@pytest.mark.parametrize("width", [PHONE, LAPTOP])
def test_the_mouse_drags_a_bar(visit, width):
    page = visit(NAME, width=width)
    press_and_move(page, bar(page, "student", "cat").locator(".handle"), 0.4, 0.8)
    page.mouse.up()
    expected = -4 + 14 * 0.8
    assert logits(page, "student") == pytest.approx([expected, 6, 1, 1, 0], abs=0.06)
    assert now(page)["loss"] == pytest.approx(
        kd_loss(logits(page, "student"), TEACHER, 4), rel=1e-12
    )


@pytest.mark.parametrize("width", [PHONE, LAPTOP])
def test_the_mouse_drags_the_point_on_the_curve(visit, width):
    page = visit(NAME, width=width)
    handle = page.get_by_label("Temperature, on the curve").locator(".handle")
    press_and_move(page, handle, 0.188 * (1 + np.log10(4)), 0.188 * 3)
    assert temperature(page) == "τ = 100"
    page.mouse.move(width - 1, 1)
    assert temperature(page) == "τ = ∞"
    page.mouse.up()
    assert state(page) == {"tau": "inf"}


def test_the_axes_stand_still_until_the_bar_is_let_go(visit):
    page = visit(NAME, width=LAPTOP)
    ticks = page.locator(".explorer .tick")
    before = ticks.all_text_contents()
    press_and_move(page, bar(page, "student", "dog").locator(".handle"), 0.7, 0.99)
    assert logits(page, "student")[1] > 9
    assert ticks.all_text_contents() == before
    page.mouse.up()
    assert ticks.all_text_contents() != before


def test_no_temperature_moves_the_axes(explorer):
    ticks = explorer.locator(".explorer .tick")
    before = ticks.all_text_contents()
    for key in ("Home", "PageUp", "PageUp", "End"):
        dial(explorer).press(key)
        assert ticks.all_text_contents() == before


@pytest.fixture
def touched(browser, address):
    """A phone, and a function that puts a finger down and moves it by so many pixels."""
    window = {"width": PHONE, "height": 800}
    page = browser.new_page(viewport=window, has_touch=True, is_mobile=True)
    page.goto(address + NAME)
    session = page.context.new_cdp_session(page)

    def swipe(locator, across, down):
        locator.scroll_into_view_if_needed()
        box = locator.bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        for n in range(11):
            kind = "touchMove" if n else "touchStart"
            at = [{"x": x + across * n / 10, "y": y + down * n / 10}]
            session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": at})
        session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

    yield page, swipe
    page.close()


def test_a_finger_drags_a_bar_and_the_point(touched):
    page, swipe = touched
    swipe(bar(page, "teacher", "fox").locator(".handle"), 60, 4)
    assert logits(page, "teacher")[2] > 4
    assert logits(page, "student") == AT_FIRST
    swipe(page.get_by_label("Temperature, on the curve").locator(".handle"), 100, 4)
    assert float(temperature(page).removeprefix("τ = ")) > 10


def test_a_finger_that_scrolls_moves_no_bar(touched):
    page, swipe = touched
    before = page.evaluate("scrollY")
    swipe(bar(page, "student", "cat").locator(".handle"), 60, -200)
    page.wait_for_function("before => scrollY > before + 50", arg=before)
    assert logits(page, "student") == AT_FIRST


@pytest.mark.parametrize(
    ("name", "teacher", "student"),
    [
        ("They agree", TEACHER, TEACHER),
        ("Shifted by 3", TEACHER, SHIFTED),
        ("A sure teacher", SURE, AT_FIRST),
    ],
)
def test_a_preset_sets_the_logits_and_reset_all(explorer, name, teacher, student):
    dial(explorer).press("End")
    explorer.get_by_role("switch").uncheck()
    explorer.get_by_label("Divergence").select_option("reverse_kl")
    explorer.get_by_role("button", name=name).click()
    assert (logits(explorer, "teacher"), logits(explorer, "student")) == (teacher, student)
    assert temperature(explorer) == "τ = ∞"
    explorer.get_by_role("button", name="Reset").click()
    assert (logits(explorer, "teacher"), logits(explorer, "student")) == (TEACHER, AT_FIRST)
    assert temperature(explorer) == "τ = 4"
    assert explorer.get_by_role("switch").is_checked()
    assert explorer.get_by_label("Divergence").input_value() == "forward_kl"
    assert explorer.evaluate("location.hash") == "#explorer"


def test_moving_all_logits_together_changes_nothing_else(explorer):
    before = now(explorer)
    raised = explorer.get_by_role("button", name="Raise all")
    for n in range(1, 8):
        raised.click()
        assert logits(explorer, "student") == [z + min(n, 4) for z in AT_FIRST]  # up to 10
        for key in ("loss", "gradient"):
            np.testing.assert_allclose(now(explorer)[key], before[key], rtol=1e-13)
    explorer.get_by_role("button", name="Lower all").click()
    assert logits(explorer, "student") == [z + 3 for z in AT_FIRST]


def test_a_teacher_at_the_end_of_the_axis_is_shifted_as_far_as_it_reaches(explorer):
    show(explorer, preset="shifted", teacher=[8, 0, 0, 0, -4])
    assert logits(explorer, "student") == [10, 2, 2, 2, -2]
    assert now(explorer)["loss"] == 0


def test_networks_that_are_sure_of_the_same_class_keep_all_digits(explorer):
    student, teacher = [9, 0, 0, 0, 0], [10, 0, 0, 0, 0]
    for divergence in DIVERGENCES:
        show(explorer, tau="0.1", student=student, teacher=teacher, divergence=divergence)
        loss = kd_loss(student, teacher, 0.1, divergence=divergence)
        assert 0 < loss < 1e-35
        assert now(explorer)["loss"] == pytest.approx(loss, rel=1e-12, abs=0)


def test_the_address_holds_the_state(explorer):
    bar(explorer, "student", "cat").press("End")
    dial(explorer).press("End")
    explorer.get_by_label("Divergence").select_option("jensen_shannon")
    explorer.get_by_role("switch").uncheck()
    assert state(explorer) == {
        "student": "10,6,1,1,0",
        "tau": "inf",
        "divergence": "jensen_shannon",
        "squared": "no",
    }
    before = now(explorer)
    explorer.reload()
    assert now(explorer) == before
    assert explorer.get_by_label("Divergence").input_value() == "jensen_shannon"
    assert explorer.locator(".explorer").bounding_box()["y"] < 100  # the page begins there


@pytest.mark.parametrize(
    "parameter",
    [
        *("tau=0", "tau=-1", "tau=x", "tau="),
        *("student=1,2", "student=a,b,c,d,e", "teacher=1,2,3,4,Infinity"),
        *("divergence=constructor", "preset=__proto__", "squared=maybe", "other=1"),
    ],
)
def test_an_address_that_makes_no_sense_changes_nothing(visit, parameter):
    page = visit(f"{NAME}#explorer?{parameter}")
    assert now(page)["loss"] == pytest.approx(kd_loss(AT_FIRST, TEACHER, 4), rel=1e-12, abs=0)
    assert page.said == []


def test_an_address_beyond_the_axes_is_cut_off(visit):
    page = visit(f"{NAME}#explorer?student=99,-99,1.23456,0,0&tau=1e9")
    assert logits(page, "student") == [10, -4, 1.23, 0, 0]
    assert temperature(page) == "τ = 10000"


def test_sentences_set_the_state(visit):
    page = visit(NAME)
    links = page.locator("article a[href^='#explorer?']")
    states, before = [], page.evaluate("history.length")
    for link in links.all():
        link.click()
        assert page.locator(".explorer").bounding_box()["y"] < 400
        states.append(state(page))
    assert len(states) >= 5
    assert {"tau": "inf"} in states
    assert {"student": "8.03,7,5.2,3,2"} in states
    assert {"tau": "1", "teacher": "10,0,0,0,0"} in states
    assert len({str(state) for state in states}) == len(states)
    links.first.press("Enter")  # by keyboard too
    assert state(page) == states[0]
    assert page.evaluate("history.length") == before  # one step back leaves the page


# What it costs, and how it looks

# Milliseconds of updates, each with its layout: the temperature is moved, or a logit.
TIMES = """selector => {
    const slider = document.querySelector(selector)
    const key = new KeyboardEvent('keydown', {key: 'ArrowRight'})
    return Array.from({length: 100}, (_, n) => {
        const start = performance.now()
        if (slider.max) slider.value = n
        slider.dispatchEvent(slider.max ? new Event('input') : key)
        document.querySelector('.explorer-loss').getBoundingClientRect()
        return performance.now() - start
    })
}"""


@pytest.mark.parametrize("selector", ["#explorer-tau", ".explorer [data-kind=student]"])
def test_an_update_takes_less_than_a_frame_on_a_phone(explorer, selector):
    session = explorer.context.new_cdp_session(explorer)
    session.send("Emulation.setCPUThrottlingRate", {"rate": 4})
    fastest_tenth, *_ = statistics.quantiles(explorer.evaluate(TIMES, selector), n=10)
    assert fastest_tenth < 1000 / 60  # the others may have waited for other processes


def test_it_is_small_and_no_other_page_loads_it():
    script, style = (SITE / "_static" / f"explorer.{kind}" for kind in ("js", "css"))
    assert script.stat().st_size + style.stat().st_size < 25_000
    assert script.stat().st_size < 18_000
    pages = [page for page in SITE.rglob("*.html") if "explorer.js" in page.read_text()]
    assert pages == [SITE / NAME]
    assert NAME in PAGES


def test_it_asks_nobody_and_says_nothing(visit, address, disk):
    for base in (address, disk):
        page = visit(NAME, base)
        dial(page).press("End")
        page.get_by_role("button", name="A sure teacher").click()
        assert checks.foreign_requests(page, (base,)) == []
        assert page.said == []


@pytest.mark.parametrize("width", [PHONE, LAPTOP])
def test_it_is_the_first_thing_on_the_page(visit, width):
    page = visit(NAME, width=width)
    drawings = page.locator("article svg:not(.explorer svg, a svg, mjx-container svg)").all()
    explorer = page.locator(".explorer").bounding_box()["y"]
    assert all(drawing.bounding_box()["y"] > explorer for drawing in drawings)
    bars = page.locator(".explorer-logits svg").bounding_box()
    assert bars["y"] < 420
    assert bars["y"] + bars["height"] < 750  # a phone shows all of them, below its browser's bar


@pytest.mark.parametrize("width", [PHONE, LAPTOP])
def test_it_fits_the_window(visit, width):
    page = visit(NAME, width=width)
    box = page.locator(".explorer").bounding_box()
    assert box["x"] + box["width"] <= width
    for svg in page.locator(".explorer svg").all():
        inside = svg.bounding_box()
        assert inside["x"] >= box["x"]
        assert inside["x"] + inside["width"] <= box["x"] + box["width"] + 1


OVERLAPS = """() => {
    const boxes = [...document.querySelectorAll('.explorer svg text')]
        .map(text => [text.textContent, text.getBoundingClientRect()])
    return boxes.flatMap(([a, x], n) => boxes.slice(n + 1)
        .filter(([b, y]) => x.left < y.right - 1 && y.left < x.right - 1
            && x.top < y.bottom - 3 && y.top < x.bottom - 3)
        .map(([b]) => a + ' and ' + b))
}"""
UNDER_MARKS = """() => [...document.querySelectorAll('.limit-mark')].map((mark, k) => {
    const x = mark.getBoundingClientRect().left
    const value = document.querySelectorAll('.explorer-gradient .value')[k]
    const box = value.getBoundingClientRect()
    return x > box.left && x < box.right ? value.textContent : null
}).filter(text => text)"""
OUTSIDE = """() => [...document.querySelectorAll('.explorer svg text')].filter(text => {
    const [inner, outer] = [text, text.closest('.explorer')].map(e => e.getBoundingClientRect())
    return inner.left < outer.left - 1 || inner.right > outer.right + 1
}).map(text => text.textContent)"""


@pytest.mark.parametrize("width", [PHONE, LAPTOP])
def test_no_text_covers_another_or_leaves_the_page(visit, width):
    page = visit(NAME, width=width)
    for student, teacher in PAIRS:
        for tau in TEMPERATURES:
            show(page, tau=tau, student=student, teacher=teacher)
            assert page.evaluate(OVERLAPS) == []
            assert page.evaluate(UNDER_MARKS) == []
            assert page.evaluate(OUTSIDE) == []


def test_without_scripts_the_picture_remains(browser, address):
    page = browser.new_page(java_script_enabled=False)
    page.goto(address + NAME)
    assert page.locator(".distillation svg").is_visible()
    assert "needs JavaScript" in page.locator("noscript").inner_text()
    page.close()


MARKS = [
    ".explorer .value",
    ".explorer [data-kind=teacher] .bar",
    "path.loss",
    ".distillation text",
]


@pytest.mark.parametrize("mark", MARKS)
def test_the_drawing_follows_the_theme(explorer, mark):
    colors = set()
    for theme in ("light", "dark"):
        explorer.evaluate(f"document.documentElement.dataset.theme = '{theme}'")
        look = "e => getComputedStyle(e).fill + getComputedStyle(e).stroke"
        colors.add(explorer.locator(mark).first.evaluate(look))
    assert len(colors) == 2


def test_everything_has_a_name(explorer):
    names = explorer.locator(".explorer label").all_text_contents()
    assert [name.split(" ")[0] for name in names] == ["Temperature", "Divergence", ""]
    assert explorer.get_by_role("switch", name="times τ²").count() == 1
    assert explorer.get_by_role("slider").count() == 2 + 2 * len(CLASSES)
    bars = explorer.get_by_role("img", name="Bars: ")
    for svg, value in zip(bars.all(), ["Teacher: cat 0.36", "cat −0.763"], strict=True):
        assert value in svg.get_attribute("aria-label")
