"""What the pages of the benchmarks share: one document that needs no network, and its tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from splat.report.style import STYLE


def document(
    title: str, captures: Sequence[Mapping[str, Any]], sections: str, *, style: str, protocol: Sequence[str],
    script: str,
) -> str:  # fmt: skip
    """The whole page around ``sections``; ``protocol`` says how the numbers were made."""
    machines = sorted({results["machine"] for results in captures if results.get("machine")})
    notes = "".join(f"<li>{escape(line)}</li>" for line in protocol)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}{style}</style></head><body><main>"
        f'<h1>{escape(title)}</h1><p class="sub">{escape(" · ".join(machines))}</p>'
        + sections
        + f'<section><h2>How the numbers were made</h2><ul class="protocol">{notes}</ul></section>'
        f"<footer>Written by scripts/{script}. This page is complete in itself.</footer>"
        "</main></body></html>\n"
    )


def table(head: str, body: Sequence[str]) -> str:
    return f'<div class="card scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'
