"""Keras, on PyTorch."""

import os

os.environ["KERAS_BACKEND"] = "torch"

import keras
from keras.distillation import LogitsDistillation

from audits.case import FLOAT32_DIGITS, case
from kd_notes.torch import kd_loss

LIBRARY = "Keras"
DISTRIBUTION = "keras"
IN_SHORT = "To change: by default no softmax is taken. Pass `loss=keras.losses.KLDivergence()`."


@case(
    headline="Σ u log(u/v), no divergence of the networks: u and v are the logits over τ, "
    "clipped to between 1e-7 and 1",
    takes="logits",
)
def by_name(student, teacher, temperature=4.0):
    """`LogitsDistillation`, its default `loss="kl_divergence"`

    No softmax is taken. The name stands for a function that expects probabilities and is given
    the logits over the temperature, the teacher's as u and the student's as v. Pass
    `loss=keras.losses.KLDivergence()`.
    """
    return LogitsDistillation(temperature).compute_loss(teacher, student)


@case(FLOAT32_DIGITS)
def by_object(student, teacher, temperature=4.0):
    """`LogitsDistillation`, `loss=KLDivergence()`

    Probabilities below 1e-7 are raised to 1e-7.
    """
    loss = LogitsDistillation(temperature, loss=keras.losses.KLDivergence())
    return loss.compute_loss(teacher, student)


@by_object.equals
def _(student, teacher, temperature):
    return kd_loss(student, teacher, temperature).mean()


@case(FLOAT32_DIGITS, takes="probabilities")
def divergence(teacher, student):
    """`keras.losses.KLDivergence`"""
    return keras.losses.KLDivergence()(teacher, student)


@divergence.equals
def _(student, teacher, temperature):
    return kd_loss(student, teacher, temperature, scaled=False).mean()
