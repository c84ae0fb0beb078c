"""The commands on the tiny base, one after the other, as a user gives them."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from nsync.cli.main import BAD_INPUT, DONE, INTERRUPTED, PAUSED, STOPPED, main
from nsync.cli.runs import HeadlessRun
from nsync.processes import ProcessLostError
from nsync.runs.log import NonFiniteError

JUDGED = """\
references: pictures
encoders: {ruler: true}
drawing:
  captions: [a red circle, a blue square, a green cross, a red ring, a blue triangle]
  width: 64
  height: 64
  sampler: {steps: 1}
"""
"""How the arms of a study are compared."""

FILE = """\
name: sunset
model: {path: tiny, device: cpu}
style_set: {folder: pictures, token: sks, resolution: 64}
negatives:
  words: [painting]
  sampler: {steps: 2, guidance: 1}
settings: {steps: 4, pause_every: 2, batch: 1, rank: 2, preview_every: 2, learning_rate: 1e-3}
preview: {steps: 1, guidance: 1}
"""
CAPTIONS = ("a red circle", "a blue square", "a green cross", "a red ring", "a blue triangle")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with pictures, negatives and a run that has paused after two steps of four."""
    folder = tmp_path_factory.mktemp("commands")
    before = Path.cwd()
    os.chdir(folder)
    try:
        Path("train.yaml").write_text(FILE)
        pictures = ["tiny-pictures", "--style", "sunset", "--folder", "pictures", "--count", "6"]
        assert main(pictures) == DONE
        assert main(["train", "train.yaml"]) == PAUSED
        yield folder
    finally:
        os.chdir(before)


@pytest.fixture(scope="module")
def lora(place):
    """The LoRA of the run's end, by the file that the run has written."""
    run = place / "output/nsync/runs/sunset"
    assert main(["train", str(run / "run.yaml"), "--settings.pause_every", "0"]) == DONE
    return place / "output/loras/sunset.safetensors"


def asked(capsys, *words):
    """A command that is refused: what is said, and that nothing came or went."""
    before = files(Path())
    assert main([*map(str, words)]) == BAD_INPUT
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert files(Path()) == before
    return said


def files(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_a_paused_run_has_all_that_it_takes_to_go_on(place):
    run = place / "output/nsync/runs/sunset"
    told = yaml.safe_load((run / "run.yaml").read_text())
    assert told["settings"] == json.loads((run / "config.json").read_text())["settings"]
    assert (run / "samples/step_000002.png").is_file()
    assert len(list((place / "output/nsync/negatives/negatives").glob("*.png"))) == 6
    assert (place / "output/loras/sunset_stopped_at_2.safetensors").is_file()


def test_a_run_ends_as_one_that_never_paused(place, lora):
    """The same settings under another name, in one go, from the same negatives."""
    words = ["--name", "whole", "--settings.pause_every", "0", "--settings.preview_every", "0"]
    assert main(["train", "train.yaml", *words]) == DONE
    ours, whole = load_file(lora), load_file(lora.with_name("whole.safetensors"))
    assert all(torch.equal(ours[name], value) for name, value in whole.items())
    assert ours.keys() == whole.keys()


def test_a_run_goes_on_with_its_layers_in_another_order(place, lora, monkeypatch):
    """As a UNet of another library has them; see `nsync.runs.state_order`."""
    from nsync import trained

    words = ["--name", "turned", "--settings.preview_every", "0"]
    assert main(["train", "train.yaml", *words]) == PAUSED
    layers = trained.chosen_layers
    monkeypatch.setattr(
        trained, "chosen_layers", lambda *asked: dict(reversed(layers(*asked).items()))
    )
    assert main(["train", "train.yaml", *words]) == DONE
    ours, whole = load_file(lora), load_file(lora.with_name("turned.safetensors"))
    for name, value in whole.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-3, atol=1e-5)


def test_nothing_is_made_twice(place, lora):
    before = files(place)
    assert main(["train", "train.yaml", "--settings.pause_every", "0"]) == DONE
    again = files(place)
    told = {place / "output/nsync/runs/sunset" / name for name in ("run.yaml", "set.json")}
    assert {path for path, when in again.items() if before.get(path) != when} <= told


