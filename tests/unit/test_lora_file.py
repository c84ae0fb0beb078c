"""An existing LoRA is read whole, in every naming, with its own scale; or it is an error."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from diffusers.training_utils import _collate_lora_metadata
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file
from torch import Tensor, nn

from nsync.checkpoint import export_file, lora_tensors
from nsync.errors import InputError
from nsync.lora_file import LowRank, match_layers, read_lora

SPELLINGS = {
    "kohya": ("{}.lora_down.weight", "{}.lora_up.weight"),
    "PEFT": ("{}.lora_A.weight", "{}.lora_B.weight"),
    "PEFT with the adapter's name": ("{}.lora_A.default.weight", "{}.lora_B.default.weight"),
    "diffusers": ("{}.lora.down.weight", "{}.lora.up.weight"),
    "attention processors": ("{}_lora.down.weight", "{}_lora.up.weight"),
    "text encoders": ("{}.lora_linear_layer.down.weight", "{}.lora_linear_layer.up.weight"),
}
NAMES = ("lora_unet_down_0_attn1_to_q", "unet.down.0.attn1.processor.to_q", "lora.up.a_lora.to_k")


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def delta(layer: LowRank) -> Tensor:
    down, up = layer.down.double().flatten(1), layer.up.double().flatten(1)
    return layer.alpha / len(down) * up @ down


def kohya(name: str = "a", rank: int = 2, alpha: float | None = 3.0) -> dict[str, Tensor]:
    pair = {f"{name}.lora_down.weight": drawn(rank, 6), f"{name}.lora_up.weight": drawn(5, rank)}
    return pair if alpha is None else {**pair, f"{name}.alpha": torch.tensor(alpha)}


def saved(folder: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> Path:
    path = folder / "style.safetensors"
    save_file(tensors, path, metadata)
    return path


# --- what is read ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("alpha", [None, 3.0, -0.5])
@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
def test_every_naming_gives_the_same_weight(
    tmp_path: Path, spelling: tuple[str, str], alpha: float | None, dtype: torch.dtype
) -> None:
    tensors, expected = {}, {}
    for rank, name in enumerate(NAMES, 2):
        down, up = drawn(rank, 6).to(dtype), drawn(5, rank).to(dtype)
        tensors |= {spelling[0].format(name): down, spelling[1].format(name): up}
        if alpha is not None:
            tensors[f"{name}.alpha"] = torch.tensor(alpha, dtype=dtype)
        scale = 1.0 if alpha is None else alpha / rank
        expected[name] = scale * up.double() @ down.double()
    file = read_lora(saved(tmp_path, tensors, {"ss_steps": "7"}))
    assert set(file.layers) == set(NAMES)
    assert file.name == "style.safetensors"
    assert file.metadata == {"ss_steps": "7"}
    for name, layer in file.layers.items():
        assert layer.down.dtype == layer.up.dtype == torch.float32
        assert (delta(layer) == expected[name]).all(), name


def test_our_own_file_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    weights = {
        "a.lora_A": drawn(4, 6),
        "a.lora_B": drawn(5, 4),
        "b.lora_A": drawn(4, 6, 3, 3),
        "b.lora_B": drawn(5, 4, 1, 1),
    }
    names = {"a": "lora_unet_a", "b": "diffusion_model.b"}
    tensors = lora_tensors(weights, names, {"a": 2.5, "b": 7.0})
    path = export_file(tmp_path / "x.safetensors", tensors, {"t": "x"})
    layers = {"a": nn.Linear(6, 5), "b": nn.Conv2d(6, 5, 3)}
    matched = match_layers(read_lora(path), {v: k for k, v in names.items()}, layers)
    assert list(matched) == ["a", "b"]  # the file has them in its own order
    for layer, factors in matched.items():
        assert factors.alpha == {"a": 2.5, "b": 7.0}[layer]
        assert torch.equal(factors.down, weights[f"{layer}.lora_A"])
        assert torch.equal(factors.up, weights[f"{layer}.lora_B"])


def small_unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        block_out_channels=(8, 16),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=4,
        cross_attention_dim=8,
    )


CONFIGS = {
    "alpha is not the rank": {"lora_alpha": 3},
    "alphas and ranks by layer": {
        "lora_alpha": 6,
        "rank_pattern": {"to_k": 2, r"mid_block.*\.to_v": 3},
        "alpha_pattern": {"to_k": 7, r"mid_block.*\.to_v": 5, "^conv_in": 9},
    },
    "rank-stabilised": {"lora_alpha": 3, "use_rslora": True},
}


@pytest.mark.parametrize("way", ["PEFT's names", "diffusers' names", "the model alone"])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_file_written_by_diffusers_has_the_scale_it_was_trained_with(
    tmp_path: Path, config: dict, way: str
) -> None:
    unet = small_unet()
    targets = ["to_q", "to_k", "to_v", "to_out.0", "conv1", "conv_in"]
    unet.add_adapter(LoraConfig(r=4, target_modules=targets, init_lora_weights=False, **config))
    state = get_peft_model_state_dict(unet)
    told = _collate_lora_metadata({"unet": unet})
    if way == "the model alone":
        unet.save_lora_adapter(tmp_path, adapter_name="default")
    elif way == "PEFT's names":
        StableDiffusionPipeline.save_lora_weights(tmp_path, state, **told)
    else:
        state = convert_state_dict_to_diffusers(state)
        StableDiffusionXLPipeline.save_lora_weights(tmp_path, state, **told)
    file = read_lora(tmp_path / "pytorch_lora_weights.safetensors")
    prefix = "" if way == "the model alone" else "unet."
    trained = {p: m for p, m in unet.named_modules() if isinstance(m, LoraLayer)}
    assert set(file.layers) == {prefix + path for path in trained}
    for path, layer in trained.items():
        expected = layer.get_delta_weight("default").double().flatten(1)
        torch.testing.assert_close(
            delta(file.layers[prefix + path]), expected, rtol=1e-5, atol=1e-6, msg=path
        )


def test_a_tensor_tells_more_than_the_metadata(tmp_path: Path) -> None:
    told = {"lora_adapter_metadata": json.dumps({"unet.lora_alpha": 8, "text.lora_alpha": 5})}
    tensors = kohya("unet.a") | kohya("unet.b", alpha=None) | kohya("c", alpha=None)
    layers = read_lora(saved(tmp_path, tensors, told)).layers
    assert {name: layer.alpha for name, layer in layers.items()} == {
        "unet.a": 3.0,
        "unet.b": 8.0,
        "c": 2.0,
    }


# --- what is refused ------------------------------------------------------------------------------


def foreign(*keys: str) -> dict[str, Tensor]:
    return {key: torch.ones(2, 2) for key in keys}


KINDS = {
    "LoHa weights: 4 (b.hada_w1_a, b.hada_w1_b, b.hada_w2_a, ...)": foreign(
        "b.hada_w1_a", "b.hada_w1_b", "b.hada_w2_a", "b.hada_w2_b", "b.alpha"
    ),
    "LoKr weights: 3 (b.lokr_t2, b.lokr_w1, b.lokr_w2_a)": foreign(
        "b.lokr_w1", "b.lokr_w2_a", "b.lokr_t2"
    ),
    "OFT weights: 3 (b.oft_R.weight, b.oft_blocks, b.rescale)": foreign(
        "b.oft_blocks", "b.rescale", "b.oft_R.weight"
    ),
    "GLoRA weights: 2 (b.a1.weight, b.b2.weight)": foreign("b.a1.weight", "b.b2.weight"),
    "DoRA weights: 2 (a.dora_scale, a.lora_magnitude_vector)": foreign(
        "a.dora_scale", "a.lora_magnitude_vector"
    ),
    "LoCon middle weights: 1 (a.lora_mid.weight)": foreign("a.lora_mid.weight"),
    "full difference weights: 5 (n.b_norm, n.diff, n.diff_b, ...)": foreign(
        "n.diff", "n.diff_b", "n.w_norm", "n.b_norm", "n.set_weight"
    ),
    "LoRA bias weights: 1 (a.lora_B.bias)": foreign("a.lora_B.bias"),
    "reshaping weights: 1 (a.reshape_weight)": foreign("a.reshape_weight"),
    "embedding weights: 1 (bundle_emb.word.string_to_param.*)": foreign(
        "bundle_emb.word.string_to_param.*"
    ),
}
CRIPPLED = {
    "keys of no known kind: 2 (a.lora_A, a.scalar)": foreign("a.scalar", "a.lora_A"),
    "an alpha without factors: 2 (a.weight, b)": foreign("a.weight.alpha", "b.alpha"),
    "layers with one factor of the two: 2 (b, c)": {
        "b.lora_down.weight": torch.ones(2, 3),
        "c.lora_up.weight": torch.ones(2, 3),
    },
    "layers with factors in two namings: 1 (a)": {"a.lora_A.weight": torch.ones(2, 6)},
    "factors whose ranks or shapes contradict each other: 4 (b, c, d, ...)": {
        "b.lora_A.weight": torch.ones(2, 6),
        "b.lora_B.weight": torch.ones(5, 3),
        "c.lora_A.weight": torch.ones(2),
        "c.lora_B.weight": torch.ones(5, 2),
        "d.lora_A.weight": torch.ones(2, 6, 1, 1),
        "d.lora_B.weight": torch.ones(5, 2, 3, 3),
        "e.lora_A.weight": torch.ones(0, 6),
        "e.lora_B.weight": torch.ones(5, 0),
    },
    "factors that are not floating-point: 1 (b)": {
        "b.lora_A.weight": torch.ones(2, 6, dtype=torch.int8),
        "b.lora_B.weight": torch.ones(5, 2, dtype=torch.int8),
    },
    "factors with NaN or infinite values: 3 (b, c, d)": {
        "b.lora_A.weight": torch.full((2, 6), torch.nan),
        "b.lora_B.weight": torch.ones(5, 2),
        "c.lora_A.weight": torch.ones(2, 6),
        "c.lora_B.weight": torch.full((5, 2), -torch.inf),
        "d.lora_A.weight": torch.full((2, 6), 1e300, dtype=torch.float64),
        "d.lora_B.weight": torch.ones(5, 2),
    },
    "layers whose alpha is unreadable, not finite or 0: 3 (b, c, d)": {
        **kohya("b", alpha=torch.nan),
        **kohya("c", alpha=0.0),
        **kohya("d", alpha=None),
        "d.alpha": torch.ones(2),
    },
}


@pytest.mark.parametrize(("told", "more"), [*KINDS.items(), *CRIPPLED.items()])
def test_nothing_of_a_file_is_dropped(tmp_path: Path, told: str, more: dict[str, Tensor]) -> None:
    with pytest.raises(InputError) as caught:
        read_lora(saved(tmp_path, kohya("a") | more))
    start = "`start_from`: expected a LoRA of whole, finite low-rank factors; got style.safetensors"
    text = str(caught.value).removesuffix(
        " Training continues pairs of down and up factors alone and would lose the rest: "
        "apply the file with Load LoRA and train a new LoRA on that model."
    )
    assert text == f"{start} with {told}."
    assert (str(caught.value) != text) == (told in KINDS)


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    wrong = {}
    for i, more in enumerate((*KINDS.values(), *CRIPPLED.values())):
        wrong |= kohya(f"{i}.a") | {f"{i}.{key}": value for key, value in more.items()}
    with pytest.raises(InputError) as caught:
        read_lora(saved(tmp_path, wrong))
    text = str(caught.value)
    for told in (*KINDS, *CRIPPLED):
        assert told.partition(":")[0] in text
    assert text.count("Training continues") == 1


@pytest.mark.parametrize(
    "config",
    [
        "{",
        "[1]",
        '{"lora_alpha": "much"}',
        '{"r": 4}',
        '{"lora_alpha": 8, "alpha_pattern": {"(": 2}}',
    ],
)
def test_an_alpha_that_cannot_be_read_is_not_guessed(tmp_path: Path, config: str) -> None:
    told = {"lora_adapter_metadata": config}
    with pytest.raises(InputError, match=r"alpha is unreadable, not finite or 0: 1 \(a\)"):
        read_lora(saved(tmp_path, kohya("a", alpha=None), told))
    assert read_lora(saved(tmp_path, kohya("a"), told)).layers["a"].alpha == 3.0


def test_a_file_without_layers(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"style\.safetensors with no low-rank layer\.$"):
        read_lora(saved(tmp_path, {}))
    checkpoint = {f"model.{i}.weight": torch.ones(2) for i in range(4)}
    with pytest.raises(InputError, match=r"no known kind: 4 \(model\.0\.weight, .*no low-rank"):
        read_lora(saved(tmp_path, checkpoint))


def test_what_is_no_whole_safetensors_file(tmp_path: Path) -> None:
    whole = saved(tmp_path, kohya()).read_bytes()
    pickled = tmp_path / "pickled.safetensors"
    torch.save(kohya(), pickled)
    contents = {
        "cut short": whole[:-4],
        "cut in the header": whole[:40],
        "empty": b"",
        "text": b"x",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder").mkdir()
    for name in (*contents, pickled.name, "folder", "nowhere"):
        start = f"`start_from`: expected a LoRA in a whole safetensors file; got {name}, which"
        with pytest.raises(InputError) as caught:
            read_lora(tmp_path / name)
        assert str(caught.value).startswith(start)


# --- what it is matched with ----------------------------------------------------------------------

LAYERS = {
    "conv": nn.Conv2d(6, 5, 3, bias=False),
    "linear": nn.Linear(6, 5, bias=False),
    "point": nn.Conv2d(6, 5, 1, bias=False),
}
FORMS = {
    "conv": [((2, 6, 3, 3), (5, 2, 1, 1)), ((2, 54), (5, 2))],
    "linear": [((2, 6), (5, 2)), ((2, 6, 1, 1), (5, 2, 1, 1))],
    "point": [((2, 6, 1, 1), (5, 2, 1, 1)), ((2, 6), (5, 2))],
}
OTHERS = {
    "conv": [((2, 6), (5, 2)), ((2, 6, 1, 1), (5, 2)), ((2, 6, 9), (5, 2)), ((2, 6, 3, 3), (4, 2))],
    "linear": [((2, 5), (6, 2)), ((2, 3, 2), (5, 2)), ((2, 6), (4, 2))],
    "point": [((2, 6, 3, 3), (5, 2, 1, 1)), ((2, 7), (5, 2))],
}


def shaped(name: str, down: tuple[int, ...], up: tuple[int, ...]) -> dict[str, Tensor]:
    return {
        f"{name}.lora_A.weight": drawn(*down),
        f"{name}.lora_B.weight": drawn(*up),
        f"{name}.alpha": torch.tensor(3.0),
    }


@pytest.mark.parametrize(
    ("path", "form"), [(path, form) for path, forms in FORMS.items() for form in forms]
)
def test_factors_take_the_form_of_their_layer(tmp_path: Path, path: str, form: tuple) -> None:
    file = read_lora(saved(tmp_path, shaped("in_the_file", *form)))
    (found,) = match_layers(file, {"in_the_file": path, "other": "conv"}, LAYERS).items()
    down, up = FORMS[path][0]
    assert found[0] == path
    assert (tuple(found[1].down.shape), tuple(found[1].up.shape)) == (down, up)
    assert found[1].alpha == 3.0
    assert torch.equal(delta(found[1]), delta(file.layers["in_the_file"]))


@pytest.mark.parametrize(
    ("path", "form"), [(path, form) for path, forms in OTHERS.items() for form in forms]
)
def test_factors_of_another_shape_are_refused(tmp_path: Path, path: str, form: tuple) -> None:
    file = read_lora(saved(tmp_path, shaped("x", *form)))
    with pytest.raises(InputError) as caught:
        match_layers(file, {"x": path}, LAYERS)
    shape = list(LAYERS[path].weight.shape)
    told = f"layers of another shape: 1 (x with {list(form[0])} and {list(form[1])} for {shape})"
    assert told in str(caught.value)


class Quantised(nn.Module):
    """A host's linear layer: its weight is stored in a form of its own."""

    in_features, out_features = 6, 5
    weight = torch.zeros(15, 1, dtype=torch.uint8)


