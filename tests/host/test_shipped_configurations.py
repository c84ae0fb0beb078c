"""Configurations of published bases that come with the library, held to the host's own networks."""

import pytest

pytestmark = pytest.mark.newest

COMMON = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 320,
    "use_spatial_transformer": True, "legacy": False, "use_temporal_attention": False,
}  # fmt: skip
UNETS = {
    "stable_diffusion_1": {
        "num_res_blocks": [2] * 4, "channel_mult": [1, 2, 4, 4], "context_dim": 768,
        "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0], "transformer_depth_middle": 1,
        "transformer_depth_output": [1] * 9 + [0] * 3, "num_heads": 8,
        "use_linear_in_transformer": False,
    },
    "stable_diffusion_xl": {
        "num_res_blocks": [2] * 3, "channel_mult": [1, 2, 4], "context_dim": 2048,
        "transformer_depth": [0, 0, 2, 2, 10, 10], "transformer_depth_middle": 10,
        "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10], "num_head_channels": 64,
        "use_linear_in_transformer": True, "num_classes": "sequential", "adm_in_channels": 2816,
    },
}  # fmt: skip
"""As `comfy/model_detection.py` tells them of the published files."""


def differences(host):
    """By base: weights that only one side has, or in another shape."""
    import comfy.model_base
    import comfy.ops
    import torch
    from diffusers import UNet2DConditionModel

    known = host.module("nsync.pipelines.known")
    original_names = host.module("nsync.pipelines.unet_names").original_names
    found = {}
    for name, told in UNETS.items():
        with torch.device("meta"):
            theirs = comfy.model_base.UNetModel(
                **COMMON, **told, device="meta", operations=comfy.ops.disable_weight_init
            ).state_dict()
            config = UNet2DConditionModel.load_config(known._BASES / name / "unet")
            unet = UNet2DConditionModel.from_config(config)
        ours = unet.state_dict()
        names = original_names(list(ours), unet.config.layers_per_block)
        mine = {(names[key], tuple(value.shape)) for key, value in ours.items()}
        host_has = {(key, tuple(value.shape)) for key, value in theirs.items()}
        found[name] = [len(mine), sorted(map(str, mine ^ host_has))[:4]]
    return found


def tokenizers(host):
    """Where CLIP's words are found from inside the host, and what a prompt is with them."""
    import comfy.sd1_clip

    known = host.module("nsync.pipelines.known")
    words = known.clip_words(None)
    text = "a painting of a fox, in the style of sks!"
    told = known.clip_tokenizer(words, "tokenizer")(text, padding="max_length").input_ids
    pairs = comfy.sd1_clip.SDTokenizer().tokenize_with_weights(text)[0]
    return {"same": told == [pair[0] for pair in pairs], "length": len(told)}


def ask(host):
    return {"differences": differences(host), "tokenizers": tokenizers(host)}


def test_networks_and_words_are_the_hosts(in_host, installation, monkeypatch):
    monkeypatch.setenv("COMFYUI_PATH", str(installation.folder))
    found = in_host(ask, timeout=300)
    assert found["differences"] == {
        "stable_diffusion_1": [686, []],
        "stable_diffusion_xl": [1680, []],
    }
    assert found["tokenizers"] == {"same": True, "length": 77}
