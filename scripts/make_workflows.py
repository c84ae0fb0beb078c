"""Draw the workflows of the pack from the schemas of the running host: `scripts/make_workflows.py`.

Standard library only. The results are committed; run it after a schema or a number here changed.
"""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import Any

from comfy_host import PACK, ComfyServer
from litegraph import Graph, Link, Node
from provision import NEWEST, prepare

WORKFLOWS = PACK / "workflows"
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

START = """# NSYNC quickstart
Press **Run**. In a few minutes on a CPU, a small model that is part of this pack learns a style \
that it has never seen, by plain LoRA and by NSYNC, and draws the same prompts with the same seeds \
without and with it. Nothing is downloaded."""

SET_NOTE = """## 1. The style set
Pictures of one style, with captions that tell what is on them, **not** how they are drawn. The \
word `sks` will stand for the style. Here the pack draws the pictures itself; for your own, choose \
a folder in **Style Set** and leave the two sockets open."""

NEGATIVES_NOTE = """## 2. The negative set
The model itself paints the same captions in a *generic* style ("painting", "illustration", \
"animation"). These show what all such pictures have in common: what a style should **not** learn. \
They are kept on disk and reused."""

TRAINER_NOTE = """## 3. Two trainings
Above with rule `plain`: an ordinary LoRA, which learns all that the pictures show. Below with a \
contrastive rule: of each step, what it shares with the negatives is taken out. Both LoRAs are \
saved where **Load LoRA** lists them, under the name shown."""

COMPARE_NOTE = """## 4. Side by side
The same prompts and seeds: the base as it came, with the plain LoRA, with the NSYNC LoRA. Change \
the prompt and press **Run** again: nothing is trained twice."""

SD15_START = """# A style for Stable Diffusion 1.5
1. Put 10 to 50 pictures of the style, and beside each `x.png` a caption `x.txt`, into a folder \
under ComfyUI's `input` folder. **Caption Images** writes captions with a vision-language model.
2. Choose the checkpoint in **Load Checkpoint** and the folder in **Style Set**.
3. Press **Run**. A GPU with 8 GB or more is advised."""

SD15_SET = """## 1. The style set
Captions tell the content, not the style. The token is a word that the model does not know; it \
becomes the trigger word. Pictures may have any size and shape. The report names every file with a \
problem."""

SD15_NEGATIVES = """## 2. The negative set
One picture per caption in a generic style, by the model itself, with 50 steps and guidance 7.5. \
An interrupted run goes on where it stopped; a changed caption remakes that picture alone."""

SD15_TRAINER = """## 3. The training
500 steps of rank 16 suit about 20 pictures; the preview shows how far it has come. Too faint: \
more steps. Content suffers: fewer steps, or a lower learning rate."""

SD15_COMPARE = """## 4. Without and with
The same prompt and seed. Keep the token in the prompt. The LoRA is in **Load LoRA** under the \
name shown."""


EMBEDDING_START = """# The paper's own setting: an embedding for Stable Diffusion 1.5
Textual inversion: not the model is trained but one word. The preset **paper** sets the rule \
`nsync`, 2 pictures per branch, learning rate 1e-3, 8000 steps; **paper, as released** what the \
authors' code really computes. Choose the checkpoint, your folder and the initial word \
(*painting*, *illustration* or *animation*) and press **Run**; hours on a GPU."""

EMBEDDING_TRAINER = """## 3. The training
The embedding is saved in `models/embeddings`; write `embedding:my_style` in any prompt. \
**Training Options** holds the initial word. Stopped, it goes on when you press **Run** again; \
with `pause_every` the graph draws with the half-trained embedding in between."""


