"""Draw the workflows of the pack from the schemas of the running host: `scripts/make_workflows.py`.

Standard library only. The results are committed; run it after a schema or a number here changed.
"""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path

from comfy_host import PACK, ComfyServer
from litegraph import Graph
from provision import NEWEST, prepare
from workflow_notes import (
    COMPARE_NOTE,
    EMBEDDING_START,
    EMBEDDING_TRAINER,
    EVALUATE_ARMS,
    EVALUATE_ENCODERS,
    EVALUATE_START,
    EVALUATE_VERDICT,
    HELD_OUT,
    NEGATIVES_NOTE,
    OWN_CAPTIONS,
    SD15_COMPARE,
    SD15_START,
    SD15_TRAINER,
    SET_NOTE,
    START,
    TRAINER_NOTE,
    VERDICT_NOTE,
)
from workflow_parts import (
    BLUE,
    GOLD,
    GREEN,
    PROMPT,
    QUICK_SAMPLING,
    ROSE,
    SD15,
    STYLE,
    TOKEN,
    TRAINER_SIZE,
    put_comparison,
    put_drawing,
    put_own_pictures,
    put_results,
    put_style_set,
    put_text,
    put_trainer,
    put_verdict,
)
from workflow_supcon import supcon_gan

WORKFLOWS = PACK / "workflows"


def quickstart(graph: Graph) -> None:
    """Tiny base, a held-out style, two rules, one comparison."""
    graph.note(START, (-60, -260), (640, 170))
    base = graph.node("NSYNC_TinyBase", (-40, 60))
    source = {"style": STYLE, "count": 48, "seed": 0}
    pictures = graph.node("NSYNC_TinyStylePictures", (-40, 240), **source)
    style_set = put_style_set(graph, pictures)
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
    put_text(graph, "Negative set folder", (1140, 60), negatives["folder"])
    graph.note(NEGATIVES_NOTE, (1140, 540), (280, 260))
    graph.group("2. Negative set", (700, -20, 760, 860), BLUE)

    sockets["style_set"] = negatives["style_set"]
    plain = put_trainer(graph, "plain", "quickstart_plain", 60, sockets)
    nsync = put_trainer(graph, "nsync", "quickstart_nsync", 1180, sockets)
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
        put_drawing(graph, title, model, base["VAE"], (2820, 60 + 560 * row), values, enlarge=4.0)
    graph.note(COMPARE_NOTE, (2360, 680), (400, 260))
    graph.group("4. Same prompts, same seeds", (2340, -20, 1280, 1720), GOLD)

    names = {"string_a": plain["lora_name"], "string_b": nsync["lora_name"], "delimiter": "\n"}
    loras = graph.node("StringConcatenate", (3680, 60), size=(340, 160), **names)["STRING"]
    ruler = graph.node("NSYNC_LoadStyleEncoder", (3680, 280), size=(340, 240), encoder="ruler")
    drawing = {"captions": HELD_OUT, "width": 64, "height": 64, **sampling, **parts}
    arms = graph.node("NSYNC_StyleComparison", (3680, 580), size=(380, 640), loras=loras, **drawing)
    judged = {"arms": arms["arms"], "style_set": style_set["style_set"]}
    put_verdict(graph, ruler, judged, arms, "quickstart", (4100, 60))
    graph.note(VERDICT_NOTE, (3680, 1260), (380, 260))
    graph.group("5. The verdict", (3640, -20, 1360, 1720), GREEN)


