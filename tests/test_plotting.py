"""The book's figures: their style, and that they show what the library computes."""

import io
import math

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib import font_manager
from matplotlib.colors import same_color, to_rgb
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.testing import assert_allclose, assert_array_equal

from kd_notes import kd_grad, kd_loss, regularized_logit_matching_loss, softmax
from kd_notes._book import plotting
from kd_notes._book.plotting import (
    INK,
    TEMPERATURES,
    draw_explorer,
    temperature_name,
    use_book_style,
)

STUDENT, TEACHER = [4.0, 6, 1, 2, 0], [7.0, 5, 2, 1, 0]
CLASSES = [1, 2, 3, 4, 5]
each_temperature = pytest.mark.parametrize("temperature", [0.1, 4, math.inf])


@pytest.fixture(autouse=True)
def own_figures_and_style():
    with plt.rc_context():
        yield
    plt.close("all")


def charts(temperature=4, student=STUDENT, teacher=TEACHER):
    return draw_explorer(student, teacher, temperature).axes


def heights(axes):
    return [[bar.get_height() for bar in bars] for bars in axes.containers]


def edges(bars):
    return np.array([(bar.get_x(), bar.get_x() + bar.get_width()) for bar in bars]).T


def around_the_classes(left, right):
    return np.add.outer([left, right], CLASSES)


def all_same_color(artists, colors):
    return all(map(same_color, (artist.get_facecolor() for artist in artists), colors))


def texts(artists):
    return [artist.get_text() for artist in artists]


# The style


def relative_luminance(color):
    """As in the Web Content Accessibility Guidelines."""
    channels = np.array(to_rgb(color))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


@pytest.mark.parametrize("page", ["#ffffff", "#121212"])
def test_ink_has_enough_contrast_on_a_light_and_on_a_dark_page(page):
    darker, lighter = sorted([relative_luminance(INK), relative_luminance(page)])
    assert (lighter + 0.05) / (darker + 0.05) >= 4


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


def test_the_color_cycle_is_petroffs_for_ten_classes(styled):
    colors = plt.rcParams["axes.prop_cycle"].by_key()["color"]
    assert colors == plt.style.library["petroff10"]["axes.prop_cycle"].by_key()["color"]
    assert len(colors) == 10


# The explorer


def test_temperatures_run_from_a_tenth_to_a_thousand_and_infinity():
    *finite, last = TEMPERATURES
    assert last == math.inf
    assert len(finite) == 81
    # Rounding to two digits moves a number by at most 5 %.
    assert_allclose(finite, np.geomspace(0.1, 1000, 81), rtol=0.05)
    assert [finite[0], finite[20], finite[32], finite[-1]] == [0.1, 1, 4, 1000]
    assert finite == [float(f"{x:.1e}") for x in finite]


def test_temperatures_have_short_names():
    assert list(map(temperature_name, [0.13, 4.0, 1000.0, math.inf])) == ["0.13", "4", "1000", "∞"]


def test_the_explorer_is_three_charts_above_each_other():
    figure = draw_explorer(STUDENT, TEACHER, 4)
    assert_array_equal(figure.get_size_inches(), [5.2, 6.4])
    figure.set_layout_engine("none")
    boxes = [axes.get_position() for axes in figure.axes]
    assert [box.height / boxes[0].height for box in boxes] == pytest.approx([1, 1, 4 / 3])
    assert boxes[0].y0 > boxes[1].y1 > boxes[1].y0 > boxes[2].y1
    assert len({box.x0 for box in boxes}) == len({box.x1 for box in boxes}) == 1


@each_temperature
def test_the_bars_are_probabilities_and_gradient(temperature):
    probabilities, gradient, _ = charts(temperature)
    expected = [softmax(TEACHER, temperature), softmax(STUDENT, temperature)]
    assert_array_equal(heights(probabilities), expected)
    assert_array_equal(heights(gradient), [kd_grad(STUDENT, TEACHER, temperature)])


def test_the_bars_of_teacher_and_student_meet_at_their_class():
    probabilities, *_ = charts()
    teacher, student = map(edges, probabilities.containers)
    assert_allclose(teacher, around_the_classes(-0.4, 0), atol=1e-15)
    assert_allclose(student, around_the_classes(0, 0.4), atol=1e-15)
    assert_array_equal([bar.get_y() for bar in probabilities.patches], 0)


def test_the_bars_of_the_gradient_stand_at_their_class():
    _, gradient, _ = charts()
    (bars,) = gradient.containers
    assert_allclose(edges(bars), around_the_classes(-0.3, 0.3), atol=1e-15)


def test_a_class_has_one_color_and_the_teacher_is_fainter():
    probabilities, gradient, _ = charts()
    teacher, student = probabilities.containers
    solid, faint = ([(f"C{k}", alpha) for k in CLASSES] for alpha in (1, 0.3))
    assert all_same_color(teacher, faint)
    assert all_same_color(student, solid)
    assert all_same_color(gradient.containers[0], solid)


def test_the_legend_names_the_networks():
    probabilities, *_ = charts()
    legend = probabilities.get_legend()
    assert texts(legend.get_texts()) == ["teacher", "student"]
    assert all_same_color(legend.get_patches(), [(INK, 0.3), (INK, 1)])


def test_every_bar_has_its_number():
    probabilities, gradient, _ = charts()
    p = np.concatenate([softmax(TEACHER, 4), softmax(STUDENT, 4)])
    assert texts(probabilities.texts) == [f"{x:.2f}" for x in p]
    assert all(text.get_color() == INK for text in probabilities.texts)
    (above,) = gradient.child_axes
    assert_array_equal(above.get_xticks(), CLASSES)
    numbers = texts(above.get_xticklabels())
    gradient_of_eq_10 = 4 * (softmax(STUDENT, 4) - softmax(TEACHER, 4))
    assert numbers == [f"{x:.3f}".replace("-", "−") for x in gradient_of_eq_10]
    assert numbers[0] == "−0.770"
    assert above.xaxis.get_ticks_position() == "top"