def test_a_dry_run_tells_and_begins_nothing(place, capsys):
    before = files(place)
    words = ["--name", "dry", "--negatives_name", "others", "--dry-run"]
    assert main(["train", "train.yaml", *words]) == DONE
    said = capsys.readouterr().out
    assert "6 of 6 pictures used" in said
    assert "6 negatives in output/nsync/negatives/others, 6 of them to be painted" in said
    kept = float(said.partition("Kept for backward: ")[2].partition(" MB")[0])
    assert 1 < kept < 200  # of a UNet of 17 MB at 16 x 16 latents
    assert "0 of 4 steps made" in said
    assert files(place) == before


def test_a_sampler_that_is_not_there_is_told_before_it_paints(place, capsys):
    words = ["--negatives_name", "others", "--negatives.sampler.sampler", "lms", "--dry-run"]
    for command in ("negatives", "train"):
        said = asked(capsys, command, "train.yaml", *words)
        assert "`negatives.sampler.sampler`: expected one of euler" in said


def test_other_settings_under_the_same_name_are_refused(place, lora, capsys):
    said = asked(capsys, "train", "train.yaml", "--settings.rank", 3)
    assert "`rank` was 2, is 3" in said


def test_a_damaged_state_is_refused_and_kept(place, capsys):
    """Half-written by a power cut: nothing of the run is lost, nothing is begun anew in silence."""
    words = ["--name", "cut", "--settings.preview_every", "0"]
    assert main(["train", "train.yaml", *words]) == PAUSED
    capsys.readouterr()
    [state] = (place / "output/nsync/runs/cut/state").glob("*.safetensors")
    state.write_bytes(state.read_bytes()[:100])
    assert "a state that can be read" in asked(capsys, "train", "train.yaml", *words)


def test_a_damaged_listing_is_refused(place, capsys):
    listing = place / "half.json"
    listing.write_text('{"format": 1, "items": [')
    file = place / "half.yaml"
    file.write_text("model: {path: tiny}\nstyle_set: {listing: half.json}\n")
    assert "half.json" in asked(capsys, "train", file)


def test_a_lora_of_another_model_is_refused(place, capsys):
    other = place / "flux.safetensors"
    name = "transformer.single_transformer_blocks.0.attn.to_q"
    factors = {f"{name}.lora_A.weight": torch.ones(2, 8), f"{name}.lora_B.weight": torch.ones(8, 2)}
    save_file(factors, other)
    words = ["--name", "started", "--start_from", other]
    said = asked(capsys, "train", "train.yaml", *words)
    assert "layers that this model does not have" in said
    assert "Is it a LoRA of another model?" in said
    words = ["--drawing.captions", *CAPTIONS, "--drawing.width", 64, "--drawing.height", 64]
    said = asked(capsys, "compare", "--model.path", "tiny", "--loras", other, *words)
    assert "nsync compare: `loras`: expected a LoRA of this model" in said
    assert "Is it a LoRA of another model?" in said
    assert "Drawing" not in said  # the base neither: files are looked at before any work


def test_layers_may_be_named_by_an_expression(place, capsys):
    words = ["--settings.layers", r"up_blocks\..*attn1\.to_[qk]", "--name", "few_layers"]
    words += ["--settings.steps", "1", "--settings.preview_every", "0"]
    assert main(["train", "train.yaml", *words]) == DONE
    names = load_file(place / "output/loras/few_layers.safetensors").keys()
    kept = {name.partition(".")[0] for name in names}
    assert kept
    assert all("up_blocks" in one and one.endswith(("attn1_to_q", "attn1_to_k")) for one in kept)
    said = asked(capsys, "train", "train.yaml", "--settings.layers", "atention", "--name", "none")
    assert "`layers`: expected a choice that names layers of" in said
    assert "attn1.to_q" in said or "conv" in said


def test_an_encoder_that_is_none_is_told_by_its_key(place, capsys):
    save_file({"a": torch.ones(1)}, place / "no_csd.safetensors")
    words = ["--references", "pictures", "--candidates", "pictures", "--encoders.csd"]
    said = asked(capsys, "evaluate", *words, place / "no_csd.safetensors")
    assert "nsync evaluate: `encoders.csd`: expected a CSD file" in said


def test_a_place_that_cannot_be_written_is_told(place, capsys):
    """A file stands where a folder is to be made: the same for root, whom no mode stops."""
    (place / "taken").write_text("a file")
    said = asked(capsys, "train", "train.yaml", "--output", "taken")
    assert "taken" in said


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("nowhere", "nowhere"),
        ("pictures", "without one"),
        ("pictures/image_0001.png", ".safetensors"),
        ("single.safetensors", "model_index.json"),
    ],
)
def test_a_model_that_is_none_is_told(place, capsys, path, said):
    save_file({"a": torch.ones(1)}, place / "single.safetensors")
    assert said in asked(capsys, "negatives", "train.yaml", "--model.path", path)


