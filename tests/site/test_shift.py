"""Nothing moves under the eyes of who opens the front page."""

import pytest
from built import LAPTOP, PHONE

# How much moves how far, as a part of the window: the sum is called cumulative layout shift.
SHIFT = """() => new Promise(resolve => {
    let sum = 0
    new PerformanceObserver(list => list.getEntries().forEach(entry => sum += entry.value))
        .observe({type: 'layout-shift', buffered: true})
    setTimeout(() => resolve(sum), 500)
})"""


@pytest.mark.parametrize("width", [PHONE, LAPTOP])
def test_nothing_moves(open_page, address, width):
    page = open_page(address + "book/intro.html", width)
    assert page.evaluate(SHIFT) < 0.005
    page.close()
