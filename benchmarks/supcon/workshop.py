"""Everything that a process needs to run cells of a study."""

import time
from functools import lru_cache
from pathlib import Path

from nsync.files import write_atomic
from nsync.supcon.encoders import check_captions
from nsync.supcon.pairs import LabelledPairs, read_pairs

from ..studies.pictures import strip
from ..studies.records import Record
from . import store
from .cell import paint, train_gan
from .encoders import make_encoders, read_encoders
from .measure import Instruments, Judged
from .study import REAL, Cell, Judge, Pretraining, Study, World
from .world import Test, test_of, training_set

Task = Cell | Pretraining | Judge


class Workshop:
    """The ruler, the judge, and what the cells of a world and seed share.

    Args:
        folder: of the study; see `store`.
    """

    def __init__(self, study: Study, folder: Path) -> None:
        self.study, self.folder = study, folder
        self._shared = store.shared_folder(folder)
        self._instruments = Instruments()
        self._pairs = lru_cache(1)(self._read_pairs)
        self._test = lru_cache(1)(lambda *place: test_of(study, *place))
        self._own = lru_cache(2 * len(study.arms))(self._read_own)
        self._judge = lru_cache(len(study.objects))(self._read_judge)

    def __call__(self, task: Task) -> list[Record] | None:
        """Pretrain encoders that are not there yet, or run a cell."""
        if isinstance(task, Cell):
            return [self.real(task) if task.family == REAL else self.run(task)]
        make_encoders(self.study, task, self._shared)
        return None

    def run(self, cell: Cell) -> Record:
        """The record of a cell; its first pictures go into the study's folder."""
        shared = self.study.pretraining_of(cell)
        encoders, pretraining = read_encoders(make_encoders(self.study, shared, self._shared))
        test, plan = self._test(cell.world, cell.seed), self.study.families[cell.family]
        settings = self.study.gan_settings(cell)
        check_captions(encoders, ((caption, caption) for caption in test.captions))
        trained = train_gan(settings, plan.family, encoders, self._pairs(cell.world, cell.seed))
        begun = time.process_time()
        pictures = paint(plan.family, trained.weights, encoders, test.captions, cell.draws)
        seconds = {"pretraining": pretraining, "training": trained.seconds}
        record = self._record(cell, pictures, test, self._own(shared))
        record["seconds"] = _rounded(seconds | {"measuring": time.process_time() - begun})
        if trained.steps < settings.steps:
            record["fell_apart"] = trained.steps
        return record

    def real(self, cell: Cell) -> Record:
        """The record of real pictures of the held-out captions, drawn anew."""
        test = self._test(cell.world, cell.seed)
        return self._record(cell, test.others, test, {}) | {"seconds": {}}

    def _record(self, cell: Cell, pictures: object, test: Test, more: dict[str, float]) -> Record:
        write_atomic(store.strip_file(self.folder, cell), strip(pictures[:: self._stride(test)]))
        measured = self._instruments.measure(pictures, test, self._judge(cell.objects))
        return {"study": self.study.name, **cell._asdict(), "metrics": {**measured, **more}}

    def _stride(self, test: Test) -> int:
        """So that what is shown has one picture of a caption."""
        return len(test.asked) // len(set(test.asked))

    def _read_pairs(self, world: World, seed: int) -> LabelledPairs:
        return read_pairs(training_set(self.study, world, seed), self.study.image_size)

    def _read_own(self, one: Pretraining) -> dict[str, float]:
        encoders, _ = read_encoders(make_encoders(self.study, one, self._shared))
        return Judged(encoders).own(self._test(one.world, one.seed))

    def _read_judge(self, objects: str) -> Judged:
        return Judged(read_encoders(make_encoders(self.study, Judge(objects), self._shared))[0])


def _rounded(seconds: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 2) for name, value in seconds.items()}
