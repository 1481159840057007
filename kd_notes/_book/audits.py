"""What the audits of other libraries found, as Markdown for the chapter."""

from __future__ import annotations

from typing import Any

DIVERGENCES = {
    "forward_kl": "KL(p, q)",
    "reverse_kl": "KL(q, p)",
    "jeffreys": "½ KL(p, q) + ½ KL(q, p)",
    "cross_entropy": "CE(p, q)",
    "squared_error": "(z − v)²",
    "half_variance": "½ Var(z − v)",
    "unknown": "another loss",
}
REDUCTIONS = {
    "none": "one for each example",
    "sum": "sum over the examples",
    "batchmean": "mean over the examples",
    "mean": "mean over examples and classes",
    "unknown": "cannot be told",
}
FORMS = {"logits": "logits", "probabilities": "probabilities", "log_probabilities": "logarithms"}
POWERS: dict[float, str] = {-2: "τ⁻² ", -1: "τ⁻¹ ", 0: "", 1: "τ ", 2: "τ² "}

SCALED: dict[float | None, str] = {2: "yes", 0: "no", None: "–"}

#: Told in the sentence above the findings, or true of all losses but kd_notes's own.
TOLD = (
    "few-digits",
    "casts-down",
    "sum-over-batch",
    "takes-probabilities",
    "teacher-first",
    "teacher-gradient",
    "unscaled",
)


def overview(results: dict[str, Any]) -> str:
    """Return a table with a row for each loss."""
    lines = [
        "| library | loss | computes | reduction | τ² in the gradient | masked class |",
        "|---|---|---|---|---|---|",
    ]
    for name, result in sorted(results.items(), key=lambda item: item[1]["library"].lower()):
        link = f"[{result['library']}](#sec-audit-{name.replace('_', '-')})"
        for loss in result["losses"]:
            found = loss["found"]
            cells = [
                f"{link} {result['version']}",
                loss["loss"],
                formula(found),
                REDUCTIONS[found["reduction"]],
                SCALED.get(found["gradient_power"]) or power(found["gradient_power"]),
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
    found = loss["found"]
    parts = [f"**{loss['loss']}**", sentence(found), loss["advice"], python(loss["code"])]
    told = [finding for finding in found["findings"] if finding["code"] not in TOLD]
    parts.append("\n".join(f"- {f['severity']}: {f['message']}" for f in told))
    if loss["ours"]:
        parts += [
            f"In `kd_notes`, value and gradient to {loss['ours']['digits']} digits:",
            python(loss["ours"]["code"]),
        ]
    return "\n\n".join(part for part in parts if part)


def sentence(found: dict[str, Any]) -> str:
    """Return what the loss computes, how it is reduced, and who gets a gradient."""
    value, slope = found["value_power"], found["gradient_power"]
    codes = {finding["code"] for finding in found["findings"]}
    parts = [f"Computes {formula(found)}, {REDUCTIONS[found['reduction']]}."]
    if found["reduction"] == "unknown":
        parts = ["Computes none of the divergences that the audit knows."]
    if not found["student_first"]:
        parts.append("The teacher comes first.")
    if value is not None and slope is not None and value != slope:
        parts.append(f"The value has the factor {power(value)}, the gradient {power(slope)}.")
    if (found["takes"], found["teacher_takes"]) != ("logits", "logits"):
        parts.append(
            f"Takes the student's {FORMS[found['takes']]} "
            f"and the teacher's {FORMS[found['teacher_takes']]}."
        )
    if found["teacher_gradient"] is not None:
        parts.append(f"The teacher gets {'a' if found['teacher_gradient'] else 'no'} gradient.")
    if "casts-down" in codes:
        parts.append("Computes in float32, or less.")
    if limit := found["three_digits"].get("float32"):
        limit = float(f"{limit:.2g}")
        parts.append(f"In float32, fewer than three digits are right from τ = {limit:g}.")
    return " ".join(parts)


def formula(found: dict[str, Any]) -> str:
    """Return the loss of an example, with p the teacher's and q the student's probabilities."""
    name, parameter = found["divergence"], found["parameter"]
    soft = f"JS(p, q), β = {parameter:g}" if name == "jensen_shannon" else DIVERGENCES[name]
    soft = POWERS.get(found["value_power"] or 0, f"τ^{found['value_power']} ") + soft
    weights = found["weights"]
    if weights is None:
        return soft
    return " + ".join(
        part if weight == 1 else f"{weight:.3g} {part}"
        for weight, part in [(weights["label"], "CE(y, q)"), (weights["teacher"], soft)]
    )


def power(exponent: float) -> str:
    """Return a power of τ."""
    return POWERS.get(exponent, f"τ^{exponent:g}").strip() or "1"


def masked(found: dict[str, Any]) -> str:
    """Return what becomes of a class that both networks mask."""
    codes = {finding["code"] for finding in found["findings"]}
    if "masked-class" in codes:
        return "wrong"
    return "gradient wrong" if "edge-gradient" in codes else "right"


def python(code: str) -> str:
    """Return code as Markdown shows it."""
    return f"```python\n{code}\n```"
