"""A loss of a library as its users call it, and the same loss in terms of `kd_notes`."""

import ast
import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

DIGITS = 12  # that the two must agree to, if the library computes in float64
FLOAT32_DIGITS = 6


@dataclass
class Case:
    """One loss.

    Attributes
    ----------
    theirs
        The call, as a function of the student's and the teacher's logits and what else it takes.
    digits
        That value and gradient of both must agree to.
    options
        Of the audit.
    ours
        The same loss and gradient by `kd_notes`, a function of PyTorch tensors; None if
        `kd_notes` has no such loss.
    headline
        What it computes, from its source, if the audit has no name for that.
    """

    theirs: Callable[..., Any]
    digits: int
    options: dict[str, Any]
    ours: Callable[..., Any] | None = None
    headline: str | None = None

    def equals(self, ours: Callable[..., Any]) -> Callable[..., Any]:
        """Register the same loss in terms of `kd_notes`."""
        self.ours = ours
        return ours


def case(
    digits: int = DIGITS, headline: str | None = None, **options: Any
) -> Callable[[Callable[..., Any]], Case]:
    """Make a case of a function; its docstring says which loss of the library that is."""
    return lambda theirs: Case(theirs, digits, options, headline=headline)


def body(function: Callable[..., Any]) -> str:
    """Return the source of a function without its header, docstring and last `return`."""
    return body_of(textwrap.dedent(inspect.getsource(function)))


def body_of(source: str) -> str:
    """Return the same of a function's source."""
    function = ast.parse(source).body[0]
    first = function.body[ast.get_docstring(function) is not None]
    lines = textwrap.dedent("\n".join(source.splitlines()[first.lineno - 1 :]))
    return "".join(lines.rsplit("return ", 1))
