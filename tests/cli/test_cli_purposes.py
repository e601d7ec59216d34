"""The lines of ``splat train --help`` about plug-ins are those of the classes."""

import inspect

import pytest

from splat.cli.commands import train
from splat.cli.purposes import WIDTH, purposes, table
from splat.config.build import family_table
from splat.config.presets import preset_names
from splat.model.filter2d import FILTERS_2D


@pytest.mark.parametrize("family", ["primitive", "densifier", "compressor"])
def test_every_class_of_the_table_has_its_own_line(family):
    lines = purposes(family)
    classes = family_table(family)
    assert list(lines) == list(classes)
    for kind, cls in classes.items():
        expected = getattr(cls, "purpose", None) or inspect.getdoc(cls).partition("\n\n")[0].replace("\n", " ")
        assert lines[kind] == expected and len(lines[kind]) > 10, kind
    page = " ".join(train.HELP.split())
    for kind, line in lines.items():
        assert f"{kind} {line}" in page


def test_the_help_says_what_each_filter_does():
    page = " ".join(train.HELP.split())
    for name, row in FILTERS_2D.items():
        assert f"{name} {row.purpose}" in page


def test_the_help_names_every_preset():
    page = " ".join(train.HELP.split())
    assert f"--preset NAME {', '.join(preset_names())} (" in page


def test_long_lines_are_wrapped_below_their_text():
    told = table({"a": "word " * 40, "longer": "short"}).splitlines()
    assert len(told) == 3 and max(map(len, told)) <= WIDTH
    assert told[1].index("word") == told[0].index("word") == told[2].index("short")
