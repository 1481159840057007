"""Losses of PyTorch with one planted defect or choice each; see `planted_losses`."""

import torch
import torch.nn.functional as F  # noqa: N812
from planted_losses import TAU, USUAL, planted

from kd_notes.divergences import JensenShannon
from kd_notes.torch import KnowledgeDistillationLoss, kd_loss

TORCH = {"backend": "torch", "teacher_gradient": False}


def kd(student, teacher, temperature=TAU, **options):
    return kd_loss(student, teacher, temperature, **options).mean()


@planted(**USUAL, **TORCH, value_power=2, gradient_power=2, factor=1)
def is_right_in_pytorch(student, teacher, temperature=TAU):
    return kd(student, teacher, temperature)


for _name in ("reverse_kl", "jeffreys", "total_variation"):

    def _loss(student, teacher, T=TAU, name=_name):  # noqa: N803
        return kd(student, teacher, T, divergence=name)

    _loss.__name__ = f"is_{_name}_in_pytorch"
    planted(**USUAL | {"divergence": _name}, **TORCH)(_loss)


@planted("factor", **USUAL | {"divergence": "jensen_shannon"}, **TORCH, parameter=0.3)
def is_jensen_shannon_in_pytorch(student, teacher, T=TAU):  # noqa: N803
    return kd(student, teacher, T, divergence=JensenShannon(0.3))


@planted("ignored-index", **USUAL, backend="torch", value_power=2)
def is_the_module(student, teacher, labels):
    return KnowledgeDistillationLoss(TAU, alpha=0.3)(student, teacher, labels)


@planted("ignored-index", "alpha-on-labels", **USUAL, **TORCH, value_power=2, factor=0.7)
def weighs_the_labels_in_pytorch(student, teacher, labels, temperature=TAU, alpha=0.3):
    hard = F.cross_entropy(student.double(), labels)
    return alpha * hard + (1 - alpha) * kd(student, teacher, temperature)


class _TwoFactors(torch.autograd.Function):
    """A loss whose value and whose gradient have factors of their own."""

    @staticmethod
    def forward(ctx, loss, value, gradient):
        ctx.gradient = gradient
        return loss * value

    @staticmethod
    def backward(ctx, grad):
        return grad * ctx.gradient, None, None


@planted("wrong-gradient", **USUAL, **TORCH, value_power=2, gradient_power=0)
def multiplies_the_value_after_the_gradient(student, teacher, temperature=TAU):
    return _TwoFactors.apply(kd(student, teacher, temperature, scaled=False), temperature**2, 1)


@planted("wrong-gradient", **USUAL, **TORCH, value_power=2, gradient_power=0)
def multiplies_the_value_at_a_fixed_temperature(student, teacher):
    return _TwoFactors.apply(kd(student, teacher, scaled=False), TAU**2, 1)


@planted("wrong-gradient", "unscaled", **USUAL, **TORCH, value_power=0, gradient_power=2)
def multiplies_the_gradient_alone(student, teacher, temperature=TAU):
    return _TwoFactors.apply(kd(student, teacher, temperature, scaled=False), 1, temperature**2)


@planted("wrong-gradient", **TORCH, divergence="reverse_kl", gradient_power=None)
def detaches_the_students_weights(student, teacher):
    teacher = teacher.detach()
    value = kd(student, teacher, 1.0, divergence="reverse_kl")
    log_q, log_p = student.double().log_softmax(-1), teacher.double().log_softmax(-1)
    gaps = torch.where(log_q == log_p, 0, log_q - log_p)
    partial = (torch.softmax(student.double(), -1).detach() * gaps).sum(-1).mean()
    return torch.where(partial.isfinite(), value.detach() + partial - partial.detach(), value)


@planted("no-gradient", **USUAL, backend="torch", gradient_power=None)
def is_detached(student, teacher):
    return kd(student.detach(), teacher)


@planted("no-gradient", **USUAL, backend="torch")
def fails_in_its_backward(student, teacher):
    loss = kd(student, teacher)
    if loss.requires_grad:
        loss.register_hook(lambda grad: 1 / 0)
    return loss


@planted("teacher-gradient", backend="torch", divergence="squared_error", teacher_gradient=True)
def trains_the_teacher_too(student, teacher):
    return ((student.double() - teacher.double()) ** 2).mean()


@planted("mean-over-classes", **USUAL | {"reduction": "mean"}, **TORCH)
def is_averaged_over_classes_in_pytorch(student, teacher):
    return kd(student, teacher) / student.size(-1)


@planted("edge-gradient", **TORCH, divergence="forward_kl")
def has_nan_in_the_gradient_behind_a_mask(student, teacher):
    below = student.double() - student.detach().amax(-1, keepdim=True)
    roots = below.exp().sqrt()  # the slope of the root at 0 is infinite
    trap = torch.where(student == -torch.inf, 0, roots * 0).sum(-1)
    return (kd_loss(student, teacher) + trap).mean()


@planted("few-digits", **USUAL, **TORCH)
def is_the_usual_line(student, teacher, temperature=TAU):
    log_q, log_p = (F.log_softmax(z / temperature, -1) for z in (student, teacher.detach()))
    gaps = torch.where(log_p == -torch.inf, 0, log_p - log_q)
    return temperature**2 * (log_p.exp() * gaps).sum(-1).mean()


@planted("masked-class", "grows-with-length", "few-digits", **USUAL, **TORCH)
def is_pytorchs_own(student, teacher, temperature=TAU):
    log_q = F.log_softmax(student / temperature, dim=-1)
    p = F.softmax(teacher.detach() / temperature, dim=-1)
    return F.kl_div(log_q, p, reduction="batchmean") * temperature**2


@planted("casts-down", **USUAL, backend="torch", value_power=2, gradient_power=None)
def casts_to_half_precision(student, teacher, temperature=TAU):
    return kd(student, teacher, temperature).half()


@planted(**USUAL, **TORCH, value_power=2, gradient_power=2)
def takes_sequences(student, teacher, temperature=TAU):
    if student.ndim != 3:
        raise ValueError(f"logits must be (batch, length, classes); got {student.shape}")
    return kd(student, teacher, temperature)


@planted("crash", backend="unknown")
def needs_tensors_of_another_shape(student, teacher):
    return F.cross_entropy(student.reshape(7, 11), teacher)


@planted("stochastic", backend="torch")
def has_dropout(student, teacher):
    return kd(F.dropout(student, 0.5), teacher)


@planted("changes-input", backend="torch")
def divides_in_place(student, teacher):
    return kd(student.div_(2), teacher.div_(2), 1.0)


@planted(
    "takes-probabilities",
    "masked-class",
    "grows-with-length",
    backend="torch",
    divergence="forward_kl",
    takes="log_probabilities",
    teacher_takes="probabilities",
)
def is_kl_div(input, target):
    return F.kl_div(input, target.detach(), reduction="batchmean")
