"""What the audits of other libraries found is what their adapters say, and the page shows it.

The libraries are not installed here: `make audit` runs them, and these tests read its results.
"""

import ast
import json
import re

import pytest
from chapters import ROOT, code_cells

from audits.case import DIGITS, FLOAT32_DIGITS, body_of
from kd_notes._book import audits

FOLDER = ROOT / "audits"
RESULTS = json.loads((FOLDER / "results.json").read_text())
ADAPTERS = {path.stem: path for path in FOLDER.glob("libraries/[!_]*.py")}
PINS = dict(
    line.split("==")
    for file in ["requirements.txt", "requirements-alone.txt"]
    for line in (FOLDER / file).read_text().splitlines()
    if "==" in line
)
LOSSES = [(name, loss) for name, result in RESULTS.items() for loss in result["losses"]]
each_loss = pytest.mark.parametrize(
    ("name", "loss"), LOSSES, ids=lambda x: x if isinstance(x, str) else x["loss"]
)


def found(name, start):
    """What the audit found of the one loss of a library whose description starts like this."""
    (loss,) = [x for x in RESULTS[name]["losses"] if x["loss"].strip("`").startswith(start)]
    return loss["found"]


def codes(found):
    return {finding["code"] for finding in found["findings"]}


def test_every_library_with_an_adapter_has_results():
    assert RESULTS.keys() == ADAPTERS.keys()


@pytest.mark.parametrize("name", RESULTS)
def test_the_versions_are_the_pinned_ones(name):
    assert RESULTS[name]["version"] == PINS[RESULTS[name]["package"].lower()]


@pytest.mark.parametrize("name", RESULTS)
def test_the_results_are_those_of_the_adapters_as_they_are(name):
    source = ADAPTERS[name].read_text()
    functions = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    cases = [f for f in functions if any("case(" in ast.unparse(d) for d in f.decorator_list)]
    shown = [(loss["loss"], loss["code"]) for loss in RESULTS[name]["losses"]]
    titles = [ast.get_docstring(function).partition("\n\n")[0] for function in cases]
    bodies = [body_of(ast.get_source_segment(source, function)) for function in cases]
    assert shown == list(zip(titles, bodies, strict=True))


@each_loss
def test_every_loss_is_converted_to_all_digits_that_it_has(name, loss):
    if loss["ours"] is None:
        assert name in ("keras", "kd_lib")  # neither of these three is a loss of kd_notes
        assert loss["found"]["divergence"] == "unknown"
    elif "casts-down" in codes(loss["found"]):
        assert loss["ours"]["digits"] == FLOAT32_DIGITS
    else:
        assert loss["ours"]["digits"] in (DIGITS, FLOAT32_DIGITS)


@each_loss
def test_the_audit_of_a_loss_of_kd_notes_names_the_same_divergence(name, loss):
    """The conversion was written by hand, and the audit knows nothing of it."""
    names = {"jensen_shannon": "JensenShannon", "reverse_kl": "reverse_kl", "unknown": ""}
    if loss["ours"]:
        divergence = loss["found"]["divergence"]
        assert names.get(divergence, "") in loss["ours"]["code"]
        if divergence in ("forward_kl", "cross_entropy"):
            assert "divergence=" not in loss["ours"]["code"]
        if loss["found"]["reduction"] == "mean" and divergence != "squared_error":
            assert "/ student.shape[-1]" in loss["ours"]["code"]


def test_nothing_names_the_machine_that_ran_them():
    text = (FOLDER / "results.json").read_text()
    assert not re.search(r"/(home|root|tmp|work|Users)/|site-packages|0x[0-9a-f]{6,}", text)


def test_what_the_page_says_of_axolotl():
    kernel = found("axolotl", "LigerFusedLinear")
    assert (kernel["value_power"], kernel["gradient_power"]) == (2, 0)
    assert "wrong-gradient" in codes(kernel)


def test_what_the_page_says_of_modelopt():
    assert found("modelopt", "LogitsDistillationLoss`, its default")["reduction"] == "mean"
    assert found("modelopt", "LogitsDistillationLoss`, `red")["reduction"] == "batchmean"


def test_what_the_page_says_of_keras():
    by_name, by_object = (
        found("keras", "LogitsDistillation`, its"),
        found("keras", "LogitsDistillation`, `loss="),
    )
    assert {"not-shift-invariant", "ignores-classes"} <= codes(by_name)
    assert by_object["divergence"] == "forward_kl"
    assert "clip" in codes(by_object)


def test_what_the_page_says_of_kd_lib():
    assert "negative" in codes(found("kd_lib", "VanillaKD`, `loss_fn=KLDivLoss"))


