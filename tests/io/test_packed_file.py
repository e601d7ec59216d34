"""``.spack``: what goes in comes out within the tolerance stated, and nothing but that is ever allocated."""

import json

import numpy as np
import pytest
import torch
from gaussians import model_of, random_model

from splat.errors import UserError
from splat.io.codecs import CODECS
from splat.io.codecs.uniform import Uniform
from splat.io.formats import FORMATS, read_model, write_model
from splat.io.packed_file import (
    MAGIC,
    arrays_of,
    packable_rows,
    packed_of,
    plainly_packed,
    read_packed,
    read_spack,
    recoded,
    taken,
    unpacked,
    write_packed,
    write_spack,
)
from splat.model.primitives import PRIMITIVES

HEADER = {"world_from_input": np.diag([2.0, 2, 2, 1]).tolist(), "up_axis": [0.0, -1.0, 0.0], "provenance": {"a": "b"}}


def _spoilt(path, **changes):
    """The file's header with some entries replaced."""
    data = path.read_bytes()
    length = int.from_bytes(data[8:12], "little")
    facts = json.loads(data[12 : 12 + length])
    for key, value in changes.items():
        place = facts
        *outer, last = key.split("__")
        for part in outer:
            place = place[int(part)] if isinstance(place, list) else place[part]
        place[last] = value
    text = json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()
    path.write_bytes(MAGIC + len(text).to_bytes(4, "little") + text + data[12 + length :])
    return path


class TestContainer:
    @pytest.mark.parametrize("coding", ["raw", "zstd", "webp"])
    @pytest.mark.parametrize("kind", PRIMITIVES)
    def test_every_primitive_within_the_tolerance(self, tmp_path, kind, coding):
        model = model_of(kind, 50)
        packed = plainly_packed(model, coding=coding)
        write_packed(packed, tmp_path / "a.spack", HEADER)
        back, header = read_spack(tmp_path / "a.spack")
        sorted_model = taken(model, packable_rows(model))
        assert set(packed.attributes) == set(model.rows)
        for name, attribute in packed.attributes.items():
            raw = sorted_model.rows[name]
            raw = torch.nn.functional.normalize(raw, dim=1) if name == "quats" else raw
            error = (back.rows[name] - raw).abs()
            if name == "quats":
                error = torch.minimum(error.amax(1), (back.rows[name] + raw).abs().amax(1))
            assert error.max() <= attribute.tolerance * (1 + 1e-6) + 1e-6, name
            assert attribute.tolerance < (4 if name == "logit_opacities" else 0.02)
        assert back.primitive == model.primitive and back.filter2d == model.filter2d
        assert {name: header[name] for name in HEADER} == HEADER
        assert sum(header["attributes"].values()) < (tmp_path / "a.spack").stat().st_size
        assert set(header["attributes"]) == set(model.rows)

    @pytest.mark.parametrize("count", [0, 1, 2])
    def test_few_splats(self, tmp_path, count):
        for coding in ("raw", "zstd", "webp"):
            write_packed(plainly_packed(random_model(count), coding=coding), tmp_path / "a.spack")
            assert read_spack(tmp_path / "a.spack")[0].count == count

    def test_same_model_same_bytes_and_again_after_a_round(self, tmp_path):
        model = random_model(200)
        for name in ("a", "b"):
            write_spack(model, tmp_path / f"{name}.spack")
        write_spack(read_spack(tmp_path / "a.spack")[0], tmp_path / "c.spack")
        first = (tmp_path / "a.spack").read_bytes()
        assert first == (tmp_path / "b.spack").read_bytes()
        again, before = read_spack(tmp_path / "c.spack")[0], read_spack(tmp_path / "a.spack")[0]
        for name, table in again.rows.items():
            assert (table - before.rows[name]).abs().max() < (2e-3 if name == "quats" else 1e-7), name

    def test_a_row_of_the_table_of_formats(self, tmp_path):
        model = random_model(30, filter2d="aa")
        write_model(model, tmp_path / "a.spack", header=HEADER)
        loaded = read_model(tmp_path / "a.spack")
        assert loaded.header["format"] == "spack" and loaded.model.filter2d == "aa"
        assert FORMATS["spack"].frame == "training" and loaded.header["world_from_input"] == HEADER["world_from_input"]

    def test_filter3d_and_broken_rows(self, tmp_path):
        model = random_model(30)
        model.filter3d = torch.linspace(0.01, 0.1, 30)
        model.rows["sh_rest"][4, 2, 1] = float("nan")
        model.filter3d[7] = float("inf")
        write_spack(model, tmp_path / "a.spack")
        back = read_spack(tmp_path / "a.spack")[0]
        assert back.count == 28
        kept = taken(model, packable_rows(model))
        torch.testing.assert_close(back.filter3d, kept.filter3d, rtol=1e-3, atol=0)

    def test_identical_splats_stay_readable(self, tmp_path):
        """They squeeze to so little that the file looks like a bomb; it must not be one."""
        model = random_model(1)
        many = taken(model, torch.zeros(40_000, dtype=torch.int64))
        write_spack(many, tmp_path / "a.spack")
        assert read_spack(tmp_path / "a.spack")[0].count == 40_000

    def test_recoded_decodes_the_same(self):
        packed = plainly_packed(random_model(40))
        first, second = unpacked(packed), unpacked(recoded(packed, "webp"))
        assert all(torch.equal(first.rows[name], second.rows[name]) for name in first.rows)


