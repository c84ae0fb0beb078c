"""A command that torchrun starts in two processes; what the one says, and the other does not."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors.torch import load_file
from torch.testing import assert_close

from nsync.cli.main import BAD_INPUT, DONE, PAUSED, STOPPED, Outcome, _outcome, main
from nsync.launched import Launch
from nsync.processes import ProcessLostError
from nsync.runs.log import DivergedError

ROOT = Path(__file__).resolve().parents[2]
FILE = """\
name: alone
model: {path: tiny, device: cpu}
style_set: {folder: pictures, token: sks, resolution: 64}
negatives: {words: [painting], sampler: {steps: 2, guidance: 1}}
settings: {steps: 3, batch: 3, rank: 2, preview_every: 0, learning_rate: 1e-3}
"""


def test_torchrun_trains_what_one_process_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three pictures by two processes, from the negatives to the file, told once."""
    monkeypatch.chdir(tmp_path)
    Path("train.yaml").write_text(FILE)
    words = ["tiny-pictures", "--style", "sunset", "--folder", "pictures", "--count", "4"]
    assert main(words) == DONE
    made = torchrun("train", "train.yaml", "--name", "shared")
    assert made.returncode == 0, made.stderr
    assert made.stdout.splitlines() == ["Saved output/loras/shared.safetensors"]
    assert main(["train", "train.yaml"]) == DONE
    names = {path.name for path in Path("output/loras").iterdir()}
    assert names == {"alone.safetensors", "shared.safetensors"}
    ours, theirs = (load_file(f"output/loras/{name}.safetensors") for name in ("shared", "alone"))
    for name, value in theirs.items():
        assert_close(ours[name], value, rtol=1e-2, atol=1e-5)


def torchrun(*words: str) -> subprocess.CompletedProcess:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return subprocess.run(
        [*launcher, "--nproc-per-node", "2", "-m", "nsync", *words],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def ending(end: Outcome | Exception) -> SimpleNamespace:
    def run(asked: object, dry_run: bool) -> Outcome:
        if isinstance(end, Exception):
            raise end
        return end

    return SimpleNamespace(LEARNS=True, run=run)


@pytest.mark.parametrize(
    ("end", "code"), [(Outcome("paused", PAUSED), PAUSED), (DivergedError("exploded"), STOPPED)]
)
def test_what_all_processes_find_the_lead_alone_tells(end: Outcome | Exception, code: int) -> None:
    """With another's exit code the launcher would stop the lead at its writing."""
    lead, other = (_outcome(ending(end), None, False, Launch(rank, 2, rank, 2)) for rank in (0, 1))
    assert lead.code == code
    assert lead.text
    assert (other.code, other.text) == (DONE, "")


def test_a_lost_process_is_told_by_each_of_the_others() -> None:
    for rank in (0, 1):
        outcome = _outcome(ending(ProcessLostError("lost")), None, False, Launch(rank, 2, rank, 2))
        assert (outcome.code, outcome.text) == (STOPPED, "lost")


@pytest.mark.parametrize("rank", [0, 1])
def test_what_is_not_shared_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, rank: int
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", str(rank))
    code = main(["compare"])
    said = capsys.readouterr().err
    assert code == (BAD_INPUT if rank == 0 else DONE)
    assert said.count("`nsync compare` does not share its work") == (rank == 0)
