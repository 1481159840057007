"""What the audits of other libraries found, as Markdown for the chapter."""

from __future__ import annotations

import re
from typing import Any

from kd_notes.audit._render import power

#: How an argument that is not logits is called and made, with the letters of the book.
FORMS = {
    "probabilities": ("{}", "softmax"),
    "log_probabilities": ("log_{}", "log_softmax"),
}

#: Told in the sentences above the findings.
TOLD = (
    "casts-down",
    "few-digits",
    "sum-over-batch",
    "takes-probabilities",
    "teacher-first",
    "teacher-gradient",
    "unknown-divergence",
    "unscaled",
)


def linked(report: str) -> str:
    """Return a report's Markdown with links to the sections of the book that it names."""
    report = re.sub(r"notebooks/0?(\d+)_\S+(#\S+)", "[chapter\N{NO-BREAK SPACE}\\1](\\2)", report)
    return re.sub(r"book/(\w+)\.md(#\S+)", r"[\1](\2)", report)


def overview(results: dict[str, Any]) -> str:
    """Return a table with a row for each loss."""
    lines = ["| library and loss | computes | τ² in the gradient | masked in both |"]
    lines.append("|---|---|---|---|")
    for name, result in sorted(results.items(), key=lambda item: item[1]["library"].lower()):
        link = f"[{result['library']}](#sec-audit-{name.replace('_', '-')})"
        for loss in result["losses"]:
            found = loss["found"]
            scaled = "–" if found["gradient_power"] is None else power(found["gradient_power"])
            cells = [
                f"{link} {result['version']}<br>{loss['loss']}",
                unbroken(loss["summary"]),
                {"τ²": "yes", "1": "no"}.get(scaled, scaled),
                masked(found),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def library(result: dict[str, Any]) -> str:
    """Return all that is to say of a library."""
    head = (
        f"Version {result['version']} of `{result['package']}`; "
        f"`{result['file']}` has the imports and other names of the calls."
    )
    return "\n\n".join([result["in_short"], head, *map(describe, result["losses"])])


def describe(loss: dict[str, Any]) -> str:
    """Return what a loss computes, how to change it, the call, the findings, and our call."""
    parts = [f"**{loss['loss']}**", sentences(loss), loss["advice"], python(call(loss))]
    parts.append("\n".join(f"- {f['severity']}: {f['message']}" for f in listed(loss)))
    if loss["ours"]:
        parts += [
            f"In `kd_notes`, value and gradient to {loss['ours']['digits']} digits:",
            python(loss["ours"]["code"]),
        ]
    else:
        parts.append("In `kd_notes`: none.")
    return "\n\n".join(part for part in parts if part)


def listed(loss: dict[str, Any]) -> list[dict[str, str]]:
    """Return the findings that are not in the sentences above them."""
    return [finding for finding in loss["found"]["findings"] if finding["code"] not in TOLD]


def call(loss: dict[str, Any]) -> str:
    """Return the call, for `student` and `teacher` that are logits also where it takes others."""
    code, found, lines = loss["code"], loss["found"], []
    heat = " / temperature" if "temperature" in (loss["ours"] or {}).get("code", "") else ""
    for network, letter, takes in [
        ("student", "q", found["takes"]),
        ("teacher", "p", found["teacher_takes"]),
    ]:
        if takes != "logits":
            name, function = FORMS[takes]
            code = re.sub(rf"\b{network}\b", name.format(letter), code)
            lines.append(f"{name.format(letter)} = {function}({network}{heat}, -1)")
    return "\n".join([*lines, code])


def sentences(loss: dict[str, Any]) -> str:
    """Return what the loss computes, from what, and who gets a gradient."""
    found = loss["found"]
    value, slope = found["value_power"], found["gradient_power"]
    parts = [f"Computes {loss['summary']}."]
    if value is not None and slope is not None and value != slope:
        parts.append(f"The value has the factor {power(value)}, the gradient {power(slope)}.")
    if not found["student_first"]:
        parts.append("The teacher comes first.")
    takes = [found[key].replace("_", "-") for key in ("takes", "teacher_takes")]
    if takes != ["logits", "logits"]:
        parts.append(f"Takes the student's {takes[0]} and the teacher's {takes[1]}.")
    if found["teacher_gradient"] is not None:
        parts.append(f"The teacher gets {'a' if found['teacher_gradient'] else 'no'} gradient.")
    if "casts-down" in codes(found):
        parts.append("Computes in float32 or lower precision.")
    if limit := found["three_digits"].get("float32"):
        limit = float(f"{limit:.2g}")
        parts.append(f"In float32, fewer than three digits are right from τ = {limit:g}.")
    return unbroken(" ".join(parts))


def unbroken(text: str) -> str:
    """Return the text with equations that stay on one line."""
    return text.replace(" = ", "\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}")


def masked(found: dict[str, Any]) -> str:
    """Return what becomes of a class that both networks mask."""
    messages = {finding["code"]: finding["message"] for finding in found["findings"]}
    if "masked-class" in messages:
        return "nan" if "gives nan" in messages["masked-class"] else "wrong value"
    if "edge-gradient" in messages:
        return "gradient nan"
    return "–" if found["divergence"] == "unknown" else "right"


def codes(found: dict[str, Any]) -> set[str]:
    """Return the codes of what was found."""
    return {finding["code"] for finding in found["findings"]}


def python(code: str) -> str:
    """Return code as Markdown shows it."""
    return f"```python\n{code}\n```"
