"""The loss under audit: how it is called, and what it returns as NumPy numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kd_notes._checks import FloatArray
from kd_notes._softmax import log_softmax_rows, softmax_rows
from kd_notes.audit._backends import Backend, Gradients
from kd_notes.audit._probes import Probe

Takes: TypeAlias = Literal["logits", "probabilities", "log_probabilities"]


class LossError(Exception):
    """What the loss under audit raised."""


@contextmanager
def _foreign() -> Iterator[None]:
    """Mark every exception of the loss, so that it is told from one of the auditor."""
    try:
        yield
    except Exception as error:
        text = " ".join(str(error).split())[:200]
        raise LossError(f"{type(error).__name__}: {text}") from error


@dataclass(frozen=True)
class Subject:
    """A loss with all that a call of it needs beside the logits of both networks.

    Attributes
    ----------
    roles
        The parameter's name for each of `ROLES` that the loss has.
    temperature, weight
        What those parameters are given, None for the loss's own default.
    takes
        What the student's and the teacher's logits are turned into for it.
    axes
        Of its arguments: 2 for `(N, K)`, 1 for `(K,)`, 3 for `(N, T, K)`.
    one_hot
        Whether it is given the labels as rows of 0 and 1.
    dtype, precision
        Of the arrays that it is given, and what it rounds float64 to.
    mask_keeps
        Whether its mask is true for what counts, and not for what is left out.
    """

    loss: Callable[..., Any]
    backend: Backend
    roles: Mapping[str, str]
    temperature: float | None = None
    weight: float | None = None
    gradient: Callable[..., Any] | None = None
    takes: tuple[Takes, Takes] = ("logits", "logits")
    student_first: bool = True
    axes: int = 2
    one_hot: bool = False
    dtype: str = "float64"
    precision: str = "float64"
    mask_keeps: bool = True

    def __call__(
        self,
        student: FloatArray,
        teacher: FloatArray,
        labels: NDArray[Any] | None = None,
        mask: NDArray[Any] | None = None,
    ) -> FloatArray:
        """Return the loss of a batch of logits, of whatever shape it has."""
        return self.at_inputs(self.inputs(student, teacher), labels, mask)

    def at_inputs(
        self,
        inputs: list[FloatArray],
        labels: NDArray[Any] | None = None,
        mask: NDArray[Any] | None = None,
    ) -> FloatArray:
        """Return the loss of the two arguments as they are."""
        others = self.others(inputs[0].shape, labels, mask)
        arrays = map(self.array, inputs)
        with _foreign():
            return self.backend.read(self.loss(*arrays, **others))

    def rows(self, probe: Probe) -> FloatArray:
        """Return the loss of each example, called by itself as a batch of one."""
        cut = (slice(n, n + 1) for n in range(len(probe.student)))
        return np.array([self(*(x[one] for x in probe)).sum() for one in cut])

    def gradients(self, probe: Probe) -> Gradients | None:
        """Return autograd's derivatives by the student's and the teacher's argument."""
        first, second = map(self.array, self.inputs(*probe[:2]))
        others = self.others(probe.student.shape, probe.labels)
        with _foreign():
            if self.gradient is not None:
                found = self.backend.read(self.gradient(first, second, **others))
                return Gradients(found.reshape(probe.student.shape), None)
            both = self.backend.gradients(lambda a, b: self.loss(a, b, **others), first, second)
        if both is None:
            return None
        shaped = [g if g is None else g.reshape(probe.student.shape) for g in both]
        return Gradients(*(shaped if self.student_first else shaped[::-1]))

    def changes(self, probe: Probe) -> list[float]:
        """Return by how much a call changes its two arguments."""
        arrays = [self.array(x) for x in self.inputs(*probe[:2])]
        before = [self.backend.read(x).copy() for x in arrays]
        with _foreign():
            self.loss(*arrays, **self.others(probe.student.shape, probe.labels))
        after = map(self.backend.read, arrays)
        return [float(np.abs(a - b).max()) for a, b in zip(after, before, strict=True)]

    def inputs(self, student: FloatArray, teacher: FloatArray) -> list[FloatArray]:
        """Return the two arguments in the order and the form in which the loss takes them."""
        pair = [_FORMS[form](z) for form, z in zip(self.takes, (student, teacher), strict=True)]
        return pair if self.student_first else pair[::-1]

    def others(
        self,
        shape: tuple[int, ...],
        labels: NDArray[Any] | None = None,
        mask: NDArray[Any] | None = None,
    ) -> dict[str, Any]:
        """Return the arguments given by keyword."""
        labels = np.zeros(shape[:-1], int) if labels is None else labels
        mask = np.ones(shape[:-1], bool) if mask is None else mask
        found: dict[str, Any] = {"temperature": self.temperature, "weight": self.weight}
        found["mask"] = self.array(mask if self.mask_keeps else ~mask, 0)
        rows = (labels[..., np.newaxis] == np.arange(shape[-1])).astype(float)
        found["labels"] = self.array(rows) if self.one_hot else self.array(labels, 0)
        return {name: found[role] for role, name in self.roles.items() if found[role] is not None}

    def array(self, values: NDArray[Any], class_axes: int = 1) -> Any:
        """Return an argument in the shape, the library and the dtype of the call."""
        if self.axes == 1:
            values = np.asarray(values[0])  # a label alone is an array too
        elif self.axes == 3 and values.ndim == 1 + class_axes:
            values = values[:, np.newaxis]
        return self.backend.array(values, self.dtype)


_FORMS: dict[Takes, Callable[[FloatArray], FloatArray]] = {
    "logits": lambda z: z,
    "probabilities": lambda z: softmax_rows(z, 1.0),
    "log_probabilities": lambda z: log_softmax_rows(z, 1.0),
}


def as_forms(takes: Takes | tuple[Takes, Takes]) -> tuple[Takes, Takes]:
    """Return the forms of both networks' arguments, checked."""
    pair = (takes, takes) if isinstance(takes, str) else tuple(takes)
    if len(pair) != 2 or not set(pair) <= set(_FORMS):
        raise ValueError(f"takes must be one of {[*_FORMS]}, or two of them; got {takes!r}")
    return pair[0], pair[1]
