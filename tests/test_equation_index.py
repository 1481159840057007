"""Every row of the equation index leads somewhere, and every chapter has a row."""

import re

import pytest
from chapters import NOTEBOOKS, ROOT, markdown

import kd_notes
import kd_notes.audit

INDEX = (ROOT / "book" / "equations.md").read_text()
SECTIONS = set(re.findall(r"\{ref\}`(?:[^`<]*<)?([\w-]+)>?`", INDEX))


# By name, as PyTorch may be missing.
IN_TORCH = {"torch.KnowledgeDistillationLoss", "torch.kd_loss", "torch.topk_kd_loss"}


def labels(page):
    return set(re.findall(r"^\(([\w-]+)\)=$", markdown(page), re.MULTILINE))


def boxes(page):
    """The propositions and remarks of a page: what each is called, by its name for links."""
    found = re.findall(r"\{admonition\} (\w+ \d+) .*\n:class: .*\n:name: (.*)", markdown(page))
    return {name: title for title, name in found}


PAGES = [*NOTEBOOKS, *(ROOT / "book").glob("*.md")]
BOXES = {name: title for path in NOTEBOOKS for name, title in boxes(path).items()}
LABELS = {label for page in PAGES for label in labels(page)}


def rows():
    table = [line.strip("| ").split(" | ") for line in INDEX.splitlines() if line.startswith("|")]
    return table[2:]


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_every_target_exists(row):
    _, _, sections, functions_and_tests = row
    functions, tests = functions_and_tests.split("<br>")
    labels = re.findall(r"\{ref\}`(?:[^`<]*<)?([\w-]+)>?`", sections)
    names = re.findall(r"`~kd_notes\.([\w.]+)`", functions)
    targets = re.findall(r"`(\w+\.py)`: ([\w ]+)", tests)
    assert labels
    assert names
    assert targets
    assert set(labels) <= LABELS
    assert set(names) <= {*kd_notes.__all__, *IN_TORCH}
    for file, words in targets:
        test = "test_" + words.replace(" ", "_")
        assert re.search(rf"^def {test}\(", (ROOT / "tests" / file).read_text(), re.MULTILINE)


def test_every_section_has_the_number_of_its_chapter():
    chapters = {label: int(path.stem[:2]) for path in NOTEBOOKS for label in labels(path)}
    numbers = re.findall(r"(\d+): \{ref\}`([\w-]+)`", INDEX)
    assert {label for _, label in numbers} == SECTIONS
    assert [label for number, label in numbers if chapters[label] != int(number)] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_index_leads_to_every_chapter(path):
    assert labels(path) & SECTIONS


def test_the_index_leads_to_every_section_that_is_named_for_what_it_proves():
    named = {label for label in LABELS if re.match(r"sec-(eq|remark|proposition)-", label)}
    assert named <= SECTIONS


def test_no_equation_remark_or_proposition_is_missing():
    equations = {f"Eq. {number}" for number in range(1, 14)}
    linked = {f"[{title}]({name})" for name, title in BOXES.items()}
    assert equations | linked <= {row[0] for row in rows()}


@pytest.mark.parametrize(("kind", "count"), [("Remark", 4), ("Proposition", 24)])
def test_propositions_and_remarks_are_numbered_in_the_order_of_the_book(kind, count):
    titles = [title for title in BOXES.values() if title.startswith(kind)]
    assert titles == [f"{kind} {number}" for number in range(1, count + 1)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_link_to_a_proposition_or_remark_says_its_number(page):
    links = re.findall(r"\[([^\]]*)\]\(((?:prop|remark)-[\w-]+)\)", markdown(page))
    for text, name in links:
        assert re.findall(r"\d+", text) in ([], BOXES[name].split()[1:])


def test_the_api_page_documents_every_public_name():
    core, *others = re.split(
        r"currentmodule:: kd_notes\.(?=torch|audit)", (ROOT / "book" / "api.md").read_text()
    )
    documented = re.findall(r"autofunction:: (\w+)", core)
    assert sorted(documented) == sorted(kd_notes.__all__)
    in_torch, in_audit = (re.findall(r"auto(?:function|class):: (\w+)", page) for page in others)
    assert {f"torch.{name}" for name in in_torch} == IN_TORCH
    assert {*in_audit, "CODES"} == set(kd_notes.audit.__all__)
