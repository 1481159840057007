"""The logits of two real networks, a large and a small one, on scanned digits.

Scikit-learn ships 1,797 scans of handwritten digits, 8 by 8 pixels each. Two of its
networks are fitted to three quarters of them with fixed seeds; what they say of the last
quarter, which neither has seen, is what the chapters look at.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits

from kd_notes._checks import FloatArray

TEACHER_UNITS, STUDENT_UNITS = 256, 8


class HeldOutDigits(NamedTuple):
    """Scans that neither network has seen, and what each network says of them."""

    images: FloatArray  #: `(N, 64)`, gray values from 0 (paper) to 1 (ink)
    labels: np.ndarray[tuple[int], np.dtype[np.int64]]  #: `(N,)`, the digit written
    student: FloatArray  #: `(N, 10)`, logits of the small network
    teacher: FloatArray  #: `(N, 10)`, logits of the large network


def held_out_digits() -> HeldOutDigits:
    """Fit both networks and return their logits on the held-out scans.

    Returns
    -------
    HeldOutDigits
        450 scans, their labels, and both networks' logits.

    Examples
    --------
    >>> from kd_notes._book.digits import held_out_digits
    >>> held_out_digits().teacher.shape
    (450, 10)
    """
    images, digits = load_digits(return_X_y=True)
    train, test, train_labels, labels = train_test_split(
        images / 16, digits, test_size=450, random_state=0, stratify=digits
    )
    with threadpool_limits(1):  # these networks are small, and sums keep their order
        student = _fit(STUDENT_UNITS, train, train_labels)
        teacher = _fit(TEACHER_UNITS, train, train_labels)
    return HeldOutDigits(test, labels, _logits(student, test), _logits(teacher, test))


def _fit(units: int, images: FloatArray, labels: FloatArray) -> MLPClassifier:
    network = MLPClassifier(
        (units,), learning_rate_init=0.01, tol=1e-3, max_iter=500, random_state=0
    )
    return network.fit(images, labels)


def _logits(network: MLPClassifier, images: FloatArray) -> FloatArray:
    """Return what scikit-learn's network computes before its softmax."""
    (first, second), (first_bias, second_bias) = network.coefs_, network.intercepts_
    hidden = np.maximum(images @ first + first_bias, 0)
    logits: FloatArray = hidden @ second + second_bias
    return logits
