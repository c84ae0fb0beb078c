"""The rows of the memory table, measured or computed. Imported inside the host's process only."""

import json
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import comfyui_version
import ours
import torch
from bases import SD15, SDXL
from computed_memory import checked, computed
from nsync_style.nsync.presets import PRESETS, filled_in
from nsync_style.nsync.settings import EMBEDDING, SEQUENTIAL, TrainSettings
from one_step import branch_names
from tables import surroundings, table, verdict
from workload import make_workload

Row = dict[str, float]
"""Bytes by what they are."""

_STORED = {"bf16": torch.bfloat16, "fp16": torch.float16}
_BARS = {SD15: 4.0, SDXL: 8.0}
_BAR_PRESET = "8 GB"
_COMPUTED = (
    "Computed from tensor sizes, not measured on a GPU: the step that a run makes, with the host's "
    "own network at full size, on fake tensors; GB are 10^9 bytes. Left out: what kernels take "
    "for themselves (cuDNN, flash attention's backward), fragmentation, the CUDA context."
)
_MEASURED = (
    "Measured by torch's allocator from the second step on, each row in a process of its own; GB "
    "are 10^9 bytes. Left out: the CUDA context."
)


def section(base: str, presets: Sequence[str] | None, cuda: bool) -> str:
    """The section of a base: the table, the bar, how it was made, on what."""
    told = [_MEASURED if cuda else f"{_COMPUTED} {_check()}"]
    told.append(surroundings(_device_name(cuda), comfyui_version.__version__))
    chosen = [preset for preset in presets or PRESETS if _fits(base, preset)]
    row = _in_its_own_process if cuda else _computed
    rows = {p: [row(base, p, stored) for stored in _STORED] for p in chosen}
    columns = rows[chosen[0]][0]
    head = ["preset", "a step", *(f"{what}, {s} file" for s in _STORED for what in columns)]
    parts = [table(head, [_line(p, values) for p, values in rows.items()])]
    if _BAR_PRESET in rows:
        parts.append(_bar(base, rows[_BAR_PRESET][0]["peak"]))
    return "\n\n".join([*parts, *told])


def measured(base: str, preset: str, stored: str) -> Row:
    """What torch's allocator says of the steps of a run."""
    settings = filled_in(TrainSettings(), preset)
    work = make_workload(base, False, settings.precision, _STORED[stored])
    settings = filled_in(work.settings, preset)
    done = 0

    def after_step() -> None:
        nonlocal done
        done += 1
        if done == 1:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    ours.arm(preset, work.with_settings(**settings.as_dict())).run(4, after_step)
    peaks = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
    return {"peak": peaks[0], "reserved": peaks[1]}


def _in_its_own_process(base: str, preset: str, stored: str) -> Row:
    script = Path(__file__).with_name("memory.py")
    command = [sys.executable, str(script), "--row", base, preset, stored]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _computed(base: str, preset: str, stored: str) -> Row:
    found = computed(base, filled_in(TrainSettings(), preset), _STORED[stored])
    return {"between steps": found.between, "peak": found.peak}


@cache
def _check() -> str:
    followed, allocated = checked()
    return (
        "Checked on a small network on the CPU, a fused step of real tensors: "
        f"{followed / 1e6:.1f} MB by the same count, {allocated / 1e6:.1f} MB by the allocator's "
        "own events."
    )


def _fits(base: str, preset: str) -> bool:
    """The paper's presets are of SD1.5."""
    return base == SD15 or filled_in(TrainSettings(), preset).trains != EMBEDDING


def _line(preset: str, rows: Sequence[Row]) -> list[str]:
    settings = filled_in(TrainSettings(), preset)
    fused = settings.branches != SEQUENTIAL
    told = [settings.trains, settings.precision]
    told += [f"{len(branch_names(settings))} x {settings.batch} pictures"]
    told += ["together" if fused else "in turn"]
    told += [f"rank {settings.rank}"] if settings.trains_lora else []
    told += ["checkpointing"] if settings.checkpointing else []
    return [preset, ", ".join(told), *(_gb(size) for row in rows for size in row.values())]


def _bar(base: str, peak: float) -> str:
    line = f"preset {_BAR_PRESET}, bf16 file", f"at most {_BARS[base]:.0f} GB", _gb(peak)
    return table(("bar", "wanted", "peak", ""), [(*line, verdict(peak <= _BARS[base] * 1e9))])


def _device_name(cuda: bool) -> str:
    return torch.cuda.get_device_name() if cuda else "no GPU"


def _gb(size: float) -> str:
    return f"{size / 1e9:.2f} GB"