def test_what_the_page_says_of_the_jensen_shannon_losses():
    for name, start in [
        ("trl", "GKDTrainer.generalized_jsd_loss`, its"),
        ("ms_swift", "gkd_loss` over"),
        ("liger", "LigerFusedLinearJSDLoss`, its default `beta"),
    ]:
        assert found(name, start)["divergence"] == "jensen_shannon"
        assert found(name, start)["parameter"] == 0.5
        assert "unscaled" in codes(found(name, start))


def test_the_overview_has_a_row_for_every_loss():
    rows = audits.overview(RESULTS).splitlines()
    assert len(rows) == 2 + len(LOSSES)
    assert {row.count("|") for row in rows} == {5}


def test_a_report_in_the_book_has_links_to_its_sections():
    row = "| `epsilon` | notebooks/04_the.ipynb#sec-x | book/questions.md#sec-y |"
    assert audits.linked(row) == (
        "| `epsilon` | [chapter\N{NO-BREAK SPACE}4](#sec-x) | [questions](#sec-y) |"
    )


@each_loss
def test_a_description_has_both_calls(name, loss):
    text = audits.describe(loss)
    assert text.count("```python") == (2 if loss["ours"] else 1)
    assert audits.call(loss) in text
    assert loss["advice"] in text


@each_loss
def test_every_loss_has_a_headline(name, loss):
    assert "no divergence that has a name" not in loss["summary"]


def test_a_call_starts_from_logits():
    (loss,) = [x for x in RESULTS["pytorch"]["losses"] if "batchmean" in x["loss"]]
    assert audits.call(loss).splitlines() == [
        "log_q = log_softmax(student / temperature, -1)",
        "p = softmax(teacher / temperature, -1)",
        'F.kl_div(log_q, p, reduction="batchmean")',
    ]


@pytest.mark.parametrize("name", RESULTS)
def test_a_section_begins_with_what_to_change(name):
    start = audits.library(RESULTS[name]).partition("\n")[0]
    assert start.startswith(("OK", "To change: "))
    assert start in ADAPTERS[name].read_text()


def test_what_the_overview_says_of_a_masked_class():
    assert audits.masked(found("pytorch", "The usual")) == "nan"
    assert audits.masked(found("torchtune", "ReverseKL")) == "gradient nan"
    assert audits.masked(found("torchtune", "ForwardKLLoss")) == "right"
    assert audits.masked(found("keras", "LogitsDistillation`, its")) == "–"


def test_the_chapter_has_a_section_for_every_library():
    chapter = ROOT / "notebooks" / "13_which_loss_is_this.ipynb"
    first_cell = json.loads(chapter.read_text())["cells"][0]
    links = re.findall(r"\(sec-audit-([\w-]+)\)", "".join(first_cell["source"]))
    assert sorted(links) == sorted(name.replace("_", "-") for name in RESULTS)
    shown = re.findall(r'libraries\["(\w+)"\]', "\n".join(c.source for c in code_cells(chapter)))
    assert sorted(shown) == sorted(RESULTS)
    assert shown == sorted(shown, key=lambda name: RESULTS[name]["library"].lower())


class TestAgreement:
    """The check behind each conversion finds a wrong factor of the value or of the gradient."""

    @pytest.fixture
    def digits(self):
        pytest.importorskip("torch")
        from audits.agreement import digits_of_agreement
        from audits.case import case
        from kd_notes.torch import kd_loss

        def digits(theirs, **options):
            conversion = case(**options)(theirs)
            conversion.equals(
                lambda student, teacher, temperature: kd_loss(student, teacher, temperature).mean()
            )
            return digits_of_agreement(conversion)

        return digits

    @staticmethod
    def three_lines(student, teacher, temperature=4.0):
        import torch.nn.functional as F  # noqa: N812

        log_q = F.log_softmax(student / temperature, -1)
        p = F.softmax(teacher / temperature, -1)
        return F.kl_div(log_q, p, reduction="batchmean") * temperature**2

    def test_the_same_loss(self, digits):
        assert digits(self.three_lines) == DIGITS

    def test_another_value(self, digits):
        assert (
            digits(
                lambda student, teacher, temperature: (
                    self.three_lines(student, teacher, temperature) * (1 + 1e-5)
                )
            )
            == 4
        )

    def test_another_gradient(self, digits):
        def theirs(student, teacher, temperature):
            loss = self.three_lines(student, teacher, temperature)
            return loss.detach() + (loss - loss.detach()) / temperature**2

        assert digits(theirs) == 0
