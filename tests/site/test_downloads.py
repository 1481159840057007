"""A chapter from the download button says first what it needs to run, and is else as stored."""

import re
import shlex
import sys
import tomllib

import checks
import nbformat
import pytest
from built import SITE

ROOT = SITE.parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CHAPTERS = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture
def first_cell(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(ROOT / "book" / "_ext"), *sys.path])
    import downloads

    return lambda *args: "".join(downloads.first_cell(*args)["source"])


@pytest.fixture(params=CHAPTERS)
def chapter(request):
    """The stored chapter, and what its page offers for download."""
    page = SITE / "notebooks" / f"{request.param}.html"
    [button] = checks.parsed(page).select(".btn-download-source-button")
    path = checks.target(page, button["href"])
    assert path.suffix == ".ipynb"
    stored = nbformat.read(ROOT / "notebooks" / path.name, as_version=nbformat.NO_CONVERT)
    return stored, nbformat.read(path, as_version=nbformat.NO_CONVERT)


def test_a_download_begins_with_what_it_needs_and_is_else_the_chapter(chapter):
    stored, download = chapter
    nbformat.validate(download)
    cell = download.cells.pop(0)
    assert cell.cell_type == "markdown"
    assert cell.source.startswith("**To run this chapter,**")
    assert download == stored


@pytest.mark.parametrize("name", ["01_softmax_and_temperature", "12_in_pytorch"])
def test_it_names_the_python_and_the_groups_that_there_are(first_cell, name):
    text = first_cell(name, "")
    python = PROJECT["project"]["requires-python"].removeprefix(">=")
    assert f"Python {python} or newer" in text
    make, pip, jupyter = [shlex.split(part) for part in text.split("`")[3::2]]
    rules = re.findall(r"^([\w -]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(make[1:]) <= set(" ".join(rules).split())
    assert ("torch" in make) == ('".[torch]"' in text) == (name == "12_in_pytorch")
    assert pip[-2:] == ["--group", "lab"]
    assert "lab" in PROJECT["dependency-groups"]
    assert jupyter == ["jupyter", "lab", "notebooks"]


def test_it_names_the_address_of_the_repository_where_there_is_one(first_cell):
    address = "https://code.example/kd-notes"
    assert f"`git clone {address} kd-notes`" in first_cell("01_softmax", address)
    assert "git clone" not in first_cell("01_softmax", "")