def test_the_numbers_of_the_gradient_have_no_axis_of_their_own():
    _, gradient, _ = charts()
    (above,) = gradient.child_axes
    assert not above.spines["top"].get_visible()
    assert {tick.tick2line.get_markersize() for tick in above.xaxis.get_major_ticks()} == {0}


def test_numbers_are_smaller_than_the_labels_of_the_axes():
    probabilities, gradient, _ = charts()
    (above,) = gradient.child_axes
    sizes = {text.get_size() for text in [*probabilities.texts, *above.get_xticklabels()]}
    assert max(sizes) < 0.8 * probabilities.xaxis.label.get_size()
    legends = [axes.get_legend().get_texts()[0].get_size() for axes in (probabilities, gradient)]
    assert max(legends) < probabilities.xaxis.label.get_size()


@each_temperature
def test_marks_and_a_line_show_the_limit_and_the_zero_of_the_gradient(temperature):
    _, gradient, _ = charts(temperature)
    (marks,) = gradient.collections
    left, right = np.array(marks.get_segments()).swapaxes(0, 1)
    assert_allclose([left[:, 0], right[:, 0]], around_the_classes(-0.4, 0.4), atol=1e-15)
    limit = kd_grad(STUDENT, TEACHER, math.inf)
    assert_array_equal([left[:, 1], right[:, 1]], [limit, limit])
    assert same_color(marks.get_color(), INK)
    (zero,) = gradient.lines
    assert_array_equal(zero.get_ydata(), 0)
    assert same_color(zero.get_color(), INK)
    assert zero.get_linewidth() < 1
    assert texts(gradient.get_legend().get_texts()) == ["limit"]


def test_axes_are_labelled():
    labels = [(axes.get_xlabel(), axes.get_ylabel()) for axes in charts()]
    assert labels == [
        ("class", "probability"),
        ("class", "τ (pˢ − pᵗ)"),
        ("temperature τ", "τ²·KD"),
    ]


def test_a_probability_of_1_has_room_for_its_number():
    probabilities, *_ = charts(0.1)
    assert probabilities.get_ylim() == (0, 1.1)


def at_temperatures():
    """Where the temperatures stand on the axis, infinity at 3000."""
    return [*TEMPERATURES[:-1], 3000]


@each_temperature
def test_the_curve_is_the_loss_and_its_limit_a_dashed_line(temperature):
    curve, limit, *_ = charts(temperature)[2].lines
    assert_array_equal(curve.get_xdata(), at_temperatures())
    assert_array_equal(curve.get_ydata(), [kd_loss(STUDENT, TEACHER, tau) for tau in TEMPERATURES])
    expected = regularized_logit_matching_loss(STUDENT, TEACHER)
    assert_allclose(limit.get_ydata(), expected, rtol=1e-15)
    assert (limit.get_linestyle(), limit.get_linewidth()) == ("--", 1)
    assert same_color(curve.get_color(), "C0")
    assert same_color(limit.get_color(), INK)


@pytest.mark.parametrize(
    ("temperature", "x"), [(0.1, 0.1), (4, 4), (5000, 3000), (math.inf, 3000)]
)
def test_a_line_and_a_point_stand_at_the_temperature(temperature, x):
    _, _, line, point = charts(temperature)[2].lines
    assert_array_equal(line.get_xdata(), x)
    assert point.get_xdata() == [x]
    assert point.get_ydata() == [kd_loss(STUDENT, TEACHER, temperature)]
    assert (point.get_marker(), line.get_linewidth()) == ("o", 1)
    assert same_color(point.get_color(), "C0")
    assert same_color(line.get_color(), INK)


def test_the_band_lies_between_the_bounds_of_proposition_4():
    axes = charts()[2]
    (band,) = axes.collections
    x, y = band.get_paths()[0].vertices.T
    limit, top = 1.12, 1.15 * 4**2 / 8  # D = (-3, 1, -1, 1, 0) has the range 4
    for position, tau in zip(at_temperatures(), TEMPERATURES, strict=True):
        lower, upper = limit * math.exp(-7 / tau), limit * math.exp(min(7 / tau, 100))
        found = np.unique(y[x == position])
        assert_allclose(found[[0, -1]], [lower, min(upper, top)], rtol=1e-14)
    assert axes.get_ylim() == (0, top)
    assert same_color(band.get_facecolor(), (INK, 0.25))
    assert band.get_linewidth() == 0


def test_the_wider_of_the_two_networks_sets_the_bounds():
    (of_teacher,) = charts()[2].collections
    (of_student,) = charts(student=TEACHER, teacher=STUDENT)[2].collections
    expected, found = (band.get_paths()[0].vertices for band in (of_teacher, of_student))
    assert_allclose(found, expected, rtol=1e-14)


def test_the_axis_of_temperatures_is_logarithmic_and_ends_at_infinity():
    axes = charts()[2]
    assert axes.get_xscale() == "log"
    assert_array_equal(axes.get_xticks(), [0.1, 1, 10, 100, 1000, 3000])
    assert texts(axes.get_xticklabels()) == ["0.1", "1", "10", "100", "1000", "∞"]
    assert len(axes.get_xticks(minor=True)) == 0


def test_any_pair_of_logits_can_be_drawn():
    draw_explorer([0, 5000, 0], [0, 0, 0], 1).canvas.draw()
    equal = draw_explorer([1, 1], [2, 2], math.inf)
    equal.canvas.draw()
    assert equal.axes[2].get_ylim() == (0, 0.1)
