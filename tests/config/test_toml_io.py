import pytest
from hypothesis import given
from hypothesis import strategies as st

from splat.config.toml_io import parse_toml, read_toml, to_toml
from splat.errors import UserError

SCALARS = st.one_of(
    st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs"])),
)  # fmt: skip
KEYS = st.from_regex(r"[a-z_]{1,8}", fullmatch=True)
TABLE = st.dictionaries(KEYS, st.one_of(SCALARS, st.lists(st.integers(0, 9), max_size=4)), max_size=5)


@given(TABLE, st.dictionaries(KEYS, TABLE, max_size=3))
def test_what_is_written_reads_back_equal(plain, sections):
    tables = {**plain, **{f"s_{name}": values for name, values in sections.items()}}
    assert parse_toml(to_toml(tables, comment="two\nlines"), "test") == tables


def test_none_is_left_out_and_plain_values_come_first():
    assert to_toml({"section": {"a": 1, "b": None}, "top": "x", "gone": None}) == 'top = "x"\n\n[section]\na = 1\n'


def test_broken_and_absent_files_are_user_errors(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_toml(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("a = = 1")
    with pytest.raises(UserError, match=r"bad\.toml: not valid TOML"):
        read_toml(tmp_path / "bad.toml")
