from pathlib import Path
from typing import Literal

import pytest

from splat.config.values import coerced
from splat.errors import UserError


@pytest.mark.parametrize(("value", "annotation", "expected"), [
    ("3", int, 3), ("3e4", int, 30_000), (3, float, 3.0), ("1e-3", float, 1e-3), ("true", bool, True),
    ("off", bool, False),
    ("auto", float | Literal["auto"], "auto"), ("2", float | Literal["auto"], 2.0), ("none", int | None, None),
    ("none", str | None, "none"), (None, str | None, None), ("7000,30000", tuple[int, ...], (7000, 30_000)),
    ([1, 2], tuple[int, ...], (1, 2)), (5, tuple[int, ...], (5,)), ("", tuple[int, ...], ()),
    ("1 0.5 0", tuple[float, float, float] | None, (1.0, 0.5, 0.0)), ("4", Literal[1, 2, 4], 4),
    ("a/b", Path | None, Path("a/b")),
])  # fmt: skip
def test_text_and_toml_values_become_what_the_field_wants(value, annotation, expected):
    result = coerced(value, annotation, "x")
    assert result == expected and type(result) is type(expected)


@pytest.mark.parametrize(("value", "annotation", "reason"), [
    ("many", int, "whole number"), (2.5, int, "whole number"), (True, int, "whole number"),
    ("inf", int, "whole number"),
    ("1.5", int, "whole number"), ("x", float, "a number"), (True, float, "a number"), ("maybe", bool, "true or false"),
    (1, bool, "true or false"), ("blue", Literal["black", "white"], "black, white"), (3, str, "text"),
    ("1,2", tuple[float, float, float], "3 values"), ({}, tuple[int, ...], "a list"),
    ("x", float | Literal["auto"], "auto"),
])  # fmt: skip
def test_what_does_not_fit_names_setting_value_and_choices(value, annotation, reason):
    with pytest.raises(UserError, match=reason) as caught:
        coerced(value, annotation, "scene.setting")
    assert "scene.setting" in str(caught.value) and repr(value) in str(caught.value) and "\n" not in str(caught.value)
