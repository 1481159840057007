"""What the pages say about citing is what `CITATION.cff` says."""

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
