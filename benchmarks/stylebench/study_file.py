"""A study read from its YAML file, and everything that can be wrong with it, told at once."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import yaml

from nsync.denoiser import SamplerSettings
from nsync.errors import InputError
from nsync.negatives import NegativeSettings
from nsync.settings import TRAINS, TrainSettings

from .families import FAMILIES
from .study import BASE, EQUALS, KINDS, PICTURES, REPORTING, TOKEN, TUNING_STYLES, Arm, Study
from .trials.choice import Trial
from .world import SCENES

Value = TypeVar("Value")

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
    "measure_at", "settings", "negatives", "sampler", "arms",
)  # fmt: skip
_SEED = {"seed": "`seeds` decides"}
_NOTHING: Mapping[str, str] = {}
_COUNTS = {"positives": (2, 16), "pictures": (2, 256), "plain_pictures": (2, 64)}
"""The least and the usual of each."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]*")


def read_study(file: Path) -> Study:
    """The study that a file describes.

    Raises:
        InputError: the file cannot be read as YAML; or it is no study, and then every wrong key is
            named by its path.
    """
    try:
        data = yaml.load(file.read_text(encoding="utf-8"), Loader=_Once)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(file.name, "a YAML file", f"{type(error).__name__}: {error}") from error
    reader = _Reader()
    study = reader.study(data)
    if study is None or reader.problems:
        found = "".join(f"\n  {problem}" for problem in reader.problems)
        raise InputError(file.name, "a study", f"{len(reader.problems)} wrong:{found}\n")
    return study


