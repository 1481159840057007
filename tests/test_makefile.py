"""A changed library is never published with old numbers."""

import os
import shutil
import subprocess

import pytest
from chapters import ROOT


@pytest.fixture
def built(tmp_path):
    """A copy of the project in which everything has been made, at time 1."""
    for file in ["Makefile", "pyproject.toml", "constraints.txt"]:
        shutil.copy(ROOT / file, tmp_path)
    read = ["kd_notes/_kernel.py", "book/explorer.py", "benchmarks/results.json"]
    for file in [*read, ".venv/installed", "_build/sources"]:
        (tmp_path / file).parent.mkdir()
        (tmp_path / file).touch()
    for file in tmp_path.rglob("*"):
        os.utime(file, (1, 1))
    return tmp_path


def commands(folder):
    """What `make book` would run."""
    make = ["make", "--dry-run", "--directory", str(folder), "book"]
    return subprocess.run(make, capture_output=True, text=True, check=True).stdout


def test_the_site_is_built_from_the_cache_if_nothing_changed(built):
    assert "jupyter-book build" in commands(built)
    assert "rm -rf _build" not in commands(built)


@pytest.mark.parametrize(
    "file",
    [
        "kd_notes/_kernel.py",
        "book/explorer.py",
        "benchmarks/results.json",
        "constraints.txt",
        "pyproject.toml",
    ],
)
def test_a_change_empties_the_cache(built, file):
    os.utime(built / file, (2, 2))
    assert "rm -rf _build" in commands(built)
