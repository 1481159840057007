"""One way to call every public function."""

import inspect

import kd_notes


def parameters(name):
    return inspect.signature(getattr(kd_notes, name)).parameters


def names_with(*wanted):
    return [name for name in kd_notes.__all__ if not parameters(name).keys().isdisjoint(wanted)]


def call(name, **arguments):
    """Call a public function by its name, with those of the arguments that it has."""
    known = {key: value for key, value in arguments.items() if key in parameters(name)}
    return getattr(kd_notes, name)(**known)
