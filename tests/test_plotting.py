"""The book's figures show what the library computes."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pytest

from kd_notes import kd_grad, kd_loss, softmax
from kd_notes._book.plotting import TEMPERATURES, _sliders, draw_explorer, explore

STUDENT, TEACHER = [4.0, 6, 1, 2, 0], [7.0, 5, 2, 1, 0]


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


def heights(axes):
    return [[bar.get_height() for bar in bars] for bars in axes.containers]


@pytest.mark.parametrize("temperature", [0.1, 4, math.inf])
def test_the_bars_are_probabilities_and_gradient(temperature):
    probabilities, gradient, _ = draw_explorer(STUDENT, TEACHER, temperature).axes
    expected = [softmax(TEACHER, temperature), softmax(STUDENT, temperature)]
    np.testing.assert_array_equal(heights(probabilities), expected)
    np.testing.assert_array_equal(heights(gradient), [kd_grad(STUDENT, TEACHER, temperature)])


@pytest.mark.parametrize("temperature", [0.1, 4, math.inf])
def test_the_curve_is_the_loss_inside_its_sandwich(temperature):
    axes = draw_explorer(STUDENT, TEACHER, temperature).axes[2]
    curve, limit, _, here = (line.get_ydata() for line in axes.lines)
    np.testing.assert_array_equal(curve, [kd_loss(STUDENT, TEACHER, x) for x in TEMPERATURES])
    np.testing.assert_array_equal(limit, kd_loss(STUDENT, TEACHER, math.inf))
    np.testing.assert_array_equal(here, kd_loss(STUDENT, TEACHER, temperature))
    (band,) = axes.collections
    low, high = 1.12 * np.exp(-7 / 100), 1.12 * np.exp(7 / 100)
    at_100 = band.get_paths()[0].vertices[:, 0] == 100
    edges = np.unique(band.get_paths()[0].vertices[at_100, 1])
    np.testing.assert_allclose(edges, [low, high], rtol=1e-14)


def test_any_pair_of_logits_can_be_drawn():
    draw_explorer([0, 5000, 0], [0, 0, 0], 1)
    draw_explorer([1, 1], [2, 2], math.inf)


def test_a_chapter_that_is_built_or_tested_gets_the_still_figure(monkeypatch):
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    explore(STUDENT, TEACHER)
    (probabilities, *_) = plt.gcf().axes
    np.testing.assert_array_equal(heights(probabilities)[1], softmax(STUDENT, 4))


def test_a_reader_in_jupyterlab_gets_sliders(monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "chapter.ipynb")
    *sliders, _ = explore(STUDENT, TEACHER).children
    names = [slider.description for slider in sliders]
    assert names == ["τ", "class 1", "class 2", "class 3", "class 4", "class 5"]


def test_the_figure_follows_the_sliders():
    dial, first, *_ = _sliders(STUDENT, TEACHER, 4).children
    dial.value, first.value = math.inf, 9.5
    _, gradient, _ = plt.gcf().axes
    expected = kd_grad([9.5, *STUDENT[1:]], TEACHER, math.inf)
    np.testing.assert_array_equal(heights(gradient), [expected])
