"""The ablation's instrument: what a study may say, its worlds and arms, measures and analysis."""

import json
import math
from collections import Counter
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from benchmarks.studies.records import read
from benchmarks.supcon.analysis import METHOD, METRICS, PRIMARY, analyse
from benchmarks.supcon.arms import CONTRASTS, PHASES, Arm, arm_of, gan_weights, pretraining_weights
from benchmarks.supcon.measure import CLASSES, CONTENT, Instruments, Judged
from benchmarks.supcon.report import as_csv, as_markdown
from benchmarks.supcon.store import Records
from benchmarks.supcon.study import REAL, Cell, Study, World
from benchmarks.supcon.study_file import read_study
from benchmarks.supcon.world import (
    FACTS,
    caption_of,
    contents_of,
    judge_set,
    test_of,
    training_set,
)
from nsync.draws import generator
from nsync.errors import InputError
from nsync.evaluation import inception_score
from nsync.tiny.ruler import TABLES
from nsync.tiny.scenes import COLOURS, PLACES, SHAPES
from nsync.tiny.world import Styled

test_of.__test__ = False  # a function of the benchmark

STUDIES = Path(__file__).parents[2] / "benchmarks" / "supcon" / "studies"
SHORT = STUDIES / "short.yaml"


def short(**changes: object) -> Study:
    return replace(read_study(SHORT), **changes)


def written(folder: Path, **changes: object) -> Path:
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(SHORT.read_text()) | changes))
    return file


@pytest.mark.parametrize("file", sorted(STUDIES.glob("*.yaml")), ids=lambda file: file.stem)
def test_the_shipped_studies_are_studies(file: Path) -> None:
    assert read_study(file).name == file.stem


def test_everything_that_is_wrong_is_named_at_once(tmp_path: Path) -> None:
    families = {
        "SSA-GAN": {"networks": {"width": 0}},
        "BigGAN": {},
        "AttnGAN": {"gan": {"r1_gamma": 1.0}},
    }
    file = written(
        tmp_path, families=families, contrasts=["supcon", "simclr"], image_size=20, held_out=125,
        pretraining={"contrast": "none", "batch": 1}, seed=3,
    )  # fmt: skip
    with pytest.raises(InputError) as caught:
        read_study(file)
    told = str(caught.value)
    for part in (
        "`study.seed`: unknown", "'BigGAN'", "'simclr'", "`pretraining.contrast`: not to be given",
        "`families.SSA-GAN.networks`", "`families.AttnGAN.gan` `r1_gamma`: expected 0",
        "`image_size`: expected a multiple of 8", "`held_out`: expected at most 124",
    ):  # fmt: skip
        assert part in told, part


def test_arms_are_every_use_in_every_phase_with_equal_weights() -> None:
    study = short(contrasts=CONTRASTS, phases=PHASES)
    assert len(study.arms) == 1 + 6 * 3
    assert next(iter(study.arms)) == "none"
    assert study.arms["supcon inter, GAN only"] == Arm("none", "supcon inter")
    assert study.arms["unicl, pretraining only"] == Arm("unicl", "none")
    assert study.arms[METHOD] == Arm("supcon", "supcon")
    assert all(arm.name == name for name, arm in study.arms.items())
    for use in CONTRASTS:
        assert sum(pretraining_weights(use, 1.0)) == pytest.approx(1)
        assert sum(gan_weights(use, 0.2)) == pytest.approx(0.2)
        assert gan_weights(use, 0.2).text_text == 0
    for phase in PHASES:
        inter = study.pretraining_settings(
            study.pretraining_of(
                Cell("SSA-GAN", arm_of("supcon inter", phase).name, "shape", "one", 0)
            )
        )
        used = phase != "GAN only"
        assert (inter.contrast, inter.image_image) == (("supcon", 0.0) if used else ("none", 0.06))
        settings = study.gan_settings(
            Cell("SSA-GAN", arm_of("supcon inner", phase).name, "shape", "one", 0)
        )
        used = phase != "pretraining only"
        terms = (settings.image_image, settings.image_text, settings.text_image)
        assert settings.contrast == ("supcon" if used else "none")
        if used:
            assert terms == pytest.approx((0.2, 0, 0))


