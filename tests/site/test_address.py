"""A site that knows its address has previews of links, a site map and a page for 404."""

import re
import subprocess
import sys

import pytest
from bs4 import BeautifulSoup
from built import SITE

ROOT = SITE.parents[1]
ADDRESS = "https://book.example/notes/"
CONF = f"""
import sys
sys.path.insert(0, {str(ROOT / "book" / "_ext")!r})
extensions = ["address"]
html_title = "kd-notes"
html_static_path = [{str(ROOT / "book" / "_static")!r}]
html_theme_options = {{"logo": {{"alt_text": "Two curves."}}}}
html_theme = "sphinx_book_theme"
html_baseurl = ADDRESS
"""


def build(folder, address):
    folder.mkdir()
    (folder / "conf.py").write_text(CONF.replace("ADDRESS", repr(address)))
    (folder / "index.rst").write_text("A page\n======\n\n.. toctree::\n\n   sub/other\n")
    (folder / "sub").mkdir()
    (folder / "sub" / "other.rst").write_text("Another\n=======\n\nText.\n")
    command = [sys.executable, "-m", "sphinx", "-qW", str(folder), str(folder / "built")]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("project") / "book"
    result = build(folder, ADDRESS)
    assert result.returncode == 0, result.stderr
    return folder / "built"


def test_a_page_has_a_canonical_address_and_a_preview(site):
    page = BeautifulSoup((site / "sub" / "other.html").read_text(), "html.parser")
    assert page.select_one("link[rel=canonical]")["href"] == ADDRESS + "sub/other.html"
    said = {tag["property"]: tag["content"] for tag in page.select("meta[property]")}
    assert said["og:url"] == ADDRESS + "sub/other.html"
    assert (said["og:title"], said["og:site_name"]) == ("Another", "kd-notes")
    assert (site / said["og:image"].removeprefix(ADDRESS)).read_bytes()[1:4] == b"PNG"
    assert said["og:image:alt"] == "Two curves."


def test_the_site_map_has_every_page_and_nothing_else(site):
    addresses = re.findall(r"<loc>(.*?)</loc>", (site / "sitemap.xml").read_text())
    assert sorted(addresses) == [ADDRESS + "index.html", ADDRESS + "sub/other.html"]


def test_the_page_for_404_works_at_any_depth(site):
    page = BeautifulSoup((site / "404.html").read_text(), "html.parser")
    assert "not found" in page.select_one("article").text
    links = [tag.get("href") or tag.get("src") for tag in page.select("[href], [src]")]
    own = [link for link in links if not link.startswith(("#", "https:"))]
    assert own
    assert all(link.startswith("/notes/") for link in own)


def test_a_site_without_an_address_has_none_of_these(tmp_path):
    assert build(tmp_path / "book", "").returncode == 0
    built = tmp_path / "book" / "built"
    assert not (built / "sitemap.xml").exists()
    assert not (built / "404.html").exists()
    assert "og:" not in (built / "index.html").read_text()


@pytest.mark.parametrize("address", ["book.example/", "https://book.example/notes"])
def test_a_bad_address_is_refused(tmp_path, address):
    result = build(tmp_path / "book", address)
    assert result.returncode != 0
    assert "html: baseurl" in result.stderr
    assert address in result.stderr
