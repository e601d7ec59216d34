"""Lists of formats in words, and the names of their files."""

from __future__ import annotations

from pathlib import Path

import pytest

from splat.errors import UserError
from splat.io.format_names import file_in, file_name, format_names, is_all, stem_of, stored_bytes
from splat.io.formats import FORMATS, format_for


def test_lists_of_formats():
    assert format_names("ply,native") == format_names(" PLY native,ply") == ["ply", "native"]
    assert format_names(None) == []
    every = format_names("All")
    assert set(every) == {name for name, row in FORMATS.items() if row.write is not None} and is_all("all ")
    for wrong in ("", ",", "ply,nothing"):
        with pytest.raises(UserError, match=r"choices: .*ply"):
            format_names(wrong)


@pytest.mark.parametrize("name", format_names("all"))
def test_a_file_of_a_format_can_be_told_by_its_name(name):
    path, row = Path("a") / file_name("point.cloud", name), FORMATS[name]
    base = row if row.suffixes else next(r for r in FORMATS.values() if r.matches is row.matches and r.suffixes)
    assert format_for(path, None).name == base.name and file_in(path, name) == path
    extra = "" if row.suffixes else f".{name}"
    assert stem_of(path) in (f"point.cloud{extra}", f"point.cloud-{name}")


def test_names_of_every_sort():
    assert file_name("a", "compressed-ply") == "a.compressed.ply" and stem_of(Path("b/a.compressed.ply")) == "a"
    assert file_name("a", "sog-folder") == "a-sog-folder/meta.json" and stem_of(Path("b/a/meta.json")) == "a"
    assert file_in(Path("b"), "sog-folder") == Path("b/meta.json") and file_in(Path("b"), "ply") == Path("b")
    assert file_name("a", "spz2") == "a.spz2.spz" and stem_of(Path("a.odd")) == "a"


def test_what_a_model_takes_on_the_disk(tmp_path):
    for name, size in (("meta.json", 10), ("means_l.webp", 20), ("notes.txt", 40)):
        (tmp_path / name).write_bytes(bytes(size))
    assert [stored_bytes(tmp_path / name) for name in ("meta.json", "notes.txt", ".")] == [30, 40, 70]
