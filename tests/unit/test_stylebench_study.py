"""Studies: what a file may say, what cells come of it, and how pictures are counted."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from benchmarks.stylebench.run import run_study
from benchmarks.stylebench.store import check_same_study
from benchmarks.stylebench.study import REPORTING, TUNING, TUNING_STYLES, Cell
from benchmarks.stylebench.study_file import read_study
from benchmarks.stylebench.world import base_folder, tiny_denoiser
from nsync.errors import InputError
from nsync.tiny import BASE_FOLDER
from nsync.tiny.world import HELD_OUT_STYLES

STUDIES = Path(__file__).parents[2] / "benchmarks" / "stylebench" / "studies"
GOOD = {
    "name": "good",
    "kind": "tuning",
    "styles": ["neon", "basket"],
    "seeds": [3, 1],
    "adapters": ["LoRA"],
    "measure_at": [20, 30],
    "settings": {"batch": 4, "learning_rate": 5.0e-4},
    "negatives": {"words": ["painting"], "sampler": {"steps": 9}},
    "arms": {
        "plain": {"settings": {"rule": "plain"}},
        "plain, 3": {"settings": {"rule": "plain", "batch": 12}, "equal": "pictures"},
        "nsync": {"settings": {"rule": "nsync"}, "negatives": {"from_positive": True}},
    },
}
GOOD["arms"]["plain 3"] = GOOD["arms"].pop("plain, 3")


def written(folder: Path, data: object) -> Path:
    file = folder / "study.yaml"
    file.write_text(data if isinstance(data, str) else yaml.safe_dump(data, sort_keys=False))
    return file


def changed(path: str, value: object) -> dict:
    """`GOOD` with another value at a path."""
    data = yaml.safe_load(yaml.safe_dump(GOOD))
    *folders, last = path.split(".")
    inside = data
    for name in folders:
        inside = inside[name]
    inside[last] = value
    return data


@pytest.mark.parametrize("file", sorted(STUDIES.glob("*.yaml")), ids=lambda file: file.stem)
def test_the_shipped_studies_are_studies(file: Path) -> None:
    study = read_study(file)
    assert study.name == file.stem
    apart = set(study.styles) & set(TUNING_STYLES)
    assert bool(apart) == (study.kind == TUNING)


def test_another_base_is_another_study_and_has_to_be_trained_first(tmp_path: Path) -> None:
    shipped = read_study(written(tmp_path, GOOD))
    other = read_study(written(tmp_path, changed("base_seed", 987)))
    assert other.facts() == shipped.facts() | {"base_seed": 987}
    with pytest.raises(InputError, match=r"base_987; got none.*train_base\.py --seed 987"):
        run_study(other, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_base_is_found_by_its_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.stylebench.world.BASES", tmp_path)
    shutil.copytree(BASE_FOLDER, tmp_path / "base_7")
    assert base_folder(7) == tmp_path / "base_7"
    assert base_folder(0) == BASE_FOLDER
    assert tiny_denoiser(7).identity == tiny_denoiser().identity


@pytest.mark.parametrize("name", ["rules", "embedding"])
def test_results_are_reported_on_all_other_styles(name: str) -> None:
    study = read_study(STUDIES / f"{name}.yaml")
    assert study.kind == REPORTING
    assert set(study.styles) == set(HELD_OUT_STYLES) - set(TUNING_STYLES)
    assert len(study.seeds) >= 5


def test_arms_are_overrides(tmp_path: Path) -> None:
    study = read_study(written(tmp_path, GOOD))
    assert (study.positives, study.pictures, study.plain_pictures) == (16, 256, 64)
    plain, nsync = study.arm("plain"), study.arm("nsync")
    assert plain.settings.batch == nsync.settings.batch == 4
    assert plain.settings.learning_rate == 5e-4
    assert (plain.negatives.from_positive, nsync.negatives.from_positive) == (False, True)
    assert nsync.negatives.words == ("painting",)
    assert nsync.negatives.sampler.steps == 9


def test_pictures_are_counted_over_all_branches(tmp_path: Path) -> None:
    study = read_study(written(tmp_path, GOOD))
    seen = {arm.name: (arm.positives_per_step, arm.pictures_per_step) for arm in study.arms}
    assert seen == {"plain": (4, 4), "plain 3": (12, 12), "nsync": (4, 12)}


TRIAL = {"settings": {"rule": "nsync"}, "negatives": {"per_positive": 3}}


@pytest.mark.parametrize(
    ("trial", "branches", "pictures"),
    [
        ({}, 3, 12),
        ({"several": "mean"}, 5, 20),
        ({"average": 0.5}, 3, 12),
        ({"prior": 1.0}, 4, 16),
        ({"negatives": "other captions"}, 3, 12),
    ],
)
def test_pictures_of_a_trial_are_counted(
    tmp_path: Path, trial: dict, branches: int, pictures: int
) -> None:
    arm = read_study(written(tmp_path, changed("arms.tried", {**TRIAL, "trial": trial}))).arm(
        "tried"
    )
    assert (arm.branches, arm.pictures_per_step) == (branches, pictures)


def test_a_trial_is_a_fact_of_its_arm_alone(tmp_path: Path) -> None:
    """Arms without one have the facts that they had before there were trials."""
    before = read_study(written(tmp_path, GOOD)).facts()
    data = changed("arms.tried", {**TRIAL, "trial": {"average": 0.5}})
    data["arms"]["prior"] = {"settings": {"rule": "plain"}, "trial": {"prior": 2}}
    after = read_study(written(tmp_path, data)).facts()
    assert set(before["arms"]["nsync"]) == set(before["arms"]["plain"]) == {"settings", "negatives"}
    assert {name: after["arms"][name] for name in before["arms"]} == before["arms"]
    assert after["arms"]["tried"]["trial"] == {"average": 0.5}
    assert after["arms"]["prior"]["trial"] == {"prior": 2.0}
    assert after["arms"]["prior"]["negatives"]["sampler"]["steps"] == 9
    assert before["arms"]["plain"]["negatives"] is None


def test_as_many_pictures_may_be_seen_in_more_steps(tmp_path: Path) -> None:
    longer = {"settings": {"rule": "plain", "batch": 4}, "longer": 3, "equal": "pictures"}
    facts = read_study(written(tmp_path, changed("arms.longer", longer))).facts()["arms"]
    assert facts["longer"]["longer"] == 3
    assert "longer" not in facts["plain"]
    with pytest.raises(InputError, match=r"`arms.longer.equal`: expected 12 pictures.*got 8"):
        read_study(written(tmp_path, changed("arms.longer", longer | {"longer": 2})))
    with pytest.raises(InputError, match=r"`arms.longer.longer`: expected a whole number from 1"):
        read_study(written(tmp_path, changed("arms.longer", longer | {"longer": 0})))


def test_the_records_of_the_rules_are_still_those_of_their_study(tmp_path: Path) -> None:
    kept = STUDIES.parents[2] / "docs/stylebench/rules/study.json"
    (tmp_path / "study.json").write_bytes(kept.read_bytes())
    check_same_study(read_study(STUDIES / "rules.yaml"), tmp_path)


def test_cells_go_round_styles_then_arms_then_seeds(tmp_path: Path) -> None:
    cells = list(read_study(written(tmp_path, GOOD)).cells())
    assert len(cells) == 2 * 2 * 4
    assert cells[0] == Cell("neon", "LoRA", "base", 3)
    assert [cell.style for cell in cells] == ["neon", "basket"] * 8
    assert [(cell.seed, cell.arm) for cell in cells[::2]] == [
        (seed, arm) for seed in (3, 1) for arm in ("base", "plain", "nsync", "plain 3")
    ]


def test_arms_of_a_seed_draw_the_same(tmp_path: Path) -> None:
    study = read_study(written(tmp_path, GOOD))
    plain, nsync, other = (
        study.settings(Cell("neon", "LoRA", arm, seed))
        for arm, seed in (("plain", 3), ("nsync", 3), ("plain", 1))
    )
    assert plain.seed == nsync.seed != other.seed
    assert (plain.steps, plain.preview_every) == (30, 10)
    assert replace(plain, rule="nsync") == nsync


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("colour", 1, "`study.colour`: unknown"),
        ("settings.learnig_rate", 1.0, "`settings.learnig_rate`: unknown"),
        ("settings.steps", 5, "`settings.steps`: not to be given, the last of `measure_at`"),
        ("settings.batch", 2.0, "`settings.batch`: expected a whole number; got 2.0"),
        ("settings.batch", 0, "`arms.plain.settings` `batch`: expected `batch` at least 1"),
        ("settings.learning_rate", "5e-4", r"write 5.0e-4 for 5e-4"),
        ("settings.shared_noise", 1, "`settings.shared_noise`: expected true or false"),
        ("negatives.seed", 1, "`negatives.seed`: not to be given"),
        ("negatives.sampler.step", 1, "`negatives.sampler.step`: unknown"),
        ("negatives.words", ["sks"], "`arms.plain.negatives` `generic_words`"),
        ("arms.nsync.settings.rule", "nsink", "`arms.nsync.settings` `rule`: expected"),
        ("arms.nsync.trial", {"avarage": 0.5}, "`arms.nsync.trial.avarage`: unknown; there are"),
        ("arms.nsync.trial", {"average": "0.5"}, "`arms.nsync.trial.average`: expected a number"),
        ("arms.nsync.trial", {"average": 2}, "`arms.nsync.trial` `average`: expected a decay"),
        ("arms.nsync.trial", {"several": "mean"}, "`several`: expected an arm with `per_positive`"),
        ("arms.plain.trial", {"times": "low noise"}, "`arms.plain.trial` `times`: expected a rule"),
        ("arms.nsync.equals", "steps", "`arms.nsync.equals`: unknown"),
        ("arms.plain 3.settings.batch", 8, "`arms.plain 3.equal`: expected 12 pictures a step"),
        ("arms.nsync.equal", "pictures", r"`arms.nsync.equal`: expected \(no arm has\) pictures"),
        ("arms.base", {}, "`arms.base`: the untrained base has this name"),
        ("arms", {}, "`arms`: expected at least one arm"),
        ("styles", ["neon", "cubism"], "`styles`: expected one of blueprint, .*'cubism'"),
        ("styles", ["neon", "comic"], "`styles`: expected in a tuning study styles among"),
        ("styles", ["neon", "neon"], "`styles`: expected a list, each once"),
        ("seeds", [1, 1], "`seeds`: expected a list of whole numbers"),
        ("adapters", ["lora"], "`adapters`: expected one of LoRA"),
        ("measure_at", [30, 20], "`measure_at`: expected ascending steps"),
        ("measure_at", [0], "`measure_at`: expected a list of whole numbers from 1"),
        ("pictures", 1200, "`positives, pictures, plain_pictures`: expected at most 1125"),
        ("kind", "final", "`kind`: expected one of tuning, reporting"),
        ("name", "../x", "`name`: expected a name of letters"),
        ("sampler", {"steps": 0}, "`sampler`: expected steps from 1"),
    ],
)
def test_a_wrong_key_is_told_by_its_path(
    tmp_path: Path, path: str, value: object, told: str
) -> None:
    with pytest.raises(InputError, match=told):
        read_study(written(tmp_path, changed(path, value)))


def test_everything_wrong_is_told_at_once(tmp_path: Path) -> None:
    data = changed("settings.learnig_rate", 1.0) | {"styles": ["cubism"], "seeds": []}
    data["arms"]["plain"] = {"setting": {}}
    with pytest.raises(InputError) as caught:
        read_study(written(tmp_path, data))
    for path in ("settings.learnig_rate", "styles", "seeds", "arms.plain.setting"):
        assert f"`{path}`" in str(caught.value)


def test_an_arm_that_is_there_twice_is_an_error(tmp_path: Path) -> None:
    text = "name: x\narms:\n  a: {}\n  b: {}\n  a: {}\n"
    with pytest.raises(InputError, match=r"twice in the mapping of line 3: 'a'"):
        read_study(written(tmp_path, text))
    with pytest.raises(InputError, match="expected keys among name"):
        read_study(written(tmp_path, "- a list\n"))
    with pytest.raises(InputError, match="expected a YAML file"):
        read_study(tmp_path / "none.yaml")
