"""How the benchmarks end: a table and a path, or one line of what went wrong, and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from splat.errors import UserError

Captures = Sequence[dict[str, Any]]


def told(
    script: str, out: Path, run: Callable[[], Captures], *,
    markdown: Callable[[Captures], str], failures: Callable[[Captures], int],
) -> int:  # fmt: skip
    """Run, print the table, and give the exit code: 0 done, 1 something failed, 2 something to mend in the call, 130
    interrupted."""
    try:
        captures = run()
    except UserError as error:
        print(f"{script}: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted; --resume goes on", file=sys.stderr)
        return 130
    print(markdown(captures), end="")
    print(f"{out}/index.html", file=sys.stderr)
    return 1 if failures(captures) else 0