def test_a_hosts_own_linear_layer_has_the_shape_it_says(tmp_path: Path) -> None:
    file = read_lora(saved(tmp_path, kohya()))
    matched = match_layers(file, {"a": "q"}, {"q": Quantised()})
    assert torch.equal(delta(matched["q"]), delta(file.layers["a"]))


def test_what_fits_nowhere_is_told_by_its_reason(tmp_path: Path) -> None:
    tensors = {k: v for name in ("part", "idle", "twice", "double") for k, v in kohya(name).items()}
    tensors |= shaped("misshapen", (2, 7), (5, 2))
    for i in range(4):
        tensors |= kohya(f"strange{i}")
    file = read_lora(saved(tmp_path, tensors))
    names = {"idle": "elsewhere", "twice": "linear", "double": "linear", "misshapen": "point"}
    with pytest.raises(InputError) as caught:
        match_layers(file, names, LAYERS, {"part"})
    assert str(caught.value) == (
        "`start_from`: expected a LoRA of this model and of the layers that are trained; "
        "got style.safetensors with layers that this run does not train: 1 (idle); "
        "parts of fused layers: 1 (part); "
        "layers that this model does not have: 4 (strange0, strange1, strange2, ...); "
        "names of one layer, linear: 2 (double, twice); "
        "layers of another shape: 1 (misshapen with [2, 7] and [5, 2] for [5, 6, 1, 1]). "
        "Choose what is trained so that it includes them. "
        "This model has them in one weight: use a LoRA that was trained on the fused layers. "
        "Is it a LoRA of another model?"
    )
