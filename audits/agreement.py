"""To how many digits a library's loss agrees with its conversion, in value and gradient."""

import inspect
import math

import numpy as np
import torch

from audits.case import DIGITS, Case

CLASSES, EXAMPLES = 5, 6
OTHERS = {"temperature": 3.0, "alpha": 0.3, "labels": torch.tensor([0, 3, 1, 1, 4, 0])}


def digits_of_agreement(case: Case) -> int:
    """Return the digits that value and gradient have in common, at most the usual promise."""
    theirs, ours = value_and_gradient(case, case.theirs), value_and_gradient(case, case.ours)
    return min(DIGITS, *(common_digits(a, b) for a, b in zip(theirs, ours, strict=True)))


def value_and_gradient(case, loss):
    """Return the loss and the gradient of its sum for the student's logits, as arrays."""
    rng = np.random.default_rng(seed=1)
    student, teacher = torch.tensor(rng.normal(scale=3, size=(2, EXAMPLES, CLASSES)))
    student.requires_grad_()
    inputs = {"student": student, "teacher": teacher}
    if loss is case.theirs:
        inputs = as_taken(case, **inputs)
    arguments = [(inputs | OTHERS)[name] for name in inspect.signature(loss).parameters]
    if loss is case.theirs and "gradient" in case.options:
        return by_numpy(case, arguments, student)
    value = loss(*arguments)
    (gradient,) = torch.autograd.grad(value.sum(), student)
    return value.detach().numpy(), gradient.numpy()


def as_taken(case, student, teacher):
    """Return logits, probabilities or log-probabilities, whichever the library takes."""
    takes = case.options.get("takes", "logits")
    pair = (takes, takes) if isinstance(takes, str) else takes
    signature = inspect.signature(case.ours).parameters
    temperature = OTHERS["temperature"] if "temperature" in signature else 1
    forms = {
        "logits": lambda z: z,
        "log_probabilities": lambda z: torch.log_softmax(z / temperature, -1),
        "probabilities": lambda z: torch.softmax(z / temperature, -1),
    }
    return {"student": forms[pair[0]](student), "teacher": forms[pair[1]](teacher)}


def by_numpy(case, tensors, student):
    """Return value and gradient of a loss that takes NumPy arrays and comes with its gradient."""
    arrays = [x.detach().numpy() if isinstance(x, torch.Tensor) else x for x in tensors]
    slope = torch.tensor(np.asarray(case.options["gradient"](*arrays)))
    (gradient,) = torch.autograd.grad(tensors[0], student, slope)
    return np.asarray(case.theirs(*arrays)), gradient.numpy()


def common_digits(a, b):
    """Return how many decimal digits the worst entry has in common, in relation to the largest."""
    error = np.abs(np.subtract(a, b, dtype=float)).max() / np.abs(b).max()
    return DIGITS if error == 0 else math.floor(-math.log10(error))
