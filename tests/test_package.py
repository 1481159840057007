"""The package from outside: its names, signatures, documentation, and what it loads."""

import inspect
import itertools
import pkgutil
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import kd_notes
from kd_notes import divergences

ROOT = Path(__file__).parents[1]

OPTIONS = "divergence='forward_kl', teacher_temperature=None, scaled=True"
TOPK_OPTIONS = "temperature=1.0, *, tail='bucket', teacher_log_normalizer=None, scaled=True"
INTERFACE = {
    "softmax": "(logits, temperature=1.0)",
    "log_softmax": "(logits, temperature=1.0)",
    "softmax_jacobian": "(logits, temperature=1.0)",
    "entropy": "(probabilities)",
    "one_hot": "(labels, num_classes)",
    "cross_entropy_loss": "(logits, labels)",
    "cross_entropy_grad": "(logits, labels)",
    "label_smoothing_loss": "(logits, labels, alpha)",
    "label_smoothing_grad": "(logits, labels, alpha)",
    "confidence_penalty_loss": "(logits, labels, alpha)",
    "confidence_penalty_grad": "(logits, labels, alpha)",
    "set_engine": "(engine='auto', *, threads=None)",
    "skew_jensen_divergence": "(p, q, alpha)",
    "logit_matching_loss": "(student_logits, teacher_logits)",
    "logit_matching_grad": "(student_logits, teacher_logits)",
    "regularized_logit_matching_loss": "(student_logits, teacher_logits)",
    "regularized_logit_matching_grad": "(student_logits, teacher_logits)",
    "kl_divergence": "(p, q)",
    "kd_loss": f"(student_logits, teacher_logits, temperature=1.0, *, {OPTIONS})",
    "kd_grad": f"(student_logits, teacher_logits, temperature=1.0, *, {OPTIONS})",
    "kd_loss_and_grad": (
        f"(student_logits, teacher_logits, temperature=1.0, *, {OPTIONS}, out=None)"
    ),
    "topk_kd_loss": f"(student_logits, teacher_values, teacher_indices, {TOPK_OPTIONS})",
    "topk_kd_grad": f"(student_logits, teacher_values, teacher_indices, {TOPK_OPTIONS})",
    "knowledge_distillation_loss": (
        f"(student_logits, teacher_logits, hard_labels, temperature, alpha, *, {OPTIONS})"
    ),
    "knowledge_distillation_grad": (
        f"(student_logits, teacher_logits, hard_labels, temperature, alpha, *, {OPTIONS})"
    ),
}
DIVERGENCES = {
    "ForwardKL": "()",
    "ReverseKL": "()",
    "Jeffreys": "()",
    "JensenShannon": "(beta=0.5, *, normalized=True)",
    "SkewKL": "(alpha=0.1, *, normalized=True)",
    "SkewReverseKL": "(alpha=0.1, *, normalized=True)",
    "Alpha": "(alpha)",
    "TotalVariation": "()",
}


def test_public_names_are_the_documented_ones():
    public = {
        name
        for name, value in vars(kd_notes).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert public == set(kd_notes.__all__) == set(INTERFACE)
    assert kd_notes.__all__ == sorted(kd_notes.__all__)


def test_the_public_modules_are_the_documented_ones():
    modules = [module.name for module in pkgutil.iter_modules(kd_notes.__path__)]
    assert [name for name in modules if not name.startswith("_")] == [
        "audit",
        "divergences",
        "torch",
    ]


def test_the_public_names_of_the_divergences_are_the_documented_ones():
    assert set(divergences.__all__) == {*DIVERGENCES, "Divergence"}
    for name, expected in DIVERGENCES.items():
        signature = inspect.signature(getattr(divergences, name))
        bare = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
        assert str(inspect.Signature(bare)) == expected


@pytest.mark.parametrize("name", DIVERGENCES)
def test_a_divergence_has_a_docstring_with_its_parameters_formula_and_an_example(name):
    documented = getattr(divergences, name)
    lines = inspect.getdoc(documented).splitlines()
    assert re.fullmatch(r"[^.]+\.", lines[0])
    sections = ["Parameters", "Raises"] if inspect.signature(documented).parameters else []
    titles = [
        title for title, rule in itertools.pairwise(lines) if title and rule == "-" * len(title)
    ]
    assert titles == [*sections, "Notes", "Examples"]
    assert set(inspect.signature(documented).parameters) <= set(lines)
    assert any("f''(1)" in line for line in lines)


@pytest.mark.parametrize("name", INTERFACE)
def test_signature(name):
    signature = inspect.signature(getattr(kd_notes, name))
    bare = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    assert str(inspect.Signature(bare)) == INTERFACE[name]


@pytest.mark.parametrize("name", INTERFACE)
def test_docstring_has_every_section_and_names_every_parameter(name):
    function = getattr(kd_notes, name)
    lines = inspect.getdoc(function).splitlines()
    sections = [
        title for title, rule in itertools.pairwise(lines) if title and rule == "-" * len(title)
    ]
    returns = [] if inspect.signature(function).return_annotation == "None" else ["Returns"]
    assert sections == ["Parameters", *returns, "Raises", "Notes", "Examples"]
    documented = lines[lines.index("Parameters") + 2 : lines.index(sections[1])]
    names = [n for line in documented if line[:1].strip() for n in line.split(", ")]
    assert names == list(inspect.signature(function).parameters)


@pytest.mark.parametrize("name", INTERFACE)
def test_docstring_begins_with_one_sentence_that_the_api_page_does_not_cut(name):
    first = inspect.getdoc(getattr(kd_notes, name)).splitlines()[0]
    assert re.fullmatch(r"[^.]+\.", first)


def test_import_loads_numpy_and_nothing_else_heavy():
    code = "import sys, kd_notes; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = set(run.stdout.split())
    assert {"kd_notes", "numpy"} <= loaded
    heavy = {
        "jax",
        "matplotlib",
        "mpmath",
        "numba",
        "pandas",
        "scipy",
        "sklearn",
        "sympy",
        "torch",
    }
    assert not loaded & heavy


def test_package_is_marked_as_typed():
    assert Path(kd_notes.__file__).with_name("py.typed").exists()


def test_the_versions_of_python_that_are_promised_are_those_that_ci_tries():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    promised = re.findall(r"Python :: (3\.\d+)", "\n".join(project["classifiers"]))
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "library.yml").read_text())
    assert workflow["jobs"]["test"]["strategy"]["matrix"]["python"] == promised
    assert project["requires-python"] == f">={promised[0]}"
    for file in ["README.md", "book/intro.md", "CHANGELOG.md"]:
        assert f"Python {promised[0]} to {promised[-1]}" in (ROOT / file).read_text()
