"""The workflow of the second method: a labelled tiny world, two trainings, a verdict."""

from __future__ import annotations

from litegraph import Graph, Link, Node
from workflow_parts import BLUE, GOLD, GREEN, ROSE, TRAINER_SIZE, put_text

ASKED, OTHER = "neon", "comic"
"""Styles: the one that is judged, and the one that its baseline is painted in."""

SET = {"label_by": "caption", "styles": f"{ASKED}, {OTHER}", "scenes": "one object"}
PRETRAINING = {
    "steps": 800,
    "batch": 16,
    "image_size": 32,
    "width": 64,
    "validation": 100,
    "validate_every": 200,
}
TRAINING = {
    "family": "SSA-GAN",
    "image_size": 32,
    "steps": 2200,
    "batch": 8,
    "width": 16,
    "match_weight": 0.3,
    "penalty_every": 4,
    "generator_rate": 1e-3,
    "discriminator_rate": 2e-3,
    "ema": 0.995,
    "preview_every": 400,
    "save_every": 800,
}

START = """# A text-to-image GAN of your own
Press **Run**. In ten minutes on a CPU a GAN learns, from nothing, to paint simple shapes in two \
styles as prompts ask for them: in one pass, in milliseconds. Labels guide it (supervised \
contrastive learning, arXiv 2412.03957). Nothing is downloaded."""

SET_NOTE = """## 1. The labelled set
Pictures, captions, and a **label** for each: here all that its caption says. The caption names \
the style too, so that a prompt can ask for it. For your own pictures put a folder for each label \
into one folder, choose that in **Style Set**, and leave the sockets open."""

ENCODERS_NOTE = """## 2. Encoders
They learn which text is of which picture, and that what shares a label belongs together. \
R-precision tells how often a text finds its own picture among some that training never saw. For \
real pictures choose a CLIP in `encoders`."""

GAN_NOTE = """## 3. The GAN
Two branches: each step sees pairs, and other pairs of the same labels. With `contrast` at *none* \
it is the same GAN without: try both. More `steps` under the same `name` train it further, \
and the pictures get better."""

PAINT_NOTE = """## 4. Painting
A prompt a line. Change the prompts, or the seed, and press **Run** again: nothing is trained \
twice. It knows the words of its captions and no others."""

VERDICT_NOTE = f"""## 5. The verdict
The same contents, asked for in the style *{ASKED}* and, as the baseline, in *{OTHER}*. **Style \
Evaluator** compares both with pictures of the style *{ASKED}* that training never saw: does the \
prompt decide the style, and how near does it come?"""

CONTENTS = [
    f"a {colour} {shape} {place}"
    for colour, shape, place in (
        ("red", "circle", "in the centre"),
        ("yellow", "square", "on the left"),
        ("green", "triangle", "on the right"),
        ("blue", "cross", "at the top"),
        ("purple", "ring", "at the bottom"),
        ("red", "square", "at the top"),
        ("yellow", "triangle", "in the centre"),
        ("green", "circle", "on the left"),
        ("blue", "ring", "in the centre"),
        ("purple", "cross", "on the right"),
        ("red", "triangle", "at the bottom"),
        ("blue", "square", "on the right"),
    )
]


def supcon_gan(graph: Graph) -> None:
    """Tiny world, small encoders, SSA-GAN, the ruler."""
    graph.note(START, (-60, -260), (640, 180))
    style_set = _put_set(graph)
    encoders = _put_pretraining(graph, style_set)
    model = _put_training(graph, style_set, encoders["encoders"])
    _put_painting(graph, model["model"])
    _put_verdict(graph, model["model"])


def _put_set(graph: Graph) -> Link:
    pictures = graph.node("NSYNC_TinyWorldPictures", (-40, 60), count=800, seed=0, **SET)
    lists = {name: pictures[name] for name in ("images", "captions", "labels")}
    words = {"token": "sks", "resolution": 64}
    style_set = graph.node("NSYNC_StyleSet", (320, 60), size=(320, 380), **words, **lists)
    few = graph.node("NSYNC_TinyWorldPictures", (-40, 380), count=8, seed=2, **SET)
    graph.node("PreviewImage", (320, 500), size=(320, 300), images=few["images"])
    graph.note(SET_NOTE, (-40, 660), (320, 230))
    graph.group("1. Labelled set", (-80, -20, 760, 1200), GREEN)
    return style_set["style_set"]


