"""Code as a user of the library writes it, which `mypy --strict` accepts.

`assert_type` states what mypy infers. A `type: ignore` marks a wrong use: mypy reports the
comment itself if the line is not an error.
"""

from typing import TYPE_CHECKING, Any, assert_type

import numpy as np
from numpy.typing import NDArray

import kd_notes as kd
from kd_notes.divergences import SkewKL

Floats = NDArray[np.floating[Any]]

row, other_row = [1.0, 2.0, 0.0], (3, 1, -1)
rows = [row, [0.0, 0.5, 1.0]]
array: NDArray[np.float32] = np.ones((4, 3), np.float32)
indices = np.array([0, 2, 1, 1])

# The loss of one example in plain lists or tuples is a float.
assert_type(kd.kd_loss(row, other_row), float)
assert_type(kd.kd_loss(row, other_row, 4, scaled=False), float)
assert_type(kd.kd_loss(row, other_row, 4, divergence="reverse_kl"), float)
assert_type(kd.kd_loss(row, other_row, divergence=SkewKL(0.2), teacher_temperature=2), float)
assert_type(kd.knowledge_distillation_loss(row, other_row, 2, temperature=4, alpha=0.5), float)
assert_type(kd.knowledge_distillation_loss(row, other_row, [0.0, 1.0, 0.0], 4, 0.5), float)
assert_type(kd.topk_kd_loss(row, [-1.0, -2.0], [0, 2]), float)
assert_type(kd.topk_kd_loss(row, (3, 1), (0, 2), 4, teacher_log_normalizer=1.5), float)
assert_type(kd.logit_matching_loss(row, other_row), float)
assert_type(kd.regularized_logit_matching_loss(row, other_row), float)
assert_type(kd.cross_entropy_loss(row, 2), float)
assert_type(kd.cross_entropy_loss(row, np.int64(2)), float)
assert_type(kd.label_smoothing_loss(row, 2, alpha=0.1), float)
assert_type(kd.confidence_penalty_loss(row, [0.5, 0.5, 0.0], 0.1), float)
assert_type(kd.kl_divergence([0.5, 0.5], [0.25, 0.75]), float)
assert_type(kd.skew_jensen_divergence([0.5, 0.5], [0.25, 0.75], alpha=0.5), float)
assert_type(kd.entropy([0.5, 0.5]), float)
rounded: float = round(kd.kd_loss(row, other_row), 6)

# The losses of a batch are an array.
assert_type(kd.kd_loss(array, array), Floats)
assert_type(kd.kd_loss(array, row, np.inf), Floats)
assert_type(kd.kd_loss(rows, other_row), Floats)
assert_type(kd.knowledge_distillation_loss(array, array, indices, 4, 0.5), Floats)
assert_type(kd.topk_kd_loss(array, array[:, :2], indices[:2], tail="renormalize"), Floats)
assert_type(kd.topk_kd_loss(array, [3, 1], [0, 2], teacher_log_normalizer=array[:, 0] + 4), Floats)
assert_type(kd.logit_matching_loss(array, rows[0]), Floats)
assert_type(kd.regularized_logit_matching_loss(array, array), Floats)
assert_type(kd.cross_entropy_loss(rows, [2, 0]), Floats)
assert_type(kd.cross_entropy_loss(array, indices), Floats)
assert_type(kd.label_smoothing_loss(array, indices, 0.1), Floats)
assert_type(kd.confidence_penalty_loss(array, indices, 0.1), Floats)
assert_type(kd.kl_divergence(kd.softmax(array), kd.softmax(row)), Floats)
assert_type(kd.skew_jensen_divergence(kd.softmax(array), kd.softmax(row), 0.5), Floats)
assert_type(kd.entropy(kd.softmax(array)), Floats)
mean_loss = float(kd.kd_loss(array, array).mean())

# That of a one-dimensional array is a NumPy scalar, which has an array's methods.
scalar = float(kd.kd_loss(array[0], array[1]))

# Probabilities and gradients are arrays, even of plain lists.
assert_type(kd.softmax(row), Floats)
assert_type(kd.log_softmax(rows, temperature=2), Floats)
assert_type(kd.softmax_jacobian(array), Floats)
assert_type(kd.kd_grad(row, other_row), Floats)
assert_type(kd.knowledge_distillation_grad(row, other_row, 0, 4, 0.5), Floats)
assert_type(kd.topk_kd_grad(row, [-1.0, -2.0], [0, 2]), Floats)
assert_type(kd.logit_matching_grad(row, other_row), Floats)
assert_type(kd.regularized_logit_matching_grad(row, other_row), Floats)
assert_type(kd.cross_entropy_grad(row, 2), Floats)
assert_type(kd.label_smoothing_grad(row, 2, 0.1), Floats)
assert_type(kd.confidence_penalty_grad(row, 2, 0.1), Floats)
assert_type(kd.one_hot([2, 0], num_classes=3), Floats)

# One pass gives both.
assert_type(kd.kd_loss_and_grad(row, other_row), tuple[float, Floats])
assert_type(kd.kd_loss_and_grad(array, array, out=np.empty_like(array)), tuple[Floats, Floats])

if TYPE_CHECKING:  # each of these lines raises an error when it runs
    kd.softmax(None)  # type: ignore[arg-type]
    kd.softmax(row, temperature="2")  # type: ignore[arg-type]
    kd.softmax(row, scaled=True)  # type: ignore[call-arg]
    kd.kd_loss(row, other_row, 4.0, False)  # type: ignore[call-overload]
    kd.kd_loss(row, other_row, scaled="no")  # type: ignore[call-overload]
    kd.kd_loss_and_grad(array, array, out=[[0.0] * 3] * 4)  # type: ignore[call-overload]
    kd.knowledge_distillation_loss(row, other_row, 0, 4.0)  # type: ignore[call-overload]
    kd.topk_kd_loss(row, [0.0], [1], tail=True)  # type: ignore[call-overload]
    kd.label_smoothing_loss(row, 0, alpha=None)  # type: ignore[call-overload]
    kd.one_hot([0], num_classes=3.0)  # type: ignore[arg-type]
    text: str = kd.kd_loss(row, other_row)  # type: ignore[assignment]
    number: float = kd.kd_loss(array, array)  # type: ignore[assignment]
