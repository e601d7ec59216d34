import json
from pathlib import Path

import pytest
from helpers import make_tiny_scene

from splat.cli.main import main
from splat.io.png import read_png

SHORT = ["--preset", "default", "--steps", "24", "--device", "cpu", "--no-viewer"]
# Long enough for two refinements, which change the number of splats.
GROWING = ["--preset", "cpu", "--steps", "60", "--max-splats", "70", "--densifier.refine-stop", "3000", "-q"]


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def records(run: Path, kind: str) -> list[dict]:
    return [r for r in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()) if r["kind"] == kind]


def test_train_writes_everything_scripts_rely_on(tiny_scene, tmp_path, capsys):
    assert main(["train", str(tiny_scene), "-o", "run", *SHORT, "--seed", "3", "--max-splats", "60", "-r", "1"]) == 0
    out, err = capsys.readouterr()
    assert out == "run\n"
    assert "\r" not in err and "differs from the preset:" in err and "seed = 3 (was 0)" in err and "first render" in err
    run = tmp_path / "run"
    for name in ("config.toml", "metrics.jsonl", "per_view.json", "model.safetensors", "cameras.json", "report.html",
                 "renders/first.png", "point_cloud/iteration_24/point_cloud.ply", "checkpoints/step_24.safetensors",
                 "renders/step_24/view_01_render.png", "renders/step_24/view_01_truth.png"):  # fmt: skip
        assert (run / name).stat().st_size > 0, name
    (last,) = records(run, "eval")[-1:]
    assert last["step"] == 24 and last["psnr"] > 8 and last["splats"] <= 60 and last["elapsed_secs"] > 0
    assert "ssim" in last and last["protocol"]["split"]
    assert records(run, "finish")[0]["reason"] == "done"
    assert read_png(run / "renders" / "first.png").shape == (24, 32, 3)


def test_the_written_configuration_repeats_the_run_to_the_bit(tiny_scene, tmp_path):
    flags = [*GROWING, "--densifier", "mcmc", "--filter2d", "mip", "--render.filter3d", "-w"]
    assert main(["train", str(tiny_scene), "-o", "one", *flags]) == 0
    assert len({record["splats"] for record in records(Path("one"), "train")}) > 1
    assert main(["train", "--config", "one/config.toml", "-o", "two", "-q"]) == 0
    one, two = (Path(name) / "model.safetensors" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    texts = [[line for line in Path(name, "config.toml").read_text().splitlines() if not line.startswith("#")]
             for name in ("one", "two")]  # fmt: skip
    assert texts[0] == texts[1]


@pytest.mark.parametrize(("primitive", "densifier", "kill_at"), [
    ("gaussian", "adaptive", 13), ("gaussian", "adaptive", 33), ("gaussian", "mcmc", 52),
    ("ges", "adaptive", 33), ("gef", "mcmc", 33), ("convex", "mcmc", 33), ("convex", "convex", 52),
])  # fmt: skip
def test_a_killed_run_resumes_to_the_same_files(tiny_scene, monkeypatch, primitive, densifier, kill_at):
    flags = [str(tiny_scene), *GROWING, "--densifier", densifier, "--primitive", primitive,
             "--output.checkpoint-every", "6"]  # fmt: skip
    assert main(["train", "-o", "whole", *flags]) == 0
    assert records(Path("whole"), "refine")

    class Killed(BaseException):
        pass

    from splat.train.trainer import Trainer

    step = Trainer._step

    def dying(self):
        if self.state.step == kill_at:
            raise Killed
        yield from step(self)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Trainer, "_step", dying)
        main(["train", "-o", "killed", *flags])
    assert max(record["step"] for record in records(Path("killed"), "train")) <= kill_at
    assert main(["train", "--resume", "killed", "-q"]) == 0
    for name in ("model.safetensors", "point_cloud/iteration_60/point_cloud.ply"):
        assert Path("whole", name).read_bytes() == Path("killed", name).read_bytes(), name
    steps = [[(r["kind"], r["step"]) for r in map(json.loads, Path(run, "metrics.jsonl").read_text().splitlines())
              if r["kind"] in ("refine", "eval")] for run in ("whole", "killed")]  # fmt: skip
    assert steps[0] == steps[1]


def test_a_run_killed_before_its_first_checkpoint_starts_over(tiny_scene):
    assert main(["train", str(tiny_scene), "-o", "run", *SHORT, "-q"]) == 0
    for path in Path("run/checkpoints").iterdir():
        path.unlink()
    before = Path("run/model.safetensors").read_bytes()
    assert main(["train", "--resume", "run", "-q"]) == 0
    assert Path("run/model.safetensors").read_bytes() == before


