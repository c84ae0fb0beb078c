"""A graph of the second method, small enough to run in seconds.

Imported inside the host's process only.
"""

import nodes

PRETRAINING = {"steps": 4, "batch": 4, "width": 32, "image_size": 16, "validation": 4, "warmup": 0}
TRAINING = {
    "steps": 3,
    "batch": 4,
    "image_size": 64,
    "width": 2,
    "preview_every": 3,
    "save_every": 1,
}
PROMPTS = "\n".join(
    f"a {colour} {shape} in the centre in the style of flat"
    for colour in ("red", "green", "blue")
    for shape in ("circle", "square")
)


def node(kind, **values):
    """A node with its schema's defaults."""
    first = {}
    for one in nodes.NODE_CLASS_MAPPINGS[f"NSYNC_{kind}"].GET_SCHEMA().inputs:
        if one.optional or not hasattr(one, "default"):
            continue
        unset = one.io_type == "COMBO" and one.default is None
        first[one.id] = (one.options or [""])[0] if unset else one.default
    return {"class_type": f"NSYNC_{kind}", "inputs": first | values}


def tiny_set(**pictures):
    """A labelled set of the tiny world: its pictures ("1"), the set ("2")."""
    drawn = {"styles": "flat, outline", "count": 12} | pictures
    lists = {name: ["1", place] for place, name in enumerate(("images", "captions", "labels"))}
    return {
        "1": node("TinyWorldPictures", **drawn),
        "2": node("StyleSet", resolution=64, **lists),
    }


def pretraining(pictures=None, **settings):
    """And what learns it ("3")."""
    learns = node("SupConPretrainer", style_set=["2", 0], **PRETRAINING | settings)
    return {**tiny_set(**(pictures or {})), "3": learns}


def training(pretrained=None, pictures=None, **settings):
    """And a GAN ("4")."""
    sockets = {"style_set": ["2", 0], "encoders": ["3", 0]}
    return {
        **pretraining(pictures, **(pretrained or {})),
        "4": node("SupConGANTrainer", **sockets, **TRAINING | settings),
    }


def painting(model, **settings):
    """A sampler ("6") of `model`, a link, and what it painted, saved ("7") and told ("8")."""
    asked = {"prompts": PROMPTS} | settings
    return {
        "6": node("T2IGANSampler", model=model, **asked),
        "7": {"class_type": "SaveImage", "inputs": {"images": ["6", 0], "filename_prefix": "gan"}},
        "8": told(["6", 1]),
    }


def judging():
    """The evaluator ("10") of what was painted, by the ruler, beside pictures of the world."""
    judged = {"candidates": ["6", 0], "captions": ["6", 1], "references": ["1", 0]}
    return {
        "9": node("LoadStyleEncoder", encoder="ruler"),
        "10": node("StyleEvaluator", encoders=["9", 0], name="gan", **judged),
    }


def told(link):
    """Shows a value as text."""
    return {"class_type": "PreviewAny", "inputs": {"source": link}}
