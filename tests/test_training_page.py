"""The script on the page on training, as a reader copies it, and what replaces its loss."""

import ast
import contextlib
import io
import re

import pytest
from chapters import ROOT

torch = pytest.importorskip("torch")

PAGE = (ROOT / "book" / "training.md").read_text()
SECTION = PAGE[PAGE.index("(sec-script)=") : PAGE.index("(sec-language-models)=")]
SCRIPT, PRINTED, LINES = (
    re.search(rf"^```{kind}\n(.*?)^```$", SECTION, re.DOTALL | re.MULTILINE)[1]
    for kind in (r"\{code-block\} python", "text", "python")
)
REPLACED = SCRIPT[SCRIPT.index("tau, alpha = ") : SCRIPT.index("def train(")]


def run(script):
    """Return what a script defines and prints; one thread adds up in the same order each time."""
    names, printed, threads = {}, io.StringIO(), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(), contextlib.redirect_stdout(printed):
            exec(compile(script, "distill.py", "exec"), names)
    finally:
        torch.set_num_threads(threads)
    return names, printed.getvalue()


@pytest.fixture(scope="module")
def plain():
    return run(SCRIPT)


@pytest.fixture(scope="module")
def changed():
    return run(SCRIPT.replace(REPLACED, LINES + "\n\n"))


def test_the_script_needs_pytorch_alone():
    nodes = list(ast.walk(ast.parse(SCRIPT)))
    imported = {a.name for node in nodes if isinstance(node, ast.Import) for a in node.names}
    imported |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    assert imported == {"torch", "torch.nn.functional"}


def test_what_is_replaced_is_the_loss_and_its_two_settings():
    assert REPLACED.startswith("tau, alpha = 4, 0.9\n")
    _, loss = ast.parse(REPLACED).body
    assert loss.name == "kd"


def test_it_prints_what_the_page_shows_with_either_loss(plain, changed):
    assert plain[1] == changed[1] == PRINTED


def test_both_losses_are_the_same_to_rounding(plain, changed):
    names = plain[0]
    x, y, teacher, distilled = (names[name] for name in ("x", "y", "teacher", "distilled"))
    z, v = distilled(x).double().requires_grad_(), teacher(x).double()
    losses = [names["kd"](z, v, y) for names, _ in (plain, changed)]
    torch.testing.assert_close(*losses, rtol=1e-14, atol=0)
    grads = [torch.autograd.grad(loss, z)[0] for loss in losses]
    torch.testing.assert_close(*grads, rtol=1e-12, atol=1e-18)


def test_both_losses_train_the_same_student(plain, changed):
    """Rounding errors in single precision, added up over 200 steps."""
    students = [names["distilled"].parameters() for names, _ in (plain, changed)]
    for one, other in zip(*students, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-4)
