"""Every row of the equation index leads somewhere."""

import re

import pytest
from chapters import NOTEBOOKS, ROOT, markdown

import kd_notes

INDEX = (ROOT / "book" / "equations.md").read_text()
LABELS = {
    label
    for page in [*NOTEBOOKS, *(ROOT / "book").glob("*.md")]
    for label in re.findall(r"^\(([\w-]+)\)=$", markdown(page), re.MULTILINE)
}


def rows():
    table = [line.strip("| ").split(" | ") for line in INDEX.splitlines() if line.startswith("|")]
    return table[2:]


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_every_target_exists(row):
    _, _, sections, functions, tests = row
    labels = re.findall(r"\{ref\}`(?:[^`<]*<)?([\w-]+)>?`", sections)
    names = re.findall(r"`~kd_notes\.(\w+)`", functions)
    targets = re.findall(r"`(\w+\.py)::(\w+)`", tests)
    assert labels
    assert names
    assert targets
    assert set(labels) <= LABELS
    assert set(names) <= set(kd_notes.__all__)
    for file, test in targets:
        assert re.search(rf"^def {test}\(", (ROOT / "tests" / file).read_text(), re.MULTILINE)


def test_no_equation_remark_or_proposition_is_missing():
    equations = {f"Eq. {number}" for number in range(1, 14)}
    remarks = {f"Remark {number}" for number in range(1, 5)}
    propositions = {f"Proposition {number}" for number in range(1, 11)}
    assert equations | remarks | propositions <= {row[0] for row in rows()}


def test_the_api_page_documents_every_public_name():
    core, in_torch = (ROOT / "book" / "api.md").read_text().split("currentmodule:: kd_notes.torch")
    documented = re.findall(r"autofunction:: (\w+)", core)
    assert sorted(documented) == sorted(kd_notes.__all__)
    documented = re.findall(r"auto(?:function|class):: (\w+)", in_torch)
    assert sorted(documented) == ["KnowledgeDistillationLoss", "kd_loss"]
