"""A changed library is never published with old numbers; only chapters that can run are run."""

import json
import os
import re
import shutil
import subprocess
import sys

import nbformat
import pytest
import yaml
from chapters import ROOT

from kd_notes import kd_loss

GROUPS = ["book", "chapters", "lint", "site", "test"]


@pytest.fixture
def made(tmp_path):
    """A copy of the project's rules in which everything is installed."""
    for file in ["Makefile", "pyproject.toml", "constraints.txt", "_config.yml"]:
        shutil.copy(ROOT / file, tmp_path)
        os.utime(tmp_path / file, (1, 1))
    for file in ["bin/python", *(f"has-{group}" for group in GROUPS)]:
        (tmp_path / ".venv" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / ".venv" / file).touch()
    (tmp_path / "notebooks").mkdir()
    for chapter in ["01_softmax.ipynb", "12_in_pytorch.ipynb"]:
        (tmp_path / "notebooks" / chapter).touch()
    return tmp_path


def install_pytorch(folder):
    (folder / ".venv/lib/python3.11/site-packages/torch").mkdir(parents=True)


def commands(folder, *targets):
    """What make would run."""
    make = ["make", "--dry-run", "--no-print-directory", "--directory", str(folder), *targets]
    return subprocess.run(make, capture_output=True, text=True, check=True).stdout


def executed_config(folder):
    """The settings with which `make check` builds the site."""
    [command] = re.findall(r"sed .*\\\n.*", commands(folder, "executed-book"))
    subprocess.run(command, shell=True, cwd=folder, check=True)
    return yaml.safe_load((folder / ".executed.yml").read_text())


def test_the_quick_site_runs_no_chapter():
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    assert config["execute"]["exclude_patterns"] == ["notebooks/*.ipynb"]


def test_the_published_site_runs_every_chapter(made):
    install_pytorch(made)
    config = executed_config(made)["execute"]
    assert (config["execute_notebooks"], config["exclude_patterns"]) == ("cache", ["none"])
    run = commands(made, "executed-book")
    [chapters] = re.findall(r"tools/execute.py _build/.jupyter_cache (.*)", run)
    assert chapters == "notebooks/01_softmax.ipynb notebooks/12_in_pytorch.ipynb"


def test_the_published_site_differs_from_the_quick_one_in_nothing_else(made):
    executed, quick = executed_config(made), yaml.safe_load((ROOT / "_config.yml").read_text())
    assert executed["execute"].pop("exclude_patterns") == ["notebooks/*_in_pytorch.ipynb"]
    assert executed["execute"].pop("execute_notebooks") == "cache"
    for setting in ("exclude_patterns", "execute_notebooks"):
        del quick["execute"][setting]
    assert executed == quick


def test_what_is_published_was_built_from_clean_by_a_run_and_passed_every_test(made):
    steps = r"rm -rf _build$|jupyter-book build .*|tools/pdf.py|-m pytest.*"
    run = commands(made, "check").replace("\\\n", "")
    assert [" ".join(step.split()) for step in re.findall(steps, run, re.MULTILINE)] == [
        "rm -rf _build",
        "jupyter-book build . --all -W -n --keep-going --config .executed.yml",
        "tools/pdf.py",
        "-m pytest -n auto --dist loadfile --no-loadscope-reorder",
        "-m pytest tests/site -n auto --dist worksteal",
    ]
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "book.yml").read_text())["jobs"]
    assert jobs["publish"]["needs"] == "check"
    assert [step["run"] for step in jobs["check"]["steps"] if "run" in step] == [".ci/run"]
    assert (ROOT / ".ci" / "run").read_text().endswith("make check\n")


def test_before_the_run_without_pins_nothing_pinned_is_installed():
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "library.yml").read_text())["jobs"]
    [run] = [step["run"] for step in jobs["newest"]["steps"] if "run" in step]
    assert run.splitlines()[0] == ": > constraints.txt"
    assert [step["run"] for step in jobs["links"]["steps"] if "run" in step] == ["make links"]
    assert jobs["links"]["if"] == jobs["newest"]["if"]


def test_a_new_environment_has_a_pip_that_knows_groups_whatever_the_pins_are(made):
    (made / ".venv" / "bin" / "python").unlink()
    assert re.search(r"pip install .* --upgrade pip$", commands(made, "test"), re.MULTILINE)


