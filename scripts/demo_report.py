"""What the demo shows: pictures without and with each LoRA, read by the ruler, side by side.

Runs under the host's Python (torch, Pillow), with the pack's root on `sys.path`.
"""

from __future__ import annotations

import io
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from comfy_host import ComfyServer
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from nsync.tiny.ruler import Ruler
from nsync.tiny.scenes import Scene
from nsync.tiny.world import draw_scenes, render

Json = dict[str, Any]

PICTURES = 64
ROWS = 6
SCENE_SEED, FIRST_NOISE = 20_000, 1_000
SCALE, GAP, HEAD, SIDE = 2, 8, 30, 250
TRAINER, GENERATOR = "NSYNC_ContrastiveLoRATrainer", "NSYNC_NegativeSetGenerator"


@dataclass(frozen=True)
class Result:
    """What the quickstart left behind.

    Attributes:
        loras: names as Load LoRA lists them, by arm (`plain`, `nsync`).
        lora, negatives, log: paths of the NSYNC arm's file, the negative set, the log.
        style, token: the held-out style and the word that was taught for it.
        captions: what the training pictures showed.
    """

    loras: dict[str, str]
    lora: Path
    negatives: Path
    log: Path
    style: str
    template: str
    token: str
    captions: frozenset[str]

    @classmethod
    def read(cls, prompt: Json, outputs: Json, output: Path) -> Result:
        """Take it from the prompt and from what its nodes showed."""
        texts = {link: outputs[node]["text"][0] for node, link in _previewed(prompt).items()}
        trainers = {
            ("plain" if node["inputs"]["rule"] == "plain" else "nsync"): number
            for number, node in prompt.items()
            if node["class_type"] == TRAINER
        }
        loras = {arm: texts[number] for arm, number in trainers.items()}
        source = _only(prompt, "NSYNC_TinyStylePictures")["inputs"]
        words = _only(prompt, "NSYNC_StyleSet")["inputs"]
        generator = next(n for n, node in prompt.items() if node["class_type"] == GENERATOR)
        name = prompt[trainers["nsync"]]["inputs"]["name"]
        runs = (output / "nsync" / "runs").glob(f"{name}*/log.jsonl")
        scenes = draw_scenes(source["count"], source["seed"])
        return cls(
            loras,
            output / "loras" / loras["nsync"],
            Path(texts[generator]),
            max(runs, key=lambda log: log.stat().st_mtime),  # older runs keep their own
            source["style"],
            words["template"],
            words["token"],
            frozenset(scene.caption() for scene in scenes),
        )

    def scenes(self) -> list[Scene]:
        """Scenes whose captions were not trained on."""
        return scenes_beside(self.captions)

    def prompts(self) -> list[str]:
        """Their prompts, style token included."""
        words = {"token": self.token}
        return [self.template.format(caption=s.caption(), **words) for s in self.scenes()]


def scenes_beside(captions: Collection[str]) -> list[Scene]:
    """The scenes that are drawn for the ruler: none that these captions tell of."""
    drawn = draw_scenes(PICTURES * 4, SCENE_SEED)
    return [scene for scene in drawn if scene.caption() not in captions][:PICTURES]


def draw(
    server: ComfyServer,
    prompt: Json,
    prompts: Sequence[str],
    loras: Mapping[str, str | None],
    folder: str,
) -> dict[str, Tensor]:
    """A picture per prompt in the host, through each saved file: `[n, 3, 64, 64]` in 0..1 by arm.

    Args:
        prompt: the quickstart's, whose first KSampler is drawn with.
        prompts: each has a noise of its own, the same for all arms.
        loras: names as Load LoRA lists them, by arm; None draws by the base.
        folder: under ComfyUI's output.
    """
    sampling = _only(prompt, "KSampler")["inputs"]
    sampling = {k: v for k, v in sampling.items() if not isinstance(v, list)}
    pictures = {}
    for arm, lora in loras.items():
        started = time.monotonic()
        outcome = server.run(_arm(prompts, sampling, lora, f"{folder}/{arm}"), timeout=1800)
        if not outcome.ok:
            raise RuntimeError(f"drawing {arm}: {outcome.error}")
        shown = [outcome.outputs[f"save{i}"]["images"][0] for i in range(len(prompts))]
        pictures[arm] = torch.stack([_tensor(server.image(entry)) for entry in shown])
        took = time.monotonic() - started
        print(f"drew {len(prompts)} pictures, {arm}, in {took:.0f} s", flush=True)
    return pictures


