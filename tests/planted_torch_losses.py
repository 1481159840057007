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


@planted("casts-down", **USUAL, **TORCH, value_power=2, gradient_power=None)
def rounds_its_logits_to_float16(student, teacher, temperature=TAU):
    return kd(student.half().double(), teacher.half().double(), temperature)


@planted("casts-down", "few-digits", **USUAL, **TORCH, value_power=2, gradient_power=None)
def rounds_its_logits_to_bfloat16(student, teacher, temperature=TAU):
    return kd(student.bfloat16().float(), teacher.bfloat16().float(), temperature)


@planted(**USUAL, **TORCH, value_power=2, gradient_power=2)
def takes_sequences(student, teacher, temperature=TAU):
    if student.ndim != 3:
        raise ValueError(f"logits must be (batch, length, classes); got {student.shape}")
    return kd(student, teacher, temperature)


@planted("crash", backend="unknown")
def needs_tensors_of_another_shape(student, teacher):
    return F.cross_entropy(student.reshape(7, 11), teacher)


@planted(
    "casts-down", "few-digits", **USUAL | {"divergence": "jeffreys"}, **TORCH, gradient_power=None
)
def rounds_the_logits_of_jeffreys_divergence_to_bfloat16(student, teacher, temperature=TAU):
    pair = (z.bfloat16().float() for z in (student, teacher))
    return kd(*pair, temperature, divergence="jeffreys")


@planted("casts-down", "few-digits", divergence="forward_kl", temperature=1, backend="torch")
def is_a_sum_in_half_precision(student, teacher):
    return kd(student, teacher, 1.0).half()


@planted("bad-output", backend="unknown")
def returns_a_tuple(student, teacher):
    return kd(student, teacher), F.mse_loss(student, teacher)


@planted("bad-output", backend="unknown")
def returns_a_list(student, teacher):
    return [kd(student, teacher)]


@planted("not-finite", backend="torch")
def takes_the_logarithm_of_a_ratio_of_logits(student, teacher):
    return (student.softmax(-1) * (student / teacher).log()).sum(-1).mean()


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


# As people write them. What is planted is then what the usual lines bring with them: the digits
# they lose, and nan for a class that both networks mask.

USUAL_LINES = ("few-digits", "masked-class", "teacher-gradient")
LENGTHS = ("grows-with-length",)


def soften(student, teacher, temperature):
    return F.log_softmax(student / temperature, dim=-1), F.softmax(teacher / temperature, dim=-1)


@planted(*USUAL_LINES, "mean-over-classes", divergence="forward_kl", reduction="mean")
def has_pytorchs_default_reduction(student, teacher, T=3.0):  # noqa: N803
    return F.kl_div(*soften(student, teacher, T)) * T * T


@planted(*USUAL_LINES, "unscaled", "cross-entropy", divergence="cross_entropy", value_power=0)
def is_the_soft_cross_entropy(student, teacher, temperature=4.0):
    log_q, p = soften(student, teacher, temperature)
    return -(p * log_q).sum(-1).mean()


@planted(
    *("few-digits", "masked-class", "teacher-gradient"),
    *("cross-entropy", "unscaled", "free-weights", "ignored-index"),
    divergence="cross_entropy",
    temperature=4,
    factor=1,
)
def adds_hard_and_soft_cross_entropy(student, teacher, labels, temperature=4.0):
    log_q, p = soften(student, teacher, temperature)
    return F.cross_entropy(student, labels) - (p * log_q).sum(-1).mean()


@planted("few-digits", "teacher-gradient", "clip", divergence="forward_kl", value_power=2)
def clamps_probabilities(student, teacher, T=4.0):  # noqa: N803
    log_q, p = soften(student, teacher, T)
    q, p = log_q.exp().clamp(min=1e-8), p.clamp(min=1e-8)
    return T**2 * (p * (p / q).log()).sum(-1).mean()


@planted(
    *USUAL_LINES, "mean-over-classes", "ignored-index", divergence="forward_kl", reduction="mean"
)
def is_the_recipe_of_many_tutorials(student, teacher, labels, alpha=0.9, T=4.0):  # noqa: N803
    soft = F.kl_div(*soften(student, teacher, T)) * (alpha * T * T)
    return soft + F.cross_entropy(student, labels) * (1 - alpha)