def sd15(graph: Graph) -> None:
    """Load Checkpoint, a user's folder, a LoRA."""
    graph.note(SD15_START, (-60, -300), (720, 220))
    base, sockets = put_own_pictures(graph)
    values = {"rule": "nsync", "name": "my_style", **sockets}
    trained = graph.node(
        "NSYNC_ContrastiveLoRATrainer", (1540, 60), size=TRAINER_SIZE, title="Train", **values
    )
    put_results(graph, trained, (1960, 60), "my_style")
    graph.note(SD15_TRAINER, (1960, 540), (320, 300))
    graph.group("3. Training", (1500, -20, 820, 1200), ROSE)

    text = "a house by the sea in the style of sks"
    prompt = graph.node("CLIPTextEncode", (2380, 60), size=(400, 160), clip=base["CLIP"], text=text)
    arms = {"Without": (base["MODEL"], prompt), "With the LoRA": (trained["model"], prompt)}
    put_comparison(graph, base, arms)
    graph.note(SD15_COMPARE, (2380, 640), (400, 160))
    graph.group("4. Without and with", (2360, -20, 1280, 1080), GOLD)


def embedding(graph: Graph) -> None:
    """Load Checkpoint, a user's folder, the paper's textual inversion."""
    graph.note(EMBEDDING_START, (-60, -300), (720, 220))
    base, sockets = put_own_pictures(graph)
    options = graph.node("NSYNC_TrainingOptions", (1540, 60), size=(380, 660))
    # Not the LoRA's: under its name this would be another run's folder.
    name = "my_style_embedding"
    values = {"trains": "embedding", "preset": "paper", "name": name, **sockets}
    trained = graph.node(
        "NSYNC_ContrastiveLoRATrainer",
        (1960, 60),
        size=TRAINER_SIZE,
        title="Train",
        options=options["options"],
        **values,
    )
    loss = {"loss": trained["loss_map"], "filename_prefix": f"nsync/{name}_loss"}
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
    put_comparison(graph, base, arms, down=650)
    graph.group("4. Without and with", (2380, -20, 1280, 1080), GOLD)


def evaluate(graph: Graph) -> None:
    """Load Checkpoint, LoRAs that are there, pictures of the style, CSD."""
    graph.note(EVALUATE_START, (-60, -320), (720, 240))
    name = {"ckpt_name": SD15["name"], "models": [SD15]}
    base = graph.node("CheckpointLoaderSimple", (-40, 60), **name)
    control = graph.node("NSYNC_LoadStyleEncoder", (-40, 240), size=(340, 240), encoder="clip-l-14")
    chained = {"encoder": "csd", "encoders": control["encoders"]}
    encoders = graph.node("NSYNC_LoadStyleEncoder", (-40, 540), size=(340, 240), **chained)
    graph.note(EVALUATE_ENCODERS, (-40, 840), (340, 260))
    graph.group("1. Encoders", (-80, -20, 420, 1160), GREEN)

    words = {"folder": "input/my_style", "token": TOKEN, "resolution": 512}
    style_set = graph.node("NSYNC_StyleSet", (400, 60), size=(360, 380), **words)
    parts = {name: base[name.upper()] for name in ("model", "clip", "vae")}
    drawing = {"loras": "my_style*", "captions": OWN_CAPTIONS, "drift": True, **parts}
    arms = graph.node("NSYNC_StyleComparison", (400, 500), size=(380, 640), **drawing)
    graph.note(EVALUATE_ARMS, (820, 60), (320, 240))
    graph.group("2. Arms", (360, -20, 820, 1200), BLUE)

    judged = {"arms": arms["arms"], "style_set": style_set["style_set"]}
    put_verdict(graph, encoders, judged, arms, "my_style", (1240, 60))
    graph.note(EVALUATE_VERDICT, (1240, 520), (380, 200))
    graph.group("3. The verdict", (1200, -20, 920, 1720), GOLD)


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
    ours = {f"nsync_{draw.__name__}": draw for draw in (quickstart, sd15, embedding, evaluate)}
    for name, draw in {**ours, "supcon_gan": supcon_gan}.items():
        graph = Graph(name, info, versions)
        draw(graph)
        content = json.dumps(graph.json(), indent=2, ensure_ascii=True) + "\n"
        (WORKFLOWS / f"{name}.json").write_text(content, encoding="ascii")
        print(f"workflows/{name}.json: {len(graph.nodes)} nodes, {len(graph.links)} links")


if __name__ == "__main__":
    main()
