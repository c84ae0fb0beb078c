"""How much memory training takes, by preset and base.

    python benchmarks/memory.py [--base sd15 sdxl] [--preset "8 GB" ...] [--size full|small]
                                [--write]

On a GPU the peaks are those of CUDA's caching allocator. Without one the same steps run on the CPU,
with the attention that a GPU would use (no matrix of all pixels with all pixels), and the peak is
that of torch's CPU allocator: what a GPU needs beside it (CUDA's context, workspaces of its
libraries, fragmentation) is not in it. See benchmarks/README.md.
"""

import argparse
import tempfile
from functools import partial
from pathlib import Path

from comfy_process import start, use_its_python
from tables import publish

BASES, PRESETS = ("sd15", "sdxl"), ("6 GB", "8 GB", "12 GB", "16 GB", "24 GB and more")
BARS = {"sd15": 4.0, "sdxl": 8.0}
"""GB for three branches of one picture, with bf16 weights."""
ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Measure every base and preset that was asked for."""
    options = _options()
    installation = use_its_python()
    import torch

    cuda = torch.cuda.is_available()
    start(installation, not cuda, ("--use-pytorch-cross-attention",))
    sections = {}
    for base in options.base:
        name = f"memory {base}" + (" small" if options.size == "small" else "")
        sections[name] = section(base, options.preset, options.size == "small", cuda)
    publish(sections, options.out, ROOT / "docs/benchmarks.md" if options.write else None)


def section(base: str, presets: list[str], small: bool, cuda: bool) -> str:
    """The table of one base: a row per preset."""
    import comfyui_version
    import torch
    from tables import surroundings, table, verdict
    from workload import make_workload

    work = make_workload(base, small, "bf16")
    weights = sum(p.nbytes for p in work.denoiser.network.parameters()) / 1e9
    rows = []
    for preset in presets:
        allocated, reserved = (_on_gpu if cuda else _on_cpu)(partial(_train, work, preset))
        allocated += 0 if cuda else weights
        told = f"{reserved:.2f}" if cuda else "no GPU here"
        bar = verdict(allocated <= BARS[base]) if not small else "-"
        rows.append([preset, f"{weights:.2f}", f"{allocated:.2f}", told, bar])
    head = ["preset", "base, GB", "peak allocated, GB", "peak reserved, GB", f"{BARS[base]:.0f} GB"]
    device = torch.cuda.get_device_name() if cuda else "no GPU: CPU allocator"
    return f"{table(head, rows)}\n\n{surroundings(device, comfyui_version.__version__)}"


def _train(work: object, preset: str) -> None:
    """Two steps of the rule `nsync`, three branches, by `nsync.training.train` itself."""
    from dataclasses import replace

    from nsync_style.nsync.presets import filled_in
    from nsync_style.nsync.training import train

    wanted = replace(filled_in(work.settings, preset), steps=2, preview_every=0, save_every=0)
    with tempfile.TemporaryDirectory() as folder:
        ready = partial(work.denoiser.trainable, work.dtype)
        place = Path(folder)
        train(wanted, work.denoiser, work.style_set, place, lambda *_: {}, ready=ready)


def _on_gpu(action: partial) -> tuple[float, float]:
    """Peaks (allocated, reserved) in GB, the base's weights among them."""
    import torch

    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    action()
    peaks = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
    return peaks[0] / 1e9, peaks[1] / 1e9


def _on_cpu(action: partial) -> tuple[float, float]:
    """The most GB that new tensors took at a time, by the allocator's own events."""
    import torch

    with torch.profiler.profile(profile_memory=True) as profile:
        action()
    events = profile.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    now = most = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    return most / 1e9, 0.0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="How much memory training takes.")
    parser.add_argument("--base", nargs="+", choices=BASES, default=list(BASES))
    parser.add_argument("--preset", nargs="+", choices=PRESETS, default=list(PRESETS))
    parser.add_argument(
        "--size", choices=("full", "small"), default="full", help="small: narrower models"
    )
    parser.add_argument("--out", type=Path, help="write the tables to this file")
    parser.add_argument(
        "--write", action="store_true", help="put the tables into docs/benchmarks.md"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
