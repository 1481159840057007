"""The library Sentence Transformers, where the classes are the candidates of a query."""

import torch
from sentence_transformers.sentence_transformer.losses import DistillKLDivLoss

from audits.case import case
from kd_notes.torch import kd_loss

LIBRARY = "Sentence Transformers"
DISTRIBUTION = "sentence-transformers"
IN_SHORT = "OK. `DistillKLDivLoss` is the KL divergence with the factor τ²."


@case()
def distill(student, teacher, temperature=4.0):
    """`DistillKLDivLoss`

    It refuses a query with one candidate, for which the loss would be 0 always.
    """
    query = torch.ones_like(student[:, :1])  # the dot product with a candidate is its score
    loss = DistillKLDivLoss(model=None, temperature=temperature)
    return loss.compute_loss_from_embeddings([query, *student.split(1, dim=1)], teacher)


@distill.equals
def _(student, teacher, temperature):
    return kd_loss(student, teacher, temperature).mean()
