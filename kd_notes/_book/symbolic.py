"""The SymPy symbols and functions that the chapters share, for symbolic K.

Classes are numbered 1 to K, as in the note. The indices i and j are two fixed classes,
and m is the index of summation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sympy as sp
from sympy.printing.latex import LatexPrinter
from sympy.printing.precedence import PRECEDENCE

K = sp.Symbol("K", integer=True, positive=True)
tau = sp.Symbol("tau", positive=True)
i, j, m = sp.symbols("i j m", cls=sp.Idx)
z_s, z_t = sp.IndexedBase("z^s"), sp.IndexedBase("z^t")
p_s, p_t = sp.IndexedBase("p^s"), sp.IndexedBase("p^t")


class _StackedIndices(LatexPrinter):  # type: ignore[misc]
    """Stacks superscript and subscript of an indexed symbol; sets exponents as a/b, inline."""

    def _print_Indexed(self, expr: sp.Indexed) -> str:  # noqa: N802
        indices = ",".join(map(self._print, expr.indices))
        return f"{{{self._print(expr.base)}_{{{indices}}}}}"

    def _print_ExpBase(self, expr: sp.exp, exp: str | None = None) -> str:  # noqa: N802
        numerator, denominator = expr.exp.as_numer_denom()
        power = self.parenthesize(numerator, PRECEDENCE["Mul"])
        if denominator != 1:
            power += f"/{self._print(denominator)}"
        return str(self._do_exponent(f"e^{{{power}}}", exp))


def print_like_the_note() -> None:
    """Set indexed symbols and exponentials in a notebook's output as the note does."""
    sp.init_printing(
        use_latex="mathjax",
        latex_printer=lambda expr, **settings: _StackedIndices().doprint(expr),
    )


def total(term: sp.Expr, index: sp.Idx = m) -> sp.Sum:
    """Return the sum of a term over all classes."""
    return sp.Sum(term, (index, 1, K))


def softmax(z: sp.IndexedBase, index: sp.Idx, temperature: sp.Expr = tau) -> sp.Expr:
    """Return the probability of one class (Eq. 7)."""
    return sp.exp(z[index] / temperature) / total(sp.exp(z[m] / temperature))


def collapse(expr: sp.Expr) -> sp.Expr:
    """Evaluate the sums over a Kronecker delta, each to its one nonzero term.

    SymPy returns that term in the case 1 ≤ i ≤ K and 0 otherwise. Here i and j are classes,
    so that the condition is true.
    """
    bounds = {bound: True for index in (i, j) for bound in (sp.Ge(index, 1), sp.Ge(K, index))}
    return expr.doit().subs(bounds)


def name_softmax(expr: sp.Expr, z: sp.IndexedBase, p: sp.IndexedBase) -> sp.Expr:
    """Substitute p for the softmax of z at temperature tau, at the classes i and j."""
    normalizer = total(sp.exp(z[m] / tau))
    named = expr.subs({sp.exp(z[index] / tau): p[index] * normalizer for index in (i, j)})
    return sp.expand(named)


def expand_sums(expr: sp.Expr) -> sp.Expr:
    """Expand every sum by linearity, take constant factors out, and rename its index to m.

    Two expressions that are equal as polynomials in the resulting sums become identical.
    """

    def expand_sum(node: sp.Sum) -> sp.Expr:
        ((index, _, _),) = node.limits
        terms = sp.Add.make_args(sp.expand(node.function))
        return sp.Add(*(sum_of_product(term, index) for term in terms))

    def sum_of_product(product: sp.Expr, index: sp.Idx) -> sp.Expr:
        summand, constants = sp.sift(
            sp.Mul.make_args(product), lambda factor: index in factor.free_symbols, binary=True
        )
        return sp.Mul(*constants) * evaluate(total(sp.Mul(*summand).subs(index, m)))

    def evaluate(node: sp.Sum) -> sp.Expr:
        """Leave a sum of logits alone: SymPy would look in vain, and long, for its closed form."""
        has_logits = node.function.has(sp.Indexed) and not node.function.has(sp.KroneckerDelta)
        return node if has_logits else node.doit()

    return sp.expand(expr.replace(lambda node: isinstance(node, sp.Sum), expand_sum))


def as_function(expr: sp.Expr, num_classes: int) -> Callable[..., list[Any]]:
    """Return `f(student_logits, teacher_logits, temperature)` for the given number of classes.

    The function returns a list: the values of the expression for i = 1 to K, computed from
    the expression itself by SymPy's `lambdify`.
    """
    student = sp.symbols(f"s1:{num_classes + 1}")
    teacher = sp.symbols(f"t1:{num_classes + 1}")
    classes = range(1, num_classes + 1)
    logits = {z_s[n]: student[n - 1] for n in classes} | {z_t[n]: teacher[n - 1] for n in classes}
    rows = [expr.subs({i: n, K: num_classes}).doit().subs(logits) for n in classes]
    function: Callable[..., list[Any]] = sp.lambdify([student, teacher, tau], rows)
    return function
