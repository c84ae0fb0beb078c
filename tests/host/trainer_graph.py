"""A graph around the trainer, with small models of the host's own classes on its sockets.

Imported inside the host's process only.
"""

import logging

import architectures
import comfy.sample
import nodes
import torch
from PIL import Image

NAMES = ("model", "clip", "vae", "style_set")
OUTPUTS = {
    "model": "MODEL",
    "lora": "LORA_MODEL",
    "loss_map": "LOSS_MAP",
    "lora_name": "STRING",
    "clip": "CLIP",
    "embedding_word": "STRING",
}
SETTINGS = {
    "rule": "projection",
    "steps": 1,
    "learning_rate": 1e-2,
    "batch": 1,
    "rank": 4,
    "alpha": 4.0,
    "layers": "attention",
    "seed": 0,
    "name": "small",
    "scope": "global",
    "weight": 0.5,
    "shared_noise": False,
    "warmup": 0,
    "schedule": "constant",
    "clip_norm": 1.0,
    "precision": "fp32",
    "preview_every": 1,
    "preview_prompt": "",
    "preview_steps": 2,
    "preview_guidance": 1.0,
}


def graph(options=None, **settings):
    """TestSource -> trainer ("2") -> TestSink; see `serve`.

    Args:
        options: of a Training Options node ("4"), which is there if any are given.
    """
    source = {name: ["1", i] for i, name in enumerate(NAMES)}
    sink = {name: ["2", i] for i, name in enumerate(OUTPUTS)}
    trainer = "NSYNC_ContrastiveLoRATrainer"
    made = {
        "1": {"class_type": "TestSource", "inputs": {}},
        "2": {"class_type": trainer, "inputs": source | SETTINGS | settings},
        "3": {"class_type": "TestSink", "inputs": sink},
    }
    if options:
        made["4"] = {"class_type": "NSYNC_TrainingOptions", "inputs": _all_options(options)}
        made["2"]["inputs"]["options"] = ["4", 0]
    return made


def _all_options(options):
    inputs = nodes.NODE_CLASS_MAPPINGS["NSYNC_TrainingOptions"].GET_SCHEMA().inputs
    first = {i.id: i.options[0] if i.io_type == "COMBO" else i.default for i in inputs}
    return first | options


def with_prompt(made, before, after):
    """The graph, and the prompt `<before><embedding_word><after>` as its own nodes encode it."""
    places = {"string_a": before, "string_b": ["2", 5], "delimiter": ""}
    made["5"] = {"class_type": "StringConcatenate", "inputs": places}
    rest = {"string_a": ["5", 0], "string_b": after, "delimiter": ""}
    made["6"] = {"class_type": "StringConcatenate", "inputs": rest}
    encode = {"clip": ["2", 4], "text": ["6", 0]}
    made["7"] = {"class_type": "CLIPTextEncode", "inputs": encode}
    made["3"]["inputs"]["conditioning"] = ["7", 0]
    return made


def serve(host, given):
    """Two nodes for a graph: one gives what is on the sockets, one takes what comes out."""
    taken = {}

    class TestSource:
        RETURN_TYPES = ("MODEL", "CLIP", "VAE", "NSYNC_STYLE_SET")
        FUNCTION = "give"
        CATEGORY = "test"

        @classmethod
        def INPUT_TYPES(cls):
            return {"required": {}}

        def give(self):
            return tuple(given[name] for name in NAMES)

    class TestSink:
        RETURN_TYPES = ()
        FUNCTION = "take"
        CATEGORY = "test"
        OUTPUT_NODE = True

        @classmethod
        def INPUT_TYPES(cls):
            needed = {name: (kind,) for name, kind in OUTPUTS.items()}
            return {"required": needed, "optional": {"conditioning": ("CONDITIONING",)}}

        def take(self, **values):
            taken.update(values)
            return ()

    host.nodes |= {"TestSource": TestSource, "TestSink": TestSink}
    return taken


def sockets(host, kind, dtype=torch.float32):
    """What a graph of the family has on the trainer's sockets."""
    with torch.inference_mode():  # as the host's own loaders
        model, clip, vae = architectures.sockets(kind, dtype)
    denoiser = host.module("nodes.host.adapter").HostDenoiser(model, clip, vae)
    made = style_set(host, denoiser.identity)
    return {"model": model, "clip": clip, "vae": vae, "style_set": made}


def style_set(host, base):
    """Three positives of two sizes, from pixels, each with a negative on the disk."""
    sets = host.module("nsync.style_set")
    folder = host.base / "output" / "made"
    folder.mkdir(parents=True, exist_ok=True)
    items, files = [], {}
    for i in range(3):
        name, source = f"picture_{i}", torch.Generator().manual_seed(i)
        pixels = torch.rand(3, 64, 64 + 32 * (i % 2), generator=source)
        items.append(sets.StyleItem(name, f"shape number {i}", pixels=pixels))
        other = torch.rand(3, 64, 64, generator=source).mul(255).byte().permute(1, 2, 0)
        Image.fromarray(other.numpy()).save(folder / f"{name}.png")
        files[name] = (folder / f"{name}.png",)
    made = sets.StyleSet(tuple(items), token="sks", resolution=64)
    return made.with_negatives(files, base)


def draw(model, width=architectures.TEXT):
    """Two steps of the host's sampler at 64 px, from one noise and one prompt of this width."""
    with torch.inference_mode():
        channels = model.model.latent_format.latent_channels
        noise = torch.randn(1, channels, 8, 8, generator=torch.Generator().manual_seed(0))
        states = torch.randn(1, 7, width, generator=torch.Generator().manual_seed(1))
        words = [[states, {"pooled_output": states[:, 0]}]]
        settings = (2, 1.0, "euler", "simple", words, words, noise * 0)
        return comfy.sample.sample(model, noise, *settings, disable_pbar=True, seed=1)


def load_lora(model, name, clip=None):
    """By the host's own node: what it loaded, and the keys that the host says it did not load.

    That is the model, or (model, clip) where a clip is given.
    """
    said = []

    class Listener(logging.Handler):
        def emit(self, record):
            said.append(record.getMessage())

    listener = Listener()
    logging.getLogger().addHandler(listener)
    try:
        loaded = nodes.LoraLoader().load_lora(model, clip, name, 1.0, 0.0 if clip is None else 1.0)
    finally:
        logging.getLogger().removeHandler(listener)
    missed = [text for text in said if "lora key not loaded" in text or "NOT LOADED" in text]
    return loaded[0] if clip is None else loaded, missed
