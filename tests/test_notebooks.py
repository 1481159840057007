"""What a committed chapter must be: run from top to bottom, and portable.

nbval compares the stored outputs with new ones. It is content with a notebook that has
none, so these tests see to it that they are there.
"""

import ast
import gzip
import re

import pytest
from chapters import NOTEBOOKS, ROOT, code_cells, read

TOC = (ROOT / "_toc.yml").read_text().splitlines()
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


SILENT = ("print_like_the_note(", "np.testing.assert_")


def shows_something(cell):
    """Whether a cell prints, draws a figure, or ends in an expression with a value."""
    tree = ast.parse(cell.source)
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    last = tree.body[-1]
    is_value = isinstance(last, ast.Expr) and not ast.unparse(last).startswith(SILENT)
    is_figure = "figure" in cell.metadata.get("mystnb", {})
    return is_value or "print" in names or is_figure


def test_there_are_chapters():
    assert NOTEBOOKS


@each_notebook
def test_the_table_of_contents_lists_it(path):
    assert f"      - file: notebooks/{path.stem}" in TOC


@each_notebook
@pytest.mark.parametrize("page", ["README.md", "book/intro.md"])
def test_the_table_of_chapters_has_a_row_for_it(page, path):
    rows = [line for line in (ROOT / page).read_text().splitlines() if line.startswith("| [")]
    assert any(f"notebooks/{path.name})" in row for row in rows)


@each_notebook
def test_every_cell_was_run_in_order(path):
    counts = [cell.execution_count for cell in code_cells(path)]
    assert counts == list(range(1, len(counts) + 1))


@each_notebook
def test_every_cell_that_shows_something_has_its_output(path):
    without = [c.source for c in code_cells(path) if shows_something(c) and not c.outputs]
    assert without == []


@each_notebook
def test_no_output_is_an_error_or_a_warning(path):
    outputs = [output for cell in code_cells(path) for output in cell.outputs]
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]


@each_notebook
def test_nothing_names_this_machine(path):
    assert not re.search(
        r"/(home|root|tmp|work|Users)/|site-packages|0x[0-9a-f]{6,}", path.read_text()
    )


@each_notebook
def test_the_kernel_is_portable(path):
    """And named as JupyterLab does, which else calls an opened notebook unsaved."""
    kernel = read(path).metadata.kernelspec
    assert (kernel.name, kernel.display_name) == ("python3", "Python 3 (ipykernel)")


@each_notebook
def test_it_was_run_with_the_python_that_the_page_on_outputs_names(path):
    version = read(path).metadata.language_info.version.rpartition(".")[0]
    assert f"made with Python {version} and" in (ROOT / "book" / "outputs.md").read_text()


@each_notebook
def test_every_figure_has_a_name_a_caption_and_alt_text(path):
    for cell in code_cells(path):
        kinds = [kind for output in cell.outputs for kind in output.get("data", {})]
        if any(kind.startswith("image/") for kind in kinds):
            myst = cell.metadata.get("mystnb", {})
            figure, image = myst.get("figure", {}), myst.get("image", {})
            assert all([figure.get("name"), figure.get("caption"), image.get("alt")]), (
                "the metadata of a cell with a figure must hold "
                '{"mystnb": {"figure": {"name": …, "caption": …}, "image": {"alt": …}}}; '
                f"got {dict(myst)} for\n{cell.source}"
            )


@each_notebook
def test_the_code_of_every_figure_is_folded(path):
    figures = [c for c in code_cells(path) if "figure" in c.metadata.get("mystnb", {})]
    assert [c.source for c in figures if "hide-input" not in c.metadata.get("tags", [])] == []


@each_notebook
def test_every_check_with_sympy_is_folded(path):
    """Its derivation is on the page. A solution, checks and all, is a fold itself."""
    cells = read(path).cells
    first_exercise = [cell.source[:12] for cell in cells].index("## Exercises")
    checks = [
        cell
        for cell in cells[:first_exercise]
        if cell.cell_type == "code"
        and re.search(r"\bsp\.|\bexpand_sums\(", cell.source)
        and re.search(r"^ *assert ", cell.source, re.MULTILINE)
    ]
    assert [c.source for c in checks if "hide-input" not in c.metadata.get("tags", [])] == []


@each_notebook
def test_every_fold_is_named(path):
    """Else Jupyter Book writes "Show code cell source" on it."""
    folded = [c for c in code_cells(path) if "hide-input" in c.metadata.get("tags", [])]
    names = {"code_prompt_show", "code_prompt_hide"}
    assert [c.source for c in folded if not names <= c.metadata.get("mystnb", {}).keys()] == []


@each_notebook
def test_what_the_book_folds_is_hidden_in_jupyterlab(path):
    """In a solution, what the code prints is hidden too."""
    wrong, in_solution = [], False
    for cell in read(path).cells:
        if cell.cell_type == "markdown":
            starts, ends = (f"{{solution-{x}}}" in cell.source for x in ("start", "end"))
            in_solution = (in_solution or starts) and not ends
            continue
        is_folded = in_solution or "hide-input" in cell.metadata.get("tags", [])
        expected = {"source_hidden": True} if is_folded else {}
        if in_solution and cell.outputs:
            expected["outputs_hidden"] = True
        if cell.metadata.get("jupyter", {}) != expected:
            wrong.append(cell.source)
    assert wrong == []


@each_notebook
def test_every_figure_is_svg_and_compressed_below_50_kilobytes(path):
    """As bitmaps the figures weighed 50 kB on average, and the heaviest 130."""
    for cell in code_cells(path):
        for output in cell.outputs:
            for kind, image in output.get("data", {}).items():
                if kind.startswith("image/"):
                    name = cell.metadata["mystnb"]["figure"]["name"]
                    assert kind == "image/svg+xml", name
                    assert len(gzip.compress(image.encode())) < 50_000, name


def test_the_page_that_make_lab_opens_lists_the_chapters_by_their_titles():
    page = (ROOT / "notebooks" / "README.md").read_text()
    listed = re.findall(r"^(\d+)\. \[(.*?)\]\((.*?)\)", page, re.MULTILINE)
    titles = [read(path).cells[0].source.splitlines()[0].removeprefix("# ") for path in NOTEBOOKS]
    names = [path.name for path in NOTEBOOKS]
    numbers = [str(number) for number in range(1, len(names) + 1)]
    assert listed == list(zip(numbers, titles, names, strict=True))


def test_chapters_are_numbered_as_their_files_are():
    listed = [int(n) for n in re.findall(r"file: notebooks/(\d+)_", "\n".join(TOC))]
    assert listed == list(range(1, len(listed) + 1))