def test_an_interrupted_run_says_so_and_keeps_what_it_has(place, monkeypatch):
    from nsync.runs.session import Session

    after = Session.after_step

    def stop(session, done):
        after(session, done)
        raise KeyboardInterrupt

    monkeypatch.setattr(Session, "after_step", stop)
    words = ["--name", "stopped", "--settings.preview_every", "0"]
    assert main(["train", "train.yaml", *words]) == INTERRUPTED
    assert (place / "output/loras/stopped_stopped_at_1.safetensors").is_file()
    assert (place / "output/nsync/runs/stopped/state/step_00000001.safetensors").is_file()


def test_the_lora_is_compared_scored_and_told_of(place, lora, capsys):
    words = ["--drawing.width", 64, "--drawing.height", 64, "--drawing.sampler.steps", 2]
    words += ["--model.path", "tiny", "--loras", lora, "--drawing.captions", *CAPTIONS]
    assert main(["compare", *map(str, words)]) == DONE
    folder = place / "output/nsync/comparisons/comparison"
    base, ours = ((folder / arm / "pictures_0000.png").read_bytes() for arm in ("base", "sunset"))
    assert base != ours
    words = ["--references", "pictures", "--comparison", folder, "--encoders.ruler", "true"]
    assert main(["evaluate", *map(str, words)]) == DONE
    assert (place / "output/nsync/evaluations/evaluation/report.html").is_file()
    capsys.readouterr()
    layers = len(load_file(lora)) // 3
    parts = place / "parts"  # as of processes that were killed
    shutil.copytree(place / "output/nsync/negatives/negatives", parts)
    (parts / "manifest.json").rename(parts / "manifest.0123abcd.json")
    told = {
        lora: (
            f"a LoRA of {layers} layers: network",
            "rank: 2; alpha: 16.0",
            "style token: sks",
        ),
        folder: ("a comparison of 2 arms: base 5, sunset 5",),
        place / "output/nsync/runs/sunset": ("steps: 4 of 4", "rule: nsync"),
        place / "output/nsync/negatives/negatives": ("a negative set of 6 pictures",),
        parts: ("a negative set of 6 pictures",),
    }
    for path, lines in told.items():
        assert main(["inspect", str(path)]) == DONE
        said = capsys.readouterr().out
        assert all(line in said for line in lines), said


def test_what_nothing_is_known_of_is_told(place, capsys):
    assert "none of their files" in asked(capsys, "inspect", "pictures")
    assert "is there" in asked(capsys, "inspect", "gone.safetensors")
    (place / "torn.safetensors").write_bytes(b"\x00" * 7)
    assert "a whole safetensors file" in asked(capsys, "inspect", "torn.safetensors")


def test_an_embedding_is_trained_drawn_and_told_of(place, capsys):
    words = ["--name", "word", "--settings.trains", "embedding", "--settings.rule", "plain"]
    words += ["--settings.steps", "1", "--settings.preview_every", "0"]
    assert main(["train", "train.yaml", *words]) == DONE
    file = place / "output/embeddings/word.safetensors"
    words = ["--drawing.width", 64, "--drawing.height", 64, "--drawing.sampler.steps", 1]
    words += ["--model.path", "tiny", "--embeddings", file, "--drawing.captions", *CAPTIONS]
    assert main(["compare", "--name", "words", *map(str, words)]) == DONE
    capsys.readouterr()
    assert main(["inspect", str(file)]) == DONE
    with safe_open(file, "pt") as opened:
        rows, width = opened.get_slice("sks").get_shape()
    assert f"an embedding: sks {rows} vectors of {width}" in capsys.readouterr().out


STUDY_REFUSALS = {
    "--drawing.width 66": "`drawing.width, drawing.height`: expected multiples of 4 pixels",
    "--drawing.sampler.sampler lms": "`drawing.sampler.sampler`: expected one of euler",
    "--drawing.sampler.scheduler beta": "`drawing.sampler.scheduler`: expected one of normal",
    "--references one": "`references`: expected at least two pictures",
    "--settings.rank 5000": "`arms.plain.rank`: expected at most",
    "--settings.layers atention": "`arms.plain.layers`: expected a choice that names layers",
    "--negatives_name new --settings.rank 5000": "`arms.plain.rank`: expected at most",
}


