"""A small language model is distilled as users do it: in bfloat16, compiled, with padding.

Its steps are compared with those of the same computation in float64, eager and without
checkpoints: they must agree to bfloat16's precision.
"""

import contextlib
import os
import shutil

import pytest
from backends import OF_FUNCTIONS, OF_SCRIPTS

torch = pytest.importorskip("torch")

from torch.utils.checkpoint import checkpoint  # noqa: E402

from kd_notes.divergences import JensenShannon  # noqa: E402
from kd_notes.torch import KnowledgeDistillationLoss, topk_kd_loss  # noqa: E402

VOCABULARY, WIDTH, LENGTH = 50_257, 16, 8
HAS_COMPILER = shutil.which(os.environ.get("CXX", "g++"))
KD = KnowledgeDistillationLoss


class LanguageModel(torch.nn.Module):
    """Next-token logits from the last two tokens."""

    def __init__(self, is_checkpointed):
        super().__init__()
        self.is_checkpointed = is_checkpointed
        self.embedding = torch.nn.Embedding(VOCABULARY, WIDTH)
        self.hidden = torch.nn.Linear(2 * WIDTH, WIDTH)
        self.head = torch.nn.Linear(WIDTH, VOCABULARY)

    def forward(self, tokens):
        x = self.embedding(tokens)
        pairs = torch.cat([x, x.roll(1, 1)], -1)
        if self.is_checkpointed:
            hidden = checkpoint(self.block, pairs, use_reentrant=False)
        else:
            hidden = self.block(pairs)
        return self.head(hidden)

    def block(self, pairs):
        return torch.tanh(self.hidden(pairs))


def batches():
    """Two batches of one step: tokens, the teacher's logits, and labels padded by -100."""
    generator = torch.Generator().manual_seed(0)
    for lengths in ([LENGTH, 6], [4, 3]):
        tokens = torch.randint(VOCABULARY, (2, LENGTH), generator=generator)
        teacher = 3 * torch.randn(2, LENGTH, VOCABULARY, generator=generator)
        teacher = teacher.bfloat16().float()  # rounded in every dtype, and by every compiler
        labels = tokens.roll(-1, 1)
        for row, length in enumerate(lengths):
            labels[row, length:] = -100
            teacher[row, length:] = torch.nan
        yield tokens, teacher, labels


def whole(teacher, dtype):
    return (teacher.to(dtype),)


def top_20(teacher, dtype):
    """Return 20 log-probabilities at each position and their tokens, padded by nan and -1."""
    values, indices = teacher.log_softmax(-1).topk(20)
    return values.to(dtype), indices.where(values == values, -1)


def top_k_loss(tail):
    def loss(student, values, indices, labels, num_items):
        losses = topk_kd_loss(student, values, indices, tail=tail, mask=labels != -100)
        return losses.sum() / num_items

    return loss


def steps(loss, sent, dtype, compiler):
    """Return how two steps of gradient descent change the parameters."""
    torch.manual_seed(0)
    is_low = dtype == torch.bfloat16
    model = LanguageModel(is_checkpointed=is_low).to(torch.float32 if is_low else dtype)
    before = [x.detach().clone() for x in model.parameters()]
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)

    def compute(tokens, teacher, labels, num_items):
        cast = torch.autocast("cpu", dtype=dtype) if is_low else contextlib.nullcontext()
        with cast:
            return loss(model(tokens), *teacher, labels, num_items=num_items)

    if compiler:
        torch.compiler.reset()
        compute = torch.compile(compute, fullgraph=True, backend=compiler)
    for _ in range(2):
        num_items = sum((labels != -100).sum() for *_, labels in batches())
        for tokens, teacher, labels in batches():
            compute(tokens, sent(teacher, dtype), labels, num_items).backward()
        optimizer.step()
        optimizer.zero_grad()
    return [(x.detach() - y).double() for x, y in zip(model.parameters(), before, strict=True)]


CASES = {
    "reverse KL": ("aot_eager", KD(1, 1.0, divergence="reverse_kl"), whole),
    "JSD 0.1": ("aot_eager", KD(1, 0.5, divergence=JensenShannon(0.1)), whole),
    "JSD 0.5": ("inductor", KD(2, 0.5, divergence=JensenShannon(0.5)), whole),
    "JSD 0.9": ("aot_eager", KD(2, 0.9, divergence=JensenShannon(0.9)), whole),
    "top 20 and the rest": ("aot_eager", top_k_loss("bucket"), top_20),
    "top 20": ("inductor", top_k_loss("renormalize"), top_20),
}


@pytest.mark.filterwarnings(
    OF_FUNCTIONS,
    OF_SCRIPTS,
)
@pytest.mark.parametrize(("compiler", "loss", "sent"), CASES.values(), ids=CASES)
def test_steps_in_bfloat16_are_those_of_float64(compiler, loss, sent):
    low = steps(loss, sent, torch.bfloat16, compiler if HAS_COMPILER else "aot_eager")
    exact = steps(loss, sent, torch.float64, None)
    for change, expected in zip(low, exact, strict=True):
        # Three roundings to bfloat16 on the way: weights, logits and their gradient.
        error = (change - expected).norm() / expected.norm()
        assert error < 2 * torch.finfo(torch.bfloat16).eps