def quickstart(graph: Graph) -> None:
    """Tiny base, a held-out style, two rules, one comparison."""
    graph.note(START, (-60, -260), (640, 170))
    base = graph.node("NSYNC_TinyBase", (-40, 60))
    source = {"style": STYLE, "count": 48, "seed": 0}
    pictures = graph.node("NSYNC_TinyStylePictures", (-40, 240), **source)
    style_set = _style_set(graph, pictures)
    graph.node("PreviewImage", (320, 500), size=(320, 300), images=pictures["images"])
    graph.note(SET_NOTE, (-40, 500), (320, 300))
    graph.group("1. Style set", (-80, -20, 760, 860), GREEN)

    sampling = {"steps": 20, "guidance": 3.0, "sampler": "euler", "scheduler": "simple"}
    parts = {name: base[name.upper()] for name in ("model", "clip", "vae")}
    sockets = {**parts, "style_set": style_set["style_set"]}
    kind = "NSYNC_NegativeSetGenerator"
    negatives = graph.node(
        kind, (740, 60), size=(360, 420), name="quickstart", **sampling, **sockets
    )
    graph.node("PreviewImage", (740, 540), size=(360, 260), images=negatives["images"])
    _text(graph, "Negative set folder", (1140, 60), negatives["folder"])
    graph.note(NEGATIVES_NOTE, (1140, 540), (280, 260))
    graph.group("2. Negative set", (700, -20, 760, 860), BLUE)

    sockets["style_set"] = negatives["style_set"]
    plain = _trainer(graph, "plain", "quickstart_plain", 60, sockets)
    nsync = _trainer(graph, "nsync", "quickstart_nsync", 1180, sockets)
    graph.note(TRAINER_NOTE, (1500, -260), (640, 190))
    graph.group("3. Training", (1480, -20, 840, 2300), ROSE)

    prompt = graph.node(
        "CLIPTextEncode", (2360, 60), size=(400, 160), clip=base["CLIP"], text=PROMPT
    )
    empty = graph.node("CLIPTextEncode", (2360, 280), size=(400, 120), clip=base["CLIP"], text="")
    latent = graph.node("EmptyLatentImage", (2360, 460), width=64, height=64, batch_size=4)
    arms = {"Base": base["MODEL"], "Plain LoRA": plain["model"], "NSYNC LoRA": nsync["model"]}
    for row, (title, model) in enumerate(arms.items()):
        values = {**QUICK_SAMPLING, "seed": 1, "positive": prompt["CONDITIONING"]}
        values |= {"negative": empty["CONDITIONING"], "latent_image": latent["LATENT"]}
        _draw(graph, title, model, base["VAE"], (2820, 60 + 560 * row), values, enlarge=4.0)
    graph.note(COMPARE_NOTE, (2360, 680), (400, 260))
    graph.group("4. Same prompts, same seeds", (2340, -20, 1280, 1720), GOLD)


def sd15(graph: Graph) -> None:
    """Load Checkpoint, a user's folder, a LoRA."""
    graph.note(SD15_START, (-60, -300), (720, 220))
    base, sockets = _own_pictures(graph)
    values = {"rule": "nsync", "name": "my_style", **sockets}
    trained = graph.node(
        "NSYNC_ContrastiveLoRATrainer", (1540, 60), size=TRAINER_SIZE, title="Train", **values
    )
    _results(graph, trained, (1960, 60), "my_style")
    graph.note(SD15_TRAINER, (1960, 540), (320, 300))
    graph.group("3. Training", (1500, -20, 820, 1200), ROSE)

    text = "a house by the sea in the style of sks"
    prompt = graph.node("CLIPTextEncode", (2380, 60), size=(400, 160), clip=base["CLIP"], text=text)
    arms = {"Without": (base["MODEL"], prompt), "With the LoRA": (trained["model"], prompt)}
    _compare(graph, base, arms)
    graph.note(SD15_COMPARE, (2380, 640), (400, 160))
    graph.group("4. Without and with", (2360, -20, 1280, 1080), GOLD)


