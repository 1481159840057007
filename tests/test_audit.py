"""The auditor: what was planted is found, and nothing else; and the ways to use it."""

import inspect
import re
import subprocess
import sys
import time
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import references
from confusion import differences
from planted_losses import LOSSES

import kd_notes
from kd_notes import audit as package
from kd_notes import kd_loss
from kd_notes.audit import CODES, Finding, Report, Weights, assert_audit, audit
from kd_notes.audit.__main__ import main

ROOT = Path(kd_notes.__file__).parents[1]
HARMLESS = {"choice", "unknown"}


@cache
def audited(name):
    return audit(LOSSES[name].loss)


@pytest.mark.slow
@pytest.mark.parametrize("name", LOSSES)
def test_what_was_planted_is_found_and_nothing_else(name):
    missed, invented, wrong = differences(name)
    assert (missed, invented, wrong) == (set(), set(), {})


@pytest.mark.parametrize("code", CODES)
def test_each_code_is_planted_without_another_that_is_worse_than_a_choice(code):
    pytest.importorskip("torch")  # some codes are of gradients
    with_it = [planted.codes for planted in LOSSES.values() if code in planted.codes]
    others = [{CODES[other].severity for other in codes - {code}} for codes in with_it]
    assert any(severities <= HARMLESS for severities in others)


@pytest.mark.parametrize("code", CODES)
def test_a_code_has_a_severity_and_a_section_that_exists(code):
    assert CODES[code].severity in {"defect", "warning", "choice", "unknown"}
    page, label = CODES[code].section.split("#")
    assert f"({label})=" in (ROOT / page).read_text()
    assert re.fullmatch(r"[A-Z].*\.", CODES[code].meaning)


def test_the_book_lists_every_code():
    lines = (ROOT / "book" / "api.md").read_text().splitlines()
    for name, code in CODES.items():
        label = code.section.split("#")[1]
        assert f"| `{name}` | {code.severity} | [{code.meaning[:-1]}]({label}) |" in lines


def test_a_reference_in_mpmath_has_no_finding():
    def loss(student, teacher, temperature):
        rows = zip(np.asarray(student, float), np.asarray(teacher, float), strict=True)
        losses = [references.kd_loss(*map(references.exact, row), temperature) for row in rows]
        return float(sum(losses) / len(losses))

    with references.mp.workdps(30):
        report = audit(_masked(loss), temperature=2.0)
    assert report.findings == ()
    assert (report.divergence, report.reduction) == ("forward_kl", "batchmean")
    assert (report.value_power, report.temperature) == (2, 2)


def _masked(loss):
    """Leave out the classes that the teacher masks, and add inf for those the student does."""

    def masked(student, teacher, temperature):
        rows = []
        for s, t in zip(np.asarray(student, float), np.asarray(teacher, float), strict=True):
            kept = t > -np.inf
            rest = np.logaddexp.reduce(s[~kept], initial=-np.inf) if not kept.all() else -np.inf
            if np.any(s[kept] == -np.inf):
                rows.append(np.inf)
            elif rest > -np.inf:  # the teacher's mass there is that of a logit of -1e6
                rows.append(loss([s], [np.where(kept, t, t[kept].max() - 1e6)], temperature))
            else:
                rows.append(loss([s[kept]], [t[kept]], temperature))
        return np.mean(rows)

    return masked


@pytest.mark.slow
@pytest.mark.parametrize("name", ["is_right", "is_renyi_of_order_2", "has_free_weights"])
def test_an_audit_takes_less_than_ten_seconds_of_one_core(name):
    start = time.process_time()
    audit(LOSSES[name].loss, **LOSSES[name].options)
    assert time.process_time() - start < 10


@pytest.mark.parametrize(
    ("name", "summary"),
    [
        ("kd_loss", "τ² × forward KL at τ = 1, for each example"),
        ("regularized_logit_matching_loss", "half the variance, for each example"),
        ("logit_matching_loss", "0.5 × squared error, for each example"),
        ("kl_divergence", "reverse KL at τ = 1, for each example"),
        (
            "knowledge_distillation_loss",
            "0.7 × cross-entropy on the label + 0.3 × τ² × forward KL at τ = 4, for each example",
        ),
    ],
)
def test_nothing_is_wrong_with_the_librarys_own_losses(name, summary):
    report = audit(getattr(kd_notes, name))
    assert report.summary == summary
    assert {finding.severity for finding in report.findings} <= HARMLESS


def test_arguments_are_not_shared_with_the_loss():
    report = audited("subtracts_the_top_in_place")
    assert [finding.code for finding in report.findings] == ["changes-input"]
    assert "argument 1" in report.findings[0].message


