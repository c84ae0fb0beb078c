"""What more processes give: on paper from bytes and operations, and measured where they are.

    python benchmarks/scaling.py --write
    torchrun --standalone --nproc-per-node 2 benchmarks/scaling.py --measure

On paper: the bytes are those of a LoRA on the real network's layers, and the operations those that
torch counts in its forward pass, both without weights. How fast a GPU computes and a network
carries is given by flags, and is no measurement. Measured: the exchange of such bytes, and a step
of the tiny base with two pictures in each branch and process, beside the same step alone.
"""

import argparse
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.tables import publish, table  # noqa: E402
from nsync.layers import ATTENTION, select_layers  # noqa: E402
from nsync.processes import ONE, Processes, joined  # noqa: E402

COUNTS = (1, 8, 16, 32, 64, 128, 256, 512, 1024)
BRANCHES = 3
PAGE = ROOT / "docs" / "scale.md"


@dataclass(frozen=True)
class Family:
    """A base, as large as it is; `inputs` are of one picture."""

    name: str
    network: Callable[[], nn.Module]
    inputs: Callable[[], dict[str, object]]


@dataclass(frozen=True)
class Given:
    """What is not measured; see the flags."""

    rank: int
    pictures: int
    whole: int
    rate: float
    inside: float
    link: float
    latency: float
    machine: int


@dataclass(frozen=True)
class Size:
    """Of a family: bytes of one branch's gradient, operations of one picture's forward pass."""

    name: str
    gradient: int
    forward: int


def sd15() -> nn.Module:
    """Stable Diffusion 1.5's UNet."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8)


def sdxl() -> nn.Module:
    """Stable Diffusion XL's UNet."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        block_out_channels=(320, 640, 1280),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 10),
        attention_head_dim=(5, 10, 20),
        cross_attention_dim=2048,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    )


def flux() -> nn.Module:
    """Flux.1's transformer."""
    from diffusers import FluxTransformer2DModel

    return FluxTransformer2DModel(guidance_embeds=True)


def of_unet(side: int, width: int, extra: bool = False) -> dict[str, object]:
    """Latents, time and 77 words; SDXL is told sizes as well."""
    given = {"sample": torch.empty(1, 4, side, side), "timestep": torch.empty(1)}
    given |= {"encoder_hidden_states": torch.empty(1, 77, width)}
    if extra:
        told = {"text_embeds": torch.empty(1, 1280), "time_ids": torch.empty(1, 6)}
        given |= {"added_cond_kwargs": told}
    return given


def of_flux() -> dict[str, object]:
    """1024 px in patches, 512 words."""
    return {
        "hidden_states": torch.empty(1, 4096, 64),
        "encoder_hidden_states": torch.empty(1, 512, 4096),
        "pooled_projections": torch.empty(1, 768),
        "timestep": torch.empty(1),
        "guidance": torch.empty(1),
        "img_ids": torch.empty(4096, 3),
        "txt_ids": torch.empty(512, 3),
    }


FAMILIES = (
    Family("SD1.5, 512 px", sd15, lambda: of_unet(64, 768)),
    Family("SDXL, 1024 px", sdxl, lambda: of_unet(128, 2048, extra=True)),
    Family("Flux.1, 1024 px", flux, of_flux),
)


def size_of(family: Family, rank: int) -> Size:
    """Counted on torch's device without memory."""
    with torch.device("meta"), torch.no_grad():
        network, given = family.network(), family.inputs()
        layers = select_layers(network, ATTENTION).values()
        with FlopCounterMode(display=False) as counter:
            network(**given)
    sides = sum(sum(layer.weight.flatten(1).shape) for layer in layers)
    return Size(family.name, 4 * rank * sides, counter.get_total_flops())


def exchange(size: Size, given: Given, count: int) -> float:
    """Seconds of the all-reduce of a step: volume and bandwidth, and a latency for each hop.

    The bandwidth is the "bus bandwidth" of nccl-tests, for which a ring of n carries 2 (n - 1) / n
    times the bytes (github.com/NVIDIA/nccl-tests, doc/PERFORMANCE.md); hops are those of a tree.
    """
    bandwidth = given.inside if count <= given.machine else given.link
    volume = 2 * (count - 1) / count * BRANCHES * size.gradient
    return volume / (bandwidth * 1e9) + 2 * math.ceil(math.log2(count)) * given.latency * 1e-6


def passes(size: Size, given: Given, pictures: int) -> float:
    """Seconds of all branches' passes; backward of frozen weights is one more forward."""
    return 2 * size.forward * BRANCHES * pictures / (given.rate * 1e12)


