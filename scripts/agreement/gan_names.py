"""Weights of our GANs under the names of the published ones."""

import sys

import torch
from torch import Tensor, nn

# Of their modules (left) and ours: what a name begins with, for numbered ones with {k}.
_TOLD = (
    ("batch_norm2d", "norm"), ("fc_gamma.linear1", "scale.0"), ("fc_gamma.linear2", "scale.2"),
    ("fc_beta.linear1", "shift.0"), ("fc_beta.linear2", "shift.2"),
)  # fmt: skip
SSA_PAINTER = (
    ("fc", "start"), ("conv_mask", "start_mask"), ("conv_img", "out"),
    ("block{k}.conv_mask", "masks.{k}"), ("block{k}.c_sc", "blocks.{k}.shortcut"),
    ("block{k}.c1", "blocks.{k}.conv1"), ("block{k}.c2", "blocks.{k}.conv2"),
    ("block{k}.gamma", "blocks.{k}.gamma"),
    *((f"block{{k}}.affine{2 * i}.{a}", f"blocks.{{k}}.told{i + 1}.{b}")
      for i in (0, 1) for a, b in _TOLD),
)  # fmt: skip
SSA_CRITIC = (
    ("conv_img", "start"), ("COND_DNET.joint_conv", "score"),
    ("block{k}.conv_r", "blocks.{k}.inner"), ("block{k}.conv_s", "blocks.{k}.shortcut"),
    ("block{k}.gamma", "blocks.{k}.gamma"),
)  # fmt: skip
_TWICE = tuple(
    (f"affine{i}.fc_{a}.linear{n}", f"{b}.{i}.{2 * n - 2}")
    for i in (0, 1) for a, b in (("gamma", "scales"), ("beta", "shifts")) for n in (1, 2)
)  # fmt: skip
GALIP_PAINTER = (
    ("fc_code", "start"), ("mapping.conv_fuse", "bridge.enter"), ("mapping.conv", "bridge.leave"),
    ("mapping.fc_prompt", "bridge.prompts"), ("to_rgb", "out"),
    *((f"{a}.{{k}}.{c}{n}", f"{b}.{{k}}.conv{n}")
      for a, b, c in (("mapping.FBlocks", "bridge.blocks", "conv"), ("GBlocks", "blocks", "c"))
      for n in (1, 2)),
    ("GBlocks.{k}.c_sc", "blocks.{k}.shortcut"),
    *((f"{a}.{{k}}.fuse{n}.{c}", f"{b}.{{k}}.told{n}.{d}")
      for a, b in (("mapping.FBlocks", "bridge.blocks"), ("GBlocks", "blocks"))
      for n in (1, 2) for c, d in _TWICE),
)  # fmt: skip
GALIP_CRITIC = (
    *((f"{a}.{c}", f"{b}.{d}") for a, b in (("DBlocks.{k}", "blocks.{k}"), ("main", "last"))
      for c, d in (("conv_r", "inner"), ("gamma", "gamma"), ("beta", "beta"))),
    ("main.conv_s", "last.shortcut"),
)  # fmt: skip
_STAGED_PAINTER = (
    ("ca_net.fc", "condition.encode.0"), ("h_net1.fc", "start"),
    *((f"h_net1.upsample{k + 1}", f"grow.{k}") for k in range(4)),
    *((f"h_net{k + 2}.residual.{r}.block", f"refine.{k}.{r}.inner")
      for k in range(2) for r in range(2)),
    *((f"h_net{k + 2}.upsample", f"refine.{k}.2") for k in range(2)),
    *((f"img_net{k + 1}.img", f"out.{k}") for k in range(3)),
)  # fmt: skip
"""With two residual blocks."""
ATTN_PAINTER = (
    *_STAGED_PAINTER,
    *((f"h_net{k + 2}.att.conv_context", f"look.{k}.words") for k in range(2)),
)
DM_PAINTER = (
    *_STAGED_PAINTER,
    *((f"h_net{k + 2}.{a}", f"look.{k}.{b}") for k in range(2) for a, b in (
        ("A", "gate_words"), ("B", "gate_map"), ("M_w", "write_words"), ("M_r", "write_map"),
        ("key", "key"), ("value", "value"), ("response_gate", "response"))),
)  # fmt: skip
_DEEPER = (
    (), (("img_code_s32", "see.4"), ("img_code_s32_1", "see.5")),
    (("img_code_s32", "see.4"), ("img_code_s64", "see.5"), ("img_code_s64_1", "see.6"),
     ("img_code_s64_2", "see.7")),
)  # fmt: skip
_HEADS = (("COND_DNET.outlogits.0", "score.1"), ("UNCOND_DNET.outlogits.0", "unconditional"))
ATTN_CRITICS = tuple(
    (
        ("img_code_s16.0", "see.0.0"),
        *((f"img_code_s16.{3 * k - 1 + i}", f"see.{k}.{i}") for k in (1, 2, 3) for i in (0, 1)),
        *deeper, ("COND_DNET.jointConv", "score.0"), *_HEADS,
    )
    for deeper in _DEEPER
)  # fmt: skip
"""Stage by stage."""
DM_CRITICS = tuple(
    (
        *((f"{a}.module.{c}", f"{b}.0.{d}")
          for a, b in (
              *((f"img_code_s16.{2 * k}", f"see.{k}") for k in range(4)),
              *((f"{a}.0", b) for a, b in (*deeper, ("COND_DNET.jointConv", "score.0"))))
          for c, d in (("bias", "bias"), ("weight_bar", "parametrizations.weight.original"),
                       ("weight_u", "parametrizations.weight.0._u"),
                       ("weight_v", "parametrizations.weight.0._v"))),
        *_HEADS,
    )
    for deeper in _DEEPER
)  # fmt: skip


