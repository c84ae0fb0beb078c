"""The tiny world: deterministic, truthful, and read rightly by the ruler."""

import pytest
import torch

from nsync.errors import InputError
from nsync.tiny.captions import Chances, style_word, training_caption
from nsync.tiny.ruler import TABLES, Ruler
from nsync.tiny.scenes import Scene, draw_scenes
from nsync.tiny.styles import GENERIC_WORDS
from nsync.tiny.world import HELD_OUT_STYLES, PRETRAIN_STYLES, STYLES, render


@pytest.fixture(scope="module")
def ruler() -> Ruler:
    return Ruler.load()


def test_enough_styles_and_none_is_both() -> None:
    assert len(PRETRAIN_STYLES) >= 8
    assert len(HELD_OUT_STYLES) >= 10
    assert not set(PRETRAIN_STYLES) & set(HELD_OUT_STYLES)
    assert set().union(*GENERIC_WORDS.values()) == set(PRETRAIN_STYLES)


def test_captions_say_the_whole_scene() -> None:
    assert Scene(0, 0, 0, 0, 0).caption() == "a red circle in the centre"
    assert Scene(3, 4, 1, 1, 2).caption() == "two purple crosses on the left over a hill"
    assert Scene(4, 3, 4, 2, 1).caption() == "three blue rings at the bottom over a horizon"


def test_a_scene_depends_on_its_number_only() -> None:
    assert draw_scenes(5, seed=3) == draw_scenes(9, seed=3)[:5]
    assert draw_scenes(20, seed=3) != draw_scenes(20, seed=4)


@pytest.mark.parametrize("style", STYLES)
def test_renders_are_pictures_and_repeat(style: str) -> None:
    scenes = draw_scenes(6, seed=1)
    first, torch_seed = render(scenes, style, seed=2), torch.initial_seed()
    torch.manual_seed(123)
    assert torch.equal(first, render(scenes, style, seed=2))
    assert first.shape == (6, 3, 64, 64)
    assert first.dtype == torch.float32
    assert first.isfinite().all()
    assert first.min() >= 0
    assert first.max() <= 1
    assert not torch.equal(first, render(scenes, style, seed=3))
    torch.manual_seed(torch_seed)


def test_an_unknown_style_is_named() -> None:
    with pytest.raises(InputError, match=r"`style`: expected one of flat, .*; got 'cubism'"):
        render(draw_scenes(1, seed=0), "cubism", seed=0)


def test_the_grammar_never_names_a_held_out_style() -> None:
    g, scene = torch.Generator().manual_seed(0), draw_scenes(1, seed=0)[0]
    texts = [training_caption(scene, s, Chances(), g) for s in PRETRAIN_STYLES for _ in range(200)]
    held_out = {s.replace("_", " ") for s in HELD_OUT_STYLES}
    assert not [t for t in texts if any(name in t for name in held_out)]
    assert "" in texts
    assert scene.caption() in texts


def test_generic_words_hide_the_styles_of_their_list() -> None:
    g, always = torch.Generator().manual_seed(0), Chances(0, 0, 0, generic=1.0)
    for style in PRETRAIN_STYLES:
        words = {style_word(style, always, g) for _ in range(40)}
        assert words == {w for w, hidden in GENERIC_WORDS.items() if style in hidden}


@pytest.mark.parametrize("table", TABLES)
def test_the_ruler_reads_fresh_renders(ruler: Ruler, table: str) -> None:
    right = []
    for i, style in enumerate(STYLES):
        scenes = draw_scenes(60, seed=9000 + i)
        reading = ruler.read(render(scenes, style, seed=8))
        hits = (
            reading.style_hits(style)
            if table == "style"
            else reading.content_hits(scenes, (table,))
        )
        right.append(hits.float().mean())
    assert torch.stack(right).mean() >= 0.97


def test_the_ruler_refuses_other_sizes(ruler: Ruler) -> None:
    with pytest.raises(InputError, match=r"pictures \[n, 3, 64, 64\]; got \(2, 3, 32, 32\)"):
        ruler.read(torch.rand(2, 3, 32, 32))
