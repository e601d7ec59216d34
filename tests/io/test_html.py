import base64
import hashlib
import json
import re
import subprocess
import sys
import zipfile
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from gaussians import model_of, random_model

from splat.errors import UserError
from splat.io import html
from splat.io.formats import read_model, write_model
from splat.io.plain import plain_of

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "splat/io/html_page"
RECIPE = ROOT / "scripts/html_viewer"


class Parts(HTMLParser):
    """Scripts, styles and every address of a page, as a browser splits it."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.scripts: dict[str | int, str] = {}
        self.styles: list[str] = []
        self.addresses: list[str] = []
        self.policy = self.title = ""
        self.tag = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        self.tag = tag
        if tag == "script":
            self.key = named.get("id", len(self.scripts))
            self.scripts[self.key] = ""
        if named.get("http-equiv") == "Content-Security-Policy":
            self.policy = named["content"]
        self.addresses += [value for name, value in attrs if name in ("src", "href", "action", "data")]

    def handle_endtag(self, tag):
        self.tag = ""

    def handle_data(self, data):
        if self.tag == "script":
            self.scripts[self.key] += data
        elif self.tag == "style":
            self.styles.append(data)
        elif self.tag == "title":
            self.title += data


def parts(path: Path) -> Parts:
    return Parts(path.read_text(encoding="utf-8"))


def test_the_splats_lie_in_the_page(tmp_path):
    model = random_model(50)
    written = write_model(model, tmp_path / "m.html", header={"up_axis": (0, 0, 2), "provenance": {"scene": "nook"}})
    assert written.format == "html" and written.fidelity == "lossy"
    found = parts(tmp_path / "m.html")
    assert found.title == "m"
    settings = json.loads(found.scripts["settings"])
    assert settings["view"]["up"] == [0, 0, 1] and settings["file"] == "splats.sog"
    assert ["Splats", "50"] in settings["facts"] and ["scene", "nook"] in settings["facts"]
    sog = tmp_path / "inside.sog"
    sog.write_bytes(base64.b64decode(found.scripts["splats"], validate=True))
    write_model(model, tmp_path / "beside.sog", header={"up_axis": (0, 0, 2), "provenance": {"scene": "nook"}})
    assert zipfile.ZipFile(sog).namelist() == zipfile.ZipFile(tmp_path / "beside.sog").namelist()
    for name, rows in read_model(sog).model.rows.items():
        np.testing.assert_array_equal(rows, read_model(tmp_path / "beside.sog").model.rows[name])


def test_nothing_is_fetched_and_only_its_own_scripts_run(tmp_path):
    write_model(random_model(5), tmp_path / "m.html")
    found = parts(tmp_path / "m.html")
    assert found.addresses == []
    rules = dict(rule.split(" ", 1) for rule in found.policy.split("; "))
    assert rules["default-src"] == "'none'" and rules["worker-src"] == "blob:"
    run = [text for key, text in found.scripts.items() if key not in ("settings", "splats")]
    assert len(run) == 2 and len(found.styles) == 1

    def hashed(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    assert rules["script-src"] == " ".join(map(hashed, run)) and rules["style-src"] == hashed(found.styles[0])
    assert "connect-src" not in rules and "img-src" not in rules


def test_words_from_outside_stay_words(tmp_path):
    nasty = "</script><script>alert(1)</script><!-- {{engine}} \u2028"
    write_model(random_model(3), tmp_path / "a&b<i>.html", header={"provenance": {nasty: nasty}})
    found = parts(tmp_path / "a&b<i>.html")
    assert found.title == "a&b<i>" and len(found.scripts) == 4
    assert [nasty, nasty] in json.loads(found.scripts["settings"])["facts"]


def test_the_same_bytes_every_time(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_model(random_model(30), tmp_path / name / "m.html")
    assert (tmp_path / "a/m.html").read_bytes() == (tmp_path / "b/m.html").read_bytes()


def test_the_first_view_shows_the_ball_around_what_is_seen():
    model = random_model(500)
    model.rows["means"][:5] = 1e4  # floaters
    plain = plain_of(model)
    placed = html.placed(plain, {"up_axis": (0, 0, 1)})
    assert 0.5 < placed["radius"] < 3 and np.abs(placed["center"]).max() < 0.2
    position, target = np.array(placed["view"]["position"]), np.array(placed["view"]["target"])
    assert np.sin(np.radians(html.FOV_DEG / 2)) * np.linalg.norm(position - target) == pytest.approx(placed["radius"])
    assert position[2] > target[2], "from above"
    view = {"position": (1, 2, 3), "target": (0, 0, 1), "up": (0, 1, 0), "fov": 40}
    assert html.placed(plain, {"start_view": view})["view"] == {
        "position": [1, 2, 3], "target": [0, 0, 1], "up": [0, 1, 0], "fov": 40
    }  # fmt: skip
    assert html.placed(plain, {})["view"]["up"] == list(html.DEFAULT_UP)


def test_one_splat_is_shown_and_none_refused(tmp_path):
    write_model(random_model(1), tmp_path / "one.html")
    assert json.loads(parts(tmp_path / "one.html").scripts["settings"])["radius"] > 0
    with pytest.raises(UserError, match=r"none\.html.*no splats"):
        write_model(random_model(0), tmp_path / "none.html")
    assert not (tmp_path / "none.html").exists()


@pytest.mark.parametrize(
    ("filter2d", "variance", "compensates"),
    [("classic", 0.3, False), ("aa", 0.3, True), ("mip", 0.1, True), ("analytic", 0.3, True)],
)
def test_the_page_draws_with_the_filter_of_the_training(tmp_path, filter2d, variance, compensates):
    write_model(random_model(4, filter2d=filter2d), tmp_path / "m.html")
    settings = json.loads(parts(tmp_path / "m.html").scripts["settings"])
    assert settings["filter"] == {"variance_px": variance, "compensates": compensates}


def test_other_primitives_are_converted_and_say_so(tmp_path):
    write_model(model_of("ges", 6), tmp_path / "m.html")
    facts = dict(json.loads(parts(tmp_path / "m.html").scripts["settings"])["facts"])
    assert facts["Converted from"].startswith("ges (")


def test_a_page_is_not_read_as_a_model(tmp_path):
    write_model(random_model(2), tmp_path / "m.html")
    with pytest.raises(UserError, match=r"m\.html"):
        read_model(tmp_path / "m.html")


def test_what_the_page_can_draw_is_said():
    with pytest.raises(ValueError, match=r"\.glb.*\.sog"):
        html.page(b"", ".glb", title="x", settings={})


# --- the renderer in the package ---------------------------------------------------------------------------------


def test_the_built_renderer_is_that_of_the_pinned_versions():
    told = json.loads((PAGE / "engine.json").read_text())
    engine = (PAGE / "engine.js").read_bytes()
    assert hashlib.sha256(engine).hexdigest() == told["sha256"]
    asked = json.loads((RECIPE / "package.json").read_text())
    lock = json.loads((RECIPE / "package-lock.json").read_text())["packages"]
    for group, name in (("dependencies", "playcanvas"), ("devDependencies", "esbuild")):
        assert asked[group][name] == told[name] == lock[f"node_modules/{name}"]["version"]
        assert re.fullmatch(r"\d+\.\d+\.\d+", told[name]), "an exact version"
    assert engine.startswith(f"/* PlayCanvas Engine {told['playcanvas']}, MIT".encode())
    assert f'"{told["playcanvas"]}"'.encode() in engine, "what the engine says itself"
    assert all("integrity" in entry for path, entry in lock.items() if path)


def test_the_page_can_hold_the_renderer():
    """Text that ends a script element, or opens a comment in one, would break the page."""
    for name in ("engine.js", "page.js"):
        assert not re.search(rb"</script|<!--", (PAGE / name).read_bytes(), re.IGNORECASE), name
        assert b"\r" not in (PAGE / name).read_bytes(), "its hash is that of the text with plain line ends"


def test_the_licence_of_the_renderer_travels_with_it(tmp_path):
    write_model(random_model(2), tmp_path / "m.html")
    licence = (PAGE / "LICENSE.playcanvas.txt").read_text(encoding="utf-8")
    assert "Permission is hereby granted" in licence and "PlayCanvas" in licence
    assert "Permission is hereby granted" in (tmp_path / "m.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_renderer_builds_again_to_the_same_bytes(tmp_path):
    from other_tools import why_npm_cannot

    if reason := why_npm_cannot():
        pytest.skip(reason)
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        import build_html_viewer

        try:
            built = build_html_viewer.build(tmp_path)
        except subprocess.CalledProcessError as error:
            if "npm" not in error.cmd:
                raise
            pytest.skip("npm cannot install what the renderer is built from")
    finally:
        sys.path.remove(str(ROOT / "scripts"))
    assert {path.name for path in built} == {"engine.js", "engine.json", "LICENSE.playcanvas.txt"}
    for path in built:
        assert path.read_bytes() == (PAGE / path.name).read_bytes(), path.name