def test_a_crash_says_what_was_raised_and_what_is_missing():
    report = audited("raises")
    assert "RuntimeError: the teacher is on holiday" in report.findings[0].message
    assert "beta_schedule" in audited("needs_more").findings[0].message


def test_a_partial_has_the_name_of_its_function():
    report = audit(partial(LOSSES["needs_more"].loss, beta_schedule=1))
    assert (report.name, report.divergence) == ("needs_more", "forward_kl")


def test_a_crash_in_the_middle_is_a_finding():
    calls = iter(range(100))

    def loss(student, teacher):
        if next(calls) > 50:
            raise MemoryError("no more")
        return kd_loss(student, teacher).mean()

    report = audit(loss)
    assert [finding.code for finding in report.findings] == ["crash"]
    assert "MemoryError: no more" in report.findings[0].message


@pytest.mark.slow
def test_the_size_of_an_epsilon_and_of_a_clip():
    for name, size in [
        ("adds_an_epsilon", 1e-8),
        ("adds_a_large_epsilon", 1e-5),
        ("adds_an_epsilon_to_a_chi_squared", 1e-8),
        ("adds_an_epsilon_to_the_students_alone", 1e-4),
        ("clips_probabilities", 1e-7),
    ]:
        (found,) = (f for f in audited(name).findings if f.code in ("epsilon", "clip"))
        number = float(re.search(r"\d\S*e-\d+", found.message)[0])
        assert number == pytest.approx(size, rel=0.2)


@pytest.mark.slow
def test_a_message_has_the_digits_that_show_a_difference():
    def loss(student, teacher):  # a common shift changes the tenth digit
        shift = np.tanh(np.asarray(student).mean(axis=-1))
        return (kd_loss(student, teacher) * (1 + 1e-3 * shift)).mean()

    def clamped(student, teacher):
        return kd_loss(*(np.clip(z, -5, 5) for z in (student, teacher))).mean()

    for one in (loss, clamped):
        (found,) = (f for f in audit(one).findings if f.code == "not-shift-invariant")
        before, after = re.search(r"from (\S+) to (\S+)\.$", found.message).groups()
        assert before != after


def test_a_factor_is_that_of_the_temperature_inside():
    report = audited("has_half_its_temperature_inside")
    assert report.summary == "4 × τ² × forward KL at τ = 2, averaged over the examples"
    (found,) = (f for f in report.findings if f.code == "factor")
    assert found.message == "It is 4 times τ² × forward KL with the τ = 2 that is inside."
    found = audited("multiplies_by_a_temperature_that_is_not_inside").findings
    assert any("16, is not a power" in f.message and "to the power 2" in f.message for f in found)


@pytest.mark.slow
def test_a_cast_says_whether_logits_or_values_are_rounded():
    for name, start in [
        ("rounds_its_student_to_float16", "It rounds float64 logits to float16"),
        ("casts_to_float32", "Its values for float64 logits are numbers of float32."),
    ]:
        (found,) = (f for f in audited(name).findings if f.code == "casts-down")
        assert found.message.startswith(start)


def test_two_temperatures_are_both_in_the_summary():
    summary = audited("does_not_soften_the_teacher").summary
    assert "at τ = 4 (student), 1 (teacher)," in summary


def test_a_loss_that_is_no_number_says_what_it_is():
    for name, kind in [("returns_nothing", "None"), ("returns_a_text", "a str")]:
        (found,) = audited(name).findings
        assert f"it returns {kind} and no real number" in found.message


def test_a_negative_factor_is_one_defect_that_says_what_follows():
    (found,) = audited("has_the_wrong_sign").defects
    assert "its factor is negative, so it is largest for equal networks" in found.message


@pytest.mark.slow
def test_what_is_a_divergence_of_nothing_is_asked_with_logits():
    report = audited("is_renyi_of_order_2")
    assert (report.takes, report.teacher_takes) == ("logits", "logits")

    def of_probabilities(q, p):
        return np.log((p**2 / q).sum(axis=-1)).mean()

    (found,) = audit(of_probabilities, student_first=True).findings
    assert found.code == "not-finite"
    assert "say so by `takes`" in found.message
    report = audit(of_probabilities, student_first=True, takes="probabilities")
    assert report.has("unknown-divergence")
    assert report.takes == "probabilities"


def test_a_model_that_depends_on_the_number_of_classes_says_so():
    pytest.importorskip("torch")
    from torch.nn.functional import cross_entropy

    def loss(student, teacher):
        return cross_entropy(student, teacher.argmax(-1), label_smoothing=0.1)

    (found,) = (f for f in audit(loss).findings if f.code == "unknown-divergence")
    assert found.message.endswith("fits for 5 classes, and for 7 with other numbers.")


