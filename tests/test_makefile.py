"""A changed library is never published with old numbers; only chapters that can run are run."""

import os
import re
import shutil
import subprocess

import pytest
from chapters import ROOT

READ = [
    "kd_notes/_kernel.py",
    "kd_notes/_book/symbolic.py",
    "kd_notes/torch/_soft_loss.py",
    "kd_notes/_book/fonts/NotesSans-Regular.ttf",
    "book/explorer.py",
    "benchmarks/results.json",
    "audits/results.json",
]


@pytest.fixture
def built(tmp_path):
    """A copy of the project in which everything has been made, at time 1."""
    for file in ["Makefile", "pyproject.toml", "constraints.txt"]:
        shutil.copy(ROOT / file, tmp_path)
    for file in [*READ, ".venv/installed", "_build/sources"]:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    for file in tmp_path.rglob("*"):
        os.utime(file, (1, 1))
    return tmp_path


def commands(folder, *targets):
    """What make would run."""
    make = ["make", "--dry-run", "--directory", str(folder), *targets]
    return subprocess.run(make, capture_output=True, text=True, check=True).stdout


def test_the_site_is_built_from_the_cache_if_nothing_changed(built):
    assert "jupyter-book build" in commands(built, "book")
    assert "rm -rf _build" not in commands(built, "book")


@pytest.mark.parametrize("file", [*READ, "constraints.txt", "pyproject.toml"])
def test_a_change_empties_the_cache(built, file):
    os.utime(built / file, (2, 2))
    assert "rm -rf _build" in commands(built, "book")


@pytest.fixture
def chapters(built):
    (built / "notebooks").mkdir()
    for chapter in ["01_softmax.ipynb", "12_in_pytorch.ipynb"]:
        (built / "notebooks" / chapter).touch()
    return built


def test_the_chapter_for_pytorch_is_run_only_where_it_is_installed(chapters):
    assert "notebooks/01_softmax.ipynb" in commands(chapters, "notebooks")
    assert "in_pytorch" not in commands(chapters, "notebooks")
    (chapters / ".venv/lib/python3.11/site-packages/torch").mkdir(parents=True)
    assert "notebooks/12_in_pytorch.ipynb" in commands(chapters, "notebooks")


def test_one_chapter_can_be_chosen(chapters):
    run = commands(chapters, "notebooks", "CHAPTER=notebooks/12_new.ipynb")
    assert set(re.findall(r"notebooks/\w+\.ipynb", run)) == {"notebooks/12_new.ipynb"}
