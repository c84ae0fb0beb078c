"""What arms are given: the same for all of them, and never what they are asked for."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.studies.pictures import strip
from benchmarks.stylebench.draw import Drawn, base_drawn, draw
from benchmarks.stylebench.world import (
    NO_STYLE,
    SCENES,
    Scenes,
    draw_apart,
    of_other_captions,
    of_same_style,
    positives,
    prompts,
    references,
    tiny_denoiser,
    with_negatives,
    with_others,
)
from nsync.denoiser import SamplerSettings
from nsync.negatives import NegativeSettings
from nsync.pictures.images import read_image
from nsync.pipelines.denoiser import DiffusersDenoiser
from nsync.tiny.ruler import Ruler

SAMPLER = SamplerSettings(steps=2, guidance=1.0)


@pytest.fixture(scope="module")
def denoiser() -> DiffusersDenoiser:
    return tiny_denoiser()


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return draw_apart(3, 5, 2, seed=1)


@pytest.mark.parametrize("counts", [(16, 256, 64), (64, 1000, 61), (2, 2, 2)])
def test_no_scene_is_there_twice(counts: tuple[int, int, int]) -> None:
    scenes = draw_apart(*counts, seed=3)
    parts = scenes.training, scenes.held_out, scenes.plain
    assert tuple(map(len, parts)) == counts
    together = [scene for part in parts for scene in part]
    assert len(set(together)) == len(together) <= SCENES
    assert draw_apart(*counts, seed=3) == scenes
    assert draw_apart(*counts, seed=4) != scenes


def test_styles_of_a_seed_show_the_same_scenes(scenes: Scenes) -> None:
    neon, comic = (positives(scenes, style, 1) for style in ("neon", "comic"))
    assert [item.caption for item in neon.items] == [s.caption() for s in scenes.training]
    assert [(i.name, i.caption) for i in neon.items] == [(i.name, i.caption) for i in comic.items]
    assert not torch.equal(neon.items[0].pixels, comic.items[0].pixels)
    true = references(scenes, "comic", 1)
    reading = Ruler.load().read(true.float() / 255)
    assert reading.style_hits("comic").all()
    assert reading.content_hits(list(scenes.held_out), ("shape", "colour", "place", "count")).all()


def test_three_other_styles_lie_beside_a_style(scenes: Scenes) -> None:
    """The last of all goes on with the first."""
    plain = positives(scenes, "crystal", 1)
    made = with_others(plain, scenes, "crystal", 1)
    assert made.items == plain.items
    styles = ["blueprint", "neon", "woodcut"]
    assert [item.label for item in made.others] == [
        name for name in styles for _ in scenes.training
    ]
    reading = Ruler.load().read(torch.stack([item.pixels for item in made.others]))
    assert not reading.style_hits("crystal").any()
    assert reading.style_hits("blueprint")[:3].all()
    assert len({item.digest for item in made.others}) == 9


def test_a_prompt_is_the_trainers(scenes: Scenes) -> None:
    style_set = positives(scenes, "neon", 1)
    assert prompts(scenes.training) == [style_set.prompt(item) for item in style_set.items]
    assert prompts(scenes.training)[0].endswith(" in the style of sks")


def test_negatives_from_noise_serve_all_styles(
    denoiser: DiffusersDenoiser, scenes: Scenes, tmp_path: Path
) -> None:
    files = {}
    for how in (False, True):
        settings = NegativeSettings(sampler=SAMPLER, from_positive=how, denoise=0.5, seed=9)
        for style in ("neon", "comic"):
            plain = positives(scenes, style, 1)
            made = with_negatives(plain, scenes, style, settings, denoiser, tmp_path)
            assert made.has_negatives
            assert made.base == denoiser.identity
            assert torch.equal(made.items[0].pixels, plain.items[0].pixels)
            files[how, style] = [item.negatives for item in made.items]
    assert files[False, "neon"] == files[False, "comic"]
    assert files[True, "neon"] != files[True, "comic"]
    ours, theirs = (read_image(files[True, style][0][0]) for style in ("neon", "comic"))
    assert not torch.equal(ours, theirs)
    assert len(list(tmp_path.glob("*/*.png"))) == 3 * 3


def test_a_caption_by_no_style_is_painted_as_it_stands(
    denoiser: DiffusersDenoiser, scenes: Scenes, tmp_path: Path
) -> None:
    settings = NegativeSettings(sampler=SAMPLER, per_positive=3, seed=9)
    plain = positives(scenes, "neon", 1)
    bare = replace(settings, **NO_STYLE)
    captions = [scene.caption() for scene in scenes.training]
    assert [bare.prompt(plain, item, 0) for item in plain.items] == captions
    made = with_negatives(plain, scenes, "neon", bare, denoiser, tmp_path)
    assert [len(item.negatives) for item in made.items] == [1, 1, 1]


def test_negatives_of_the_same_style_are_true_renders(
    denoiser: DiffusersDenoiser, scenes: Scenes, tmp_path: Path
) -> None:
    plain = positives(scenes, "comic", 1)
    made = of_same_style(plain, scenes, "comic", 1, denoiser, tmp_path)
    pictures = torch.stack([read_image(item.negatives[0]) for item in made.items])
    reading = Ruler.load().read(pictures)
    assert reading.style_hits("comic").all()
    assert reading.content_hits(list(scenes.training), ("shape", "colour", "place", "count")).all()
    assert not any(
        torch.equal(*pair)
        for pair in zip(pictures, (item.pixels for item in plain.items), strict=True)
    )
    again = of_same_style(plain, scenes, "comic", 1, denoiser, tmp_path)
    assert [one.negatives for one in again.items] == [one.negatives for one in made.items]
    assert made.base == denoiser.identity


@pytest.mark.parametrize("count", [2, 3, 4])
def test_negatives_of_other_captions_are_never_an_items_own(tmp_path: Path, count: int) -> None:
    style_set = positives(draw_apart(count, 2, 2, seed=1), "comic", 1)
    files = {item.name: (tmp_path / item.name,) for item in style_set.items}
    made = of_other_captions(style_set.with_negatives(files, "base"))
    assert all(item.negatives != files[item.name] for item in made.items)
    assert sorted(item.negatives for item in made.items) == sorted(files.values())
    assert made.base == "base"


def test_pictures_depend_on_the_seed_and_their_number(
    denoiser: DiffusersDenoiser, scenes: Scenes
) -> None:
    first, again, other = (draw(denoiser, scenes, SAMPLER, seed) for seed in (4, 4, 5))
    assert first.styled.shape == (5, 3, 64, 64)
    assert first.plain.shape == (2, 3, 64, 64)
    assert first.styled.dtype == torch.uint8
    assert torch.equal(first.styled, again.styled)
    assert not torch.equal(first.styled, other.styled)


def test_the_base_is_drawn_once(
    denoiser: DiffusersDenoiser, scenes: Scenes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = base_drawn(denoiser, scenes, SAMPLER, 4, tmp_path)
    assert torch.equal(drawn.styled, draw(denoiser, scenes, SAMPLER, 4).styled)
    with monkeypatch.context() as patch:
        patch.setattr(DiffusersDenoiser, "generate", None)
        again = base_drawn(denoiser, scenes, SAMPLER, 4, tmp_path)
        with pytest.raises(TypeError):
            base_drawn(denoiser, scenes, SAMPLER, 5, tmp_path)
    assert torch.equal(drawn.plain, again.plain)


def test_a_strip_is_the_first_pictures_side_by_side(tmp_path: Path) -> None:
    pictures = torch.randint(0, 256, (10, 3, 6, 5), dtype=torch.uint8)
    file = tmp_path / "strip.png"
    file.write_bytes(strip(pictures))
    read = (read_image(file) * 255).round().to(torch.uint8)
    assert read.shape == (3, 6, 40)
    assert torch.equal(read[:, :, 35:], pictures[7])


def test_drawn_is_what_is_saved() -> None:
    assert set(vars(Drawn(torch.zeros(1), torch.zeros(1)))) == {"styled", "plain"}
