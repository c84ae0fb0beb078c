"""A checkpoint file of full size: SD1.5's real keys and shapes, random weights."""

import os
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

RULES = ("projection", "nsync")


def train_full_size(host):
    """Load Checkpoint, two trainers on it, Load LoRA; what came out."""
    sys.path.insert(0, str(Path(__file__).parent))
    import random_checkpoint
    import trainer_graph

    folder = host.base / "models" / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "random_sd15.safetensors"
    values = random_checkpoint.write_sd15(path)
    try:
        doors = _both_doors(host, path)
        told = _train_and_load(host, trainer_graph, path.name)
        return {"millions": values / 1e6, "doors": doors, **told}
    finally:
        path.unlink()


def _both_doors(host, path):
    """The file alone by diffusers, without a configuration, beside Load Checkpoint's objects."""
    import folder_paths
    import torch

    loader = host.nodes["CheckpointLoaderSimple"]()
    ours = host.module("nodes.host.adapter").HostDenoiser(*loader.load_checkpoint(path.name)[:3])
    os.environ["COMFYUI_PATH"] = str(Path(folder_paths.__file__).parent)
    theirs = host.module("nsync.pipelines.loading").load(path)
    latents, noise = torch.randn(2, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    texts, times = ["a fox in the style of sks", "a boat"], torch.tensor([0.2, 0.7])
    with torch.no_grad():
        losses = [
            denoiser.loss(latents, denoiser.encode_prompts(texts), noise, times).tolist()
            for denoiser in (ours, theirs)
        ]
        picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
        codes = [denoiser.encode_images(picture) for denoiser in (ours, theirs)]
    apart = float((codes[0] - codes[1]).abs().max() / codes[0].abs().max())
    return {"losses": losses, "codes": apart, "same": ours.identity == theirs.identity}


def _train_and_load(host, graphs, checkpoint):
    taken = _serve(host, graphs)
    outcome = host.run(_graph(graphs, checkpoint))
    if not outcome.ok:
        return {"error": outcome.error}
    found = {}
    for rule in RULES:
        loaded, unmatched = graphs.load_lora(taken["base"], taken[rule])
        found[rule] = {
            "unmatched": unmatched,
            "layers": len(loaded.patches),
            "changed": float((graphs.draw(loaded, 768) - taken["before"]).abs().max()),
        }
    same = bool((graphs.draw(taken["base"], 768) == taken["before"]).all())
    return {"error": "", "rules": found, "same": same}


def _graph(graphs, checkpoint):
    loader = {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": checkpoint}}
    parts = {name: ["1", i] for i, name in enumerate(("model", "clip", "vae"))}
    graph = {"1": loader, "2": {"class_type": "TestSet", "inputs": parts}}
    settings = graphs.SETTINGS | {"steps": 2, "preview_every": 0, "learning_rate": 1e-3}
    for place, rule in enumerate(RULES, start=3):
        inputs = settings | parts | {"style_set": ["2", 0], "rule": rule, "name": f"full {rule}"}
        trainer = "NSYNC_ContrastiveLoRATrainer"
        graph[str(place)] = {"class_type": trainer, "inputs": inputs}
    names = {f"name_{i}": [str(i + 3), 3] for i in range(len(RULES))}
    return graph | {"9": {"class_type": "TestNames", "inputs": names}}


def _serve(host, graphs):
    taken = {}

    class TestSet:
        RETURN_TYPES = ("NSYNC_STYLE_SET",)
        FUNCTION = "give"
        CATEGORY = "test"

        @classmethod
        def INPUT_TYPES(cls):
            return {"required": {"model": ("MODEL",), "clip": ("CLIP",), "vae": ("VAE",)}}

        def give(self, model, clip, vae):
            taken["base"], taken["before"] = model, graphs.draw(model, 768)
            denoiser = host.module("nodes.host.adapter").HostDenoiser(model, clip, vae)
            return (graphs.style_set(host, denoiser.identity),)

    class TestNames:
        RETURN_TYPES = ()
        FUNCTION = "take"
        CATEGORY = "test"
        OUTPUT_NODE = True

        @classmethod
        def INPUT_TYPES(cls):
            return {"required": {f"name_{i}": ("STRING",) for i in range(len(RULES))}}

        def take(self, **names):
            taken.update(zip(RULES, names.values(), strict=True))
            return ()

    host.nodes |= {"TestSet": TestSet, "TestNames": TestNames}
    return taken


def test_a_full_size_sd15_checkpoint_learns(in_host):
    done = in_host(train_full_size, timeout=1800)
    assert not done["error"]
    assert 1060 < done["millions"] < 1070
    assert done["doors"]["losses"][1] == pytest.approx(done["doors"]["losses"][0], rel=1e-4)
    assert done["doors"]["codes"] < 1e-4
    assert done["doors"]["same"]
    for rule in RULES:
        assert done["rules"][rule]["unmatched"] == []
        assert done["rules"][rule]["layers"] == 128
        assert done["rules"][rule]["changed"] > 1e-4
    assert done["same"]
