"""Whether a loss can be called, and answers the same question twice in the same way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from inspect import Parameter
from itertools import product
from typing import Any

import numpy as np

from kd_notes.audit._backends import OutputError, backends
from kd_notes.audit._probes import probe
from kd_notes.audit._report import Finding, finding
from kd_notes.audit._signature import find_roles, networks_first, parameters, student_is_first
from kd_notes.audit._subject import LossError, Subject, Takes

USUAL_TEMPERATURE = 4.0  # given to a loss that must be told one, if the caller names none
USUAL_WEIGHT = 0.3  # likewise; not a half, where a weight and one minus it are the same


def subject_of(
    loss: Callable[..., Any],
    temperature: float | None,
    backend: str | None,
    gradient: Callable[..., Any] | None,
    keywords: Mapping[str, str],
    forms: Sequence[tuple[Takes, Takes]],
) -> Subject | Finding:
    """Return the loss with the first backend, shape and form that it accepts, or why none."""
    loss, gradient = networks_first(loss), gradient and networks_first(gradient)
    roles = find_roles(loss, keywords)
    if missing := _missing(loss, roles):
        message = f"Beside its first two arguments, the logits, it needs {missing}"
        return finding("crash", f"{message}: give it by functools.partial or a lambda.")
    given_temperature, weight = _given(loss, roles, temperature)
    errors = {}
    for library in backends(backend):
        for axes in (2, 1, 3):
            subject = Subject(
                loss, library, roles, given_temperature, weight, gradient=gradient, axes=axes
            )
            accepted = _accepted(subject, forms)
            if isinstance(accepted, Subject):
                return accepted
            errors[library.name, axes] = accepted
    return _likely(errors)


def _given(
    loss: Callable[..., Any], roles: Mapping[str, str], temperature: float | None
) -> tuple[float | None, float | None]:
    """Return the temperature and the weight to give, None if the loss takes none."""
    known = {p.name: p.default for p in parameters(loss)}
    weight = _number(known.get(roles.get("weight", "")))
    if "temperature" not in roles:
        temperature = None
    else:
        temperature = temperature or _number(known.get(roles["temperature"])) or USUAL_TEMPERATURE
    if ("weight" in roles and known.get(roles["weight"]) is Parameter.empty) or weight in (0, 1):
        weight = USUAL_WEIGHT  # at 0 or 1 only one of two terms would be seen
    return temperature, weight


def _missing(loss: Callable[..., Any], roles: Mapping[str, str]) -> str:
    required = [p.name for p in parameters(loss)[2:] if p.default is p.empty]
    return ", ".join(name for name in required if name not in roles.values())


def _number(default: object) -> float | None:
    is_number = isinstance(default, int | float) and not isinstance(default, bool)
    return float(default) if is_number else None  # type: ignore[arg-type]


#: What a loss of PyTorch raises when it is given NumPy arrays: its other error says more.
_WRONG_LIBRARY = (TypeError, AttributeError)


def _accepted(subject: Subject, forms: Sequence[tuple[Takes, Takes]]) -> Subject | LossError:
    """Return the loss with the first form of arguments that it accepts, or the first error.

    A form for which it is finite goes first: a logarithm of logits is nan, and no exception.
    """
    accepted, errors = [], []
    labels = (False, True) if "labels" in subject.roles else (False,)
    for takes, one_hot in product(forms, labels):
        there = replace(subject, takes=takes, one_hot=one_hot)
        try:
            values = there.rows(probe(0, 2))
            there(*probe(0, 3))
        except LossError as error:
            errors.append(error)
        else:
            accepted.append(there)
            if np.all(np.isfinite(values)):
                return there
    return (accepted or errors)[0]


def _likely(errors: Mapping[tuple[str, int], LossError]) -> Finding:
    for (name, _), error in errors.items():
        if isinstance(error.__cause__, OutputError):
            return failure(f"On two examples ({name})", error)
    names = list(dict.fromkeys(name for name, _ in errors))
    wrong_library = len(names) > 1 and isinstance(errors[names[0], 2].__cause__, _WRONG_LIBRARY)
    name = names[1 if wrong_library else 0]
    return failure(f"On two examples ({name})", errors[name, 2])


def failure(where: str, error: LossError) -> Finding:
    """Return that it raised an exception, or that it returned no number."""
    if isinstance(error.__cause__, OutputError):
        return finding("bad-output", f"{where} {error.__cause__}.")
    return finding("crash", f"{where} it raises {error}")


def check_calls(subject: Subject) -> list[Finding]:
    """Return what makes all further questions useless."""
    here = probe(1, 3)
    first, second = subject(*here), subject(*here)
    if first.shape not in _shapes(subject):
        shape = f"an array of shape {first.shape}"
        return [finding("bad-output", f"For three examples of five classes it returns {shape}.")]
    if not np.array_equal(first, second, equal_nan=True):
        apart = f"{first.sum():.6g} and {second.sum():.6g}"
        return [finding("stochastic", f"Two calls with the same arguments give {apart}.")]
    return _changed(subject)


def _shapes(subject: Subject) -> list[tuple[int, ...]]:
    if subject.axes == 1:
        return [(), (1,), (5,)]
    return [(), (1,), (3,), (3, 5), (3, 1), (3, 1, 5)]


def with_mask(subject: Subject) -> tuple[Subject, list[Finding]]:
    """Return the loss with its mask the other way round, if it takes one so."""
    other = replace(subject, mask_keeps=False)
    if "mask" not in subject.roles or _is_seen(subject) or not _is_seen(other):
        return subject, []
    message = "Its mask is true for what is left out: where all is true, no logit counts."
    return other, [finding("inverted-mask", message)]


def _is_seen(subject: Subject) -> bool:
    """Whether the loss is a number that depends on the student."""
    here, other = probe(0, 2), probe(1, 2)
    values = subject.rows(here), subject.rows(here._replace(student=other.student))
    return bool(np.all(np.isfinite(values))) and not np.array_equal(*values)


def _changed(subject: Subject) -> list[Finding]:
    changes = subject.changes(probe(1, 3))
    if not max(changes) > 0:
        return []
    number = 1 + int(np.argmax(changes))
    return [finding("changes-input", f"It changes argument {number} by {max(changes):.3g}.")]


def order(subject: Subject, student_first: bool | None) -> tuple[bool, list[Finding]]:
    """Return whether the student comes first: by the caller, the names, or the gradient."""
    named = student_is_first(subject.loss) if student_first is None else student_first
    if named is None:
        named = _first_has_gradient(subject)
    if named is None:
        message = (
            "Neither the names of its arguments nor their gradients say which is the student: "
            "the first was assumed; if it is the second, forward and reverse change places."
        )
        return True, [finding("order-assumed", message)]
    message = "Its first argument is the teacher."
    return named, [] if named else [finding("teacher-first", message)]


def _first_has_gradient(subject: Subject) -> bool | None:
    try:
        gradients = subject.gradients(probe(2, 2))
    except LossError:
        return None
    if gradients is None or (gradients.first is None) == (gradients.second is None):
        return None
    return gradients.first is not None