def test_resuming_past_the_end_says_that_schedules_were_re_derived(tiny_scene, capsys):
    assert main(["train", str(tiny_scene), *SHORT, "-q"]) == 0
    capsys.readouterr()
    assert main(["train", "--resume", "--iterations", "40"]) == 0
    out, err = capsys.readouterr()
    assert out == "runs/tiny/default\n"
    assert "steps = 40 (was 24)" in err and "schedules re-derived for 40 steps" in err
    assert Path("runs/tiny/default/point_cloud/iteration_40/point_cloud.ply").exists()
    assert [record["step"] for record in records(Path("runs/tiny/default"), "finish")] == [24, 40]


def test_what_cannot_change_on_resume_is_named(tiny_scene, capsys):
    assert main(["train", str(tiny_scene), "-o", "run", *SHORT, "-q"]) == 0
    for flags, reason in ((["--seed", "9"], "seed cannot change"), (["--densifier", "mcmc"], "densifier"),
                          (["-o", "other"], "--output"), (["--preset", "fast"], "--preset")):  # fmt: skip
        assert main(["train", "--resume", "run", *flags]) == 2
        assert reason in capsys.readouterr().err


def test_a_damaged_newest_checkpoint_costs_steps_not_the_run(tiny_scene, capsys):
    assert main(["train", str(tiny_scene), "-o", "run", *SHORT, "--output.checkpoint_every=8", "-q"]) == 0
    model = Path("run/model.safetensors").read_bytes()
    newest = Path("run/checkpoints/step_24.safetensors")
    newest.write_bytes(newest.read_bytes()[:200])
    assert main(["train", "--resume", "run"]) == 0
    err = capsys.readouterr().err
    assert "warning" in err and "step_24" in err and "at step 16 of 24" in err
    assert Path("run/model.safetensors").read_bytes() == model


def test_default_folders_are_fresh_and_a_used_one_is_refused(tiny_scene, capsys):
    for _ in range(2):
        assert main(["train", str(tiny_scene), *SHORT, "-q"]) == 0
    assert capsys.readouterr().out == "runs/tiny/default\nruns/tiny/default-2\n"
    assert main(["train", str(tiny_scene), "-o", "runs/tiny/default", *SHORT]) == 2
    err = capsys.readouterr().err
    assert "--resume" in err and "--overwrite" in err and len(err.splitlines()) == 1
    assert main(["train", str(tiny_scene), "-o", "runs/tiny/default", "--overwrite", *SHORT, "-q"]) == 0


def test_names_of_other_trainers_work(tiny_scene, capsys):
    flags = "-m run --iterations 6 --data_factor 2 --eval --disable_viewer --max_cap=50 --test_iterations 2 4 -q"
    argv = ["train", "-s", str(tiny_scene), *flags.split()]
    assert main(argv) == 0
    run = Path(capsys.readouterr().out.strip())
    assert [record["step"] for record in records(run, "eval")] == [2, 4, 6]
    assert read_png(run / "renders" / "first.png").shape == (12, 16, 3)


def test_time_budget_ends_with_evaluation_and_export(tiny_scene, capsys):
    flags = ["--preset", "cpu", "--steps", "3000", "--max-minutes", "0.02"]
    assert main(["train", str(tiny_scene), "-o", "run", *flags]) == 0
    assert "time budget used up" in capsys.readouterr().err
    (finish,) = records(Path("run"), "finish")
    assert finish["reason"] == "time" and 0 < finish["step"] < 3000
    assert records(Path("run"), "eval")[-1]["step"] == finish["step"]
    assert Path("run/model.safetensors").exists()


def test_a_target_ends_cleanly_and_a_raised_one_goes_on(tiny_scene, capsys):
    run, flags = Path("run"), ["--preset", "cpu", "--target-psnr", "8", "--target-mb", "0.05"]
    assert main(["train", str(tiny_scene), "-o", "run", *flags]) == 0
    told = capsys.readouterr().err
    assert "target PSNR reached" in told and "model.safetensors stays below 0.05 MB" in told
    (finish,) = records(run, "finish")
    assert finish["reason"] == "target" and 0 < finish["step"] < 3000 and finish["step"] % 25 == 0
    assert records(run, "eval")[-1]["step"] == finish["step"]
    assert 0 < (run / "model.safetensors").stat().st_size < 50_000
    assert main(["train", "--resume", "run", "--target-psnr", "99", "--steps", str(finish["step"] + 1)]) == 0
    assert records(run, "finish")[-1] == records(run, "finish")[-1] | {"reason": "done", "step": finish["step"] + 1}


