"""The names that a UNet's weights have in single-file checkpoints, and so in ComfyUI.

diffusers has the way from these names to its own only. Levels are counted through: of `n` residual
layers a level of the encoder has `n` blocks and a downsampler, one of the decoder `n + 1` blocks,
of which the last holds the upsampler as well.
"""

import re

_ENDS = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_RESIDUAL = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_INNER = re.compile(
    r"(?:(down|up)_blocks\.(\d+)|mid_block)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)"
)


def original_names(names: list[str], layers_per_block: int) -> dict[str, str]:
    """The original name of each weight of a `UNet2DConditionModel`.

    Args:
        names: of all its weights, by diffusers.
        layers_per_block: of its configuration.

    Raises:
        KeyError: a weight that the UNets of Stable Diffusion 1, 2 and XL do not have.
    """
    attends = {".".join(name.split(".")[:2]) for name in names if ".attentions." in name}
    return {name: _original(name, layers_per_block, attends) for name in names}


def _original(name: str, layers: int, attends: set[str]) -> str:
    found = _INNER.fullmatch(name)
    if found is None:
        module, _, leaf = name.rpartition(".")
        return f"{_ENDS[module]}.{leaf}"
    side, level, kind, number, rest = found.groups()
    if kind == "resnets":
        module, _, leaf = rest.rpartition(".")
        rest = f"{_RESIDUAL[module]}.{leaf}"
    if side is None:
        place = 1 if kind == "attentions" else 2 * int(number)
        return f"middle_block.{place}.{rest}"
    first = int(level) * (layers + 1)
    if side == "down":
        if kind == "downsamplers":
            return f"input_blocks.{first + layers + 1}.0.{rest.replace('conv', 'op', 1)}"
        return f"input_blocks.{first + 1 + int(number)}.{int(kind == 'attentions')}.{rest}"
    if kind == "upsamplers":
        place = 2 if f"up_blocks.{level}" in attends else 1
        return f"output_blocks.{first + layers}.{place}.{rest}"
    return f"output_blocks.{first + int(number)}.{int(kind == 'attentions')}.{rest}"
