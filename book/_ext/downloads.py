"""Say in the first cell of a downloaded chapter, and there alone, what it needs to run."""

import json
from pathlib import Path

CELL = """\
**To run this chapter,** you need Python 3.11 or newer and the repository of kd-notes{clone}. \
Save this file in its folder `notebooks`, and type `make {targets}` in the repository: \
that installs what the chapters need, and opens them in JupyterLab.

Without make, `pip install {package} --group lab` in the repository (with pip 25.1 or newer), and \
then `jupyter lab notebooks`, do the same.\
"""


def first_cell(name, repository):
    """Return the cell for the chapter of that name; the repository's address may be unknown."""
    in_pytorch = name.endswith("_in_pytorch")
    text = CELL.format(
        clone=f" (`git clone {repository} kd-notes`)" if repository else "",
        targets="torch lab" if in_pytorch else "lab",
        package='".[torch]"' if in_pytorch else ".",
    )
    lines = text.splitlines(keepends=True)
    return {"cell_type": "markdown", "id": "how-to-run", "metadata": {}, "source": lines}


def add_first_cells(app, exception):
    """Write what the download button offers, once Sphinx has copied the chapters there."""
    if exception or app.builder.format != "html":
        return
    for docname in sorted(app.env.found_docs):
        path = Path(app.env.doc2path(docname))
        if path.suffix == ".ipynb":
            notebook = json.loads(path.read_text(encoding="utf-8"))
            notebook["cells"].insert(0, first_cell(path.stem, app.config.clone_from))
            text = json.dumps(notebook, ensure_ascii=False, indent=1) + "\n"
            Path(app.outdir, "_sources", f"{docname}.ipynb").write_text(text, encoding="utf-8")


def setup(app):
    """Connect the above to Sphinx."""
    app.add_config_value("clone_from", "", "html", types=[str])
    app.connect("build-finished", add_first_cells)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
