"""The library MMRazor."""

from audits.case import case
from audits.imports import without_init
from kd_notes.torch import kd_loss

without_init("mmrazor", "mmrazor.models", "mmrazor.models.losses")
from mmrazor.models.losses.kl_divergence import KLDivergence  # noqa: E402

LIBRARY = "MMRazor"
DISTRIBUTION = "mmrazor"
IN_SHORT = "OK. `KLDivergence` is the KL divergence with the factor τ²."


@case()
def kl_divergence(student, teacher, temperature=4.0):
    """`KLDivergence`"""
    return KLDivergence(tau=temperature)(student, teacher)


@kl_divergence.equals
def _(student, teacher, temperature):
    return kd_loss(student, teacher, temperature).mean()
