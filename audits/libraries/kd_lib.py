"""The library KD-Lib."""

import torch
import torch.nn.functional as F  # noqa: N812

from audits.case import case
from audits.imports import absent, without_init
from kd_notes.torch import KnowledgeDistillationLoss

absent("torch.utils.tensorboard")
without_init("KD_Lib", "KD_Lib.KD", "KD_Lib.KD.vision")
from KD_Lib.KD.vision.vanilla.vanilla_kd import VanillaKD  # noqa: E402

LIBRARY = "KD-Lib"
DISTRIBUTION = "KD-Lib"
IN_SHORT = (
    "To change: the default `loss_fn` compares probabilities. Pass the module of the third call."
)
NO_DATA = (None, None, None, None)


@case(
    headline="0.7 × cross-entropy on the label + 0.3 × τ² × squared error of the probabilities "
    "at τ = 4, averaged over the examples and the classes",
)
def by_default(student, teacher, labels, temperature=4.0, alpha=0.3):
    """`VanillaKD`, its default `loss_fn=MSELoss()`

    `VanillaKD` computes (1 - `distil_weight`) × cross-entropy + `distil_weight` × τ² ×
    `loss_fn(p, q)`, where p and q are the teacher's and the student's probabilities;
    `distil_weight`, 0.5 by default, is our alpha, and `temp`, 20 by default, is τ. At high
    temperatures this `loss_fn` tends to 2/K² times the KL divergence, for K classes.
    """
    network = torch.nn.Identity()
    distiller = VanillaKD(network, network, *NO_DATA, temp=temperature, distil_weight=alpha)
    return distiller.calculate_kd_loss(student, teacher, labels)


@case(
    headline="0.7 × cross-entropy on the label + 0.3 × τ² × Σ p (log p - q), no divergence of "
    "the networks, averaged over the examples",
)
def kl_div(student, teacher, labels, temperature=4.0, alpha=0.3):
    """`VanillaKD`, `loss_fn=KLDivLoss("batchmean")`

    `KLDivLoss` expects the student's log-probabilities first and is given the teacher's
    probabilities p, then the student's q. Pass the module below.
    """
    network, loss = torch.nn.Identity(), torch.nn.KLDivLoss(reduction="batchmean")
    distiller = VanillaKD(network, network, *NO_DATA, loss, temperature, alpha)
    return distiller.calculate_kd_loss(student, teacher, labels)


@case()
def mended(student, teacher, labels, temperature=4.0, alpha=0.3):
    """`VanillaKD`, with a `loss_fn` that takes the logarithm

    Without the clamp, a class to which both networks give probability 0 makes the loss nan. With
    it, the loss is bounded where it ought to be very large or infinite.
    """

    class KL(torch.nn.Module):
        def forward(self, p, q):
            log_q = q.clamp_min(torch.finfo(q.dtype).tiny).log()
            return F.kl_div(log_q, p, reduction="batchmean")

    network = torch.nn.Identity()
    distiller = VanillaKD(network, network, *NO_DATA, KL(), temperature, alpha)
    return distiller.calculate_kd_loss(student, teacher, labels)


@mended.equals
def _(student, teacher, labels, temperature, alpha):
    return KnowledgeDistillationLoss(temperature, alpha)(student, teacher, labels)