def test_a_gradient_says_how_it_is_wrong():
    pytest.importorskip("torch")
    found = audited("detaches_the_students_weights").findings[0]
    assert found.message.startswith("The gradient is off the derivative of the value by")
    found = audited("multiplies_the_value_after_the_gradient").findings[0]
    assert found.message == "The gradient is 0.0625 times the derivative of the value."


def test_a_loss_that_bends_within_the_step_of_the_differences_has_no_wrong_gradient():
    torch = pytest.importorskip("torch")

    def of_clipped_logits(student, teacher, temperature=4.0):  # in float32: the step is large
        q, p = ((z / temperature).float().clamp(1e-7, 1) for z in (student, teacher))
        return torch.sum(p * torch.log(p / q), dim=-1).mean()

    report = audit(of_clipped_logits, takes="logits", backend="torch")
    assert not report.has("wrong-gradient")
    assert report.gradient_power is None


@pytest.mark.slow
def test_the_weights_of_a_loss_with_labels():
    assert audited("is_right_with_labels").weights == Weights(
        pytest.approx(0.7), pytest.approx(0.3), pytest.approx(1), "teacher", True
    )
    weights = audited("weighs_the_labels").weights
    assert (weights.alpha_on, weights.sum_to_one) == ("labels", True)
    weights = audited("has_free_weights").weights
    assert (weights.alpha_on, weights.sum_to_one) == ("teacher", False)
    weights = audited("softens_the_label").weights
    assert weights.label_temperature == pytest.approx(4)


def test_the_digits_of_the_usual_lines_fall_with_the_square_of_the_temperature():
    report = audited("is_the_usual_lines")
    digits = report.digits["float64"]
    assert digits[1.0] > 14
    assert digits[1e2] - digits[1e4] == pytest.approx(4, abs=1)
    assert report.three_digits["float64"] is None
    assert 30 < report.three_digits["float32"] < 300  # where temperature² eps is a thousandth


def test_a_correct_loss_has_all_digits_at_every_temperature():
    report = audit(kd_loss)
    assert set(report.three_digits.values()) == {None}
    assert min(report.digits["float64"].values()) > 14
    assert min(report.digits["float32"].values()) > 6


def test_keywords_can_be_named_and_left_out():
    def loss(student, teacher, sharpness=2.0, y=None):
        return kd_loss(student, teacher, sharpness).mean()

    assert audit(loss).value_power == 2  # of 2, by its factor 4
    named = audit(loss, temperature=3.0, keywords={"temperature": "sharpness"})
    assert (named.temperature, named.value_power) == (3, 2)
    assert audit(loss).has("labels-ignored")
    assert not audit(loss, keywords={"labels": ""}).has("labels-ignored")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "jax"}, r"backend must be 'numpy', 'torch' or None; got 'jax'"),
        (
            {"keywords": {"tau": "T"}},
            r"keywords must be among \['temperature', .*\]; got \['tau'\]",
        ),
    ],
)
def test_wrong_options_raise(options, message):
    with pytest.raises(ValueError, match=message):
        audit(kd_loss, **options)


@pytest.mark.parametrize("loss", [3, Report])
def test_what_is_no_function_raises(loss):
    with pytest.raises(TypeError, match=r"loss must be a function or an instance .*; got"):
        audit(loss)


def test_the_order_is_found_by_the_gradient_where_names_do_not_tell():
    torch = pytest.importorskip("torch")

    def first(a, b):
        return torch.nn.functional.mse_loss(a, b.detach())

    def second(a, b):
        return torch.nn.functional.mse_loss(a.detach(), b)

    assert audit(first, backend="torch").student_first
    assert not audit(second, backend="torch").student_first
    assert audit(first, backend="torch", student_first=False).has("no-gradient")


# The report


@pytest.fixture(scope="module")
def report():
    return audited("is_averaged_over_classes")


def test_a_report_prints_its_answers_and_findings(report):
    text = str(report)
    assert text.startswith("is_averaged_over_classes (numpy)")
    for part in ["forward_kl", "reduction", "mean", "warning mean-over-classes", "for 1000"]:
        assert part in text
    assert max(map(len, text.splitlines())) <= 88


@pytest.mark.parametrize(
    ("name", "summary"),
    [
        ("is_right", "τ² × forward KL at τ = 4, averaged over the examples"),
        ("is_half_of_it", "0.5 × τ² × forward KL at τ = 4, averaged over the examples"),
        ("is_multiplied_by_tau", "τ × forward KL at τ = 4, averaged over the examples"),
        ("is_summed", "τ² × forward KL at τ = 4, summed over the examples"),
        ("is_logit_matching", "0.5 × squared error, for each example"),
        ("is_renyi_of_order_2", "no divergence that has a name here"),
        (
            "is_jensen_shannon_0.1_at_1",
            "Jensen-Shannon divergence (β = 0.1) at τ = 1, averaged over the examples",
        ),
        (
            "weighs_the_labels",
            "0.3 × cross-entropy on the label + 0.7 × τ² × forward KL at τ = 4, "
            "averaged over the examples",
        ),
    ],
)
def test_the_summary_is_one_line(name, summary):
    assert audited(name).summary == summary