@pytest.mark.parametrize("target", ["test", "executed-book", "notebooks", "lab"])
def test_what_is_compared_with_stored_outputs_is_computed_by_numpy(made, target):
    rules = commands(made, "--print-data-base", target)
    assert f"{target}: KD_NOTES_ENGINE := numpy" in rules


@pytest.mark.slow
def test_a_changed_library_fails_with_the_numbers_that_are_stored(tmp_path):
    shutil.copytree(ROOT / "kd_notes", tmp_path / "kd_notes")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    stored = nbformat.v4.new_output(
        "execute_result",
        {"text/plain": repr(kd_loss([1.0, 2.0], [3.0, 1.0]))},
        execution_count=1,
    )
    cell = nbformat.v4.new_code_cell(
        "from kd_notes import kd_loss\nkd_loss([1.0, 2.0], [3.0, 1.0])",
        execution_count=1,
        outputs=[stored],
    )
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "chapter.ipynb")
    assert compared(tmp_path) == (0, False)
    with (tmp_path / "kd_notes" / "__init__.py").open("a") as library:
        library.write("kd_loss = lambda *args, was=kd_loss: was(*args) * (1 + 1e-12)\n")
    assert compared(tmp_path) == (1, True)


@pytest.mark.slow
def test_figures_are_not_compared(tmp_path):
    """Those of rounding errors would fail on another processor."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    stored = nbformat.v4.new_output(
        "execute_result",
        {
            "image/svg+xml": '<svg><path d="M 0 0 L 0.333333 1"/></svg>',
            "text/plain": "<IPython.core.display.SVG object>",
        },
        execution_count=1,
    )
    cell = nbformat.v4.new_code_cell(
        "from IPython.display import SVG\n"
        """SVG('<svg><path d="M 0 0 L 0.333334 1"/></svg>')""",
        execution_count=1,
        outputs=[stored],
    )
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "chapter.ipynb")
    assert compared(tmp_path) == (1, True)
    shutil.copy(ROOT / "conftest.py", tmp_path)
    assert compared(tmp_path) == (0, False)


def test_the_chapters_are_trusted_before_jupyterlab_opens(made):
    run = commands(made, "lab")
    assert run.index("jupyter trust notebooks/*.ipynb") < run.index("jupyter lab")


def compared(folder):
    """Run a chapter with the library beside it; return the status and whether a cell differs."""
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "chapter.ipynb"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
    )
    return run.returncode, "Cell outputs differ" in run.stdout


def test_a_target_installs_what_it_needs_and_no_more(made):
    for target, groups in [("book", {"book"}), ("test", {"test"}), ("lint", {"lint"})]:
        os.utime(made / "pyproject.toml")
        (made / ".venv" / f"has-{target}").unlink()
        assert set(re.findall(r"--group (\w+)", commands(made, target))) == groups


@pytest.mark.parametrize("file", ["constraints.txt", "pyproject.toml"])
def test_a_changed_version_is_installed(made, file):
    assert "--group" not in commands(made, "book", "test")
    os.utime(made / file, (2**32, 2**32))
    assert "--group book" in commands(made, "book", "test")


def test_jupyterlab_opens_a_page_that_there_is_as_it_is_read(made):
    [settings] = re.findall(r"app_settings_dir=(\S+)", commands(made, "lab"))
    [page] = re.findall(r"default_url=/lab/tree/(\S+)", commands(made, "lab"))
    assert (ROOT / page).suffix == ".md"
    assert (ROOT / page).is_file()
    overrides = json.loads((ROOT / settings / "overrides.json").read_text())
    viewers = overrides["@jupyterlab/docmanager-extension:plugin"]["defaultViewers"]
    assert viewers == {"markdown": "Markdown Preview"}


def test_the_chapter_for_pytorch_is_run_only_where_it_is_installed(made):
    assert "notebooks/01_softmax.ipynb" in commands(made, "notebooks")
    assert "in_pytorch" not in commands(made, "notebooks")
    install_pytorch(made)
    assert "notebooks/12_in_pytorch.ipynb" in commands(made, "notebooks")


def test_one_chapter_can_be_chosen(made):
    run = commands(made, "notebooks", "CHAPTER=notebooks/12_new.ipynb")
    assert set(re.findall(r"notebooks/\w+\.ipynb", run)) == {"notebooks/12_new.ipynb"}
