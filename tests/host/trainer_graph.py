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
OUTPUTS = {"model": "MODEL", "lora": "LORA_MODEL", "loss_map": "LOSS_MAP", "lora_name": "STRING"}
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


def graph(**settings):
    """TestSource -> trainer ("2") -> TestSink; see `serve`."""
    source = {name: ["1", i] for i, name in enumerate(NAMES)}
    sink = {name: ["2", i] for i, name in enumerate(OUTPUTS)}
    trainer = "NSYNC_ContrastiveLoRATrainer"
    return {
        "1": {"class_type": "TestSource", "inputs": {}},
        "2": {"class_type": trainer, "inputs": source | SETTINGS | settings},
        "3": {"class_type": "TestSink", "inputs": sink},
    }


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
            return {"required": {name: (kind,) for name, kind in OUTPUTS.items()}}

        def take(self, **values):
            taken.update(values)
            return ()

    host.nodes |= {"TestSource": TestSource, "TestSink": TestSink}
    return taken


def sockets(host, kind, dtype=torch.float32):
    """What a graph of the family has on the trainer's sockets."""
    with torch.inference_mode():  # as the host's own loaders
        model, clip, vae = architectures.sockets(kind, dtype)
    denoiser = host.module("nodes.host").HostDenoiser(model, clip, vae)
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


def load_lora(model, name):
    """By the host's own node: the model, and the keys that the host says it did not load."""
    said = []

    class Listener(logging.Handler):
        def emit(self, record):
            said.append(record.getMessage())

    listener = Listener()
    logging.getLogger().addHandler(listener)
    try:
        loaded, _ = nodes.LoraLoader().load_lora(model, None, name, 1.0, 0.0)
    finally:
        logging.getLogger().removeHandler(listener)
    return loaded, [text for text in said if "lora key not loaded" in text or "NOT LOADED" in text]
