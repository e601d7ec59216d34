"""``splat``: finds the command, runs it, turns what goes wrong into a line and an exit code."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import os
import sys
import threading
from collections.abc import Sequence
from typing import NoReturn

from splat.errors import UserError

COMMANDS = {
    "train": "capture in, splat out",
    "eval": "measure a run on its held-out views",
    "view": "look at a run or a model file in the browser, and edit it",
    "render": "pictures or a video from a run",
    "export": "write a run's model in other formats, and say what each keeps",
    "convert": "model file to model file",
    "compress": "make a trained model small",
    "edit": "select, delete, move, drag and recolour splats without a screen; replay a log of the viewer",
    "info": "what is in a model file or a run",
    "sfm": "find camera poses for photos or a video",
    "doctor": "what this machine can do, and how to fix what is missing",
}
"""Name -> what it is for; the code is ``splat.cli.commands.<name>``."""

EXIT_OK, EXIT_INTERNAL, EXIT_INTERRUPTED = 0, 1, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code and never raises."""
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(argv)
    except UserError as error:
        _say_error(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        _say_error("interrupted")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output went away (| head): nothing to tell, and nobody to tell it to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except MemoryError:
        _say_error("out of memory; use fewer splats (--max-splats) or smaller pictures (-r 2)")
        return EXIT_INTERNAL
    except Exception:
        return _internal_error(argv)


def entry() -> NoReturn:
    """``main`` as a process, with its exit code."""
    code = main()
    if any(thread.daemon and thread.name.startswith("splat-") for thread in threading.enumerate()):
        # Of a viewer that did not wait for its last work. The interpreter would end such a thread in the middle of
        # native code, which C++ turns into an abort of the process.
        with contextlib.suppress(OSError, ValueError):  # whoever read it is gone, or it was closed
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def overview() -> str:
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:<{width}}  {purpose}" for name, purpose in COMMANDS.items())
    return (
        "usage: splat COMMAND ...\n\nPosed photos in, a Gaussian splat out.\n\n"
        f"{commands}\n\n"
        "first steps:\n"
        "  splat train CAPTURE              train on a COLMAP folder, transforms.json, photos or a video\n"
        "  splat train CAPTURE --preset cpu minutes on a laptop\n"
        "  splat COMMAND --help             one screen per command\n"
    )


def version() -> str:
    """Version of the installed package."""
    from splat import __version__

    return __version__


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        if len(argv) > 1 and argv[0] == "help":
            return _dispatch([argv[1], "--help"])
        print(overview(), end="")
        return EXIT_OK
    if argv[0] in ("--version", "-V", "version"):
        print(f"splat {version()}")
        return EXIT_OK
    name = argv[0]
    if name not in COMMANDS:
        raise UserError(_unknown_command(name))
    command = importlib.import_module(f"splat.cli.commands.{name}")
    if any(token in ("-h", "--help") for token in argv[1:]):
        print(command.HELP.strip("\n"))
        return EXIT_OK
    return command.run(argv[1:])


def _unknown_command(name: str) -> str:
    if os.path.exists(name):
        return f"'{name}' is no command; to train on it: splat train {name}"
    near = difflib.get_close_matches(name, COMMANDS, n=1)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    return f"unknown command '{name}'{hint} (choices: {', '.join(COMMANDS)})"


def _say_error(message: str) -> None:
    print(f"splat: error: {' '.join(message.split())}", file=sys.stderr)


def _internal_error(argv: list[str]) -> int:
    import shlex
    import traceback

    traceback.print_exc()
    _say_error(
        f"this is a fault of splat {version()}, not yours; please report it with the lines above "
        f"and the command: splat {shlex.join(argv)}"
    )
    return EXIT_INTERNAL


if __name__ == "__main__":
    entry()
