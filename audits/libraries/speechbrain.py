"""The library SpeechBrain."""

from torch.distributions import Categorical

from audits.case import case
from audits.imports import absent, without_init
from kd_notes.torch import kd_loss

absent("torchaudio", "hyperpyyaml")
without_init("speechbrain", "speechbrain.nnet")
from speechbrain.nnet.losses import ce_kd  # noqa: E402

LIBRARY = "SpeechBrain"
DISTRIBUTION = "speechbrain"
IN_SHORT = (
    "OK. `ce_kd` has the gradient of the KL divergence; temperature and mean are the caller's."
)


@case(takes=("log_probabilities", "probabilities"))
def cross_entropy(student, teacher):
    """`ce_kd`

    Its docstring says probabilities; its first argument has to be log-probabilities.
    """
    return ce_kd(student, teacher)


@cross_entropy.equals
def _(student, teacher, temperature):
    kd = kd_loss(student, teacher, temperature, scaled=False)
    return kd + Categorical(logits=teacher / temperature).entropy()
