"""Keras, on PyTorch."""

import os

os.environ["KERAS_BACKEND"] = "torch"

import keras  # noqa: E402
from keras.distillation import LogitsDistillation  # noqa: E402

from audits.case import FLOAT32_DIGITS, case  # noqa: E402
from kd_notes.torch import kd_loss  # noqa: E402

DISTRIBUTION = "keras"


@case()
def by_name(student, teacher, temperature=4.0):
    """`LogitsDistillation`, its default `loss="kl_divergence"`"""
    return LogitsDistillation(temperature).compute_loss(teacher, student)


@case(FLOAT32_DIGITS)
def by_object(student, teacher, temperature=4.0):
    """`LogitsDistillation`, `loss=KLDivergence()`"""
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
