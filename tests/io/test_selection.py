"""What is kept of a model is what the words say, and the model itself is left alone."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from gaussians import model_of, random_model
from test_cameras_json import similarity

from splat.errors import UserError
from splat.io.formats import in_capture_frame, read_model, write_model
from splat.io.selection import (
    UP_AXES,
    Box,
    Selection,
    largest,
    merged,
    opacity_importance,
    parse_box,
    selected,
    turn_between,
    turned_to_up,
    up_vector,
    with_sh_degree,
)
from splat.model.primitives import PRIMITIVES


def test_nothing_asked_for_changes_nothing():
    model = random_model()
    kept, told = selected(model, Selection())
    assert told == [] and all(kept.rows[name] is not None and torch.equal(kept.rows[name], table)
                              for name, table in model.rows.items())  # fmt: skip


def test_every_part_keeps_what_it_says_in_order_and_leaves_the_model_alone():
    model = random_model(300)
    before = {name: table.clone() for name, table in model.rows.items()}
    box = Box((-0.4, -0.5, -0.6), (0.7, 0.8, 0.9))
    kept, told = selected(model, Selection(box, 0.3, 60, 1))
    means, opacities = model.rows["means"], model.rows["logit_opacities"].sigmoid()
    inside = ((means >= torch.tensor(box.low)) & (means <= torch.tensor(box.high))).all(1)
    fits = (inside & (opacities >= 0.3)).nonzero()[:, 0]
    assert 60 < len(fits) < 300
    importance = opacity_importance(model)
    best = sorted(sorted(fits.tolist(), key=lambda row: -importance[row])[:60])
    assert torch.equal(kept.rows["means"], means[best])
    assert torch.equal(kept.rows["sh_rest"], model.rows["sh_rest"][best][:, :3]) and kept.sh_degree == 1
    assert all(torch.equal(model.rows[name], table) for name, table in before.items()) and model.sh_degree == 3
    assert [line.split(": ")[-1] for line in told] == [
        "they lie outside the box", "they are fainter than 0.3", "they matter less than the best 60",
        "SH degree 3 becomes 1",
    ]  # fmt: skip


def test_the_box_stands_in_the_frame_of_the_capture():
    model, world_from_input = random_model(200), similarity()
    captured = in_capture_frame(model, np.linalg.inv(world_from_input)).rows["means"]
    box = Box((-9, -9, -9), tuple(captured.median(0).values.tolist()))
    kept, _ = selected(model, Selection(box), input_from_world=np.linalg.inv(world_from_input))
    inside = (captured <= torch.tensor(box.high)).all(1)
    assert 0 < inside.sum() < 100 and torch.equal(kept.rows["means"], model.rows["means"][inside])


def test_opacities_are_those_that_are_drawn():
    model = random_model(50)
    model.filter3d = torch.zeros(50)
    model.filter3d[:20] = 1e3  # thins out to nothing
    kept, _ = selected(model, Selection(min_opacity=1e-6))
    assert kept.count == 30 and len(kept.filter3d) == 30


def test_rows_that_are_no_numbers_go_first():
    model = random_model(20)
    model.rows["sh0"][3] = torch.nan
    model.rows["logit_opacities"][4] = torch.inf
    kept, told = selected(model, Selection(max_splats=19))
    assert kept.count == 18 and told == ["2 of 20 splats left out: they have non-finite numbers"]


def test_who_matters_may_be_told_from_outside_and_is_not_asked_in_vain():
    model = random_model(10)
    kept, _ = selected(model, Selection(max_splats=3), importance=lambda m: m.rows["means"][:, 0])
    assert kept.rows["means"][:, 0].min() == model.rows["means"][:, 0].sort().values[-3]
    selected(model, Selection(max_splats=10), importance=lambda m: pytest.fail("asked"))


def test_of_equals_the_first_stay_and_unknowns_go():
    assert largest(torch.tensor([1.0, torch.nan, 1.0, 2.0, 1.0]), 3).tolist() == [True, False, True, True, False]


@pytest.mark.parametrize("kind", PRIMITIVES)
def test_all_primitives_can_be_selected_and_lose_bands(kind, tmp_path):
    model = model_of(kind, 30, sh_degree=2)
    kept, _ = selected(model, Selection(Box((-9, -9, -9), (9, 9, 9)), 0.01, 20, 1))
    assert kept.count == 20 and kept.rows["sh_rest"].shape == (20, 3, 3)
    write_model(kept, tmp_path / "m.safetensors")
    assert read_model(tmp_path / "m.safetensors").model.sh_degree == 1


def test_nothing_left_is_an_error_that_says_where_all_went():
    with pytest.raises(UserError, match=r"no splat would be left.*40 of 40 splats left out: they lie outside"):
        selected(random_model(), Selection(Box((50, 50, 50), (51, 51, 51))))
    assert selected(random_model(0), Selection(Box((0, 0, 0), (1, 1, 1)), 0.5, 5, 0))[0].count == 0


@pytest.mark.parametrize(("wrong", "word"), [
    ({"min_opacity": 1.5}, "--min-opacity"), ({"max_splats": 0}, "--max-splats"), ({"sh_degree": 4}, "0 to 3"),
])  # fmt: skip
def test_values_that_do_not_fit_are_told(wrong, word):
    with pytest.raises(UserError, match=word):
        Selection(**wrong)


def test_bands_come_and_go():
    model = random_model(sh_degree=1)
    more = with_sh_degree(model, 3)
    assert more.rows["sh_rest"].shape == (40, 15, 3) and more.rows["sh_rest"][:, 3:].abs().max() == 0
    assert torch.equal(with_sh_degree(more, 1).rows["sh_rest"], model.rows["sh_rest"])


def test_merging_stacks_rows_and_pads_what_one_side_lacks():
    first, second = random_model(5, sh_degree=1), random_model(7, sh_degree=3, seed=1)
    second.filter3d = torch.full((7,), 0.1)
    both = merged([first, second])
    assert both.count == 12 and both.sh_degree == 3
    assert torch.equal(both.rows["means"], torch.cat([first.rows["means"], second.rows["means"]]))
    assert torch.equal(both.rows["sh_rest"][:5, :3], first.rows["sh_rest"])
    assert both.filter3d.tolist() == [0.0] * 5 + second.filter3d.tolist()


@pytest.mark.parametrize(("other", "reason"), [
    ({"kind": "gef"}, "primitive cannot be merged: convex and gef"), ({"points": 4}, "'points': 6.*'points': 4"),
    ({"filter2d": "aa"}, "2D filter cannot be merged: classic and aa"),
])  # fmt: skip
def test_models_of_different_kinds_are_not_merged(other, reason):
    change = other.pop("filter2d", "classic")
    second = replace(model_of(**{"kind": "convex", **other}), filter2d=change)
    with pytest.raises(UserError, match=reason):
        merged([model_of("convex"), second])


def test_settings_of_the_training_do_not_matter_to_merging():
    first, second = model_of("convex", lr_means=1.0), model_of("convex", lr_means=2.0)
    assert merged([first, second]).count == 80


# --- words ---------------------------------------------------------------------------------------------------------


def test_a_box_in_words_and_in_files(tmp_path):
    box = Box((-1, -2.5, 0), (1, 2, 3))
    (tmp_path / "box.txt").write_text("-1 -2.5 0\n1 2 3\n")
    (tmp_path / "box.json").write_text(json.dumps({"min": [-1, -2.5, 0], "max": [1, 2, 3]}))
    (tmp_path / "list.json").write_text("[[-1, -2.5, 0], [1, 2, 3]]")
    for text in ("-1,-2.5,0,1,2,3", *(str(tmp_path / name) for name in ("box.txt", "box.json", "list.json"))):
        assert parse_box(text) == box


@pytest.mark.parametrize("text", ["1,2,3", "a,b,c,d,e,f", "0,0,0,1,1,nan", "nowhere.json", "", "0,0,0,1,-1,1"])
def test_what_is_no_box_is_told(text):
    with pytest.raises(UserError, match="--crop"):
        parse_box(text)


@pytest.mark.parametrize("content", [b"{}", b'{"min": 3, "max": [1]}', b"{", b"\xff\xfe", b"1 2"])
def test_files_that_hold_no_box_are_told(tmp_path, content):
    (tmp_path / "box").write_bytes(content)
    with pytest.raises(UserError, match="box"):
        parse_box(str(tmp_path / "box"))


@pytest.mark.parametrize("word", UP_AXES)
@pytest.mark.parametrize("up", [(0.02, -0.99, 0.05), (0, 0, 1), (-0.3, 0.1, -0.8), (1, 0, 0)])
def test_up_becomes_the_axis_by_a_rotation(word, up):
    turn = turn_between(up, up_vector(word))
    assert np.allclose(turn @ np.asarray(up) / np.linalg.norm(up), up_vector(word), atol=1e-12)
    assert np.allclose(turn @ turn.T, np.eye(3), atol=1e-12) and np.linalg.det(turn) > 0


def test_a_tilt_does_not_decide_about_the_way_round():
    plain = turn_between((0, -1, 0), (0, 1, 0))
    assert np.allclose(plain, np.diag([1, -1, -1]))
    for tilt in ((0.01, -1, 0), (0, -1, 0.01), (-0.01, -1, -0.01)):
        assert np.abs(turn_between(tilt, (0, 1, 0)) - plain).max() < 0.03


def test_up_that_is_no_axis_is_told():
    with pytest.raises(UserError, match="choices: x, -x, y"):
        up_vector("up")
    with pytest.raises(UserError, match="points nowhere"):
        turn_between((0, 0, 0), (0, 1, 0))


def test_the_first_view_turns_with_the_files():
    view = {"position": [1.0, 2, 3], "target": [0.0, 0, 1], "up": [0.0, -1, 0], "fov": 40.0}
    turned = turned_to_up({"up_axis": [0, -1, 0], "start_view": view}, "z")["start_view"]
    turn = turn_between((0, -1, 0), (0, 0, 1))
    assert np.allclose(turned["up"], (0, 0, 1)) and turned["fov"] == 40
    assert np.allclose(turned["position"], turn @ view["position"])
    assert np.allclose(turned["target"], turn @ view["target"])


@pytest.mark.parametrize("name", ["m.ply", "m.safetensors"])
def test_every_file_of_a_turned_model_ends_up_in_the_same_frame(tmp_path, name):
    model, world_from_input = random_model(20), similarity()
    up = np.array([0.1, -0.97, 0.2])
    header = turned_to_up({"world_from_input": world_from_input.tolist(), "up_axis": up.tolist()}, "z")
    write_model(model, tmp_path / name, header=header)
    loaded = read_model(tmp_path / name)
    transform = loaded.header.get("world_from_input")
    turned = in_capture_frame(loaded.model, None if transform is None else np.linalg.inv(np.asarray(transform)))
    captured = in_capture_frame(model, np.linalg.inv(world_from_input)).rows["means"].double().numpy()
    expected = captured @ turn_between(up, (0, 0, 1)).T
    assert np.allclose(turned.rows["means"].numpy(), expected, atol=1e-5)
    assert np.allclose(turned.rows["means"][:, 2], captured @ up / np.linalg.norm(up), atol=1e-5)
    assert loaded.header["up_axis"] == [0, 0, 1]