def embedding(graph: Graph) -> None:
    """Load Checkpoint, a user's folder, the paper's textual inversion."""
    graph.note(EMBEDDING_START, (-60, -300), (720, 220))
    base, sockets = _own_pictures(graph)
    options = graph.node("NSYNC_TrainingOptions", (1540, 60), size=(380, 660))
    values = {"trains": "embedding", "preset": "paper", "name": "my_style", **sockets}
    trained = graph.node(
        "NSYNC_ContrastiveLoRATrainer",
        (1960, 60),
        size=TRAINER_SIZE,
        title="Train",
        options=options["options"],
        **values,
    )
    loss = {"loss": trained["loss_map"], "filename_prefix": "nsync/my_style_loss"}
    graph.node("LossGraphNode", (1540, 800), size=(380, 280), **loss)
    graph.note(EMBEDDING_TRAINER, (2360, -300), (420, 230))
    graph.group("3. Training", (1500, -20, 860, 1200), ROSE)

    text = "a house by the sea in the style of"
    joined = {"string_a": f"{text} ", "string_b": trained["embedding_word"], "delimiter": ""}
    words = graph.node("StringConcatenate", (2400, 440), size=(380, 160), **joined)
    encode, plain = {"clip": base["CLIP"]}, f"{text} a painting"
    learned = graph.node(
        "CLIPTextEncode", (2400, 60), size=(380, 120), text=words["STRING"], **encode
    )
    generic = graph.node("CLIPTextEncode", (2400, 240), size=(380, 160), text=plain, **encode)
    arms = {"A painting": (base["MODEL"], generic), "The embedding": (base["MODEL"], learned)}
    _compare(graph, base, arms, down=650)
    graph.group("4. Without and with", (2380, -20, 1280, 1080), GOLD)


def _own_pictures(graph: Graph) -> tuple[Node, dict[str, Link]]:
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
    _text(graph, "Negative set folder", (1160, 60), negatives["folder"])
    graph.note(SD15_NEGATIVES, (1160, 540), (280, 260))
    graph.group("2. Negative set", (720, -20, 760, 860), BLUE)

    return base, {**sockets, "style_set": negatives["style_set"]}


def _compare(
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
        _draw(graph, title, model, base["VAE"], (2840, 60 + 520 * row), values)


def _style_set(graph: Graph, pictures: Node) -> Node:
    sources = {"images": pictures["images"], "captions": pictures["captions"]}
    words = {"token": TOKEN, "resolution": 64}
    return graph.node("NSYNC_StyleSet", (320, 60), size=(320, 380), **words, **sources)


def _trainer(graph: Graph, rule: str, name: str, top: int, sockets: dict[str, Link]) -> Node:
    """A trainer with its loss graph and the name of its file."""
    values = {"rule": rule, "name": name, "seed": 0, **QUICK_TRAINING, **sockets}
    values |= {"preview_every": 100, "preview_steps": 20, "preview_guidance": 3.0}
    title, at = f"Train: {rule}", (1520, top)
    node = graph.node("NSYNC_ContrastiveLoRATrainer", at, size=TRAINER_SIZE, title=title, **values)
    _results(graph, node, (1940, top), name)
    return node


def _results(graph: Graph, trainer: Node, at: tuple[int, int], name: str) -> None:
    loss = {"loss": trainer["loss_map"], "filename_prefix": f"nsync/{name}_loss"}
    graph.node("LossGraphNode", at, size=(340, 280), **loss)
    _text(graph, "LoRA file", (at[0], at[1] + 330), trainer["lora_name"])


def _text(graph: Graph, title: str, at: tuple[int, int], source: Link) -> None:
    graph.node("PreviewAny", at, size=(280, 90), title=title, source=source)


def _draw(
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


def main() -> None:
    """Start the host, ask it for its schemas, write the files."""
    text = (PACK / "pyproject.toml").read_text()
    version = re.search(r'^version = "(.+)"', text, re.MULTILINE)
    assert version is not None  # the file is ours
    versions = version[1], NEWEST
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        with ComfyServer(prepare(), base / "log" / "server.log", base) as server:
            info = server.get("/object_info")
    for draw in (quickstart, sd15, embedding):
        name = f"nsync_{draw.__name__}"
        graph = Graph(name, info, versions)
        draw(graph)
        content = json.dumps(graph.json(), indent=2, ensure_ascii=True) + "\n"
        (WORKFLOWS / f"{name}.json").write_text(content, encoding="ascii")
        print(f"workflows/{name}.json: {len(graph.nodes)} nodes, {len(graph.links)} links")


if __name__ == "__main__":
    main()