def test_a_study_trains_its_arms_and_says_which_is_nearest(place, capsys):
    study = place / "study.yaml"
    study.write_text(
        FILE.replace("sunset", "sweep")
        + """\
arms:
  plain: {rule: plain}
  faster: {learning_rate: 1e-2}
"""
        + JUDGED
    )
    (place / "one").mkdir()
    shutil.copy(place / "pictures/image_0001.png", place / "one")
    text = study.read_text().replace("preview: {steps: 1, guidance: 1}\n", "")
    study.write_text(text.replace("faster", "fas/ter").replace("rule: plain", "rlue: plain"))
    said = asked(capsys, "study", study)
    assert "arms.plain.rlue: no such key; is it rule?" in said
    assert "arms.fas/ter: expected a file name" in said
    study.write_text(text.replace("steps: 4", "steps: 1"))
    for words, said in STUDY_REFUSALS.items():
        assert said in asked(capsys, "study", study, *words.split(" "), "--name", "no")
        assert said in asked(capsys, "study", study, *words.split(" "), "--name", "no", "--dry-run")
    assert main(["study", str(study)]) == DONE
    assert "Seed 0: " in capsys.readouterr().out
    assert (place / "output/nsync/evaluations/sweep_0/report.html").is_file()
    assert (place / "output/loras/sweep_faster_0.safetensors").is_file()


def test_an_arm_whose_numbers_go_bad_keeps_no_other_from_its_verdict(place, capsys, monkeypatch):
    study = place / "worse.yaml"
    study.write_text(
        FILE.replace("sunset", "worse").replace("pause_every: 2, ", "")
        + """\
arms:
  bad: {rule: plain, rank: 3}
  good: {rule: plain}
"""
        + JUDGED
    )
    study.write_text(study.read_text().replace("preview: {steps: 1, guidance: 1}\n", ""))
    train = HeadlessRun.train

    def bad(self, *given):
        if self.settings.rank == 3:
            raise NonFiniteError("The loss went bad.")
        return train(self, *given)

    monkeypatch.setattr(HeadlessRun, "train", bad)
    assert main(["study", str(study)]) == STOPPED
    said = capsys.readouterr().err
    assert "Seed 0: " in said
    assert "The loss went bad." in said
    assert (place / "output/nsync/evaluations/worse_0/report.html").is_file()
    assert main(["study", str(study), "--candidate", "bad", "--name", "other"]) == STOPPED
    assert "Seed 0: no verdict, for bad was stopped." in capsys.readouterr().err


def test_a_study_draws_by_the_trained_word_all_that_was_trained(place, capsys, monkeypatch):
    """The set's token is not the default; an arm has learned both; plain arms need no negatives."""
    from nsync.cli import compare
    from nsync.lora_file import read_lora

    seen = []

    def noted(comparison, denoiser, name, word, on_item):
        ours = {key: rows for key, rows in denoiser.words.items() if key == word}
        adapted = any("lora_A" in one for one, _ in denoiser.network.named_modules())
        seen.append((name, word, bool(ours), adapted))
        return arm_of(comparison, denoiser, name, word, on_item)

    arm_of = compare.arm_of
    monkeypatch.setattr(compare, "arm_of", noted)
    study = place / "both.yaml"
    study.write_text(
        FILE.replace("sunset", "both")
        .replace("token: sks", "token: zork")
        .replace("steps: 4, pause_every: 2", "steps: 1")
        .replace("preview: {", "# {")
        + """\
arms: {lora: {rule: plain}, all: {rule: plain, trains: LoRA and embedding}}
negatives_name: none_needed
"""
        + JUDGED
    )
    assert main(["study", str(study)]) == DONE
    told = {name: rest for name, *rest in seen}
    assert told == {
        "base": ["zork", False, False],
        "both_lora_0": ["zork", False, True],
        "both_all_0": ["zork", True, True],
    }
    assert read_lora(place / "output/loras/both_all_0.safetensors").layers
    assert not (place / "output/nsync/negatives/none_needed").exists()
    # Another arm wants negatives: what was trained before without them stays as it is.
    study.write_text(study.read_text().replace("arms: {", "arms: {more: {rule: nsync}, "))
    capsys.readouterr()
    assert main(["study", str(study)]) == DONE
    assert (place / "output/nsync/negatives/none_needed").is_dir()
    assert "both_more_0" in {name for name, *_ in seen}
    # Negatives are gone: a run that was begun with them is judged by what else is known of it.
    shutil.rmtree(place / "output/nsync/negatives/none_needed")
    assert main(["study", str(study), "--dry-run"]) == DONE
    assert "6 negatives, 6 of them to be painted" in capsys.readouterr().out
    assert "`rank` was 2, is 3" in asked(capsys, "study", study, "--settings.rank", 3)
    assert main(["study", str(study)]) == DONE


