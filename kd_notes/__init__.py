"""Knowledge distillation losses that stay right at every temperature."""

from kd_notes._cross_entropy import cross_entropy_grad, cross_entropy_loss, one_hot
from kd_notes._distillation import (
    kd_grad,
    kd_loss,
    kd_loss_and_grad,
    knowledge_distillation_grad,
    knowledge_distillation_loss,
)
from kd_notes._divergence import kl_divergence, skew_jensen_divergence
from kd_notes._engine import set_engine
from kd_notes._logit_matching import (
    logit_matching_grad,
    logit_matching_loss,
    regularized_logit_matching_grad,
    regularized_logit_matching_loss,
)
from kd_notes._output_regularization import (
    confidence_penalty_grad,
    confidence_penalty_loss,
    label_smoothing_grad,
    label_smoothing_loss,
)
from kd_notes._softmax import entropy, log_softmax, softmax, softmax_jacobian
from kd_notes._topk import topk_kd_grad, topk_kd_loss

__version__ = "0.1.0"

__all__ = [
    "confidence_penalty_grad",
    "confidence_penalty_loss",
    "cross_entropy_grad",
    "cross_entropy_loss",
    "entropy",
    "kd_grad",
    "kd_loss",
    "kd_loss_and_grad",
    "kl_divergence",
    "knowledge_distillation_grad",
    "knowledge_distillation_loss",
    "label_smoothing_grad",
    "label_smoothing_loss",
    "log_softmax",
    "logit_matching_grad",
    "logit_matching_loss",
    "one_hot",
    "regularized_logit_matching_grad",
    "regularized_logit_matching_loss",
    "set_engine",
    "skew_jensen_divergence",
    "softmax",
    "softmax_jacobian",
    "topk_kd_grad",
    "topk_kd_loss",
]
