"""The chapters as the tests see them."""

from pathlib import Path

import nbformat

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(path):
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def markdown(path):
    """The text of a page, be it a notebook or a Markdown file."""
    if path.suffix == ".md":
        return path.read_text()
    return "\n\n".join(c.source for c in read(path).cells if c.cell_type == "markdown")