def write(folder: Path, pictures: dict[str, Tensor], result: Result) -> Json:
    """Write the comparison picture; the numbers and paths of `demo.json`."""
    scenes, ruler = result.scenes(), Ruler.load()
    read = {arm: ruler.read(pixels) for arm, pixels in pictures.items()}
    hits = {arm: reading.style_hits(result.style) for arm, reading in read.items()}
    content = {
        arm: reading.content_hits(scenes, ("shape", "colour")) for arm, reading in read.items()
    }
    reference = render(scenes[:ROWS], result.style, SCENE_SEED)
    columns = {
        f"reference: {result.style}": reference,
        "base": pictures["base"],
        "plain LoRA": pictures["plain"],
        "NSYNC LoRA": pictures["nsync"],
    }
    comparison = folder / "comparison.png"
    side_by_side(columns, result.prompts()[:ROWS]).save(comparison)
    return {
        "lora": str(result.lora),
        "negatives": str(result.negatives),
        "comparison": str(comparison),
        "log": str(result.log),
        "hits_before": _share(hits["base"]),
        "hits_plain": _share(hits["plain"]),
        "hits_nsync": _share(hits["nsync"]),
        "content_before": _share(content["base"]),
        "content_plain": _share(content["plain"]),
        "content_nsync": _share(content["nsync"]),
    }


def show(summary: Json, folder: Path) -> None:
    """Print the end of the demo."""
    percent = {
        key: f"{value:.0%}" for key, value in summary.items() if key.startswith(("h", "con"))
    }
    print(
        f"\nIn {summary['minutes']} minutes (set-up {summary['setup_minutes']:.1f} before). "
        f"Of {PICTURES} pictures of captions it never saw,\nthe ruler calls the style:  base "
        f"{percent['hits_before']}, plain LoRA {percent['hits_plain']}, NSYNC LoRA "
        f"{percent['hits_nsync']}\nright shape and colour:    base {percent['content_before']}, "
        f"plain LoRA {percent['content_plain']}, NSYNC LoRA {percent['content_nsync']}\n"
    )
    for title, key in (
        ("LoRA", "lora"),
        ("negative set", "negatives"),
        ("loss and gradients", "log"),
        ("comparison", "comparison"),
    ):
        print(f"{title:20}{summary[key]}")
    print(f"{'all numbers':20}{folder / 'demo.json'}")


def side_by_side(columns: dict[str, Tensor], rows: Sequence[str]) -> Image.Image:
    """One labelled picture: a column per entry `[n, 3, h, w]`, a row per prompt."""
    size = next(iter(columns.values())).shape[-1] * SCALE
    step = size + GAP
    sheet = Image.new("RGB", (SIDE + step * len(columns), HEAD + step * len(rows)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=13)
    for row, text in enumerate(rows):
        pen.multiline_text((GAP, HEAD + step * row + size // 3), _wrap(text), "black", font)
    for column, (title, pixels) in enumerate(columns.items()):
        x = SIDE + step * column
        pen.text((x, GAP), title, "black", font)
        for row in range(len(rows)):
            array = (pixels[row].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
            picture = Image.fromarray(array).resize((size, size), Image.Resampling.NEAREST)
            sheet.paste(picture, (x, HEAD + step * row))
    return sheet


def _arm(prompts: Sequence[str], sampling: Json, lora: str | None, prefix: str) -> Json:
    """An API-format graph that draws every prompt with a noise of its own."""
    graph: Json = {
        "base": {"class_type": "NSYNC_TinyBase", "inputs": {}},
        "none": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["base", 1], "text": ""}},
        "empty": {
            "class_type": "EmptyLatentImage",
            "inputs": {"width": 64, "height": 64, "batch_size": 1},
        },
    }
    model = ["base", 0]
    if lora is not None:
        loading = {"model": model, "lora_name": lora, "strength_model": 1.0}
        graph["lora"] = {"class_type": "LoraLoaderModelOnly", "inputs": loading}
        model = ["lora", 0]
    for i, prompt in enumerate(prompts):
        text = {"clip": ["base", 1], "text": prompt}
        links = {"positive": [f"text{i}", 0], "negative": ["none", 0], "latent_image": ["empty", 0]}
        drawing = {**sampling, **links, "model": model, "seed": FIRST_NOISE + i}
        decoding = {"samples": [f"draw{i}", 0], "vae": ["base", 2]}
        saving = {"images": [f"decode{i}", 0], "filename_prefix": f"{prefix}_{i:02}"}
        graph[f"text{i}"] = {"class_type": "CLIPTextEncode", "inputs": text}
        graph[f"draw{i}"] = {"class_type": "KSampler", "inputs": drawing}
        graph[f"decode{i}"] = {"class_type": "VAEDecode", "inputs": decoding}
        graph[f"save{i}"] = {"class_type": "SaveImage", "inputs": saving}
    return graph


def _previewed(prompt: Json) -> dict[str, str]:
    """Ids of text previews, and of the nodes whose text they show."""
    previews = {n: node for n, node in prompt.items() if node["class_type"] == "PreviewAny"}
    return {number: node["inputs"]["source"][0] for number, node in previews.items()}


def _only(prompt: Json, kind: str) -> Json:
    return next(node for node in prompt.values() if node["class_type"] == kind)


def _tensor(data: bytes) -> Tensor:
    array = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), dtype=np.float32) / 255
    return torch.from_numpy(array).permute(2, 0, 1)


def _share(hits: Tensor) -> float:
    return round(hits.float().mean().item(), 4)


def _wrap(text: str, width: int = 34) -> str:
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)
