"""One way to call every public function."""

import inspect

import numpy as np

import kd_notes


def parameters(name):
    return inspect.signature(getattr(kd_notes, name)).parameters


def names_with(*wanted):
    return [name for name in kd_notes.__all__ if not parameters(name).keys().isdisjoint(wanted)]


def call(name, **arguments):
    """Call a public function by its name, with those of the arguments that it has.

    One that takes k classes of the teacher gets them all.
    """
    if "teacher_values" in parameters(name):
        values = arguments["teacher_logits"]
        indices = np.broadcast_to(np.arange(np.shape(values)[-1]), np.shape(values))
        arguments = {"teacher_values": values, "teacher_indices": indices} | arguments
    known = {key: value for key, value in arguments.items() if key in parameters(name)}
    return getattr(kd_notes, name)(**known)