def on_paper(size: Size, given: Given) -> str:
    """One family's table, and where it stops."""
    alone, rows = passes(size, given, given.whole), []
    own = passes(size, given, given.pictures)
    for count in COUNTS:
        sent = exchange(size, given, count)
        hidden = sent * (BRANCHES - 1) / BRANCHES
        fixed = "-"
        if count <= given.whole:
            step = passes(size, given, math.ceil(given.whole / count)) + sent
            fixed = f"{alone / step:.1f} x ({alone / step / count:.0%})"
        told = [f"{1e3 * sent:.1f}", f"{own / (own + sent):.1%}", f"{1e3 * min(hidden, own):.1f}"]
        rows.append([count, *told, fixed])
    head = ["GPUs", "exchange, ms", "efficiency", "of it under passes at most, ms", "fixed batch"]
    half = 2 * BRANCHES * size.gradient / own / 1e9
    lines = [
        f"**{size.name}**: {size.gradient / 1e6:.1f} MB per step and branch, "
        f"{BRANCHES * size.gradient / 1e6:.1f} MB in one exchange; {size.forward / 1e12:.2f} TFLOP "
        f"forward; {1e3 * own:.0f} ms of passes for {given.pictures} picture(s) in each branch and "
        "process.",
        table(head, rows),
        f"Half of the time is exchange below {half:.2f} GB/s.",
    ]
    return "\n\n".join(lines)


def paper(given: Given) -> dict[str, str]:
    """The section of the page."""
    told = (
        f"Rank {given.rank}, attention layers, float32 gradients, rule `nsync`. Given, not "
        f"measured: {given.rate:g} TFLOP/s for each GPU, a bus bandwidth of {given.inside:g} GB/s "
        f"up to {given.machine} GPUs and {given.link:g} GB/s beyond, {given.latency:g} us for each "
        f"hop. Efficiency with {given.pictures} picture(s) in each branch and process, nothing "
        f"hidden. Fixed batch: speed over one GPU with {given.whole} pictures in each branch."
    )
    tables = [on_paper(size_of(family, given.rank), given) for family in FAMILIES]
    return {"scaling": "\n\n".join([told, *tables])}


def measured(rank: int) -> str:
    """The exchange, and the tiny base's step, by the processes that are here."""
    with joined() as processes:
        if processes.count == 1:
            return "One process measures nothing here: start it with torchrun."
        size = size_of(FAMILIES[0], rank)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        vector = torch.ones(BRANCHES * size.gradient // 4, device=device)
        sent = [_seconds(lambda: processes.summed([vector]), device) for _ in range(7)]
        with tempfile.TemporaryDirectory() as folder:
            alone = _step(Path(folder), ONE, processes)
            shared = _step(Path(folder), processes, processes)
    if not processes.is_lead:
        return ""
    return (
        f"{processes.count} processes on {device}: {vector.nbytes / 1e6:.1f} MB in "
        f"{1e3 * statistics.median(sent[2:]):.1f} ms; a step of the tiny base {1e3 * shared:.0f} "
        f"ms, of each by itself at the same time {1e3 * alone:.0f} ms: efficiency "
        f"{alone / shared:.0%}."
    )


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    begun = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def _step(folder: Path, sharing: Processes, here: Processes) -> float:
    """Median seconds of a step with two pictures in each branch and process."""
    from nsync.cli.models import load_denoiser
    from nsync.cli.sections import Model
    from nsync.settings import TrainSettings
    from nsync.style_set import StyleItem, StyleSet
    from nsync.training import train

    denoiser = load_denoiser(Model(Path("tiny")))
    items = []
    for place in range(8):
        source = torch.Generator().manual_seed(place)
        pixels = torch.rand(3, 64, 64, generator=source)
        items.append(StyleItem(f"{place}", f"shape {place}", pixels=pixels))
    settings = TrainSettings(
        rule="plain", steps=15, batch=2 * sharing.count, preview_every=0, save_every=0
    )
    own = folder / f"{sharing.count}_{0 if sharing.count > 1 else here.rank}"
    ends: list[float] = []
    with ExitStack() as stack:
        hook = denoiser.network.register_forward_hook(lambda *_: ends.append(time.perf_counter()))
        stack.callback(hook.remove)
        here.wait()
        train(
            settings,
            denoiser,
            StyleSet(tuple(items), token="sks", resolution=64),
            own,
            lambda learned, made: {},
            processes=sharing,
        )
    steps = [after - before for before, after in pairwise(ends)]
    return statistics.median(steps[3:])


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    flags = [
        ("rank", int, 16, "of the LoRA"),
        ("pictures", int, 2, "in each branch and process"),
        ("whole", int, 64, "pictures in each branch of the fixed batch"),
        ("rate", float, 150.0, "TFLOP/s that a GPU reaches"),
        ("inside", float, 150.0, "bus bandwidth inside a machine, GB/s"),
        ("link", float, 10.0, "bus bandwidth between machines, GB/s"),
        ("latency", float, 20.0, "of a hop, us"),
        ("machine", int, 8, "GPUs in a machine"),
    ]
    for name, kind, value, told in flags:
        parser.add_argument(f"--{name}", type=kind, default=value, help=told)
    parser.add_argument("--measure", action="store_true", help="by the processes that are here")
    parser.add_argument("--write", action="store_true", help=f"into {PAGE}")
    asked = vars(parser.parse_args())
    write, measure = asked.pop("write"), asked.pop("measure")
    if measure:
        print(measured(asked["rank"]), flush=True)
    else:
        publish(paper(Given(**asked)), None, PAGE if write else None)


if __name__ == "__main__":
    main()
