"""What a page must be: each check returns what it found wrong, so nothing if all is well."""

import functools
import itertools
from urllib.parse import unquote, urlsplit

from axe_playwright_python.sync_playwright import Axe
from bs4 import BeautifulSoup

GRAVE = {"serious", "critical"}
# Without preload: axe would fetch the style sheets again, which a page from disk may not.
AXE_OPTIONS = {"preload": False, "resultTypes": ["violations"], "selectors": False}
# One token of each kind of code is as good as all, and a formula is read as MathML, not as
# glyphs; the thousands of others keep axe busy for a minute.
DROP_REPETITIONS = """() => {
    document.querySelectorAll('mjx-container svg').forEach(svg => svg.replaceChildren())
    const kinds = new Set()
    for (const token of document.querySelectorAll('.highlight pre span[class]:not(.line)'))
        if (kinds.has(token.className)) token.replaceWith(token.textContent)
        else kinds.add(token.className)
}"""

UNTYPESET = """() => [...document.querySelectorAll('.math')].filter(formula =>
    !formula.querySelector('mjx-container svg')
    || formula.querySelector('[data-mml-node=merror], [fill=red]')
).map(formula => formula.outerHTML.slice(0, 200))"""

# An element may be wider than the window inside a box that scrolls.
TOO_WIDE = """() => [...document.querySelectorAll('body *')].filter(element => {
    const scrolls = box => ['auto', 'scroll'].includes(getComputedStyle(box).overflowX)
    for (let box = element.parentElement; box !== document.body; box = box.parentElement)
        if (scrolls(box)) return false
    return element.checkVisibility({visibilityProperty: true})
        && element.getBoundingClientRect().right > innerWidth + 1
}).map(element => element.outerHTML.slice(0, 200))"""

# What is folded is opened: the reader will see it too.
UNFOLD = """() => {
    document.querySelectorAll('details').forEach(fold => { fold.open = true })
    document.querySelectorAll('.toggle-hidden').forEach(e => e.classList.remove('toggle-hidden'))
    return new Promise(done => requestAnimationFrame(() => setTimeout(done, 50)))
}"""

SCROLLED = """() => [...document.querySelectorAll('main pre')]
    .filter(box => box.scrollWidth > box.clientWidth + 1)
    .map(box => box.textContent.slice(0, 80))"""

CUT = """() => [...document.querySelectorAll('.math')].filter(formula => {
    const right = element => element.getBoundingClientRect().right
    const drawn = formula.querySelector('svg')
    return drawn && right(drawn) > 1 + Math.min(right(formula), right(drawn.parentElement))
}).map(formula => formula.textContent.slice(0, 80))"""

# Looked for in all that scrolls sideways, whatever it is.
WITHOUT_FADE = """() => [...document.querySelectorAll('main *')].filter(box =>
    ['auto', 'scroll'].includes(getComputedStyle(box).overflowX)
    && box.scrollWidth > box.clientWidth + 1
    && getComputedStyle(box).maskImage === 'none'
).map(box => box.outerHTML.slice(0, 200))"""

BROKEN_NAMES = """() => {
    const texts = []
    for (const code of document.querySelectorAll('main table code')) {
        const walker = document.createTreeWalker(code, NodeFilter.SHOW_TEXT)
        while (walker.nextNode()) texts.push(walker.currentNode)
    }
    return texts.flatMap(text => [...text.data.matchAll(/[\\w.]+/g)].filter(({0: name, index}) => {
        const range = document.createRange()
        range.setStart(text, index)
        range.setEnd(text, index + name.length)
        return range.getClientRects().length > 1
    }).map(([name]) => name))
}"""

HEADINGS = """() => [...document.querySelectorAll('main :is(h1, h2, h3, h4, h5, h6)')]
    .filter(heading => heading.checkVisibility())
    .map(heading => [Number(heading.tagName[1]), heading.textContent])"""

WITHOUT_ALT = """() => [...document.images].filter(image => !image.alt.trim())
    .map(image => image.outerHTML.slice(0, 200))"""

# Focus is visible if it changes the look of what has it.
WATCH_FOCUS = """() => {
    document.head.insertAdjacentHTML('beforeend',
        '<style>*, *::before, *::after { transition: none !important }</style>')
    const look = element => {
        const style = getComputedStyle(element)
        return [style.outline, style.boxShadow, style.textDecoration, style.backgroundColor,
                style.borderColor, style.opacity].join()
    }
    const controls = 'a[href], button, input, summary, select, textarea'
    window.unreached = new Map([...document.querySelectorAll(controls)]
        .filter(control => control.checkVisibility({visibilityProperty: true})
            && !control.disabled)
        .map(control => [control, look(control)]))
    addEventListener('focusin', ({target}) => {
        if (look(target) !== window.unreached.get(target)) window.unreached.delete(target)
    })
    return [...document.querySelectorAll('*')].filter(element => element.tabIndex >= 0).length
}"""


def foreign_requests(page, own):
    return [url for url in page.requested if not url.startswith((*own, "data:", "blob:"))]


def untypeset_formulas(page):
    return page.evaluate(UNTYPESET)


def too_wide(page):
    return page.evaluate(TOO_WIDE)


def images_without_alt(page):
    return page.evaluate(WITHOUT_ALT)


def cut_formulas(page):
    page.evaluate(UNFOLD)
    return page.evaluate(CUT)


def scrolled_code(page):
    """Code and output in which a line is wider than the window."""
    page.evaluate(UNFOLD)
    return page.evaluate(SCROLLED)


def scrolled_without_fade(page):
    page.evaluate(UNFOLD)
    return page.evaluate(WITHOUT_FADE)


def broken_names(page):
    """Identifiers in tables that a line break cuts in two."""
    return page.evaluate(BROKEN_NAMES)


def heading_jumps(page):
    levels = [(0, ""), *page.evaluate(HEADINGS)]
    return [after for before, after in itertools.pairwise(levels) if after[0] > before[0] + 1]


def barriers(page):
    """What axe-core calls serious or critical."""
    page.evaluate(DROP_REPETITIONS)
    found = Axe().run(page, options=AXE_OPTIONS).response["violations"]
    return [
        (violation["id"], node["html"][:200], node["failureSummary"])
        for violation in found
        if violation["impact"] in GRAVE
        for node in violation["nodes"]
    ]


def unreachable(page):
    """Links, buttons and fields that Tab passes by, or whose focus cannot be seen."""
    for _ in range(page.evaluate(WATCH_FOCUS)):
        page.keyboard.press("Tab")
    return page.evaluate("() => [...unreached.keys()].map(e => e.outerHTML.slice(0, 200))")


@functools.cache
def parsed(path):
    return BeautifulSoup(path.read_text(), "html.parser")


def links(path):
    """All that a page refers to on its own site."""
    tags = parsed(path).select("[href], [src]")
    found = [tag.get("href") or tag["src"] for tag in tags]
    return [link for link in found if not any(urlsplit(link)[:2])]


def target(path, link):
    """Return the file and the element that a link leads to, None where there is none."""
    parts = urlsplit(link)
    file = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if not file.is_file():
        return None
    if not parts.fragment:
        return file
    name, _, _ = unquote(parts.fragment).partition("?")  # what follows is the explorer's state
    return parsed(file).find(id=name)


def dangling(path):
    return [link for link in links(path) if link != "#" and target(path, link) is None]


def misnumbered(path):
    """Links to equations whose text is not the number beside the equation."""
    references = parsed(path).select("a.reference[href*='#equation-']")
    return [
        link
        for link in references
        if link.text != target(path, link["href"]).select_one(".eqno").contents[0]
    ]
