"""What the parameters of a loss are, by their names."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

#: What the third and later parameters are taken for, by their names in lower case.
ROLES: dict[str, set[str]] = {
    "temperature": {"temperature", "temp", "tau", "t", "kd_temperature", "kd_temp", "kd_t"},
    "labels": {"labels", "label", "targets", "target", "hard_labels", "y", "y_true", "gt"},
    "weight": {
        "alpha",
        "weight",
        "kd_weight",
        "distil_weight",
        "distill_weight",
        "lam",
        "lambda_",
    },
    "mask": {"mask", "attention_mask", "loss_mask", "token_mask"},
}
#: What the first two are taken for, by a word of their names: first by the sure ones.
NETWORKS = (
    ({"student", "stu", "s"}, {"teacher", "tea", "t"}),
    ({"pred", "preds", "input", "inputs", "output", "outputs", "logits"}, {"target", "true"}),
)
#: What says that a parameter is a network's, wherever it stands, and what that it is none.
_ANYWHERE = ({"student", "stu"}, {"teacher", "tea"})
_SETTINGS = {"temperature", "temp", "tau", "t", "weight", "alpha", "coef", "mask", "labels"}


def name_of(loss: Callable[..., Any]) -> str:
    """Return the name of a function, of one behind a partial, or of an instance's class."""
    return str(getattr(getattr(loss, "func", loss), "__name__", type(loss).__name__))


def parameters(loss: Callable[..., Any]) -> list[inspect.Parameter]:
    """Return the parameters of a function, or of a module's `forward`; none if it hides them."""
    try:
        found = inspect.signature(getattr(loss, "forward", loss)).parameters.values()
    except (TypeError, ValueError):
        return []
    return [p for p in found if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]


def find_roles(loss: Callable[..., Any], named: Mapping[str, str]) -> dict[str, str]:
    """Return the parameter of each role: the caller's choice, or the first of a known name."""
    if unknown := set(named) - set(ROLES):
        raise ValueError(f"keywords must be among {[*ROLES]}; got {sorted(unknown)}")
    names = [p.name for p in parameters(loss)[2:]]
    found = {
        role: next((name for name in names if name.lower() in known), "")
        for role, known in ROLES.items()
    }
    return {role: name for role, name in (found | dict(named)).items() if name}


def student_is_first(loss: Callable[..., Any]) -> bool | None:
    """Return what the names of the first two parameters say of the order, if anything."""
    names = [set(p.name.lower().split("_")) for p in parameters(loss)[:2]]
    if len(names) < 2:
        return None
    first, second = names
    for student, teacher in NETWORKS:
        forward = bool(first & student or second & teacher)
        if forward != bool(first & teacher or second & student):
            return forward
    return None


def networks_first(loss: Callable[..., Any]) -> Callable[..., Any]:
    """Return the loss with both networks first, if names say that they are not.

    As in `(outputs, labels, teacher_outputs)`: the student is the first that has no other role.
    """
    found = parameters(loss)
    student, teacher = (_place(found, words) for words in _ANYWHERE)
    if student is None:
        others = (n for n, p in enumerate(found) if n != teacher and not _has_role(p.name))
        student = next(others, None)
    if student is None or teacher is None:
        return loss
    pair = [found[n] for n in sorted([student, teacher])]
    if pair == found[:2] and pair[1].kind is not inspect.Parameter.KEYWORD_ONLY:
        return loss
    return _by_name(loss, pair)


def _by_name(loss: Callable[..., Any], pair: list[inspect.Parameter]) -> Callable[..., Any]:
    names = [p.name for p in pair]

    def called(first: Any, second: Any, **others: Any) -> Any:
        return loss(**dict(zip(names, (first, second), strict=True)), **others)

    by_name = [p.replace(kind=p.KEYWORD_ONLY) for p in parameters(loss) if p not in pair]
    first = [p.replace(kind=p.POSITIONAL_OR_KEYWORD) for p in pair]
    called.__signature__ = inspect.Signature([*first, *by_name])  # type: ignore[attr-defined]
    called.__name__ = name_of(loss)
    return called


def _place(found: list[inspect.Parameter], words: set[str]) -> int | None:
    for n, parameter in enumerate(found):
        own = set(parameter.name.lower().split("_"))
        if own & words and not own & _SETTINGS and parameter.default is parameter.empty:
            return n
    return None


def _has_role(name: str) -> bool:
    return any(name.lower() in known for known in ROLES.values())
