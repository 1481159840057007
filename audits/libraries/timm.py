"""The library timm."""

import torch

from audits.case import case
from audits.imports import absent
from kd_notes.torch import KnowledgeDistillationLoss

absent(
    "torchvision",
    "torchvision.datasets",
    "torchvision.models",
    "torchvision.models.feature_extraction",
    "torchvision.ops",
    "torchvision.ops.misc",
    "torchvision.transforms",
    "torchvision.transforms.functional",
)
from timm.task.distillation import LogitDistillationTask  # noqa: E402

LIBRARY = "timm"
DISTRIBUTION = "timm"
IN_SHORT = "OK. The default is cross-entropy plus τ² times the KL divergence, each with weight 1."


class Network(torch.nn.Module):
    """Stand for a network, by returning one part of the input."""

    num_classes, in_chans = 5, 3
    pretrained_cfg = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}  # noqa: RUF012

    def __init__(self, part):
        super().__init__()
        self.part = part

    def forward(self, parts):
        """Return the logits that stand for this network's."""
        return parts[self.part]


NETWORKS = Network(0), Network(1), torch.nn.CrossEntropyLoss()


@case()
def complementary(student, teacher, labels, temperature=4.0, alpha=0.3):
    """`LogitDistillationTask`, `task_loss_weight=alpha`

    Our alpha is one minus the weight.
    """
    task = LogitDistillationTask(
        *NETWORKS, temperature=temperature, task_loss_weight=alpha, verbose=False
    )
    return task(torch.stack([student, teacher]), labels)["loss"]


@complementary.equals
def _(student, teacher, labels, temperature, alpha):
    return KnowledgeDistillationLoss(temperature, alpha=1 - alpha)(student, teacher, labels)


@case()
def by_default(student, teacher, labels, temperature=4.0):
    """`LogitDistillationTask`, its default weights

    Both weights are 1.
    """
    task = LogitDistillationTask(*NETWORKS, temperature=temperature, verbose=False)
    return task(torch.stack([student, teacher]), labels)["loss"]


@by_default.equals
def _(student, teacher, labels, temperature):
    return 2 * KnowledgeDistillationLoss(temperature, alpha=0.5)(student, teacher, labels)