def _put_pretraining(graph: Graph, style_set: Link) -> Node:
    named = {"name": "tiny_encoders", "style_set": style_set}
    kind, size = "NSYNC_SupConPretrainer", (360, 740)
    encoders = graph.node(kind, (740, 60), size=size, **named, **PRETRAINING)
    loss = {"loss": encoders["loss_map"], "filename_prefix": "nsync/tiny_encoders_loss"}
    graph.node("LossGraphNode", (1140, 60), size=(300, 260), **loss)
    report = {"title": "R-precision", "source": encoders["report"]}
    graph.node("PreviewAny", (1140, 380), size=(300, 200), **report)
    put_text(graph, "Encoders file", (1140, 640), encoders["file"])
    graph.note(ENCODERS_NOTE, (740, 860), (360, 220))
    graph.group("2. Encoders", (700, -20, 780, 1200), BLUE)
    return encoders


def _put_training(graph: Graph, style_set: Link, encoders: Link) -> Node:
    named = {"name": "tiny_gan", "style_set": style_set, "encoders": encoders}
    kind = "NSYNC_SupConGANTrainer"
    model = graph.node(kind, (1540, 60), size=TRAINER_SIZE, **named, **TRAINING)
    loss = {"loss": model["loss_map"], "filename_prefix": "nsync/tiny_gan_loss"}
    graph.node("LossGraphNode", (1960, 60), size=(340, 280), **loss)
    put_text(graph, "Model file", (1960, 400), model["file"])
    graph.note(GAN_NOTE, (1960, 560), (340, 220))
    graph.group("3. The GAN", (1500, -20, 840, 1200), ROSE)
    return model


def _put_painting(graph: Graph, model: Link) -> None:
    asked = [f"{content} in the style of {s}" for s in (ASKED, OTHER) for content in CONTENTS[:5]]
    sampling = {"prompts": "\n".join(asked), "seed": 1, "model": model}
    painted = graph.node("NSYNC_T2IGANSampler", (2400, 60), size=(400, 340), **sampling)
    larger = {"upscale_method": "nearest-exact", "scale_by": 8.0, "image": painted["images"]}
    image = graph.node("ImageScaleBy", (2400, 460), size=(400, 82), **larger)["IMAGE"]
    graph.node("PreviewImage", (2840, 60), size=(560, 560), title="Painted", images=image)
    graph.note(PAINT_NOTE, (2400, 620), (400, 200))
    graph.group("4. Painting", (2360, -20, 1080, 1200), GOLD)


def _put_verdict(graph: Graph, model: Link) -> None:
    named = "\n".join(f"{content} in the style of {ASKED}" for content in CONTENTS)
    text = {"value": named, "title": "Prompts"}
    prompts = graph.node("PrimitiveStringMultiline", (3500, 60), size=(380, 280), **text)["STRING"]
    replaced = {"string": prompts, "find": ASKED, "replace": OTHER}
    others = graph.node("StringReplace", (3500, 400), size=(380, 160), **replaced)["STRING"]
    sampling = {"seed": 1, "model": model}
    kind, size = "NSYNC_T2IGANSampler", (340, 300)
    titles = {title: f"In the style {title}" for title in (ASKED, OTHER)}
    asked = graph.node(
        kind, (3920, 60), size=size, title=titles[ASKED], prompts=prompts, **sampling
    )
    other = graph.node(
        kind, (3920, 420), size=size, title=titles[OTHER], prompts=others, **sampling
    )
    source = {"style": ASKED, "count": 48, "seed": 1}
    references = graph.node("NSYNC_TinyStylePictures", (3500, 620), **source)
    ruler = graph.node("NSYNC_LoadStyleEncoder", (3500, 820), size=(340, 240), encoder="ruler")
    judged = {
        "encoders": ruler["encoders"],
        "references": references["images"],
        "candidate": ASKED,
        "candidates": asked["images"],
        "baseline": other["images"],
        "captions": asked["prompts"],
        "name": "tiny_gan",
    }
    found = graph.node("NSYNC_StyleEvaluator", (3920, 780), size=(340, 380), **judged)
    verdict = {"title": "Verdict", "source": found["verdict"]}
    graph.node("PreviewAny", (4320, 60), size=(420, 160), **verdict)
    chart = {"title": "Chart", "images": found["chart"]}
    graph.node("PreviewImage", (4320, 280), size=(420, 420), **chart)
    graph.note(VERDICT_NOTE, (4320, 760), (420, 220))
    graph.group("5. The verdict", (3460, -20, 1320, 1200), GREEN)