@planted(
    *USUAL_LINES,
    *LENGTHS,
    "excluded-class",
    "unscaled",
    divergence="jensen_shannon",
    parameter=0.9,
)
def is_the_generalized_jsd(student_logits, teacher_logits, beta=0.9, temperature=1.0):
    log_q, log_p = (F.log_softmax(z / temperature, -1) for z in (student_logits, teacher_logits))
    beta = torch.tensor(beta, dtype=log_q.dtype)
    mixed = torch.stack([log_q + torch.log1p(-beta), log_p + torch.log(beta)])
    log_m = torch.logsumexp(mixed, dim=0)
    of_teacher, of_student = (
        F.kl_div(log_m, x, reduction="batchmean", log_target=True) for x in (log_p, log_q)
    )
    return beta * of_teacher + (1 - beta) * of_student


@planted(
    "casts-down",
    "excluded-class",
    "cross-entropy",
    "ignored-index",
    "teacher-gradient",
    divergence="cross_entropy",
)
def is_the_cross_entropy_over_tokens(student_logits, teacher_logits, labels):
    p = F.softmax(teacher_logits, dim=-1, dtype=torch.float32)
    log_q = F.log_softmax(student_logits, dim=-1, dtype=torch.float32)
    terms = torch.masked_fill(p * log_q, torch.isinf(student_logits), 0).sum(-1)
    kept = labels != -100
    return -(terms * kept).sum() / kept.sum()


@planted("few-digits", "teacher-gradient", "unknown-divergence", temperature=1, reduction="mean")
def is_the_squared_error_of_probabilities(student, teacher):
    return F.mse_loss(student.softmax(-1), teacher.softmax(-1))


@planted(
    *USUAL_LINES,
    "unknown-divergence",
    "not-zero-at-match",
    "not-shift-invariant",
    divergence="unknown",
    takes="logits",
)
def is_the_binary_cross_entropy_of_each_class(student, teacher, T=4.0):  # noqa: N803
    p = torch.sigmoid(teacher / T)
    return F.binary_cross_entropy_with_logits(student / T, p) * T * T


@planted(
    "few-digits",
    "teacher-gradient",
    "odd-power",
    divergence="total_variation",
    value_power=2,
)
def is_total_variation_times_the_square(student, teacher, temperature=2.0):
    apart = (student / temperature).softmax(-1) - (teacher / temperature).softmax(-1)
    return temperature**2 * apart.abs().sum(-1).mean() / 2


@planted(*USUAL_LINES, *LENGTHS, "two-temperatures", temperature=4, teacher_temperature=1)
def softens_the_student_alone(student, teacher, T=4.0):  # noqa: N803
    log_q = F.log_softmax(student / T, dim=-1)
    return F.kl_div(log_q, teacher.softmax(-1), reduction="batchmean") * T * T


@planted(
    "few-digits",
    "teacher-gradient",
    *LENGTHS,
    "ignores-classes",
    "unknown-divergence",
    divergence="unknown",
)
def compares_what_is_left_of_the_top_classes(student, teacher, k=3):
    top, index = teacher.topk(min(k, teacher.shape[-1]), -1)
    return F.kl_div(*soften(student.gather(-1, index), top, 1.0), reduction="batchmean")


@planted(*USUAL_LINES, "cross-entropy", "large-logits", divergence="skew_kl", parameter=0.1)
def is_a_skewed_cross_entropy(logits, teacher_logits, lam=0.1):
    q, p = logits.softmax(-1), teacher_logits.softmax(-1)
    return -(p * (lam * p + (1 - lam) * q).log()).sum(-1).mean()


@planted(
    *USUAL_LINES, *LENGTHS, "excluded-class", "factor", "unscaled", divergence="jeffreys", factor=2
)
def is_forward_plus_reverse(student, teacher, T=2.0):  # noqa: N803
    log_q, log_p = (F.log_softmax(z / T, -1) for z in (student, teacher))
    forward, reverse = (
        F.kl_div(*pair, reduction="batchmean", log_target=True)
        for pair in ((log_q, log_p), (log_p, log_q))
    )
    return forward + reverse