def test_a_report_is_two_tables_of_markdown(report):
    lines = report.to_markdown().splitlines()
    blank = lines.index("")
    assert {line.count("|") for line in lines[:blank]} == {3}
    assert {line.count("|") for line in lines[blank + 1 :]} == {5}
    assert "| warning | `mean-over-classes` |" in report.to_markdown()


def test_a_report_of_a_crash_has_no_answers():
    report = audited("raises")
    first, second, *findings = str(report).splitlines()
    assert (first, second) == ("raises (unknown)", "  could not be asked what it is")
    assert findings[0].startswith("defect crash: On two examples")


def test_a_report_is_html_without_what_a_function_calls_itself():
    html = Report("<script>")._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html


def test_findings_are_sorted_by_severity_and_each_code_comes_once():
    first, second = (Finding(code, CODES[code].severity, "", "") for code in ("factor", "crash"))
    report = Report("loss").adding(first, second, second).adding(first)
    assert [finding.code for finding in report.findings] == ["crash", "factor"]
    assert report.defects == (second,)


# pytest


def test_assert_audit_returns_the_report_of_what_is_right():
    report = assert_audit(
        LOSSES["is_right"].loss,
        divergence="forward_kl",
        reduction="batchmean",
        value_power=2,
        gradient_power=2,
        temperature=3.0,
    )
    assert report.temperature == 3


@pytest.mark.parametrize(
    ("name", "expected", "message"),
    [
        ("is_right", {"divergence": "reverse_kl"}, "divergence is 'forward_kl', not 'reverse_kl'"),
        ("is_summed", {"reduction": "batchmean"}, "reduction is 'sum', not 'batchmean'"),
        ("has_no_square_of_tau", {"value_power": 2}, "value_power is 0.0, not 2"),
        ("is_alpha_0.5_at_1", {"parameter": 0.4}, "parameter is 0.5, not 0.4"),
        ("has_the_wrong_sign", {}, "negative: On ordinary logits"),
    ],
)
def test_assert_audit_fails_with_the_report(name, expected, message):
    with pytest.raises(AssertionError) as error:
        assert_audit(LOSSES[name].loss, **expected)
    assert message in str(error.value)
    assert f"{name} (numpy)" in str(error.value)


def test_assert_audit_allows_the_defects_that_are_named():
    assert_audit(LOSSES["has_the_wrong_sign"].loss, allow=["negative"])


# The command line


@pytest.fixture
def module(tmp_path, monkeypatch):
    pytest.importorskip("rich")
    (tmp_path / "my_losses.py").write_text(
        "from kd_notes import kd_loss\n"
        "def good(student, teacher, temperature):\n"
        "    return kd_loss(student, teacher, temperature).mean()\n"
        "def bad(student, teacher):\n"
        "    return -kd_loss(student, teacher).mean()\n"
        "number = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("COLUMNS", "120")
    return "my_losses"


def test_the_command_line_exits_with_0_1_or_2(module, capsys):
    assert main([f"{module}:good", "--temperature", "3"]) == 0
    assert "forward_kl" in capsys.readouterr().out
    assert main([f"{module}:bad"]) == 1
    assert "negative" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_losses", "must be given as module:function; got 'my_losses'"),
        ("my_losses:none", "has no attribute 'none'"),
        ("my_losses:number", "my_losses:number must be callable; got int"),
        ("nowhere:loss", "No module named 'nowhere'"),
    ],
)
def test_what_cannot_be_loaded_exits_with_2(module, name, message, capsys):
    assert main([name]) == 2
    assert message in capsys.readouterr().err


def test_without_rich_the_command_line_says_so(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "rich.console", None)
    assert main(["kd_notes:kd_loss"]) == 2
    assert "need rich: pip install rich" in capsys.readouterr().err


# The package


def test_import_and_audit_load_numpy_alone():
    code = (
        "import sys, kd_notes.audit as a, kd_notes; a.audit(kd_notes.kd_loss); "
        "print(*sorted({name.split('.')[0] for name in sys.modules}))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert not set(run.stdout.split()) & {"torch", "rich", "mpmath", "scipy", "jax"}


def test_public_names_and_signatures():
    assert package.__all__ == sorted(package.__all__)
    parameters = inspect.signature(audit).parameters.values()
    assert [p.name for p in parameters if p.kind == p.KEYWORD_ONLY] == [
        "temperature",
        "takes",
        "student_first",
        "backend",
        "gradient",
        "keywords",
    ]
    assert len(list(parameters)) == 7
