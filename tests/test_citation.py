"""The library, `CITATION.cff`, the pages and the changelog name one version and one date."""

import re
from pathlib import Path

import yaml

import kd_notes

ROOT = Path(__file__).parents[1]


def test_footer_cites_what_the_citation_file_holds():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    authors = ", ".join(author["name"] for author in citation["authors"])
    year, version = citation["date-released"][:4], citation["version"]
    assert config["sphinx"]["config"]["html_theme_options"]["extra_footer"] == (
        f"Cite as: {authors} ({year}). <cite>{citation['title']}</cite>, version {version}."
    )


def test_citation_has_the_version_of_the_library():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == kd_notes.__version__


def test_the_newest_version_in_the_changelog_is_that_of_the_library():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    first, *released = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    newest = first if first != "Unreleased" else next(iter(released), None)
    # Before the first release there is nothing but what is unreleased.
    assert newest in (None, f"{kd_notes.__version__} - {citation['date-released']}")