@pytest.fixture(scope="module")
def labelled(place):
    """A file of a set with two labels."""
    for label in ("neon", "comic"):
        words = ["--style", label, "--folder", f"labelled/{label}", "--count", "2"]
        assert main(["tiny-pictures", *words]) == DONE
    file = place / "labelled.yaml"
    text = FILE.replace("folder: pictures", "folder: labelled").replace("sunset", "many")
    text = text.replace("steps: 4, pause_every: 2", "rule: plain, steps: 1")
    file.write_text(f"{text}labels: one run per label\n")
    return file


@pytest.mark.parametrize(("error", "goes_on"), [(NonFiniteError, True), (ProcessLostError, False)])
def test_a_label_that_goes_bad_does_not_keep_the_others_from_training(
    place, labelled, capsys, monkeypatch, error, goes_on
):
    from nsync.cli.runs import HeadlessRun

    train = HeadlessRun.train

    def first_fails(run, *given):
        if run.folder.name.endswith("_comic"):
            raise error("the numbers went bad")
        return train(run, *given)

    monkeypatch.setattr(HeadlessRun, "train", first_fails)
    name = f"some_{error.__name__}"
    assert main(["train", str(labelled), "--name", name]) == STOPPED
    said = capsys.readouterr().err
    assert "the numbers went bad" in said
    saved = place / f"output/loras/{name}_neon.safetensors"
    assert saved.is_file() == goes_on
    assert (f"Saved {saved.relative_to(place)}" in said) == goes_on


def test_labels_that_differ_by_capitals_only_are_refused(place, labelled, capsys):
    shutil.copytree(place / "labelled", place / "capitals")
    (place / "capitals/neon").rename(place / "capitals/Comic")
    said = asked(capsys, "train", labelled, "--style_set.folder", "capitals")
    assert "`labels`: expected labels that differ by more than capitals" in said


def test_a_run_goes_on_by_its_own_file_with_all_that_it_was_asked(place, lora, monkeypatch):
    """Rounded weights are another base; a LoRA to start from is another run."""
    words = ["--name", "rounded", "--preset", "6 GB", "--model.weights", "bf16"]
    words += ["--start_from", str(lora), "--embeddings", "words", "--preview.guidance", "2"]
    assert main(["train", "train.yaml", *words]) == PAUSED
    run = place / "output/nsync/runs/rounded"
    told = yaml.safe_load((run / "run.yaml").read_text())
    assert told["embeddings"] == str(place / "words")
    assert told["start_from"] == str(lora)
    assert told["preview"] == {"prompt": "", "steps": 1, "guidance": 2.0}
    monkeypatch.chdir(run)
    assert main(["train", "run.yaml", "--settings.pause_every", "0"]) == DONE
    assert (place / "output/loras/rounded.safetensors").is_file()


def test_what_only_looks_like_a_run_is_told(place, capsys):
    for name, text in {"model": '{"model_type": "clip"}', "list": "[1]", "torn": '{"a'}.items():
        (place / name).mkdir()
        (place / name / "config.json").write_text(text)
        assert "`FILE`" in asked(capsys, "inspect", name)


def test_pictures_are_not_drawn_into_a_file(place, capsys):
    (place / "no_folder").touch()
    said = asked(capsys, "tiny-pictures", "--style", "neon", "--folder", "no_folder")
    assert "folder: expected a folder that can be made and written in" in said


def test_captions_say_the_style_where_they_are_asked_to(place):
    words = ["--style", "stained_glass", "--count", "1", "--style_in_captions", "true"]
    assert main(["tiny-pictures", "--folder", "said", *words]) == DONE
    assert "in the style of stained glass" in (place / "said/image_0001.txt").read_text()


def test_a_device_that_is_none_is_told_by_its_key(place, capsys):
    words = ["--references", "pictures", "--candidates", "pictures", "--encoders.ruler", "true"]
    said = asked(capsys, "evaluate", *words, "--encoders.device", "nowhere")
    assert "`encoders.device`: expected a device that is there" in said
    said = asked(capsys, "train", "train.yaml", "--model.device", "nowhere")
    assert "`model.device`: expected a device that is there" in said
