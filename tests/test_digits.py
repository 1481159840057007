"""The held-out scans of digits, and the two networks whose logits the chapters use."""

from typing import NamedTuple

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_info

import kd_notes
from kd_notes._book import digits
from kd_notes._book.digits import HeldOutDigits, held_out_digits


class Fit(NamedTuple):
    """A network, the scans it was fitted to, and the threads that BLAS was allowed."""

    network: MLPClassifier
    images: np.ndarray
    labels: np.ndarray
    threads: set[int]


@pytest.fixture(scope="module")
def fitted():
    """The held-out digits, and how the networks behind them were fitted."""
    fits = []

    class Recorded(MLPClassifier):
        def fit(self, images, labels):
            threads = {pool["num_threads"] for pool in threadpool_info()}
            fits.append(Fit(self, images, labels, threads))
            return super().fit(images, labels)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digits, "MLPClassifier", Recorded)
        held_out = held_out_digits()
    return held_out, *fits


def test_450_scans_are_held_out(fitted):
    held_out, *_ = fitted
    assert isinstance(held_out, HeldOutDigits)
    assert [array.shape for array in held_out] == [(450, 64), (450,), (450, 10), (450, 10)]
    assert [array.dtype.kind for array in held_out] == ["f", "i", "f", "f"]


def rows(images, labels):
    return {(*image, label) for image, label in zip(images, labels, strict=True)}


def test_both_networks_are_fitted_to_the_other_scans_and_their_labels(fitted):
    held_out, student, teacher = fitted
    images, labels = load_digits(return_X_y=True)
    held_out_rows = rows(16 * held_out.images, held_out.labels)
    training_rows = rows(16 * student.images, student.labels)
    assert len(held_out_rows) == 450
    assert not held_out_rows & training_rows
    assert held_out_rows | training_rows == rows(images, labels)
    assert_array_equal(student.images, teacher.images)
    assert_array_equal(student.labels, teacher.labels)


def test_gray_values_run_from_0_to_1(fitted):
    held_out, *_ = fitted
    assert (held_out.images.min(), held_out.images.max()) == (0, 1)


def test_the_split_is_stratified(fitted):
    held_out, *_ = fitted
    _, labels = load_digits(return_X_y=True)
    expected = 450 / 1797 * np.bincount(labels)
    assert np.all(np.abs(np.bincount(held_out.labels) - expected) < 1)


def test_the_teacher_is_the_larger_network(fitted):
    _, student, teacher = fitted
    assert student.network.hidden_layer_sizes == (8,)
    assert teacher.network.hidden_layer_sizes == (256,)


def test_the_students_logits_have_the_rank_of_its_hidden_layer(fitted):
    held_out, *_ = fitted
    assert np.linalg.matrix_rank(held_out.student - held_out.student.mean(axis=0)) <= 8
    assert np.linalg.matrix_rank(held_out.teacher - held_out.teacher.mean(axis=0)) == 10


def test_the_softmax_of_the_logits_is_what_the_network_predicts(fitted):
    held_out, *fits = fitted
    for logits, fit in zip([held_out.student, held_out.teacher], fits, strict=True):
        predicted = fit.network.predict_proba(held_out.images)
        # The same products, added in another order: logits of about 10, so a few 1e-15.
        assert_allclose(kd_notes.softmax(logits), predicted, rtol=1e-12, atol=1e-14)


def test_the_teacher_makes_fewer_errors(fitted):
    """As the chapters print it. Most settings of the training change these numbers."""
    held_out, *_ = fitted
    errors = [
        np.sum(logits.argmax(axis=1) != held_out.labels)
        for logits in (held_out.student, held_out.teacher)
    ]
    assert errors == [22, 10]


def test_training_converges_on_one_thread_from_a_fixed_seed(fitted):
    """So that every machine finds the same logits, up to its own rounding."""
    _, *fits = fitted
    for fit in fits:
        assert fit.network.n_iter_ < fit.network.max_iter
        assert fit.threads == {1}
        assert fit.network.random_state == 0
