"""The logits of two real networks, a large and a small one, on scanned digits.

Scikit-learn ships 1,797 scans of handwritten digits, 8 by 8 pixels each. Two multilayer
perceptrons are fitted to three quarters of them with fixed seeds; the chapters use their
logits on the held-out quarter.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits

from kd_notes._checks import FloatArray

TEACHER_UNITS, STUDENT_UNITS = 256, 8  # in the one hidden layer


class HeldOutDigits(NamedTuple):
    """Held-out scans, their labels, and the logits of both networks."""

    images: FloatArray  #: `(N, 64)`, gray values, 0 for paper and 1 for ink
    labels: np.ndarray[tuple[int], np.dtype[np.int64]]  #: `(N,)`, the true digits
    student: FloatArray  #: `(N, 10)`, logits of the small network
    teacher: FloatArray  #: `(N, 10)`, logits of the large network


def held_out_digits() -> HeldOutDigits:
    """Fit both networks and return their logits on the held-out scans.

    Returns
    -------
    HeldOutDigits
        450 scans, their labels, and the logits of both networks.

    Examples
    --------
    >>> from kd_notes._book.digits import held_out_digits
    >>> held_out_digits().teacher.shape
    (450, 10)
    """
    images, labels = load_digits(return_X_y=True)
    train_images, test_images, train_labels, test_labels = train_test_split(
        images / 16, labels, test_size=450, random_state=0, stratify=labels
    )
    with threadpool_limits(1):  # the order of summation must not depend on the machine
        student = _fit(STUDENT_UNITS, train_images, train_labels)
        teacher = _fit(TEACHER_UNITS, train_images, train_labels)
    logits = _logits(student, test_images), _logits(teacher, test_images)
    return HeldOutDigits(test_images, test_labels, *logits)


def _fit(hidden_units: int, images: FloatArray, labels: FloatArray) -> MLPClassifier:
    network = MLPClassifier((hidden_units,), learning_rate_init=0.01, tol=1e-3, random_state=0)
    return network.fit(images, labels)


def _logits(network: MLPClassifier, images: FloatArray) -> FloatArray:
    """Return the logits of a network, of which scikit-learn gives only the softmax."""
    hidden_weights, output_weights = network.coefs_
    hidden_bias, output_bias = network.intercepts_
    hidden = np.maximum(images @ hidden_weights + hidden_bias, 0)
    logits: FloatArray = hidden @ output_weights + output_bias
    return logits