def test_dry_run_says_what_and_draws_the_first_picture_and_trains_nothing(tiny_scene, capsys):
    assert main(["train", str(tiny_scene), *SHORT, "--dry-run"]) == 0
    out, err = capsys.readouterr()
    assert Path(out.strip()).is_file() and read_png(out.strip()).shape == (24, 32, 3)
    assert "memory: about" in err and "24 steps" in err and "5 views to train on, 1 held out" in err
    assert [path.name for path in Path("runs/tiny").iterdir()] == ["dry-run"]
    assert not list(Path("runs").rglob("metrics.jsonl"))


def test_without_held_out_views_it_trains_and_says_so(tiny_scene, capsys):
    assert main(["train", str(tiny_scene), "-o", "run", *SHORT, "--test-every", "0"]) == 0
    assert "no view is held out" in capsys.readouterr().err
    assert records(Path("run"), "eval") == [] and Path("run/model.safetensors").exists()


def test_help_all_lists_every_setting_with_the_values_of_the_preset(capsys):
    assert main(["train", "--help-all", "--preset", "cpu"]) == 0
    out = capsys.readouterr().out
    for line in (
        "--densifier.grow-scale",
        "--scene.test-every = 8",
        "--max-splats = 80000",
        "--optim.ssim-weight = 0.2",
    ):
        assert line in out


def test_one_seed_one_file_whatever_the_threads(tiny_scene):
    for name, flags in (("a", ["--threads", "1"]), ("b", ["--threads", "2"]), ("c", ["--seed", "1"])):
        assert main(["train", str(tiny_scene), "-o", name, *GROWING, *flags]) == 0
    models = [Path(name, "model.safetensors").read_bytes() for name in "abc"]
    assert models[0] == models[1] != models[2]


BAD_INPUT = {
    "no folder": lambda scene: ["absent"],
    "a folder without a scene": lambda scene: [_made(Path("empty"))],
    "no capture named": lambda scene: [],
    "an unknown preset": lambda scene: [str(scene), "--preset", "cpuu"],
    "an unknown flag": lambda scene: [str(scene), "--stpes", "3"],
    "an unknown setting": lambda scene: [str(scene), "--densifier.groww", "3"],
    "a value that does not fit": lambda scene: [str(scene), "--steps", "many"],
    "an output that is a file": lambda scene: [str(scene), "-o", str(scene / "sparse/0/points3D.txt")],
    "truncated cameras": lambda scene: [_broken(scene, "sparse/0/cameras.txt", "1 PINHOLE 32")],
    "no images left": lambda scene: [_broken(scene, "sparse/0/images.txt", "")],
    "two captures": lambda scene: [str(scene), "--data", "other"],
    "no GPU": lambda scene: [str(scene), "--device", "cuda"],
}


def _made(folder: Path) -> str:
    folder.mkdir()
    return str(folder)


def _broken(scene: Path, name: str, text: str) -> str:
    (scene / name).write_text(text)
    return str(scene)


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_one_line_and_exit_code_2(tiny_scene, capsys, case):
    import torch

    if case == "no GPU" and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert main(["train", *BAD_INPUT[case](tiny_scene)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.splitlines()[-1].startswith("splat: error: ")
    assert not Path("runs").exists() and "Traceback" not in err


def test_a_picture_that_breaks_during_training_saves_the_state(tmp_path, capsys):
    scene = make_tiny_scene(tmp_path / "scene")
    picture = scene / "images" / "view_03.png"
    whole = picture.read_bytes()
    picture.write_bytes(whole[:37] + bytes(len(whole) - 49) + whole[-12:])  # head and tail stay, no pixels between
    assert main(["train", str(scene), "-o", "run", *SHORT]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert "view_03.png" in last and "--resume run" in last
    picture.write_bytes(whole)
    assert main(["train", "--resume", "run", "-q"]) == 0
    assert main(["train", str(scene), "-o", "whole", *SHORT, "-q"]) == 0
    assert Path("run/model.safetensors").read_bytes() == Path("whole/model.safetensors").read_bytes()


def test_no_space_left_is_one_line_and_keeps_the_last_checkpoint(tiny_scene, capsys, monkeypatch):
    import errno

    from splat.io import tensors

    opened, real = [], open

    def full(path, *args, **kwargs):
        if "checkpoint" in str(path) and "w" in "".join(args):
            opened.append(path)
            if len(opened) > 2:
                raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, *args, **kwargs)

    monkeypatch.setattr(tensors, "open", full, raising=False)
    assert main(["train", str(tiny_scene), "-o", "run", *SHORT, "--output.checkpoint-every", "4"]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("splat: error: ") and "no space left" in last
    assert sorted(path.name for path in Path("run/checkpoints").iterdir()) == [
        "step_4.safetensors",
        "step_8.safetensors",
    ]
