"""The library ms-swift."""

from audits.case import case
from audits.imports import without_init
from kd_notes.divergences import JensenShannon
from kd_notes.torch import kd_loss

without_init("swift", "swift.rlhf_trainers")
from swift.rlhf_trainers.gkd_loss import TeacherOutput, gkd_loss  # noqa: E402

LIBRARY = "ms-swift"
DISTRIBUTION = "ms-swift"
IN_SHORT = "OK at the default, τ = 0.9. There is no factor τ², which a larger temperature needs."


@case()
def gkd(student, teacher, labels, temperature=4.0):
    """`gkd_loss` over the valid tokens, as in `GKDTrainer`, `beta=0.5`"""
    output = TeacherOutput(full_logits=teacher, labels=labels)
    total, valid = gkd_loss(student, output, labels, beta=0.5, temperature=temperature)
    return total / valid


@gkd.equals
def _(student, teacher, labels, temperature):
    divergence = JensenShannon(0.5, normalized=False)
    return kd_loss(student, teacher, temperature, divergence=divergence, scaled=False).mean()


@case(
    headline="forward KL over the teacher's two best classes at τ = 4, both networks "
    "renormalized, averaged over the examples",
)
def gkd_top_k(student, teacher, labels, temperature=4.0):
    """`gkd_loss`, `beta=0`, a teacher of its two best classes

    Both networks are renormalized over these classes: nothing keeps the student's mass on
    them.
    """
    output = TeacherOutput(full_logits=teacher, labels=labels).to_topk(2)
    total, valid = gkd_loss(student, output, labels, beta=0, temperature=temperature)
    return total / valid


@gkd_top_k.equals
def _(student, teacher, labels, temperature):
    best, classes = teacher.topk(2)
    return kd_loss(student.gather(-1, classes), best, temperature, scaled=False).mean()
