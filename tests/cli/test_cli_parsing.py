import pytest

from splat.cli.parsing import Parser, UsageError, split_settings, with_dashes


def test_dotted_flags_and_set_become_settings():
    rest, settings = split_settings(
        ["scene", "--densifier.grow-grad", "3e-4", "--render.filter3d", "--steps", "5", "--set", "a.b=c=d", "--x.y=-1",
         "--x.z", "-2", "--set=q=1"]
    )  # fmt: skip
    assert rest == ["scene", "--steps", "5"]
    expected = {"densifier.grow_grad": "3e-4", "render.filter3d": "true", "a.b": "c=d", "x.y": "-1", "x.z": "-2"}
    assert settings == {**expected, "q": "1"}


@pytest.mark.parametrize("argv", [["--set"], ["--set", "novalue"], ["--set", "=1"]])
def test_a_set_without_key_or_value_is_a_usage_error(argv):
    with pytest.raises(UsageError, match="--set"):
        split_settings(argv)


def test_underscores_become_dashes_in_names_only():
    assert with_dashes(["--max_splats=a_b", "my_scene", "-o", "x_y"]) == ["--max-splats=a_b", "my_scene", "-o", "x_y"]


def test_errors_are_raised_not_printed(capsys):
    parser = Parser("train")
    parser.add_argument("--steps", type=int)
    cases = {
        "--stpes 1": "did you mean '--steps'", "--steps": "expected one argument", "--steps x": "invalid int",
        "stray": "unexpected argument 'stray'", "--ste 1": "did you mean '--steps'",
    }  # fmt: skip
    for line, reason in cases.items():
        argv = line.split()
        with pytest.raises(UsageError, match=reason):
            parser.parse(argv)
    assert capsys.readouterr() == ("", "")
