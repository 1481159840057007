"""`python -m kd_notes.audit module:function --temperature 4`.

The exit status is 0 if there is no defect, 1 if there is one, and 2 if the function could not
be loaded or the command line not understood.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from kd_notes.audit import Report, audit

STYLES = {"defect": "bold red", "warning": "yellow", "choice": "cyan", "unknown": "dim"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report of a function and return the exit status."""
    given = _parser().parse_args(arguments)
    try:
        console = _console()
        loss = load(given.function)
    except (ImportError, AttributeError, ValueError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    report = audit(loss, temperature=given.temperature, backend=given.backend)
    show(report, console)
    return 1 if report.defects else 0


def load(name: str) -> Callable[..., Any]:
    """Import a function by `module:function`, the working directory's modules too."""
    module, separator, path = name.partition(":")
    if not separator:
        raise ValueError(f"the function must be given as module:function; got {name!r}")
    sys.path.insert(0, os.getcwd())
    found: Any = importlib.import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    if not callable(found):
        raise ValueError(f"{name} must be callable; got {type(found).__name__}")
    return found  # type: ignore[no-any-return]


def show(report: Report, console: Any) -> None:
    """Draw both tables."""
    from rich.markup import escape
    from rich.table import Table

    from kd_notes.audit._render import facts

    console.print(f"[bold]{escape(report.name)}[/bold]: {escape(report.summary)}")
    answers = Table(show_header=False)
    for question, answer in facts(report):
        answers.add_row(question, answer)
    if answers.rows:
        console.print(answers)
    table = Table("severity", "finding", show_lines=True)
    for found in report.findings:
        text = f"[bold]{found.code}[/bold]\n{escape(found.message)}\n[dim]{found.section}[/dim]"
        table.add_row(found.severity, text, style=STYLES[found.severity])
    if report.findings:
        console.print(table)


def _console() -> Any:
    try:
        from rich.console import Console
    except ImportError:
        raise ImportError(
            "the tables of the command line need rich: pip install rich; "
            "print(kd_notes.audit.audit(loss)) needs NumPy alone"
        ) from None
    return Console()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m kd_notes.audit", description=__doc__)
    parser.add_argument("function", help="module:function, of the logits of both networks")
    parser.add_argument("--temperature", type=float, help="given to the function by keyword")
    parser.add_argument("--backend", choices=["numpy", "torch"], help="the arrays it takes")
    return parser


if __name__ == "__main__":
    sys.exit(main())