class TestHostileFiles:
    @pytest.fixture
    def path(self, tmp_path):
        write_spack(random_model(60, sh_degree=1), tmp_path / "a.spack")
        return tmp_path / "a.spack"

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"count": 10**9}, "cannot be in"),
            ({"count": -1}, "cannot be in"),
            ({"count": 59}, "bytes"),
            ({"count": True}, "cannot be in"),
            ({"version": 2}, "newer"),
            ({"version": 0}, "whole number"),
            ({"format": "x"}, "not that of"),
            ({"sh_degree": 4}, "SH degree"),
            ({"sh_degree": 0}, "sh_rest"),
            ({"sh_degree": 2}, "sh_rest"),
            ({"filter2d": []}, "2D filter"),
            ({"primitive": "cube"}, "cube"),
            ({"settings": {"lr": 1}}, "lr"),
            ({"compressor": 3}, "compressor"),
            ({"attributes": {}}, "too many"),
            ({"attributes": 7}, "lists no"),
            ({"attributes__means__codec": "zip"}, "not known"),
            ({"attributes__means__numbers": {}}, "bits"),
            ({"attributes__means__numbers__bits": 40}, "bits"),
            ({"attributes__means__numbers__low": [1e99, 0, 0]}, "finite"),
            ({"attributes__means__numbers__low": [1, 0]}, "list of"),
            ({"attributes__means__numbers__through": "sqrt"}, "through"),
            ({"attributes__means__tolerance": "x"}, "numbers"),
            ({"attributes__means__streams": []}, "streams"),
            ({"attributes__means__streams__0__bytes": [10**12]}, "cut short"),
            ({"attributes__means__streams__0__bytes": [-5]}, "cut short"),
            ({"attributes__means__streams__0__bytes": 5}, "means"),
            ({"attributes__means__streams__0__coding": "webp"}, "pictures"),
            ({"attributes__means__streams__0__coding": "lzw"}, "lzw"),
        ],
    )
    def test_wrong_headers(self, path, changes, words):
        with pytest.raises(UserError, match=words) as caught:
            read_spack(_spoilt(path, **changes))
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)

    def test_truncated_anywhere(self, path):
        data = path.read_bytes()
        for length in (*range(0, 40), *range(40, len(data), 97), len(data) - 1):
            path.write_bytes(data[:length])
            with pytest.raises(UserError):
                read_spack(path)
        path.write_bytes(data + b"x")
        with pytest.raises(UserError, match="too many"):
            read_spack(path)

    @pytest.mark.parametrize("coding", ["zstd", "webp", "raw"])
    def test_flipped_bytes_end_in_a_model_or_one_error(self, tmp_path, coding):
        path = tmp_path / "a.spack"
        write_packed(plainly_packed(random_model(60, sh_degree=1), coding=coding), path)
        data = bytearray(path.read_bytes())
        rng, refused = np.random.default_rng(3), 0
        for _ in range(150):
            spoilt = bytearray(data)
            for place in rng.integers(0, len(data), 3):
                spoilt[place] = rng.integers(256)
            path.write_bytes(spoilt)
            try:
                assert read_spack(path)[0].count <= len(data)
            except UserError:
                refused += 1
        assert refused > 20

    def test_a_bomb_is_refused_before_it_is_inflated(self, path):
        from zstandard import ZstdCompressor

        model = random_model(60, sh_degree=1)
        packed = plainly_packed(model)
        bomb = ZstdCompressor().compress(bytes(50_000_000))
        write_packed(packed, path)
        data = path.read_bytes()
        length = int.from_bytes(data[8:12], "little")
        facts = json.loads(data[12 : 12 + length])
        sizes = [s["bytes"] for name in sorted(facts["attributes"]) for s in facts["attributes"][name]["streams"]]
        facts["attributes"]["log_scales"]["streams"][0]["bytes"] = [len(bomb)]
        assert sorted(facts["attributes"])[0] == "log_scales"
        text = json.dumps(facts).encode()
        path.write_bytes(MAGIC + len(text).to_bytes(4, "little") + text + bomb + data[12 + length + sizes[0][0] :])
        with pytest.raises(UserError, match="frame"):
            read_spack(path)

    def test_a_table_out_of_proportion(self, path):
        numbers = {"entries": 65536, "bits": 8, "range": [0, 1]}
        streams = [{"name": name, "bytes": [1], "coding": "zstd"} for name in ("labels", "palette")]
        entry = {"codec": "palette", "numbers": numbers, "tolerance": 0, "streams": streams}
        with pytest.raises(UserError, match="sh_rest"):
            read_spack(_spoilt(path, attributes__sh_rest=entry))

    def test_a_missing_field(self, path):
        packed, _ = read_packed(path)
        del packed.attributes["sh0"]
        write_packed(packed, path)
        with pytest.raises(UserError, match="miss sh0"):
            read_spack(path)

    def test_another_codec_and_the_filter(self, tmp_path):
        model = random_model(5, sh_degree=0)
        arrays = arrays_of(model)
        attributes = dict(plainly_packed(model).attributes)
        attributes["filter3d"] = Uniform().encode(arrays["logit_opacities"])
        write_packed(packed_of(model, "x", attributes), tmp_path / "a.spack")
        packed, header = read_packed(tmp_path / "a.spack")
        assert header["compressor"] == "x" and "filter3d" in packed.attributes
        assert all(attribute.codec in CODECS for attribute in packed.attributes.values())
