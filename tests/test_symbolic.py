"""The symbolic helpers against derivations by hand, and against numbers for K = 3."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import sympy as sp
from IPython.core.formatters import DisplayFormatter
from numpy.testing import assert_allclose
from sympy.printing.printer import Printer

import kd_notes
from kd_notes._book.symbolic import (
    K,
    as_function,
    collapse,
    expand_sums,
    i,
    j,
    m,
    name_softmax,
    p_s,
    p_t,
    print_like_the_note,
    softmax,
    tau,
    total,
    z_s,
    z_t,
)

STUDENT, TEACHER, TEMPERATURE = [0.5, 2.0, -1.5], [1.0, -0.5, 3.0], 1.7
a, b, z = map(sp.IndexedBase, "abz")
c = sp.Symbol("c")


@pytest.fixture
def displayed(monkeypatch):
    """What a notebook stores as output of an expression, by MIME type."""
    for name in ("_repr_latex_", "_repr_png_", "_repr_svg_"):
        monkeypatch.setattr(f"sympy.core._print_helpers.Printable.{name}", None)
    monkeypatch.setattr(Printer, "_global_settings", {})
    formatter = DisplayFormatter()
    shell = SimpleNamespace(display_formatter=formatter, colors="neutral")
    module = "sympy.interactive.printing"
    monkeypatch.setattr(f"{module}.get_ipython", lambda: shell, raising=False)
    print_like_the_note()
    return lambda expr: formatter.format(expr)[0]


@pytest.mark.parametrize(
    ("expr", "latex"),
    [
        (z_s[i], "{z^{s}_{i}}"),
        (z_t[j], "{z^{t}_{j}}"),
        (p_s[m], "{p^{s}_{m}}"),
        (p_t[i], "{p^{t}_{i}}"),
        (sp.IndexedBase("H")[i, j], "{H_{i,j}}"),
        (z_s[i] ** 2, "{z^{s}_{i}}^{2}"),
        (total(z[m]), r"\sum_{m=1}^{K} {z_{m}}"),
    ],
)
def test_superscript_and_subscript_of_an_indexed_symbol_are_stacked(displayed, expr, latex):
    assert displayed(expr)["text/latex"] == rf"$\displaystyle {latex}$"


@pytest.mark.parametrize(
    ("expr", "latex"),
    [
        (sp.exp(c), "e^{c}"),
        (sp.exp(z[i] / tau), r"e^{{z_{i}}/\tau}"),
        (sp.exp((a[i] + b[i]) / tau), r"e^{\left({a_{i}} + {b_{i}}\right)/\tau}"),
        (sp.Pow(sp.exp(c), 2, evaluate=False), r"\left(e^{c}\right)^{2}"),
    ],
)
def test_the_exponent_of_an_exponential_stands_on_one_line(displayed, expr, latex):
    assert displayed(expr)["text/latex"] == rf"$\displaystyle {latex}$"


def test_a_formula_is_displayed_as_latex_and_not_as_an_image(displayed):
    assert set(displayed(z_s[i])) == {"text/plain", "text/latex"}


def test_the_symbols_carry_the_assumptions_that_simplify():
    assert all(index.is_integer for index in (i, j, m, K))
    assert K.is_positive
    assert tau.is_positive
    assert tau.is_integer is None
    assert sp.log(sp.exp(1 / tau)) == 1 / tau


def test_total_is_the_sum_over_the_classes_1_to_k():
    assert total(z[m]).subs(K, 3).doit() == z[1] + z[2] + z[3]
    assert total(z[m] * a[j], j).subs(K, 2).doit() == z[m] * (a[1] + a[2])
    assert total(c).doit() == K * c


def test_softmax_is_equation_7():
    expr = softmax(z_s, i)
    assert expr == sp.exp(z_s[i] / tau) / sp.Sum(sp.exp(z_s[m] / tau), (m, 1, K))
    expected = kd_notes.softmax(STUDENT, TEMPERATURE)
    # A few roundings of exponentials of moderate size.
    assert_allclose(as_function(expr, 3)(STUDENT, TEACHER, TEMPERATURE), expected, rtol=1e-14)


def test_softmax_at_another_temperature():
    assert softmax(z_s, j, c) == softmax(z_s, j).subs(tau, c)
    assert softmax(z, i, 1) == sp.exp(z[i]) / total(sp.exp(z[m]))


@pytest.mark.parametrize("index", [i, j])
def test_collapse_evaluates_a_sum_over_a_kronecker_delta(index):
    delta = sp.KroneckerDelta(index, m)
    assert collapse(total(delta)) == 1
    assert collapse(total(delta * z[m] ** 2)) == z[index] ** 2
    assert collapse(total(z[m]) + c * total(delta * z[m])) == total(z[m]) + c * z[index]


def test_collapse_of_a_product_of_two_deltas_is_a_delta():
    product = total(sp.KroneckerDelta(i, m) * sp.KroneckerDelta(j, m) * z[m])
    assert collapse(product).subs(j, i) == z[i]
    assert collapse(product).subs({i: 1, j: 2}) == 0


def test_collapse_and_name_softmax_give_the_derivative_of_the_softmax():
    derivative = name_softmax(collapse(softmax(z_s, i).diff(z_s[j])), z_s, p_s)
    expected = (sp.KroneckerDelta(i, j) * p_s[i] - p_s[i] * p_s[j]) / tau
    assert sp.expand(derivative - expected) == 0
    derivative = name_softmax(collapse(sp.log(softmax(z_s, i)).diff(z_s[i])), z_s, p_s)
    assert sp.expand(derivative - (1 - p_s[i]) / tau) == 0


def test_name_softmax_names_classes_i_and_j_of_the_one_network():
    named = name_softmax(softmax(z_s, i) * (1 - softmax(z_s, j)), z_s, p_s)
    assert named == p_s[i] - p_s[i] * p_s[j]
    teacher = softmax(z_t, i)
    assert name_softmax(softmax(z_s, i) - teacher, z_s, p_s) == p_s[i] - teacher
    other_temperature = softmax(z_s, i, 2 * tau)
    assert name_softmax(other_temperature, z_s, p_s) == other_temperature


@pytest.mark.parametrize(
    ("expr", "expected"),
    [
        (total(a[m] + b[m]), total(a[m]) + total(b[m])),
        (total(c * a[m] + c), c * total(a[m]) + c * K),
        (total(a[j], j), total(a[m])),
        (total(a[i] * a[m] ** 2), a[i] * total(a[m] ** 2)),
        (total((a[m] - c) ** 2), total(a[m] ** 2) - 2 * c * total(a[m]) + c**2 * K),
        (total(a[j] * total(b[m]), j), total(a[m]) * total(b[m])),
        (
            total(a[j] * (b[j] - total(b[m]) / K), j),
            total(a[m] * b[m]) - total(a[m]) * total(b[m]) / K,
        ),
        (
            total(b[j] * total(a[j] * a[m] + b[m]), j),
            total(a[m]) * total(a[m] * b[m]) + total(b[m]) ** 2,
        ),
        (c * (total(a[m]) + 1), c * total(a[m]) + c),
        (sp.log(total(2 * a[m])), sp.log(2) + sp.log(total(a[m]))),
        (a[i] * (a[i] + 1), a[i] ** 2 + a[i]),
    ],
)
def test_expand_sums_gives_constants_times_sums_of_products(expr, expected):
    assert expand_sums(expr) == expected


def test_expand_sums_proves_that_the_variance_is_the_mean_square_less_the_squared_mean():
    mean = total(z[m]) / K
    variance = total((z[j] - mean) ** 2, j) / K
    assert expand_sums(variance - (total(z[m] ** 2) / K - mean**2)) == 0
    assert expand_sums(variance) != 0


def test_as_function_evaluates_the_gradient_of_equation_10():
    gradient = (softmax(z_s, i) - softmax(z_t, i)) / tau
    values = as_function(gradient, 3)(STUDENT, TEACHER, TEMPERATURE)
    expected = kd_notes.kd_grad(STUDENT, TEACHER, TEMPERATURE, scaled=False)
    assert isinstance(values, list)
    # The differences of probabilities cancel by a factor of at most 4 here.
    assert_allclose(values, expected, rtol=1e-14)


def test_as_function_takes_the_class_the_logits_and_the_temperature():
    expr = z_s[i] + 10 * z_t[i] + 100 * i + 1000 * K + 10_000 * tau + 1e5 * total(z_t[m])
    values = as_function(expr, 2)([1, 2], [3, 4], 5)
    assert values == [752_131, 752_242]


def test_as_function_is_exact_where_python_is():
    assert as_function(sp.exp(z_s[i]), 3)([0, -math.inf, 0], TEACHER, 1) == [1, 0, 1]
    assert np.shape(as_function(tau, 4)([0] * 4, [0] * 4, 2)) == (4,)