def test_cells_come_phase_by_phase_and_share_encoders() -> None:
    study = short(
        contrasts=("supcon", "unicl"), phases=PHASES, labels=("style", "shape"),
        objects=("one", "several"), seeds=(4, 2),
    )  # fmt: skip
    cells = list(study.cells())
    wanted = set(product(study.families, study.arms, study.labels, study.objects, study.seeds))
    wanted |= set(product([REAL], [REAL], study.labels, study.objects, study.seeds))
    assert set(cells) == wanted
    assert len(cells) == len(wanted)
    trained = [cell for cell in cells if cell.family != REAL]
    one, several = trained[: len(trained) // 2], trained[len(trained) // 2 :]
    assert {cell.objects for cell in one} == {"one"}
    assert {cell.objects for cell in several} == {"several"}
    every = 2 * 2 * 2  # families, labels, seeds
    arms = [cell.arm for cell in one]
    _, first, *others = study.arms
    assert others[0] == arm_of("unicl", PHASES[0]).name
    assert Counter(arms[: 2 * every]) == {"none": every, first: every}
    assert arms[2 * every :] == [arm for arm in others for _ in range(every)]
    shared = Counter(study.pretraining_of(c) for c in cells if c.family == "SSA-GAN")
    # none and both contrasts in the GAN only; each contrast in pretraining only and in both.
    assert sorted(shared.values()) == sorted([3, 2, 2] * 8)
    assert study.gan_settings(cells[1]).seed == study.gan_settings(cells[2]).seed


@pytest.mark.parametrize(
    ("labels", "objects"), list(product(("style", "shape"), ("one", "several")))
)
def test_what_is_asked_for_was_never_trained_on(labels: str, objects: str) -> None:
    study = short(pictures=500, held_out=20, per_caption=2)
    training = training_set(study, World(labels, objects), 3)
    test = test_of(study, World(labels, objects), 3)
    assert len(training) == 500
    assert len(test.asked) == 20 * 2 * 2
    assert not {item.caption for item in training.items} & set(test.captions)
    assert test.real.shape == test.others.shape == (80, 3, 16, 16)
    assert (test.real != test.others).any()
    named = {item.label for item in training.items}
    assert named == (set(SHAPES) if labels == "shape" else {"neon", "comic"})
    for item in training.items:
        assert item.label.rstrip("s") in item.caption
        assert item.caption.split()[0] in (("a",) if objects == "one" else ("two", "three"))
    assert len(contents_of(objects)) == (125 if objects == "one" else 250)
    again = test_of(study, World(labels, objects), 3)
    assert torch.equal(again.real, test.real)
    assert test_of(study, World(labels, objects), 4).captions != test.captions
    other = World("shape" if labels == "style" else "style", objects)
    assert test_of(study, other, 3).captions != test.captions


@pytest.mark.parametrize("objects", ["one", "several"])
def test_half_a_caption_names_two_things_of_four(objects: str) -> None:
    scenes = contents_of(objects)
    assert all(caption_of(one, FACTS) == one.caption for one in (Styled(s, "neon") for s in scenes))
    world, study = World("several labels", objects), short(pictures=300, captions="half")
    halves, wholes = (
        training_set(each, world, 3).items for each in (study, replace(study, captions="whole"))
    )
    missing = Counter()
    for half, whole in zip(halves, wholes, strict=True):
        assert half.label == whole.label
        assert torch.equal(half.pixels, whole.pixels)
        style, shape, colour, place = (name.strip() for name in half.label.split(","))
        words = half.caption.split()
        told = {
            "style": f"in the style of {style}" in half.caption,
            "shape": not {"shape", "shapes"} & set(words),
            "colour": colour in words,
            "place": place in half.caption,
        }
        assert sum(told.values()) == 2
        assert told["shape"] == (shape in half.caption)
        assert caption_of(styled(whole.caption), [f for f in FACTS if told[f]]) == half.caption
        missing.update(fact for fact in FACTS if not told[fact])
    assert min(missing.values()) > 110
    assert {item.caption for item in judge_set(study, objects).items} >= set(
        test_of(study, world, 3).captions
    )


def styled(caption: str) -> Styled:
    """What a whole caption speaks of."""
    every = (Styled(s, style) for name in ("one", "several") for s in contents_of(name)
             for style in ("neon", "comic"))  # fmt: skip
    return next(one for one in every if one.caption == caption)


@pytest.mark.parametrize("objects", ["one", "several"])
def test_nothing_is_new_to_the_judge(objects: str) -> None:
    study = short(pictures=20)
    seen = {item.caption for item in judge_set(study, objects).items}
    test = test_of(study, World("style", objects), 0)
    assert set(test.captions) <= seen


def test_real_pictures_are_read_as_what_they_are() -> None:
    study = short(image_size=64, held_out=10, per_caption=1)
    test = test_of(study, World("shape", "one"), 0)
    right = _measured(test.others, test)
    assert all(right[name] > 0.9 for name in ("style", *CONTENT))
    turned = torch.cat([test.others[10:], test.others[:10]])
    wrong = _measured(turned, test)
    assert wrong["all"] < 0.2
    assert right["frechet"] < _measured(test.others // 2, test)["frechet"]
    assert wrong["frechet"] == pytest.approx(right["frechet"])
    assert right["precision"] == pytest.approx(1 / 20)  # all alike


class Blind(torch.nn.Module):
    """Encoders to whom everything is alike."""

    def images(self, pixels):
        return type("Pictures", (), {"whole": torch.ones(len(pixels), 4)})

    def texts(self, captions):
        return type("Words", (), {"sentence": torch.ones(len(captions), 4)})


class Told(torch.nn.Module):
    """Encoders that say these features of pictures, and a draw of its own of each caption."""

    def __init__(self, whole):
        super().__init__()
        self.whole = whole.split(64)

    def images(self, pixels):
        first, *rest = self.whole
        self.whole = rest
        return type("Pictures", (), {"whole": first})

    def texts(self, captions):
        draws = [torch.randn(5, generator=generator(0, caption)) for caption in captions]
        return type("Words", (), {"sentence": torch.stack(draws)})


def test_the_margin_is_that_to_the_nearest_caption_that_says_one_thing_otherwise() -> None:
    study = short(held_out=20, per_caption=2)
    test = test_of(study, World("style", "one"), 0)
    assert set(test.near) == set(test.captions)
    whole = torch.randn(len(test.captions), 5, generator=torch.Generator().manual_seed(1))
    margins = []
    for asked, image in zip(test.asked, whole, strict=True):
        near = [replace(asked, style=s) for s in study.styles if s != asked.style]
        for name, table in (("shape", SHAPES), ("colour", COLOURS), ("place", PLACES)):
            others = set(range(len(table))) - {getattr(asked.scene, name)}
            near += [replace(asked, scene=replace(asked.scene, **{name: k})) for k in others]
        assert sorted(test.near[asked.caption]) == sorted(one.caption for one in near)
        own, *others = Told(whole).texts([asked.caption, *(one.caption for one in near)]).sentence
        cosine = [float(torch.cosine_similarity(image, text, dim=0)) for text in (own, *others)]
        margins.append(cosine[0] - max(cosine[1:]))
    own = Judged(Told(whole)).own(test)
    assert own["own_margin"] == pytest.approx(sum(margins) / len(margins))


def _measured(pictures, test):
    return Instruments().measure(pictures, test, Judged(Blind()))


def test_the_classes_of_the_inception_score_are_all_combinations() -> None:
    study = short(image_size=64, held_out=2, per_caption=1)
    test, instruments = test_of(study, World("shape", "one"), 0), Instruments()
    read_ = instruments.read(test.real)
    tables = [read_.probabilities[name].double().tolist() for name in CLASSES]
    joint = [
        [a / sum(one) * b / sum(two) * c / sum(three) for a in one for b in two for c in three]
        for one, two, three in zip(*tables, strict=True)
    ]
    assert len(joint[0]) == math.prod(len(TABLES[name]) for name in CLASSES)
    expected = inception_score(np.array(joint))
    found = instruments.measure(test.real, test, Judged(Blind()))
    assert found["inception"] == pytest.approx(expected, rel=1e-9)


def record(arm: str, seed: int, labels: str = "style", family: str = "SSA-GAN", **metrics) -> dict:
    usual = {name: 0.5 for name in METRICS if name != "frechet"} | {"frechet": 100.0}
    return {
        "study": "x", "family": family, "arm": arm, "labels": labels, "objects": "one",
        "seed": seed, "metrics": usual | metrics, "seconds": {"training": 36.0},
    }  # fmt: skip


def made(effects: dict[str, float], seeds: int = 10) -> list[dict]:
    """The distance of each arm is that of none times an effect; worlds have scales of their own."""
    rng = np.random.default_rng(0)
    records = []
    for labels, scale in (("style", 100.0), ("shape", 900.0)):
        for seed in range(seeds):
            base = scale * math.exp(rng.normal(0, 0.4))
            records.append(record("none", seed, labels, frechet=base, all=0.4))
            for arm, effect in effects.items():
                ours = base * effect * math.exp(rng.normal(0, 0.05))
                records.append(record(arm, seed, labels, frechet=ours, all=0.4 + 0.01 * seed))
    return records


def test_differences_are_paired_and_relative() -> None:
    records = made({METHOD: 0.8, "unicl, both": 1.0, "classifier, both": 1.3})
    found = analyse(records)
    by = {(r["arm"], (r["labels"], r["seed"])): r["metrics"]["frechet"] for r in records}
    units = list(product(("style", "shape"), range(10)))
    logs = [math.log(by[METHOD, unit] / by["none", unit]) for unit in units]
    one = found.difference("SSA-GAN", METHOD, PRIMARY)
    assert one.value.value == pytest.approx(100 * (math.exp(np.mean(logs)) - 1))
    assert one.value.low < -20 < one.value.high < -15
    assert (one.units, one.missing, one.shown) == (20, 0, "better")
    assert found.difference("SSA-GAN", "unicl, both", PRIMARY).shown == "no difference shown"
    assert found.difference("SSA-GAN", "classifier, both", PRIMARY).shown == "worse"
    plain = found.difference("SSA-GAN", METHOD, "all")
    assert plain.value.value == pytest.approx(0.045)
    assert plain.shown == "better"
    assert analyse(records[::-1]).difference("SSA-GAN", METHOD, PRIMARY) == one


def test_the_method_is_asked_first_and_all_others_are_corrected() -> None:
    effects = {METHOD: 0.9, "unicl, both": 0.98, "classifier, both": 1.01, "nt-xent, both": 0.9}
    records = made(effects, seeds=4)
    other = [one | {"family": "GALIP"} for one in made({METHOD: 0.9}, seeds=4)]
    found = analyse(records + other)
    first, *rows = [found.difference("SSA-GAN", arm, PRIMARY) for arm in effects]
    assert first.p_holm == first.p == pytest.approx(2 / 2**8)
    ranked = sorted(row.p for row in rows)
    holm = {}
    for place, p in enumerate(ranked):
        holm[p] = min(1.0, max([(3 - place) * p, *holm.values()]))
    assert [row.p_holm for row in rows] == pytest.approx([holm[row.p] for row in rows])
    alone = found.difference("GALIP", METHOD, PRIMARY)
    assert alone.p_holm == alone.p
    assert alone.p == pytest.approx(2 / 2**8)


def test_pairs_without_a_side_are_left_out_and_told() -> None:
    records = made({METHOD: 0.8}, seeds=3)
    records.remove(next(r for r in records if r["arm"] == "none"))
    found = analyse(records)
    one = found.difference("SSA-GAN", METHOD, PRIMARY)
    assert (one.units, one.missing) == (5, 1)
    with pytest.raises(InputError, match="records of trained cells"):
        analyse([record(REAL, 0, family=REAL)])


def test_the_tables_have_what_was_found() -> None:
    records = [record(REAL, s, family=REAL, frechet=5.0) for s in range(3)]
    records += [*made({METHOD: 0.8}), record("none", 99) | {"fell_apart": 3}]
    found = analyse(records)
    told = as_markdown(found)
    one = found.difference("SSA-GAN", METHOD, PRIMARY)
    assert f"Frechet distance {one.value.value:+.0f} % [" in told
    assert "**better**" in told
    assert "SSA-GAN, none: 1" in told
    lines = as_csv(found).splitlines()
    assert [line.split(",")[0] for line in lines[1:]] == [REAL, "SSA-GAN", "SSA-GAN"]
    assert json.loads(json.dumps(found.as_dict()))["differences"][0]["shown"] == "better"


@pytest.mark.parametrize("cut", [1, 40, 100])
def test_a_torn_record_is_run_again(tmp_path: Path, cut: int) -> None:
    study, cells = short(), list(short().cells())
    records = Records(study, tmp_path)
    for cell in cells[:2]:
        records.add([{"study": "short", **cell._asdict(), "metrics": {}}])
    file = tmp_path / "records.jsonl"
    file.write_bytes(file.read_bytes()[:-cut])
    again = Records(study, tmp_path)
    assert again.done == set(cells[:1])
    again.add([{"study": "short", **cells[1]._asdict(), "metrics": {}}])
    assert len(read(file)) == 2


def test_a_changed_study_is_told_and_cells_may_be_added(tmp_path: Path) -> None:
    study = short()
    Records(study, tmp_path)
    Records(short(contrasts=("supcon", "unicl"), phases=PHASES, seeds=(0, 1)), tmp_path)
    plan = study.families["SSA-GAN"]
    slower = replace(plan, settings=replace(plan.settings, steps=9))
    families = {**study.families, "SSA-GAN": slower}
    with pytest.raises(InputError) as caught:
        Records(short(families=families, per_caption=5), tmp_path)
    lines = [line.strip(" .") for line in str(caught.value).splitlines()[1:-1]]
    assert lines == [
        "`families.SSA-GAN.settings.steps` was 4, is 9",
        "`per_caption` was 2, is 5",
    ]
