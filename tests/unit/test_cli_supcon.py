"""The second method's commands, from two folders of pictures to painted prompts."""

import os
from pathlib import Path

import pytest

from nsync.cli.main import BAD_INPUT, DONE, PAUSED, main

PRETRAIN = """\
name: pair
width: 32
image_size: 32
device: cpu
style_set: {folder: pictures, resolution: 32}
settings: {steps: 4, batch: 2, pause_every: 2, warmup: 0}
"""
GAN = """\
name: painter
encoders: output/supcon_encoders/pair.safetensors
family: SSA-GAN
image_size: 16
width: 4
device: cpu
style_set: {folder: pictures, resolution: 32}
settings: {steps: 2, batch: 2, preview_every: 2}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a trained pair of encoders and a trained GAN."""
    folder = tmp_path_factory.mktemp("supcon")
    before = Path.cwd()
    os.chdir(folder)
    try:
        for style in ("neon", "comic"):
            words = ["--style", style, "--folder", f"pictures/{style}", "--count", "4"]
            assert main(["tiny-pictures", *words]) == DONE
        Path("pretrain.yaml").write_text(PRETRAIN)
        Path("gan.yaml").write_text(GAN)
        assert main(["supcon", "pretrain", "pretrain.yaml"]) == PAUSED
        assert main(["supcon", "pretrain", "pretrain.yaml"]) == DONE
        assert main(["supcon", "gan", "gan.yaml"]) == DONE
        yield folder
    finally:
        os.chdir(before)


def test_prompts_are_painted_by_the_file_alone(place, capsys):
    words = ["--gan", "output/t2i_gans/painter.safetensors", "--prompts", "a red circle", "a ring"]
    assert main(["supcon", "sample", *words, "--per_prompt", "2", "--folder", "drawn"]) == DONE
    drawn = sorted((place / "drawn").glob("*.png"))
    assert len(drawn) == 4
    assert drawn[0].read_bytes() != drawn[1].read_bytes()  # another seed
    assert f"4 pictures in {place / 'drawn'}" in capsys.readouterr().out


def test_files_and_runs_are_told_of(place, capsys):
    told = {
        "output/supcon_encoders/pair.safetensors": ("small encoders", "labels: comic, neon"),
        "output/t2i_gans/painter.safetensors": ("a text-to-image GAN, SSA-GAN", "steps: 2"),
        "output/nsync/runs/pair": ("teaches a pair of encoders", "steps: 4 of 4"),
        "output/nsync/runs/painter": ("teaches a text-to-image GAN", "steps: 2 of 2"),
    }
    for path, lines in told.items():
        assert main(["inspect", path]) == DONE
        said = capsys.readouterr().out
        assert all(line in said for line in lines), said
    assert list((place / "output/nsync/runs/painter/samples").glob("*.png"))


def test_dry_runs_begin_nothing(place, capsys):
    before = sorted(place.rglob("*"))
    assert main(["supcon", "pretrain", "pretrain.yaml", "--name", "dry", "--dry-run"]) == DONE
    assert "2 labels; encoders of" in capsys.readouterr().out
    assert main(["supcon", "gan", "gan.yaml", "--name", "dry", "--dry-run"]) == DONE
    assert "8 pairs, 2 labels. Generator and discriminators:" in capsys.readouterr().out
    assert sorted(place.rglob("*")) == before


def test_a_dry_run_refuses_another_runs_folder(place, capsys):
    words = ["--settings.batch", "3", "--dry-run"]
    for command, file in {"pretrain": "pretrain.yaml", "gan": "gan.yaml"}.items():
        assert main(["supcon", command, file, *words]) == BAD_INPUT
        assert "`batch` was 2, is 3" in capsys.readouterr().err


def test_a_device_that_is_none_is_told_by_its_key(place, capsys):
    for command, file in {"pretrain": "pretrain.yaml", "gan": "gan.yaml"}.items():
        assert main(["supcon", command, file, "--device", "nowhere"]) == BAD_INPUT
        assert "`device`: expected a device that is there" in capsys.readouterr().err


def test_bad_input_is_told(place, capsys):
    encoders = ["--encoders", "gone.safetensors", "--settings.batch", "1", "--family", "BigGAN"]
    assert main(["supcon", "gan", "gan.yaml", *encoders]) == BAD_INPUT
    said = capsys.readouterr().err
    assert "3 wrong" in said
    assert "--encoders, encoders: expected a file that is there" in said
    words = ["--encoders", "output/t2i_gans/painter.safetensors"]
    assert main(["supcon", "gan", "gan.yaml", *words]) == BAD_INPUT
    assert "encoders saved by the SupCon pretraining" in capsys.readouterr().err
    flat = ["--style_set.folder", "pictures/neon"]
    assert main(["supcon", "pretrain", "pretrain.yaml", "--name", "flat", *flat]) == BAD_INPUT
    assert "a label for every picture" in capsys.readouterr().err
