"""Parts that several workflows have: a checkpoint and its set, a trainer, a row of pictures."""

from __future__ import annotations

from typing import Any

from litegraph import Graph, Link, Node
from workflow_notes import SD15_NEGATIVES, SD15_SET

GREEN, BLUE, ROSE, GOLD = "#3f7a4f", "#3f5f8a", "#8a3f5f", "#8a7a3f"

STYLE = "sunset"
TOKEN = "sks"
PROMPT = "a red circle in the centre in the style of sks"
QUICK_TRAINING = {
    "steps": 300,
    "learning_rate": 0.001,
    "batch": 4,
    "rank": 16,
    "alpha": 16.0,
    "layers": "all linear and convolution",
    "schedule": "cosine",
}
TRAINER_SIZE = (380, 1080)
QUICK_SAMPLING = {"steps": 20, "cfg": 3.0, "sampler_name": "euler", "scheduler": "simple"}
SD15 = {
    "name": "v1-5-pruned-emaonly-fp16.safetensors",
    "url": "https://huggingface.co/Comfy-Org/stable-diffusion-v1-5-archive/resolve/main/"
    "v1-5-pruned-emaonly-fp16.safetensors",
    "directory": "checkpoints",
}


def put_verdict(
    graph: Graph,
    encoders: Node,
    judged: dict[str, Link],
    arms: Node,
    name: str,
    at: tuple[int, int],
) -> None:
    """The evaluator, its chart, and the grid of what it judged."""
    x, y = at
    sockets = {"encoders": encoders["encoders"], "name": name, **judged}
    found = graph.node("NSYNC_StyleEvaluator", at, size=(380, 420), **sockets)
    verdict = {"title": "Verdict", "source": found["verdict"]}
    graph.node("PreviewAny", (x + 420, y), size=(420, 160), **verdict)
    chart = {"title": "Chart", "images": found["chart"]}
    graph.node("PreviewImage", (x + 420, y + 220), size=(420, 420), **chart)
    grid = {"title": "Same prompts, same seeds", "images": arms["grid"]}
    graph.node("PreviewImage", (x, y + 740), size=(840, 840), **grid)


def put_own_pictures(graph: Graph) -> tuple[Node, dict[str, Link]]:
    """A checkpoint, a user's folder and their negative set: the base, the trainer's sockets."""
    name = {"ckpt_name": SD15["name"], "models": [SD15]}
    base = graph.node("CheckpointLoaderSimple", (-40, 60), **name)
    style_set = graph.node(
        "NSYNC_StyleSet",
        (320, 60),
        size=(340, 380),
        folder="input/my_style",
        token=TOKEN,
        resolution=512,
    )
    graph.note(SD15_SET, (-40, 260), (320, 260))
    graph.group("1. Style set", (-80, -20, 780, 860), GREEN)

    parts = {name: base[name.upper()] for name in ("model", "clip", "vae")}
    sockets = {**parts, "style_set": style_set["style_set"]}
    kind = "NSYNC_NegativeSetGenerator"
    painting = {"name": "my_style", "scheduler": "normal"}
    negatives = graph.node(kind, (760, 60), size=(360, 420), **painting, **sockets)
    graph.node("PreviewImage", (760, 540), size=(360, 260), images=negatives["images"])
    put_text(graph, "Negative set folder", (1160, 60), negatives["folder"])
    graph.note(SD15_NEGATIVES, (1160, 540), (280, 260))
    graph.group("2. Negative set", (720, -20, 760, 860), BLUE)

    return base, {**sockets, "style_set": negatives["style_set"]}


def put_comparison(
    graph: Graph, base: Node, arms: dict[str, tuple[Link, Node]], *, down: int = 280
) -> None:
    """One picture per arm (model, prompt), from the same seed."""
    empty = graph.node("CLIPTextEncode", (2400, down), size=(380, 120), clip=base["CLIP"], text="")
    size = {"width": 512, "height": 512, "batch_size": 1}
    latent = graph.node("EmptyLatentImage", (2400, down + 180), **size)
    sampling = {"steps": 30, "cfg": 7.0, "sampler_name": "dpmpp_2m", "scheduler": "karras"}
    for row, (title, (model, prompt)) in enumerate(arms.items()):
        values = {**sampling, "seed": 1, "positive": prompt["CONDITIONING"]}
        values |= {"negative": empty["CONDITIONING"], "latent_image": latent["LATENT"]}
        put_drawing(graph, title, model, base["VAE"], (2840, 60 + 520 * row), values)


def put_style_set(graph: Graph, pictures: Node) -> Node:
    sources = {"images": pictures["images"], "captions": pictures["captions"]}
    words = {"token": TOKEN, "resolution": 64}
    return graph.node("NSYNC_StyleSet", (320, 60), size=(320, 380), **words, **sources)


def put_trainer(graph: Graph, rule: str, name: str, top: int, sockets: dict[str, Link]) -> Node:
    """A trainer with its loss graph and the name of its file."""
    values = {"rule": rule, "name": name, "seed": 0, **QUICK_TRAINING, **sockets}
    values |= {"preview_every": 100, "preview_steps": 20, "preview_guidance": 3.0}
    title, at = f"Train: {rule}", (1520, top)
    node = graph.node("NSYNC_ContrastiveLoRATrainer", at, size=TRAINER_SIZE, title=title, **values)
    put_results(graph, node, (1940, top), name)
    return node


def put_results(graph: Graph, trainer: Node, at: tuple[int, int], name: str) -> None:
    loss = {"loss": trainer["loss_map"], "filename_prefix": f"nsync/{name}_loss"}
    graph.node("LossGraphNode", at, size=(340, 280), **loss)
    put_text(graph, "LoRA file", (at[0], at[1] + 330), trainer["lora_name"])


def put_text(graph: Graph, title: str, at: tuple[int, int], source: Link) -> None:
    graph.node("PreviewAny", at, size=(280, 90), title=title, source=source)


def put_drawing(
    graph: Graph,
    title: str,
    model: Link,
    vae: Link,
    at: tuple[int, int],
    values: dict[str, Any],
    *,
    enlarge: float = 1.0,
) -> None:
    """One row of the comparison: sample, decode, enlarge (the page shows pixels 1:1), show."""
    x, y = at
    sampler = graph.node("KSampler", at, size=(320, 270), title=title, model=model, **values)
    decoded = graph.node("VAEDecode", (x, y + 310), samples=sampler["LATENT"], vae=vae)
    image = decoded["IMAGE"]
    if enlarge != 1.0:
        scaling = {"upscale_method": "nearest-exact", "scale_by": enlarge, "image": image}
        image = graph.node("ImageScaleBy", (x, y + 430), size=(320, 82), **scaling)["IMAGE"]
    graph.node("PreviewImage", (x + 360, y), size=(400, 460), title=title, images=image)
