"""What mypy infers of the public functions, compared with what they return."""

import inspect
import tomllib
from pathlib import Path
from typing import Any, get_overloads, get_type_hints

import numpy as np
import pytest

import kd_notes as kd

ROOT = Path(__file__).parents[1]
USER_CODE = ROOT / "tests" / "typing" / "user_code.py"
WRONG_USE = """
import numpy as np
import kd_notes as kd

kd.softmax([1.0, 2.0], temperature="2")
loss: float = kd.kd_loss(np.ones((4, 3)), np.ones(3))
kd.kd_loss([1.0, 2.0], [1.0, 2.0]).mean()
fine: float = kd.kd_loss([1.0, 2.0], [1.0, 2.0])
"""


def mypy(*arguments):
    api = pytest.importorskip("mypy.api")
    report, errors, status = api.run(
        ["--config-file", str(ROOT / "pyproject.toml"), "--no-pretty", *map(str, arguments)]
    )
    assert not errors
    return report, status


def test_mypy_accepts_user_code_and_reports_wrong_use(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)  # where mypy looks for kd_notes
    wrong_use = tmp_path / "wrong_use.py"
    wrong_use.write_text(WRONG_USE)
    report, status = mypy("--strict", f"--cache-dir={tmp_path / 'cache'}", USER_CODE, wrong_use)
    *lines, summary = report.splitlines()
    errors = [line.split("wrong_use.py:")[1] for line in lines if ": error: " in line]
    assert [(error.split(":")[0], error.split("[")[-1]) for error in errors] == [
        ("5", "arg-type]"),
        ("6", "assignment]"),
        ("7", "attr-defined]"),
    ]
    assert status == 1
    assert summary.startswith("Found 3 errors in 1 file")


def test_lint_checks_the_user_code():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]
    assert settings["strict"]
    assert [USER_CODE.is_relative_to(ROOT / path) for path in settings["files"]] == [False, True]


@pytest.mark.parametrize("name", kd.__all__)
def test_no_annotation_is_any(name):
    function = getattr(kd, name)
    for signature in [function, *get_overloads(function)]:
        hints = get_type_hints(signature)
        assert hints.keys() == {*inspect.signature(function).parameters, "return"}
        assert Any not in hints.values()


@pytest.mark.parametrize("name", kd.__all__)
def test_overloads_have_the_parameters_of_their_function(name):
    function = getattr(kd, name)
    expected = [(p.name, p.kind) for p in inspect.signature(function).parameters.values()]
    for overload in get_overloads(function):
        parameters = inspect.signature(overload).parameters.values()
        assert [(p.name, p.kind) for p in parameters] == expected
        optional = [p.name for p in parameters if p.default is not p.empty]
        defaults = inspect.signature(function).parameters.values()
        assert optional == [p.name for p in defaults if p.default is not p.empty]


def test_scalars_have_the_methods_that_their_annotation_promises():
    loss = kd.kd_loss(np.float32([1, 2]), np.float32([2, 1]))
    assert loss.shape == ()
    assert loss.mean() == loss.sum() == float(loss)
