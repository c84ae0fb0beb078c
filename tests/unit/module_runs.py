"""A loop over two modules, as small as can be: what `ModuleLearner` and a session make of it."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from nsync.draws import generator
from nsync.runs.judgements import CADENCE, differing
from nsync.runs.parts import TrainResult
from nsync.runs.session import Session
from nsync.runs.standing import Standing
from nsync.supcon.gan.averaging import Average
from nsync.supcon.learner import ModuleLearner, ModulesLearned


@dataclass(frozen=True)
class Duel:
    """Settings of the loop."""

    steps: int = 6
    rate: float = 0.05
    seed: int = 0
    log_every: int = 4
    preview_every: int = 0
    validate_every: int = 3
    save_every: int = 2
    keep_last: int = 2
    pause_every: int = 0
    score_every: int = 100

    def differs(self, other: "Duel") -> dict[str, tuple[object, object]]:
        return differing(self, other, CADENCE | {"steps"})


@dataclass
class Duellists:
    """A painter with running statistics, a judge, the painter's average; `spoil` makes a number of
    the step bad, `told` is called between the two updates."""

    spoil: Mapping[int, str] = field(default_factory=dict)
    told: Callable[[int], None] = lambda step: None
    device: str = "cpu"

    def __post_init__(self) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.painter = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
            self.judge = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
        self.painter.to(self.device)
        self.judge.to(self.device)
        self.average = Average(self.painter, 0.9)
        modules = {"painter": self.painter, "judge": self.judge}
        optimizers = {
            name: torch.optim.Adam(module.parameters(), lr=0.05, betas=(0.5, 0.9))
            for name, module in modules.items()
        }
        self.learner = ModuleLearner(modules, optimizers, self.average)

    def step(self, session: Session, settings: Duel, step: int) -> None:
        with self.learner.attempt() as attempt:
            drawn = generator(settings.seed, step)
            noise = torch.randn(16, 4, generator=drawn).to(self.device)
            real = 1 + torch.randn(16, 3, generator=drawn).to(self.device)
            noise = noise * self._bad(step, "noise")
            fake = self.painter(noise)
            judged = self.judge(fake.detach()).mean() - self.judge(real).mean()
            judged = judged + 0.1 * self.judge(real).square().mean()
            norms = {"norm_judge": self.learner.update("judge", judged, most=1.0)}
            self.told(step)
            painted = -self.judge(fake).mean() * self._bad(step, "painted")
            norms["norm_painter"] = self.learner.update("painter", painted)
            self.average.update(self.painter)
            losses = {"loss_painter": painted, "loss_judge": judged}
            attempt.good = session.readings.add(step + 1, losses | norms, {"rate": 0.05})

    def _bad(self, step: int, where: str) -> float:
        return float("nan") if self.spoil.get(step) == where else 1.0


def run_duel(
    folder: Path,
    settings: Duel = Duel(),
    duellists: Duellists | None = None,
    *,
    config: Mapping[str, object] | None = None,
    watched: bool = False,
    **given,
) -> TrainResult:
    """Run, or go on; `given` goes to the session."""
    duellists = duellists or Duellists()
    whole = {"kind": "a duel", "settings": asdict(settings), "labelled": "aaaa", **(config or {})}
    headline = "loss_painter"
    run = Standing(folder / "run", settings, whole, headline=headline, watched=watched)
    if result := run.result():
        return result
    log, _ = run.begin()
    run.load(duellists.learner)

    def export(learned: ModulesLearned, steps: int) -> dict[str, Path]:
        file = folder / f"painter_{steps}"
        file.touch()
        given.get("kept", []).append(learned)
        return {"painter": file}

    usual = {"validation": lambda: {"loss_validation": float(duellists.judge(torch.ones(1, 3)))}}
    options = usual | {name: value for name, value in given.items() if name != "kept"}
    session = Session(settings, run.run, log, duellists.learner, export, run.begun, **options)
    session.look_at_the_start()
    with session.kept_if_stopped():
        for step in range(run.begun, settings.steps):
            duellists.step(session, settings, step)
            if session.after_step(step + 1):
                break
        files = session.exported()
    return session.finish(files)


def modules_as_if_on_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, numbers are not read after every step, and the device puts bad steps back."""
    monkeypatch.setattr(ModuleLearner, "on_cpu", property(lambda self: False))
    made = ModuleLearner.__init__

    def make(self: ModuleLearner, *args: object) -> None:
        made(self, *args)
        self._on_cpu = False

    monkeypatch.setattr(ModuleLearner, "__init__", make)


def held(duellists: Duellists) -> dict[str, Tensor]:
    return duellists.learner.state()[0]
