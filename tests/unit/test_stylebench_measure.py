"""The measures, held to what is true of true renders and to plain loops."""

import numpy as np
import pytest
import torch

from benchmarks.stylebench.draw import Drawn
from benchmarks.stylebench.families import FIRST_FAMILY
from benchmarks.stylebench.measure import CONTENT, Instruments, Truth, copies
from benchmarks.stylebench.world import Scenes, draw_apart, positives, references
from nsync.pictures.images import to_uint8
from nsync.tiny.ruler import TABLES, Ruler
from nsync.tiny.world import render

STYLE, OTHER, SEED = "comic", "flat", 5


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return draw_apart(6, 40, 12, SEED)


@pytest.fixture(scope="module")
def instruments() -> Instruments:
    return Instruments(FIRST_FAMILY)


@pytest.fixture(scope="module")
def plain(scenes: Scenes) -> torch.Tensor:
    return to_uint8(render(scenes.plain, OTHER, 1))


@pytest.fixture(scope="module")
def truth(instruments: Instruments, scenes: Scenes, plain: torch.Tensor) -> Truth:
    trained = torch.stack([item.pixels for item in positives(scenes, STYLE, SEED).items])
    base = Drawn(torch.zeros(40, 3, 64, 64, dtype=torch.uint8), plain)
    true = references(scenes, STYLE, SEED)
    return instruments.truth(STYLE, scenes, true, to_uint8(trained), base)


def test_other_true_renders_score_as_true(
    instruments: Instruments, truth: Truth, scenes: Scenes, plain: torch.Tensor
) -> None:
    again = to_uint8(render(scenes.held_out, STYLE, 77))
    found = instruments.measure(Drawn(again, plain), truth)
    for name in ("style_hit", "style_probability", *CONTENT, "content", "plain_content"):
        assert found[name] > 0.95, name
    assert found["drift"] < 1e-9
    assert 0.9 < found["diversity"] < 1.1
    assert found["similarity"] > 0.9


def test_another_style_scores_as_another(
    instruments: Instruments, truth: Truth, scenes: Scenes
) -> None:
    true = to_uint8(render(scenes.held_out, STYLE, 77))
    flat = to_uint8(render(scenes.held_out, OTHER, 77))
    moved = to_uint8(render(scenes.plain, STYLE, 1))
    near = instruments.measure(Drawn(true, moved), truth)
    far = instruments.measure(Drawn(flat, moved), truth)
    assert far["style_hit"] == 0
    assert far["content"] > 0.95
    assert far["similarity"] < near["similarity"] - 0.2
    for name in ("frechet", "kernel", "cmmd"):
        assert far[name] > 3 * abs(near[name]), name
    assert near["drift"] > 0.05
    # All alike are one picture, of another content than most captions.
    one = instruments.measure(Drawn(true[:1].repeat(40, 1, 1, 1), moved), truth)
    assert one["diversity"] < 0.5
    assert one["content"] < 0.2


def test_measures_against_plain_formulas(
    instruments: Instruments, truth: Truth, scenes: Scenes
) -> None:
    """Half the pictures are of another style, a third show another scene."""
    mixed = to_uint8(render(scenes.held_out, STYLE, 77))
    mixed[::2] = to_uint8(render(scenes.held_out, OTHER, 78))[::2]
    mixed[::3] = mixed[[*range(3, 40, 3), 0]]
    moved = to_uint8(render(scenes.plain, STYLE, 1))
    found = instruments.measure(Drawn(mixed, moved), truth)

    reading = Ruler.load().read(mixed.float() / 255)
    hits = [p.argmax() == TABLES["style"].index(STYLE) for p in reading.probabilities["style"]]
    assert found["style_hit"] == np.mean([bool(hit) for hit in hits])
    for name in CONTENT:
        read = [int(p.argmax()) for p in reading.probabilities[name]]
        right = [
            value == getattr(scene, name)
            for value, scene in zip(read, scenes.held_out, strict=True)
        ]
        assert found[name] == np.mean(right)
    assert 0.3 < found["style_hit"] < 0.7
    assert found["content"] <= min(found[name] for name in CONTENT) < 1

    x, y = truth.features.double().numpy(), reading.features.double().numpy()
    roots = np.sqrt(np.linalg.eigvals(np.cov(x.T) @ np.cov(y.T)).real.clip(0))
    apart = np.square(x.mean(0) - y.mean(0)).sum()
    frechet = apart + np.trace(np.cov(x.T) + np.cov(y.T)) - 2 * roots.sum()
    assert found["frechet"] == pytest.approx(frechet, rel=1e-3)

    before = Ruler.load().read(to_uint8(render(scenes.plain, OTHER, 1)).float() / 255).features
    after = Ruler.load().read(moved.float() / 255).features
    distances = [
        1 - float(a @ b / (a.norm() * b.norm())) for a, b in zip(before, after, strict=True)
    ]
    assert found["drift"] == pytest.approx(np.mean(distances), abs=1e-5)


def test_copies_against_a_double_loop() -> None:
    drawn = torch.Generator().manual_seed(0)
    ours, theirs = (
        torch.randint(0, 256, (n, 3, 8, 8), generator=drawn, dtype=torch.uint8) for n in (30, 5)
    )
    ours[:9] = (theirs[0].int() + torch.arange(9)[:, None, None, None] * 9).clamp(0, 255)

    def blocks(picture: torch.Tensor) -> np.ndarray:
        return picture.numpy().astype(float).reshape(3, 2, 4, 2, 4).mean((2, 4))

    def apart(a: torch.Tensor, b: torch.Tensor) -> float:
        return float(np.square(blocks(a) - blocks(b)).sum())

    least = min(apart(a, b) for i, a in enumerate(theirs) for b in theirs[i + 1 :])
    expected = np.mean([min(apart(a, b) for b in theirs) < least for a in ours])
    assert copies(ours, theirs) == expected
    assert 0 < expected < 1


def test_copies_are_found_and_the_style_is_none() -> None:
    scenes = draw_apart(16, 100, 2, SEED)
    trained = torch.stack([item.pixels for item in positives(scenes, STYLE, SEED).items])
    noise = torch.randn(trained.shape, generator=torch.Generator().manual_seed(0))
    again = to_uint8(trained + 0.05 * noise)
    assert copies(again, to_uint8(trained)) == 1
    assert copies(references(scenes, STYLE, SEED), to_uint8(trained)) < 0.3
