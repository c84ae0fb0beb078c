"""A study read from its YAML file, and everything that can be wrong with it, told at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from nsync.denoiser import SamplerSettings
from nsync.negatives import NegativeSettings
from nsync.settings import TRAINS, TrainSettings

from ..studies.yaml_reader import Reader, complaint
from .families import FAMILIES
from .study import BASE, EQUALS, KINDS, PICTURES, REPORTING, TOKEN, TUNING_STYLES, Arm, Study
from .trials.choice import Trial
from .world import SCENES

_SAMPLER = SamplerSettings(steps=12, guidance=3.0)
_DECIDED = {
    "steps": "the last of `measure_at` decides",
    "seed": "`seeds` decides",
    "trains": "`adapters` decides",
    "preview_every": "`measure_at` decides",
    "validation": "all positives are trained on",
    "save_every": "a cell keeps no state",
    "pause_every": "a cell is never paused",
}
_TOP = (
    "name", "kind", "styles", "seeds", "adapters", "positives", "pictures", "plain_pictures",
    "measure_at", "settings", "negatives", "sampler", "arms", "base_seed",
)  # fmt: skip
_SEED = {"seed": "`seeds` decides"}
_COUNTS = {"positives": (2, 16), "pictures": (2, 256), "plain_pictures": (2, 64)}
"""The least and the usual of each."""


def read_study(file: Path) -> Study:
    """The study that a file describes.

    Raises:
        InputError: the file cannot be read as YAML; or it is no study, and then every wrong key is
            named by its path.
    """
    return _Reader().read(file)


@dataclass
class _Reader(Reader):
    """Reads a study."""

    def study(self, data: object) -> Study | None:
        if not self.known("study", data, _TOP):
            return None
        counts = {name: self.count(data, name, *limits) for name, limits in _COUNTS.items()}
        settings = self.filled("settings", data.get("settings"), TrainSettings(), _DECIDED)
        negatives = self.filled("negatives", data.get("negatives"), NegativeSettings(), _SEED)
        sampler = self.filled("sampler", data.get("sampler"), _SAMPLER, {})
        study = Study(
            name=self.name("name", data.get("name")),
            kind=self.choice("kind", data.get("kind"), KINDS),
            styles=self._styles(data.get("styles")),
            seeds=self.numbers("seeds", data.get("seeds"), 0),
            adapters=self.several("adapters", data.get("adapters"), TRAINS),
            measure_at=self.numbers("measure_at", data.get("measure_at"), 1),
            sampler=sampler,
            arms=self._arms(data.get("arms"), settings, negatives),
            base_seed=self.whole("base_seed", data.get("base_seed", 0), 0),
            **counts,
        )
        self._judge(study)
        return study

    def _styles(self, given: object) -> tuple[str, ...]:
        every = [family.styles for family in FAMILIES]
        names = self.several("styles", given, [name for styles in every for name in styles])
        if names and sum(any(name in styles for name in given) for styles in every) > 1:
            expected = "of one family, for each has its own ruler: "
            self.wrong("styles", expected + ", or ".join(map(", ".join, every)), given)
        return names

    def _arms(
        self, given: object, settings: TrainSettings, negatives: NegativeSettings
    ) -> tuple[Arm, ...]:
        if not isinstance(given, Mapping) or not given:
            self.wrong("arms", "at least one arm by its name", given)
            return ()
        return tuple(self._arm(name, one, settings, negatives) for name, one in given.items())

    def _arm(
        self, name: object, given: object, settings: TrainSettings, negatives: NegativeSettings
    ) -> Arm:
        path = f"arms.{name}"
        if name == BASE:
            self.problems.append(f"`{path}`: the untrained base has this name; choose another")
        name = self.name(path, name)
        if not self.known(path, given, ("settings", "negatives", "equal", "longer", "trial")):
            return Arm(name, settings, negatives)
        return Arm(
            name,
            self.filled(f"{path}.settings", given.get("settings"), settings, _DECIDED),
            self.filled(f"{path}.negatives", given.get("negatives"), negatives, _SEED),
            self.choice(f"{path}.equal", given.get("equal", EQUALS[0]), EQUALS),
            self.whole(f"{path}.longer", given.get("longer", 1), 1),
            self.filled(f"{path}.trial", given.get("trial"), Trial(), {}),
        )

    def _judge(self, study: Study) -> None:
        """What only whole values can be asked."""
        for style in study.styles:
            if (style in TUNING_STYLES) == (study.kind == REPORTING):
                which = "other styles than" if study.kind == REPORTING else "styles among"
                expected = f"in a {study.kind} study {which} {', '.join(TUNING_STYLES)}"
                self.wrong("styles", expected, style)
        scenes = study.positives + study.pictures + study.plain_pictures
        if scenes > SCENES:
            keys = "positives, pictures, plain_pictures"
            self.wrong(keys, f"at most {SCENES} together, which all scenes are", scenes)
        if list(study.measure_at) != sorted(study.measure_at):
            self.wrong("measure_at", "ascending steps", list(study.measure_at))
        sampler = study.sampler
        if sampler.steps < 1 or not 0 <= sampler.guidance < float("inf"):
            self.wrong("sampler", "steps from 1, guidance from 0", sampler)
        for arm in study.arms:
            self._judge_arm(study, arm)

    def _judge_arm(self, study: Study, arm: Arm) -> None:
        path = f"arms.{arm.name}"
        told = set()
        for adapter in study.adapters:
            told.add(complaint(replace(arm.settings, trains=adapter).check))
        self.problems += [f"`{path}.settings` {one}" for one in sorted(told - {""})]
        if told == {""}:
            self._judge_trial(path, arm, study.adapters)
        if told == {""} and (one := complaint(lambda: arm.negatives.check(TOKEN))):
            self.problems.append(f"`{path}.negatives` {one}")
        if told == {""} and arm.equal == PICTURES:
            rivals = [one for one in study.arms if one.equal != PICTURES and _is_good(one)]
            seen = {one.pictures_per_study_step for one in rivals if one.branches > 1}
            if arm.pictures_per_study_step not in seen:
                there = " or ".join(map(str, sorted(seen))) or "(no arm has)"
                expected = f"{there} pictures a step, as an arm with negatives sees"
                self.wrong(f"{path}.equal", expected, arm.pictures_per_study_step)

    def _judge_trial(self, path: str, arm: Arm, adapters: Sequence[str]) -> None:
        count = arm.negatives.per_positive
        for adapter in adapters:
            settings = replace(arm.settings, trains=adapter)
            if one := complaint(partial(arm.trial.check, settings, count)):
                self.problems.append(f"`{path}.trial` {one}")
                return


def _is_good(arm: Arm) -> bool:
    return not complaint(arm.settings.check)
