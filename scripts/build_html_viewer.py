#!/usr/bin/env python3
"""Builds the renderer inside the HTML export from npm packages: ``splat/io/html_page/engine.js`` and what tells of it.

    python scripts/build_html_viewer.py

Versions are pinned in ``html_viewer/package.json`` and its lock file; with them the output is the same bytes each time,
which ``tests/io/test_html.py`` checks. Needs node 18 or newer and npm; installing splat needs neither, for the built
file lies in the tree.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

RECIPE = Path(__file__).parent / "html_viewer"
PAGE = Path(__file__).parents[1] / "splat/io/html_page"


def main() -> int:
    with tempfile.TemporaryDirectory() as scratch:
        for path in build(Path(scratch)):
            shutil.copyfile(path, PAGE / path.name)
            print(f"{PAGE / path.name}: {path.stat().st_size:,} bytes")
    return 0


def build(scratch: Path) -> list[Path]:
    """Install and bundle in ``scratch``; the files that belong into the package."""
    for path in RECIPE.iterdir():
        if path.is_file():
            shutil.copyfile(path, scratch / path.name)
    engine = scratch / "built" / "engine.js"
    # A clean install of exactly the lock file; install scripts of packages are not run.
    run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], scratch)
    run(["node", "build.mjs", str(engine)], scratch)
    versions = {}
    for name in ("playcanvas", "esbuild"):
        versions[name] = json.loads((scratch / f"node_modules/{name}/package.json").read_text())["version"]
    facts = {**versions, "sha256": hashlib.sha256(engine.read_bytes()).hexdigest()}
    told = engine.with_name("engine.json")
    told.write_text(json.dumps(facts, indent=2) + "\n")
    licence = engine.with_name("LICENSE.playcanvas.txt")
    shutil.copyfile(scratch / "node_modules/playcanvas/LICENSE", licence)
    return [engine, told, licence]


def run(command: list[str], folder: Path) -> None:
    if shutil.which(command[0]) is None:
        raise SystemExit(f"{command[0]} is not installed; building the viewer needs node 18 or newer with npm")
    subprocess.run(command, cwd=folder, check=True, stdout=sys.stderr)


if __name__ == "__main__":
    raise SystemExit(main())
