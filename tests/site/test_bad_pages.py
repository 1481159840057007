"""Each check finds what it is there to find: a bad page for each, and a good one for all."""

import checks
import pytest

PAGE = """<!doctype html><html lang="en"><head><title>A page</title></head><body>
<style>.box { overflow-x: auto; width: 300px } .wide { width: 500px; height: 1em }
.fade { mask-image: linear-gradient(to left, transparent, #000) }</style>
<main><h1>A page</h1>FLAW</main></body></html>"""

GOOD = """<i class="math"><mjx-container><svg></svg></mjx-container></i>
<h2>With a heading</h2><a href="#here">a link</a><p id="here">a place</p>
<div class="box fade" tabindex="0"><div class="wide">what scrolls</div></div>
<pre>code that fits</pre><table><tr><td><code>a name</code></td></tr></table>
<img src="data:," alt="an image">"""


@pytest.fixture
def bad_page(tmp_path, open_page):
    """Open a page with a flaw from disk."""
    opened = []

    def bad_page(flaw):
        path = tmp_path / "page.html"
        path.write_text(PAGE.replace("FLAW", flaw))
        opened.append(open_page(path.as_uri()))
        return opened[-1]

    yield bad_page
    for page in opened:
        page.close()


CHECKS = {
    check.__name__: check
    for check in [
        checks.untypeset_formulas,
        checks.too_wide,
        checks.cut_formulas,
        checks.scrolled_code,
        checks.scrolled_without_fade,
        checks.broken_names,
        checks.heading_jumps,
        checks.images_without_alt,
        checks.unreachable,
        checks.barriers,
    ]
}


@pytest.mark.parametrize("check", CHECKS)
def test_a_good_page_passes(bad_page, check):
    assert CHECKS[check](bad_page(GOOD)) == []


WIDE = '<svg width="500" height="9"></svg>'
BROKEN_NAME = """<table><tr><td style="max-width: 30px; overflow-wrap: anywhere">
<code>identifier</code></td></tr></table>"""
TYPESET = '<i class="math"><mjx-container><svg>GLYPHS</svg></mjx-container></i>'


@pytest.mark.parametrize(
    ("check", "flaw"),
    [
        ("untypeset_formulas", r'<span class="math">\(x\)</span>'),
        ("untypeset_formulas", TYPESET.replace("GLYPHS", '<g data-mml-node="merror"/>')),
        ("untypeset_formulas", TYPESET.replace("GLYPHS", '<g fill="red"/>')),
        ("too_wide", '<div class="wide">a table</div>'),
        ("too_wide", '<p><span style="margin-left: 380px">beyond</span></p>'),
        ("too_wide", '<svg width="500"></svg>'),
        ("cut_formulas", f'<div class="math box">{WIDE}</div>'),
        ("cut_formulas", f'<div class="math"><div class="box">{WIDE}</div></div>'),
        ("scrolled_code", f'<pre class="box">{"code " * 100}</pre>'),
        ("scrolled_code", f"<details>folded<pre class=box>{'code ' * 100}</pre></details>"),
        ("scrolled_without_fade", '<div class="box"><div class="wide">a table</div></div>'),
        ("broken_names", BROKEN_NAME),
        ("heading_jumps", "<h2>Two</h2><h4>Four</h4>"),
        ("images_without_alt", '<img src="data:,">'),
        ("images_without_alt", '<img src="data:," alt=" ">'),
        ("unreachable", '<a href="#" tabindex="-1">a link</a>'),
        ("unreachable", '<button style="outline: none">whose focus cannot be seen</button>'),
        ("barriers", '<p style="color: #999">pale</p>'),
        ("barriers", "<button></button>"),
        (
            "barriers",
            '<div class="box"><div class="wide">scrolls, but not by keyboard</div></div>',
        ),
    ],
)
def test_a_flaw_is_found(bad_page, check, flaw):
    assert len(CHECKS[check](bad_page(flaw))) == 1


@pytest.mark.parametrize(
    "flaw",
    [
        "<script>console.error('a complaint')</script>",
        "<script>console.warn('a warning')</script>",
        "<script>throw new Error('uncaught')</script>",
        '<img src="absent.png" alt="an image that is not there">',
    ],
)
def test_a_complaint_is_heard(bad_page, flaw):
    assert bad_page(flaw).said


def test_a_foreign_request_is_seen(bad_page, tmp_path):
    page = bad_page('<img src="http://example.invalid/image.png" alt="an image from elsewhere">')
    foreign = checks.foreign_requests(page, (tmp_path.as_uri(),))
    assert foreign == ["http://example.invalid/image.png"]


LINKED = """<div id="equation-a"><span class="eqno">(5.1)<a href="#">#</a></span></div>
<a class="reference" href="#equation-a">(5.1)</a>"""


@pytest.fixture
def dangling(tmp_path):
    (tmp_path / "other.html").write_text('<p id="there">')

    def dangling(text):
        (tmp_path / "page.html").write_text(text)
        return checks.dangling(tmp_path / "page.html")

    return dangling


@pytest.mark.parametrize(
    "link", ["other.html", "other.html#there", "#here", "#here?a=b", "https://a.b/#c"]
)
def test_a_good_link_passes(dangling, link):
    assert dangling(f'<a id="here" href="{link}">a link</a>') == []


ABSENT = ["absent.html", "other.html#absent", "#absent", "#absent?a=b", "absent.png"]


@pytest.mark.parametrize("link", ABSENT)
def test_a_dangling_link_is_found(dangling, link):
    assert dangling(f'<a href="{link}">a link</a>') == [link]
    assert dangling(f'<img src="{link}">') == [link]


def test_a_wrong_equation_number_is_found(tmp_path):
    good, bad = tmp_path / "good.html", tmp_path / "bad.html"
    good.write_text(LINKED)
    bad.write_text(LINKED.replace(">(5.1)</a>", ">(5.2)</a>"))
    assert checks.misnumbered(good) == []
    assert len(checks.misnumbered(bad)) == 1
