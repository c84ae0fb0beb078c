"""A study read from its YAML file, and everything that can be wrong with it, told at once."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from nsync.supcon.gan import FAMILIES
from nsync.supcon.gan.settings import defaults
from nsync.supcon.gan.training import check_penalties
from nsync.supcon.pretrain_settings import PretrainSettings
from nsync.tiny.labelled import LABEL_BY, STYLE
from nsync.tiny.world import STYLES

from ..studies.yaml_reader import Reader, complaint
from .arms import CONTRASTS, PHASES
from .study import CAPTIONS, DECIDED_SIZES, OBJECTS, WHOLE, ClipSizes, Plan, Study
from .world import contents_of

_ARM = "the arm decides"
_PACE = {
    "seed": "`seeds` decides",
    "contrast": _ARM,
    "save_every": "a cell keeps no state",
    "pause_every": "a cell is never paused",
}
_PRETRAINING = {**_PACE, "validation": "the held-out scenes are looked at"}
_GAN = {**_PACE, "preview_every": "nobody looks on"}
_COUNTS = {
    "image_size": (16, 64),
    "pictures": (8, 800),
    "held_out": (1, 25),
    "per_caption": (1, 4),
    "encoder_width": (32, 64),
}
"""The least and the usual of each."""
_TOP = (
    "name", "families", "contrasts", "phases", "labels", "objects", "seeds", "styles",
    "captions", "clip", "pretraining", "clip_pretraining", "gan", *_COUNTS,
)  # fmt: skip


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
        pretraining = self.filled(
            "pretraining", data.get("pretraining"), PretrainSettings(), _PRETRAINING
        )
        study = Study(
            name=self.name("name", data.get("name")),
            families=self._families(data, counts),
            contrasts=self.several("contrasts", data.get("contrasts"), CONTRASTS),
            phases=self.several("phases", data.get("phases"), PHASES),
            labels=self.several("labels", data.get("labels"), LABEL_BY),
            objects=self.several("objects", data.get("objects"), OBJECTS),
            seeds=self.numbers("seeds", data.get("seeds"), 0),
            styles=self.several("styles", data.get("styles"), tuple(STYLES)),
            captions=self.choice("captions", data.get("captions", WHOLE), CAPTIONS),
            clip=self.filled("clip", data.get("clip"), ClipSizes(), {}),
            pretraining=pretraining,
            clip_pretraining=self.filled(
                "clip_pretraining", data.get("clip_pretraining"), pretraining, _PRETRAINING
            ),
            **counts,
        )
        self._judge(study)
        return study

    def _families(self, data: Mapping[str, object], counts: Mapping[str, int]) -> dict[str, Plan]:
        given = data.get("families")
        if not isinstance(given, Mapping) or not given:
            self.wrong("families", f"some of {', '.join(FAMILIES)} by name", given)
            return {}
        known = [name for name in given if self.choice("families", name, tuple(FAMILIES)) == name]
        return {name: self._plan(name, given[name], data.get("gan"), counts) for name in known}

    def _plan(self, name: str, given: object, gan: object, counts: Mapping[str, int]) -> Plan:
        path = f"families.{name}"
        sizes = {"image_size": counts["image_size"], "text_width": counts["encoder_width"]}
        family = FAMILIES[name](**sizes)
        settings = self.filled("gan", gan, defaults(family), _GAN)
        if given is None or not self.known(path, given, ("networks", "gan")):
            return Plan(family, settings)
        networks = self.filled(f"{path}.networks", given.get("networks"), family, DECIDED_SIZES)
        return Plan(networks, self.filled(f"{path}.gan", given.get("gan"), settings, _GAN))

    def _judge(self, study: Study) -> None:
        """What only whole values can be asked."""
        self._ask("pretraining", study.pretraining.check)
        self._ask("clip_pretraining", study.clip_pretraining.check)
        for name, plan in study.families.items():
            self._ask(f"families.{name}.networks", plan.family.check)
            self._ask(f"families.{name}.gan", plan.settings.check)
            self._ask(f"families.{name}.gan", partial(check_penalties, plan.settings, plan.family))
        if study.image_size % 8 or study.image_size % study.clip.grid:
            self.wrong("image_size", f"a multiple of 8 and {study.clip.grid}", study.image_size)
        if study.encoder_width % 32:
            self.wrong("encoder_width", "a multiple of 32", study.encoder_width)
        for objects in study.objects:
            most = len(contents_of(objects)) - 1
            if study.held_out > most:
                self.wrong("held_out", f"at most {most}, of all scenes but one", study.held_out)
        if len(study.styles) < 2 and STYLE in study.labels:
            self.wrong("styles", "at least two, to be labels", list(study.styles))

    def _ask(self, path: str, check: Callable[[], None]) -> None:
        if told := complaint(check):
            self.problems.append(f"`{path}` {told}")