class _Once(yaml.SafeLoader):
    """YAML in which a key that is there twice is an error: of two arms one would be lost."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if twice := sorted({repr(key) for key in keys if keys.count(key) > 1}):
            line = node.start_mark.line + 1
            raise ValueError(f"twice in the mapping of line {line}: {', '.join(twice)}")
        return super().construct_mapping(node, deep)


@dataclass
class _Reader:
    """Reads values by their paths and remembers what is wrong with them."""

    problems: list[str] = field(default_factory=list)

    def wrong(self, path: str, expected: str, got: object) -> None:
        """Remember a problem; a number that YAML took for a word is explained."""
        hint = ""
        if isinstance(got, str) and re.fullmatch(r"[-+]?\d+[eE][-+]?\d+", got):
            hint = f" (to YAML {got} is a word: write 5.0e-4 for 5e-4)"
        self.problems.append(f"`{path}`: expected {expected}; got {got!r}{hint}")

    def study(self, data: object) -> Study | None:
        if not self._known("study", data, _TOP):
            return None
        counts = {name: self._count(data, name, *limits) for name, limits in _COUNTS.items()}
        settings = self.filled("settings", data.get("settings"), TrainSettings(), _DECIDED)
        negatives = self.filled("negatives", data.get("negatives"), NegativeSettings(), _SEED)
        sampler = self.filled("sampler", data.get("sampler"), _SAMPLER, {})
        study = Study(
            name=self._name("name", data.get("name")),
            kind=self._choice("kind", data.get("kind"), KINDS),
            styles=self._styles(data.get("styles")),
            seeds=self._numbers("seeds", data.get("seeds"), 0),
            adapters=self._several("adapters", data.get("adapters"), TRAINS),
            measure_at=self._numbers("measure_at", data.get("measure_at"), 1),
            sampler=sampler,
            arms=self._arms(data.get("arms"), settings, negatives),
            **counts,
        )
        self._judge(study)
        return study

    def filled(
        self, path: str, given: object, defaults: Value, decided: Mapping[str, str]
    ) -> Value:
        """The dataclass value with what is given in the place of its defaults.

        Args:
            decided: fields that are not to be given, with the reason.
        """
        known = [one.name for one in fields(defaults) if one.name not in decided]
        if given is None or not self._known(path, given, known, decided):
            return defaults
        values = {}
        for name, value in given.items():
            if name in known:
                values[name] = self._typed(f"{path}.{name}", value, getattr(defaults, name))
        return replace(defaults, **values)

    def _known(
        self, path: str, given: object, known: Sequence[str], decided: Mapping[str, str] = _NOTHING
    ) -> bool:
        if not isinstance(given, Mapping):
            self.wrong(path, f"keys among {', '.join(known)}", given)
            return False
        for name in given:
            if name in decided:
                self.problems.append(f"`{path}.{name}`: not to be given, {decided[name]}")
            elif name not in known:
                self.problems.append(f"`{path}.{name}`: unknown; there are {', '.join(known)}")
        return True

    def _typed(self, path: str, value: object, default: object) -> object:
        if is_dataclass(default):
            return self.filled(path, value, default, {})
        if isinstance(default, tuple):
            if _is_list(value) and all(isinstance(one, str) for one in value):
                return tuple(value)
            expected = "a list of words"
        elif isinstance(default, float) and _is_number(value):
            return float(value)
        elif type(value) is type(default):
            return value
        else:
            expected = {bool: "true or false", int: "a whole number", float: "a number"}.get(
                type(default), "a text"
            )
        self.wrong(path, expected, value)
        return default

    def _styles(self, given: object) -> tuple[str, ...]:
        every = [family.styles for family in FAMILIES]
        names = self._several("styles", given, [name for styles in every for name in styles])
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
        name = self._name(path, name)
        if not self._known(path, given, ("settings", "negatives", "equal", "trial")):
            return Arm(name, settings, negatives)
        return Arm(
            name,
            self.filled(f"{path}.settings", given.get("settings"), settings, _DECIDED),
            self.filled(f"{path}.negatives", given.get("negatives"), negatives, _SEED),
            self._choice(f"{path}.equal", given.get("equal", EQUALS[0]), EQUALS),
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
            told.add(_complaint(replace(arm.settings, trains=adapter).check))
        self.problems += [f"`{path}.settings` {one}" for one in sorted(told - {""})]
        if told == {""}:
            self._judge_trial(path, arm, study.adapters)
        if told == {""} and (one := _complaint(lambda: arm.negatives.check(TOKEN))):
            self.problems.append(f"`{path}.negatives` {one}")
        if told == {""} and arm.equal == PICTURES:
            rivals = [one for one in study.arms if one.equal != PICTURES and _is_good(one)]
            seen = {one.pictures_per_step for one in rivals if one.branches > 1}
            if arm.pictures_per_step not in seen:
                there = " or ".join(map(str, sorted(seen))) or "(no arm has)"
                expected = f"{there} pictures a step, as an arm with negatives sees"
                self.wrong(f"{path}.equal", expected, arm.pictures_per_step)

    def _judge_trial(self, path: str, arm: Arm, adapters: Sequence[str]) -> None:
        count = arm.negatives.per_positive
        for adapter in adapters:
            settings = replace(arm.settings, trains=adapter)
            if one := _complaint(partial(arm.trial.check, settings, count)):
                self.problems.append(f"`{path}.trial` {one}")
                return

    def _name(self, path: str, value: object) -> str:
        if isinstance(value, str) and _NAME.fullmatch(value):
            return value
        self.wrong(path, "a name of letters, digits, spaces and . _ -", value)
        return "?"

    def _choice(self, path: str, value: object, choices: Sequence[str]) -> str:
        if value not in choices:
            self.wrong(path, f"one of {', '.join(choices)}", value)
            return choices[0]
        return value

    def _several(self, path: str, values: object, choices: Sequence[str]) -> tuple[str, ...]:
        if not _is_list(values) or not values or len(set(map(str, values))) < len(values):
            self.wrong(path, f"a list, each once, of {', '.join(choices)}", values)
            return ()
        return tuple(self._choice(path, value, choices) for value in values)

    def _numbers(self, path: str, values: object, least: int) -> tuple[int, ...]:
        good = _is_list(values) and values and all(type(one) is int for one in values)
        if not good or min(values) < least or len(set(values)) < len(values):
            self.wrong(path, f"a list of whole numbers from {least}, each once", values)
            return (least,)
        return tuple(values)

    def _count(self, data: Mapping[str, object], name: str, least: int, usual: int) -> int:
        value = data.get(name, usual)
        if type(value) is not int or value < least:
            self.wrong(name, f"a whole number from {least}", value)
            return least
        return value


def _is_list(value: object) -> bool:
    return isinstance(value, list)


def _is_number(value: object) -> bool:
    return type(value) in (int, float)


def _is_good(arm: Arm) -> bool:
    return not _complaint(arm.settings.check)


def _complaint(check: Callable[[], None]) -> str:
    """What a check has to say, or nothing."""
    try:
        check()
    except InputError as error:
        return str(error)
    return ""
