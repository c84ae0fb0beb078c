"""Styles made after the analysis was fixed: what they are, who reads them, and studies of them."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_stylebench_study import GOOD, written

from benchmarks.stylebench.draw import Drawn
from benchmarks.stylebench.families import FIRST_FAMILY, LATER_FAMILY
from benchmarks.stylebench.later_styles import LATER, PALETTES, TEXTURES, render
from benchmarks.stylebench.measure import CONTENT, Instruments
from benchmarks.stylebench.store import check_same_study
from benchmarks.stylebench.study import Cell
from benchmarks.stylebench.study_file import read_study
from benchmarks.stylebench.workshop import Workshop
from benchmarks.stylebench.world import draw_apart, positives, references, with_others
from nsync.errors import InputError
from nsync.pictures.images import to_uint8
from nsync.tiny import world
from nsync.tiny.ruler import TABLES, Ruler
from nsync.tiny.scenes import draw_scenes, lay_out
from nsync.tiny.styles import flat


@pytest.fixture(scope="module")
def ruler() -> Ruler:
    return Ruler.load(LATER_FAMILY.ruler)


@pytest.mark.parametrize("style", LATER)
def test_renders_are_pictures_and_repeat(style: str) -> None:
    scenes = draw_scenes(6, seed=1)
    first = render(scenes, style, seed=2)
    torch.rand(3)
    assert torch.equal(first, render(scenes, style, seed=2))
    assert first.shape == (6, 3, 64, 64)
    assert first.isfinite().all()
    assert (first.min() >= 0) & (first.max() <= 1)
    assert not torch.equal(first, render(scenes, style, seed=3))


def test_the_first_styles_are_drawn_as_they_were() -> None:
    scenes = draw_scenes(3, seed=1)
    assert not set(LATER) & set(world.STYLES)
    for style in world.STYLES:
        assert torch.equal(render(scenes, style, 5), world.render(scenes, style, 5))
    with pytest.raises(InputError, match=r"`style`: expected one of flat, .*; got 'cubism'"):
        render(scenes, "cubism", 0)


@pytest.mark.parametrize("style", PALETTES)
def test_a_palette_changes_where_the_plain_render_changes(style: str) -> None:
    """From pixel to pixel: no line, no texture, and no edge that is lost."""
    plain, other = (f(lay_out(draw_scenes(40, seed=2), 3)) for f in (flat, PALETTES[style]))
    for dim in (2, 3):
        before, now = (p.diff(dim=dim).abs().amax(1) for p in (plain, other))
        assert now[before == 0].max() < 1e-6
        assert now[before > 0.05].min() > 0.01
    assert (plain - other).abs().mean() > 0.1


@pytest.mark.parametrize("style", TEXTURES)
def test_a_texture_only_lightens_and_darkens_the_plain_render(style: str) -> None:
    canvas = lay_out(draw_scenes(40, seed=2), 3)
    ratio = TEXTURES[style](canvas) / flat(canvas)
    light = ratio[:, :1].expand_as(ratio)
    assert torch.allclose(ratio, light, rtol=1e-4)
    inside, outside = light[:, 0][canvas.inside == 1], light[:, 0][canvas.inside == 0]
    assert inside.mean() == pytest.approx(float(outside.mean()), abs=0.03)
    assert min(inside.std(), outside.std()) > 0.05


@pytest.mark.parametrize("table", TABLES)
def test_the_ruler_reads_fresh_renders(ruler: Ruler, table: str) -> None:
    right = []
    for i, style in enumerate((*world.STYLES, *LATER)):
        scenes = draw_scenes(40, seed=9000 + i)
        reading = ruler.read(render(scenes, style, seed=8))
        is_style = table == "style"
        hits = reading.style_hits(style) if is_style else reading.content_hits(scenes, (table,))
        right.append(hits.float().mean())
    assert torch.stack(right).mean() >= 0.97


def test_a_ruler_has_the_styles_that_its_file_names(ruler: Ruler, tmp_path: Path) -> None:
    assert ruler.tables["style"] == (*world.STYLES, *LATER)
    assert Ruler.load().tables == TABLES
    weights, file = load_file(FIRST_FAMILY.ruler), tmp_path / "ruler.safetensors"
    order = [*reversed(world.STYLES)]
    save_file(weights, file, metadata={"styles": str(order).replace("'", '"')})
    picture = render(draw_scenes(4, seed=0), "neon", 1)
    assert Ruler.load().read(picture).style_hits("neon").all()
    turned = Ruler.load(file).read(picture)
    assert turned.style_hits(order[list(world.STYLES).index("neon")]).all()


@pytest.mark.parametrize("style", ["linocut", "sepia", "canvas"])
def test_a_later_style_is_measured_by_its_ruler(style: str) -> None:
    scenes, instruments = draw_apart(6, 40, 12, 5), Instruments(LATER_FAMILY)
    plain = to_uint8(render(scenes.plain, "flat", 1))
    base = Drawn(torch.zeros(40, 3, 64, 64, dtype=torch.uint8), plain)
    items = positives(scenes, style, 5).items
    trained = to_uint8(torch.stack([item.pixels for item in items]))
    truth = instruments.truth(style, scenes, references(scenes, style, 5), trained, base)
    assert truth.style_vectors.shape == (40, len(world.STYLES) + len(LATER))
    true, other = (
        instruments.measure(Drawn(to_uint8(render(scenes.held_out, name, 77)), plain), truth)
        for name in (style, "comic")
    )
    for name in ("style_hit", "style_probability", *CONTENT, "content"):
        assert true[name] > 0.95, name
    assert true["similarity"] > other["similarity"] + 0.2
    assert other["style_hit"] == 0


def test_three_later_styles_lie_beside_a_later_style() -> None:
    scenes = draw_apart(2, 5, 2, seed=1)
    made = with_others(positives(scenes, "midnight", 1), scenes, "midnight", 1)
    labels = dict.fromkeys(item.label for item in made.others)
    assert list(labels) == ["canvas", "streaks", "linocut"]


LATER_STUDY = {**GOOD, "kind": "reporting", "styles": ["porcelain", "streaks"]}


def test_a_study_is_of_one_family(tmp_path: Path) -> None:
    assert read_study(written(tmp_path, LATER_STUDY)).family == LATER_FAMILY
    assert read_study(written(tmp_path, GOOD)).family == FIRST_FAMILY
    mixed = {**LATER_STUDY, "styles": ["porcelain", "woodcut"]}
    told = r"1 wrong:\n  `styles`: expected of one family, for each has its own ruler: blueprint, "
    with pytest.raises(InputError, match=told):
        read_study(written(tmp_path, mixed))
    tuning = {**LATER_STUDY, "kind": "tuning"}
    with pytest.raises(InputError, match="`styles`: expected in a tuning study styles among neon"):
        read_study(written(tmp_path, tuning))


def test_the_ruler_is_a_fact_of_studies_of_later_styles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records by one ruler are not gone on with by another."""
    study = read_study(written(tmp_path, LATER_STUDY))
    assert "ruler" not in read_study(written(tmp_path, GOOD)).facts()
    folder = tmp_path / "out"
    check_same_study(study, folder)
    check_same_study(study, folder)
    trained_anew = replace(LATER_FAMILY, ruler=FIRST_FAMILY.ruler)
    monkeypatch.setattr("benchmarks.stylebench.families.FAMILIES", (FIRST_FAMILY, trained_anew))
    with pytest.raises(InputError, match=r"`ruler` was '\w{64}', is '\w{64}'"):
        check_same_study(study, folder)


def test_a_cell_of_a_later_style_runs(tmp_path: Path) -> None:
    data = {
        **LATER_STUDY,
        "positives": 2, "pictures": 6, "plain_pictures": 5, "measure_at": [1],
        "settings": {"batch": 2, "rank": 2, "alpha": 2.0},
        "sampler": {"steps": 2},
        "arms": {"plain": {"settings": {"rule": "plain"}}},
    }  # fmt: skip
    study = read_study(written(tmp_path, data))
    (record,) = Workshop(study, tmp_path / "out").run(Cell("porcelain", "LoRA", "plain", 3))
    assert record["style"] == "porcelain"
    assert record["metrics"]["frechet"] > 0
    assert (tmp_path / "out/pictures/porcelain/3/LoRA/plain.png").is_file()
