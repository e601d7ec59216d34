import re
import subprocess
import sys

import pytest

from splat.cli import main as cli
from splat.cli.commands import train
from splat.errors import UserError


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"], ["help"]])
def test_the_overview_names_every_command(argv, capsys):
    assert cli.main(argv) == 0
    told = capsys.readouterr().out
    assert all(name in told for name in cli.COMMANDS)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_help_of_one_screen(name, capsys):
    assert cli.main([name, "--help"]) == 0
    told = capsys.readouterr().out
    assert told.startswith(f"usage: splat {name}")
    screen = 70 if name == "train" else 46  # train lists every plug-in
    assert len(told.splitlines()) <= screen and max(map(len, told.splitlines())) <= 120
    assert cli.main(["help", name]) == 0 and capsys.readouterr().out == told


def test_every_flag_the_help_of_train_names_is_understood():
    flags = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", train.HELP)) - {"--help", "--SECTION", "--set", "--config"}
    known = {flag for action in train._parser()._actions for flag in action.option_strings}
    assert flags - known == set()


def test_help_is_quick_because_it_imports_nothing_heavy():
    code = (
        "import sys; from splat.cli.main import main; main(['--help']); main(['train', '--help']);"
        "sys.exit(any(name in sys.modules for name in ('torch', 'cv2', 'numpy', 'viser')))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_unknown_commands_point_to_the_nearest_or_to_train(capsys, tmp_path):
    assert cli.main(["trian"]) == 2
    assert "did you mean 'train'" in capsys.readouterr().err
    assert cli.main([str(tmp_path)]) == 2
    assert f"splat train {tmp_path}" in capsys.readouterr().err


class Failing:
    HELP = ""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def run(self, argv: list[str]) -> int:
        raise self._error


@pytest.mark.parametrize(("error", "code", "told"), [
    (UserError("two\nlines"), 2, "splat: error: two lines\n"),
    (KeyboardInterrupt(), 130, "splat: error: interrupted\n"),
    (MemoryError(), 1, "splat: error: out of memory"),
    (ZeroDivisionError("oops"), 1, "please report it"),
])  # fmt: skip
def test_exit_codes(monkeypatch, capsys, error, code, told):
    monkeypatch.setattr(cli.importlib, "import_module", lambda name: Failing(error))
    assert cli.main(["info", "a b"]) == code
    err = capsys.readouterr().err
    assert told in err
    assert ("Traceback" in err) == (type(error) is ZeroDivisionError)
    if type(error) is ZeroDivisionError:
        assert "splat info 'a b'" in err


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("splat ")
