"""The arms of one base, measured, and the table and bars that come of it.

Imported inside the host's process only.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import comfyui_version
import host_trainer
import ours
import released
import torch
from bases import SD15, SIDES, TINY
from rule_cost import rule_seconds, waits_per_step
from tables import surroundings, table, verdict
from timing import Turn, operations, peak_rate, ratios, rounds, step_times
from workload import Arm, Workload, make_workload

_BARS = ("bar", "wanted", "measured", "")
_HEAD = (
    "arm", "ms per step", "over ours, fused", "pictures per s", "GFLOP per step", "of the peak",
    "waits per step",
)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
        repeats: rounds.
        compiled: torch.compile as one more arm.
        small: narrower models in the place of SD1.5 and SDXL.
    """

    repeats: int
    compiled: bool
    small: bool


@dataclass(frozen=True)
class Measured:
    """Everything that the table needs of one arm."""

    arm: Arm
    turns: list[Turn]
    operations: int
    waits: float | None


def no_gpu(base: str) -> str:
    """The section of a base that needs a GPU."""
    side = SIDES[base]
    rows = [[f"{base}, {side} px, every arm", *["no GPU here"] * (len(_HEAD) - 1)]]
    return table(_HEAD, rows)


def measured(base: str, plan: Plan) -> str:
    """The section of a base: what was measured on what, the table, the bars."""
    cuda = torch.cuda.is_available()
    work = make_workload(base, plan.small, "bf16" if cuda else "fp32")
    unmeasured, steps = (10, 20) if work.device.type == "cuda" else (3, 5)
    surroundings_before = surroundings(_device_name(work.device), comfyui_version.__version__)
    arms = _arms(work, plan)
    turns = rounds(arms, work.device, plan.repeats, unmeasured, steps)
    peak = peak_rate(work.device, work.dtype)
    # A compiled step does the operations of the eager one, which alone can be counted.
    results = [
        Measured(
            arm,
            turns[arm.name],
            operations(arms[0] if arm.name == ours.COMPILED else arm),
            waits_per_step(arm, work.device),
        )
        for arm in arms
    ]
    rows = [_row(one, results[0], work.pictures, peak) for one in results]
    parts = [
        surroundings_before,
        _caption(base, work, plan, unmeasured, steps),
        table(_HEAD, rows),
        f"Peak: {peak / 1e12:.2f} TFLOP/s in large matrix products.{_warm_up(results)}",
        table(_BARS, _bars(base, work, results)),
    ]
    return "\n\n".join(parts)


def _arms(work: Workload, plan: Plan) -> list[Arm]:
    arms = ours.arms(work, plan.compiled)
    arms += [released.textual_inversion(work), released.lora(work)]
    arms += [host_trainer.same_layers(work, bypass) for bypass in (False, True)]
    return [*arms, host_trainer.accumulated(work), host_trainer.as_it_is(work)]


def _row(one: Measured, fused: Measured, pictures: int, peak: float) -> Sequence[str]:
    times = step_times(one.turns)
    against = ratios(one.turns, fused.turns)
    waits = "-" if one.waits is None else f"{one.waits:.1f}"
    return (
        one.arm.name,
        times.told(1000, 0 if times.median > 0.1 else 1),
        against.told(1, 2),
        f"{pictures / times.median:.1f}",
        f"{one.operations / 1e9:.1f}",
        f"{one.operations / times.median / peak:.0%}",
        waits,
    )


def _caption(base: str, work: Workload, plan: Plan, unmeasured: int, steps: int) -> str:
    size = "narrow stand-in for " if plan.small and base != TINY else ""
    settings = work.settings
    return (
        f"{size}{base}, {work.side} px, {settings.batch} pictures in each of three branches "
        f"({work.pictures} per step), {settings.precision}, rank {settings.rank}, layers: "
        f"{settings.layers}. Median (least..most) of {plan.repeats} rounds in turn, each of "
        f"{steps} steps after {unmeasured} unmeasured ones."
    )


def _bars(base: str, work: Workload, results: Sequence[Measured]) -> list[Sequence[object]]:
    turns = {one.arm.name: one.turns for one in results}
    fused = turns[ours.FUSED]
    share = rule_seconds(work) / step_times(fused).median
    rows = [("the rule's share of a step", "at most 1 %", f"{share:.2%}", verdict(share <= 0.01))]
    names = [name for name in turns if name.startswith(host_trainer.BATCHED)]
    best = min(names, key=lambda name: step_times(turns[name]).median)
    compared = [
        (ours.SEQUENTIAL, ours.FUSED, 1.25 if base == TINY else 0),
        (released.NAME, ours.EMBEDDING, 3 if base == SD15 else 0),
        (released.LORA_NAME, ours.FUSED, 3 if base == SD15 else 0),
        (best, ours.FUSED, 1 / 1.05 if base == SD15 else 0),
    ]
    for slower, faster, least in compared:
        gain = ratios(turns[slower], turns[faster])
        wanted = f"at least {least:.2f}" if least else "-"
        fine = verdict(gain.median >= least) if least else "-"
        rows.append((f"{slower} / {faster}", wanted, gain.told(1, 2), fine))
    return rows


def _warm_up(results: Sequence[Measured]) -> str:
    compiled = [one for one in results if one.arm.name == ours.COMPILED]
    if not compiled:
        return ""
    seconds = compiled[0].turns[0].first - results[0].turns[0].first
    return f" Compiling took {seconds:.0f} s before the first measured step."


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "no GPU"
