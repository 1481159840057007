"""What the audits of other libraries found, as Markdown for the chapter."""

from __future__ import annotations

from typing import Any

FORMS = {"logits": "logits", "probabilities": "probabilities", "log_probabilities": "logarithms"}

POWERS: dict[float, str] = {-2: "τ⁻²", -1: "τ⁻¹", 0: "1", 1: "τ", 2: "τ²"}

#: Told in the sentence above the findings, or true of nearly all losses.
TOLD = (
    "casts-down",
    "few-digits",
    "sum-over-batch",
    "takes-probabilities",
    "teacher-first",
    "teacher-gradient",
    "unscaled",
)


def overview(results: dict[str, Any]) -> str:
    """Return a table with a row for each loss."""
    lines = ["| library | loss | computes | τ² in the gradient | masked class |"]
    lines.append("|---|---|---|---|---|")
    for name, result in sorted(results.items(), key=lambda item: item[1]["library"].lower()):
        link = f"[{result['library']}](#sec-audit-{name.replace('_', '-')})"
        for loss in result["losses"]:
            found = loss["found"]
            scaled = "–" if found["gradient_power"] is None else power(found["gradient_power"])
            cells = [
                f"{link} {result['version']}",
                loss["loss"],
                loss["summary"],
                {"τ²": "yes", "1": "no"}.get(scaled, scaled),
                masked(found),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def library(result: dict[str, Any]) -> str:
    """Return all that is to say of a library."""
    head = f"Version {result['version']} of `{result['package']}`."
    return "\n\n".join([head, *map(describe, result["losses"])])


def describe(loss: dict[str, Any]) -> str:
    """Return what a loss computes, how to change it, the call, the findings, and our call."""
    parts = [f"**{loss['loss']}**", sentences(loss), loss["advice"], python(loss["code"])]
    told = [finding for finding in loss["found"]["findings"] if finding["code"] not in TOLD]
    parts.append("\n".join(f"- {f['severity']}: {f['message']}" for f in told))
    if loss["ours"]:
        parts += [
            f"In `kd_notes`, value and gradient to {loss['ours']['digits']} digits:",
            python(loss["ours"]["code"]),
        ]
    return "\n\n".join(part for part in parts if part)


def sentences(loss: dict[str, Any]) -> str:
    """Return what the loss computes, from what, and who gets a gradient."""
    found = loss["found"]
    value, slope = found["value_power"], found["gradient_power"]
    parts = [f"Computes {loss['summary']}."]
    if value is not None and slope is not None and value != slope:
        parts.append(f"The value has the factor {power(value)}, the gradient {power(slope)}.")
    if not found["student_first"]:
        parts.append("The teacher comes first.")
    if (found["takes"], found["teacher_takes"]) != ("logits", "logits"):
        parts.append(
            f"Takes the student's {FORMS[found['takes']]} "
            f"and the teacher's {FORMS[found['teacher_takes']]}."
        )
    if found["teacher_gradient"] is not None:
        parts.append(f"The teacher gets {'a' if found['teacher_gradient'] else 'no'} gradient.")
    if "casts-down" in codes(found):
        parts.append("Computes in float32, or less.")
    if limit := found["three_digits"].get("float32"):
        limit = float(f"{limit:.2g}")
        parts.append(f"In float32, fewer than three digits are right from τ = {limit:g}.")
    return " ".join(parts)


def power(exponent: float) -> str:
    """Return a power of τ."""
    return POWERS.get(exponent, f"τ^{exponent:g}")


def masked(found: dict[str, Any]) -> str:
    """Return what becomes of a class that both networks mask."""
    if "masked-class" in codes(found):
        return "wrong"
    return "gradient wrong" if "edge-gradient" in codes(found) else "right"


def codes(found: dict[str, Any]) -> set[str]:
    """Return the codes of what was found."""
    return {finding["code"] for finding in found["findings"]}


def python(code: str) -> str:
    """Return code as Markdown shows it."""
    return f"```python\n{code}\n```"
