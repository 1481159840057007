"""The style of the book's figures."""

import io
import re
import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib import font_manager
from matplotlib.colors import same_color, to_rgb
from matplotlib.layout_engine import ConstrainedLayoutEngine

from kd_notes._book import plotting
from kd_notes._book.plotting import COLORS, INK, use_book_style


@pytest.fixture(autouse=True)
def own_figures_and_style():
    with plt.rc_context():
        yield
    plt.close("all")


def relative_luminance(color):
    """As in the Web Content Accessibility Guidelines."""
    channels = np.array(to_rgb(color))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


def contrast(*colors):
    darker, lighter = sorted(map(relative_luminance, colors))
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("page", ["#ffffff", "#121212"])
def test_ink_has_enough_contrast_on_a_light_and_on_a_dark_page(page):
    assert contrast(INK, page) >= 4


@pytest.mark.parametrize("page", ["#fefdfa", "#191918"])
@pytest.mark.parametrize("color", COLORS)
def test_a_color_has_enough_contrast_on_the_books_pages(color, page):
    assert contrast(color, page) >= 3


@pytest.fixture
def styled():
    """A figure in the style of the book, with one line and its legend."""
    use_book_style()
    figure, axes = plt.subplots()
    axes.plot([0, 1], [1, 2], label="line")
    axes.set(xlabel="temperature", ylabel="loss")
    axes.legend()
    return figure, axes


def test_a_figure_has_no_background(styled):
    figure, _ = styled
    file = io.BytesIO()
    figure.savefig(file, format="png")
    file.seek(0)
    opacity = plt.imread(file)[..., 3]
    assert opacity.shape == (512, 832)
    assert np.median(opacity) == 0
    assert np.max(opacity) == 1


def test_a_figure_is_transparent_in_a_notebook_too(styled):
    figure, axes = styled
    assert figure.get_facecolor()[3] == 0
    assert axes.get_facecolor()[3] == 0


def test_text_ticks_and_spines_have_the_color_of_ink(styled):
    _, axes = styled
    (entry,) = axes.get_legend().get_texts()
    ticks = [axis.get_major_ticks()[0] for axis in (axes.xaxis, axes.yaxis)]
    colored = [entry, axes.xaxis.label, axes.yaxis.label, axes.text(0, 1, "note")]
    colored += [tick.label1 for tick in ticks] + [tick.tick1line for tick in ticks]
    assert all(same_color(artist.get_color(), INK) for artist in colored)
    assert all(same_color(spine.get_edgecolor(), INK) for spine in axes.spines.values())


def test_only_the_left_and_the_lower_spine_are_drawn_and_no_frame_or_grid(styled):
    _, axes = styled
    visible = {side for side, spine in axes.spines.items() if spine.get_visible()}
    assert visible == {"left", "bottom"}
    assert not axes.get_legend().get_frame_on()
    assert not any(line.get_visible() for line in axes.get_xgridlines() + axes.get_ygridlines())


def test_sizes_of_text_and_lines(styled):
    figure, axes = styled
    assert axes.xaxis.label.get_size() == 10.5
    assert axes.lines[0].get_linewidth() == 2
    assert isinstance(figure.get_layout_engine(), ConstrainedLayoutEngine)


def test_text_has_the_typeface_of_the_captions_and_formulas_that_of_the_pages(styled):
    figure, axes = styled
    assert font_manager.findfont(axes.xaxis.label.get_fontproperties()) == str(plotting._FONT)
    assert plt.rcParams["mathtext.fontset"] == "cm"
    axes.set_title("τ²·KD ⟹ ∛")  # the last two are not in the typeface of the captions
    figure.canvas.draw()  # would warn if a glyph were missing


def test_the_color_cycle_is_petroffs_mixed_with_black_or_white(styled):
    colors = plt.rcParams["axes.prop_cycle"].by_key()["color"]
    petroffs = plt.style.library["petroff10"]["axes.prop_cycle"].by_key()["color"]
    for color, petroff in zip(colors, petroffs, strict=True):
        change = np.subtract(to_rgb(color), to_rgb(petroff))
        room = np.subtract(change.sum() > 0, to_rgb(petroff))  # to white, or to black
        share = change @ room / (room @ room)
        np.testing.assert_allclose(change, share * room, rtol=0, atol=0.5 / 255 + 1e-9)


FIGURE = """
import sys
import matplotlib.pyplot as plt
from kd_notes._book.plotting import use_book_style
{notebook}
use_book_style()
figure, axes = plt.subplots()
axes.plot([0, 1], [1, 2], "o")
axes.imshow([[0, 1], [1, 0]])
{show}
"""


def run(**parts):
    """Draw a figure in a new process, and return what it prints."""
    command = [sys.executable, "-c", FIGURE.format(**parts)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def drawn_in_a_notebook():
    return run(
        notebook="from IPython.core.interactiveshell import InteractiveShell\n"
        "shell = InteractiveShell.instance()\n"
        "plt.switch_backend('module://matplotlib_inline.backend_inline')",
        show="formats, _ = shell.display_formatter.format(figure)\n"
        "assert sorted(formats) == ['image/svg+xml', 'text/plain']\n"
        "print(formats['image/svg+xml'])",
    )


@pytest.fixture(scope="module")
def svg():
    return drawn_in_a_notebook()


def test_the_same_figure_is_the_same_file(svg):
    assert svg == drawn_in_a_notebook()


def test_a_figure_names_no_date_and_no_version(svg):
    assert "<metadata>" not in svg


def test_letters_need_no_font(svg):
    assert "<text" not in svg
    assert '<use xlink:href="#NotesSans-' in svg


def test_the_pixels_of_an_image_are_kept_and_stay_sharp(svg):
    [image] = re.findall("<image .*?/>", svg, re.DOTALL)
    assert 'width="2" height="2"' in image
    assert "image-rendering:pixelated" in image


def test_a_script_that_draws_needs_no_ipython():
    run(notebook="", show="assert 'IPython' not in sys.modules")