def load(theirs: nn.Module, ours: nn.Module, table: tuple, beside: str = "") -> None:
    """Ours into theirs by `table`; every weight of ours that the table names is used, each once.

    What theirs has beyond is the tower (`beside`), and 1x1 convolutions that it does not use.
    """
    mine, state = ours.state_dict(), theirs.state_dict()
    pairs = {(a.format(k=k), b.format(k=k)) for a, b in table for k in range(9)}
    used = set()
    for name in state:
        found = [b + name[len(a) :] for a, b in pairs if name == a or name.startswith(a + ".")]
        source = [each for each in found if each in mine]
        if source:
            # Theirs has convolutions of one place where ours are linear layers.
            state[name] = mine[source[0]].view_as(state[name])
            used.add(source[0])
        elif not (beside and name.startswith(beside)) and ".conv_s." not in name:
            sys.exit(f"no weight of ours for {name}")
    named = [n for n in mine if any(n == b or n.startswith(b + ".") for _, b in pairs)]
    left = sorted(set(named) - used)
    if left:
        sys.exit(f"weights of ours without use: {left[:5]}")
    theirs.load_state_dict(state)


def openai(vision: nn.Module, projection: Tensor) -> dict[str, Tensor]:
    """The tower's weights under OpenAI's names."""
    mine = getattr(vision, "vision_model", vision).state_dict()
    parts = {
        "class_embedding": "class_embedding", "position_embedding.weight": "positional_embedding",
        "patch_embedding.weight": "conv1.weight",
    }  # fmt: skip
    state = {new: mine[f"embeddings.{old}"] for old, new in parts.items()}
    state["proj"] = projection.detach()
    norms = {"pre_layrnorm": "ln_pre", "post_layernorm": "ln_post"}
    for kind in ("weight", "bias"):
        state |= {f"{new}.{kind}": mine[f"{old}.{kind}"] for old, new in norms.items()}
        for k in range(12):
            layer, block = f"encoder.layers.{k}", f"transformer.resblocks.{k}"
            heads = [mine[f"{layer}.self_attn.{part}_proj.{kind}"] for part in "qkv"]
            state[f"{block}.attn.in_proj_{kind}"] = torch.cat(heads)
            for old, new in (
                ("self_attn.out_proj", "attn.out_proj"), ("mlp.fc1", "mlp.c_fc"),
                ("mlp.fc2", "mlp.c_proj"), ("layer_norm1", "ln_1"), ("layer_norm2", "ln_2"),
            ):  # fmt: skip
                state[f"{block}.{new}.{kind}"] = mine[f"{layer}.{old}.{kind}"]
    return state
