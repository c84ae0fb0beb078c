"""Style Comparison, Load Style Encoder and Style Evaluator in the host, on the tiny base."""

import json
import re

import pytest
from questions import answer, ask, once

CAPTIONS = [
    f"a {colour} {shape} {place}"
    for colour in ("red", "green", "blue")
    for shape in ("circle", "square")
    for place in ("in the centre", "on the left")
]
SAMPLING = {"width": 64, "height": 64, "steps": 6, "guidance": 3.0, "scheduler": "simple"}


@pytest.fixture
def answers(in_host, installation):
    return once(installation, in_host, ask_everything)


def ask_everything(host):
    return ask(host, QUESTIONS)


def _node(host, kind, **values):
    """A node with its schema's defaults."""
    inputs = host.nodes[f"NSYNC_{kind}"].GET_SCHEMA().inputs
    first = {}
    for one in inputs:
        if one.optional or not hasattr(one, "default"):
            continue
        first[one.id] = (
            one.options[0] if one.io_type == "COMBO" and one.default is None else one.default
        )
    return {"class_type": f"NSYNC_{kind}", "inputs": first | values}


def _graph(host, evaluator=None, comparison=None, encoder=None, pictures=None):
    """The tiny base, its LoRA, and the verdict; a Save node takes every output."""
    style = {"style": "sunset", "count": 12, "seed": 0} | (pictures or {})
    compared = {"captions": "\n".join(CAPTIONS), "loras": "half.safetensors", **SAMPLING}
    sockets = {"model": ["1", 0], "clip": ["1", 1], "vae": ["1", 2]}
    asked = {"encoders": ["4", 0], "references": ["2", 0], "arms": ["3", 0]}
    return {
        "1": _node(host, "TinyBase"),
        "2": _node(host, "TinyStylePictures", **style),
        "3": _node(host, "StyleComparison", **sockets, **compared | (comparison or {})),
        "4": _node(host, "LoadStyleEncoder", **{"encoder": "ruler"} | (encoder or {})),
        "5": _node(host, "StyleEvaluator", **asked | (evaluator or {})),
        "6": {"class_type": "PreviewAny", "inputs": {"source": ["5", 0]}},
        "7": {"class_type": "SaveImage", "inputs": {"images": ["5", 2], "filename_prefix": "r"}},
        "8": {"class_type": "PreviewAny", "inputs": {"source": ["5", 3]}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["3", 1], "filename_prefix": "g"}},
    }


def _make_lora(host):
    """A LoRA that pulls the base somewhere: random factors under the names of its layers."""
    import torch
    from safetensors.torch import save_file

    model = host.module("nodes.tiny.base").TinyBase.execute().result[0]
    names = host.module("nodes.host.lora").lora_names(model)
    source, tensors = torch.Generator().manual_seed(0), {}
    for path, name in names.items():
        layer = model.model.diffusion_model.get_submodule(path)
        if isinstance(layer, torch.nn.Linear):
            down, up = (4, layer.in_features), (layer.out_features, 4)
            tensors[f"{name}.lora_down.weight"] = 0.1 * torch.randn(down, generator=source)
            tensors[f"{name}.lora_up.weight"] = 0.1 * torch.randn(up, generator=source)
    folder = host.base / "output" / "loras"
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "half.safetensors")
    folder = host.base / "models" / "embeddings"
    folder.mkdir(exist_ok=True)
    save_file({"word": torch.randn(2, 128, generator=source)}, folder / "word.safetensors")


# --- the whole way --------------------------------------------------------------------------------


def judge(host):
    """Draw, judge, judge again with one more arm, and count what was encoded."""
    _make_lora(host)
    first = host.run(_graph(host, evaluator={"candidate": "half"}))
    encoded = _count_encoded(host)
    again = host.run(_graph(host, evaluator={"name": "again"}))
    kept = len(encoded)
    more = host.run(
        _graph(host, evaluator={"name": "more"}, comparison={"loras": "half*\nembedding:word"})
    )
    folder = host.base / "output" / "nsync" / "evaluations" / "evaluation"
    return {
        "errors": [first.error, again.error, more.error],
        "scores": json.loads(first.outputs["6"]["text"][0]),
        "shown": first.outputs["5"],
        "files": sorted(path.name for path in folder.iterdir()),
        "page": (folder / "report.html").read_text()[:200_000],
        "indices": first.outputs["8"]["text"],
        "ranked": len(first.outputs["7"]["images"]),
        "encoded": [kept, len(encoded) - kept],
        "folders": sorted(path.name for path in folder.parent.iterdir()),
    }


def _count_encoded(host):
    kind = host.module("nsync.evaluation.encoders").NetworkEncoder
    prepared, seen = kind._prepared, []

    def counted(self, pictures, on_item):
        seen.extend([self.name] * len(pictures))
        return prepared(self, pictures, on_item)

    kind._prepared = counted
    return seen


def test_a_verdict_and_its_report(answers):
    found = answer(answers, judge)
    assert found["errors"] == ["", "", ""]
    scores = found["scores"]
    assert [arm["name"] for arm in scores["arms"]] == ["half", "base"]
    assert all(len(arm["pictures"]) == len(CAPTIONS) for arm in scores["arms"])
    assert scores["references"] == 12
    assert scores["ceiling"]["value"] > 0.9
    assert scores["floor"] < 0.5
    assert scores["validity"][0]["valid"] is True
    assert {one["score"] for one in scores["comparisons"]} == {"style", "CMMD"}
    assert scores["verdict"] == found["shown"]["text"][0]
    assert re.search(r"half .*base.*[+-]0\.\d{3} \[.*\], p", scores["verdict"])
    names = ["chart.png", "evaluation.json", "pictures.csv", "report.html", "sheet.png"]
    assert found["files"] == names
    assert "http://" not in found["page"].replace("http://www.w3.org", "")
    assert "https://" not in found["page"]


def test_candidates_are_ranked(answers):
    found = answer(answers, judge)
    styles = [picture["style"] for picture in found["scores"]["arms"][0]["pictures"]]
    order = sorted(range(len(styles)), key=lambda i: -styles[i])
    assert found["indices"] == [str(i) for i in order]
    assert found["ranked"] == len(CAPTIONS)


def test_only_new_pictures_are_encoded(answers):
    found = answer(answers, judge)
    assert found["encoded"] == [0, 2 * len(CAPTIONS)]  # by the two rulers, the new arm's alone
    assert found["folders"] == ["again", "evaluation", "more"]  # and nothing else yet


# --- encoders from files --------------------------------------------------------------------------


def judge_by_clip(host):
    """A small CLIP of random weights: with both towers, and its vision tower alone."""
    import folder_paths
    import torch
    from safetensors.torch import save_file
    from transformers import CLIPConfig, CLIPModel

    loading = host.module("nsync.evaluation.loading")
    sizes = host.module("nsync.evaluation.networks").Sizes(128, 2, 14, 224)
    tower = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    tower |= {"intermediate_size": 512, "projection_dim": 64, "hidden_act": "quick_gelu"}
    vision = tower | {"image_size": 224, "patch_size": 14}
    torch.manual_seed(0)
    config = CLIPConfig(
        text_config={**tower, "vocab_size": 49408}, vision_config=vision, projection_dim=64
    )
    state = {k: v.contiguous() for k, v in CLIPModel(config).state_dict().items()}
    state = {k: v for k, v in state.items() if "position_ids" not in k}
    folder = host.base / "models" / "clip_vision"
    folder.mkdir(parents=True, exist_ok=True)
    save_file(state, folder / "both.safetensors")
    alone = {k: v for k, v in state.items() if k.startswith(("vision_model", "visual_proj"))}
    save_file(alone, folder / "alone.safetensors")
    folder_paths.filename_list_cache.clear()
    _make_lora(host)
    before, found = loading.SIZES["clip-l-14"], {}
    loading.SIZES["clip-l-14"] = [sizes]
    try:
        for name in ("both", "alone"):
            chosen = {"encoder": "clip-l-14", "file": f"clip_vision/{name}.safetensors"}
            graph = _graph(host, encoder={"encoders": ["10", 0]}, evaluator={"name": name})
            graph["10"] = _node(host, "LoadStyleEncoder", **chosen)
            outcome = host.run(graph)
            found[name] = outcome.error or json.loads(outcome.outputs["6"]["text"][0])
    finally:
        loading.SIZES["clip-l-14"] = before
    return found


def test_clip_judges_prompts_where_it_reads_texts(answers):
    found = answer(answers, judge_by_clip)
    both, alone = found["both"], found["alone"]
    assert both["encoders"]["adherence"]["name"] == "clip-l-14"
    assert both["encoders"]["style"]["name"] == "ruler"
    assert both["encoders"]["control"]["name"] == "clip-l-14"
    assert {one["score"] for one in both["comparisons"]} == {"style", "adherence", "CMMD"}
    assert all(-1 <= p["adherence"] <= 1 for arm in both["arms"] for p in arm["pictures"])
    assert any("both.safetensors: not the published file" in note for note in both["notes"])
    assert "adherence" not in alone["encoders"]
    assert alone["encoders"]["control"]["identity"] == both["encoders"]["control"]["identity"]


# --- a full card ----------------------------------------------------------------------------------


def run_out_of_memory(host):
    """Where an encoder lies when it does not fit on the card: what is moved, in order."""
    import comfy.model_management as management
    import torch

    nodes = host.module("nodes.evaluation.encoder")
    encoder, moves = host.module("nsync.evaluation.loading").load_encoder("ruler"), []
    made = nodes.HostEncoder(encoder, torch.float32)
    made._device = torch.device("cuda")

    def to(device, dtype=torch.float32):
        moves.append(str(device))
        if str(device) == "cuda":
            raise torch.OutOfMemoryError

    encoder.to = to
    before = management.free_memory, management.soft_empty_cache
    management.free_memory = lambda *asked: moves.append("room")
    management.soft_empty_cache = lambda: moves.append("emptied")
    try:
        made.encode([torch.zeros(3, 64, 64, dtype=torch.uint8)])
    except torch.OutOfMemoryError:
        return moves
    finally:
        management.free_memory, management.soft_empty_cache = before


def test_an_encoder_that_does_not_fit_is_taken_off_the_card(answers):
    assert answer(answers, run_out_of_memory) == ["room", "cuda", "cpu", "emptied"]


# --- bad input ------------------------------------------------------------------------------------


def refuse(host):
    """Each bad request and its error."""
    import folder_paths
    import torch
    from PIL import Image
    from safetensors.torch import save_file

    _make_lora(host)
    folder = host.base / "models" / "style_eval"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "text.safetensors").write_text("no tensors here")
    save_file({"some.weight": torch.zeros(3)}, folder / "other.safetensors")
    Image.new("RGB", (64, 64)).save(host.base / "input" / "one.png")
    folder_paths.filename_list_cache.clear()
    requests = {
        "one reference": {"pictures": {"count": 1}},
        "equal references": {"evaluator": {"references": ["20", 0]}},
        "NaN": {"evaluator": {"references": ["21", 0]}},
        "unknown arm": {"evaluator": {"candidate": "nobody"}},
        "two sources": {"evaluator": {"style_set": ["22", 0]}},
        "nothing to judge": {"evaluator": {"arms": None}},
        "unequal arms": {
            "evaluator": {"arms": None, "candidates": ["2", 0], "baseline": ["20", 0]}
        },
        "no such LoRA": {"comparison": {"loras": "gone.safetensors"}},
        "a path": {
            "comparison": {"loras": str(host.base / "output" / "loras" / "half.safetensors")}
        },
        "no match": {"comparison": {"loras": "half*\nnothing*"}},
        "no such embedding": {"comparison": {"loras": "embedding:gone"}},
        "no captions": {"comparison": {"captions": "\n"}},
        "odd width": {"comparison": {"width": 66, "loras": "gone.safetensors"}},
        "odd height": {"comparison": {"height": 66}},
        "missing file": {"encoder": {"encoder": "csd"}},
        "text": {"encoder": {"encoder": "csd", "file": "style_eval/text.safetensors"}},
        "another network": {
            "encoder": {"encoder": "dinov2", "file": "style_eval/other.safetensors"}
        },
    }
    return {name: _asked(host, asked) for name, asked in requests.items()}


def _asked(host, asked):
    import torch

    class TestPictures:
        RETURN_TYPES = ("IMAGE",)
        FUNCTION = "give"
        CATEGORY = "test"

        @classmethod
        def INPUT_TYPES(cls):
            return {"required": {"value": ("FLOAT", {})}}

        def give(self, value):
            return (torch.full((3, 64, 64, 3), value),)

    host.nodes["TestPictures"] = TestPictures
    graph = _graph(host, **asked)
    inputs = graph["5"]["inputs"]
    graph["5"]["inputs"] = {name: value for name, value in inputs.items() if value is not None}
    graph["20"] = {"class_type": "TestPictures", "inputs": {"value": 0.5}}
    graph["21"] = {"class_type": "TestPictures", "inputs": {"value": float("nan")}}
    graph["22"] = _node(host, "StyleSet", images=["2", 0], captions=["2", 1], resolution=64)
    return host.run(graph).error


@pytest.mark.parametrize(
    ("request_name", "text"),
    [
        ("one reference", "`references`: expected at least two pictures of the style; got 1"),
        ("equal references", "got 3 times the same picture"),
        ("NaN", "expected finite pixels; got NaN or infinite values"),
        ("unknown arm", "`candidate`: expected one of the arms, base, half; got 'nobody'"),
        ("two sources", "`style_set` or `references`, one of the two; got both"),
        ("nothing to judge", "expected `arms` from Style Comparison, or `candidates`"),
        ("unequal arms", "expected as many pictures as"),
        ("no such LoRA", "`loras`: expected names of LoRA files"),
        ("a path", "`loras`: expected names of LoRA files"),
        ("no match", "got 'nothing*'"),
        ("no such embedding", "got 'embedding:gone'"),
        ("no captions", "`captions`: expected at least one line"),
        ("odd width", "`width`: expected a multiple of 4 pixels; got 66"),
        ("odd height", "`height`: expected a multiple of 4 pixels; got 66"),
        ("missing file", "40e92fad63a361b8136100cd234c42d401ef9b34ff1748234318929ebcc7e7a1"),
        ("text", "text.safetensors"),
        ("another network", "other.safetensors"),
    ],
)
def test_bad_input_is_one_clear_error(answers, request_name, text):
    assert text in answer(answers, refuse)[request_name]


# --- several comparisons --------------------------------------------------------------------------


def put_together(host):
    """Names of the arms of two comparisons, whose bases are alike or not; an embedding anew."""
    import os

    import torch

    together = host.module("nodes.evaluation.evaluator")._together
    arm = host.module("nsync.evaluation.arms").Arm
    grey = torch.zeros(3, 8, 8, dtype=torch.uint8)

    def base(shade=0, **words):
        return arm("base", (grey + shade,), **words)

    others = {"alike": base(), "brighter": base(1), "of other words": base(prompts=("a dot",))}
    names = {
        what: [
            one.name for one in together([(base(), arm("a", (grey,))), (other, arm("b", (grey,)))])
        ]
        for what, other in others.items()
    }
    _make_lora(host)
    node, file = (
        host.nodes["NSYNC_StyleComparison"],
        host.base / "models/embeddings/word.safetensors",
    )
    prints = []
    for seconds in (1, 1, 2):
        os.utime(file, (seconds, seconds))
        prints.append(node.fingerprint_inputs(loras="embedding:word"))
    return {"names": names, "prints": [prints[0] == prints[1], prints[1] == prints[2]]}


def call_arms(host):
    """What the arms of lines are called, where files have names in common; one graph of them."""
    import shutil

    import folder_paths

    _make_lora(host)
    loras = host.base / "output" / "loras"
    copies = ("alike/half", "other/half", "alike/one", "alike/base", "alike/word")
    for name in copies:
        (loras / name).parent.mkdir(exist_ok=True)
        shutil.copy(loras / "half.safetensors", loras / f"{name}.safetensors")
    folder_paths.filename_list_cache.clear()
    lines = ["alike/*", "other/half.safetensors", "alike/one.safetensors", "embedding:word"]
    asked = {"loras": "\n".join(lines), "captions": "a red circle", "steps": 1}
    outcome = host.run(_graph(host, comparison=asked, evaluator={"candidate": "one"}))
    shutil.rmtree(loras / "alike"), shutil.rmtree(loras / "other")
    folder_paths.filename_list_cache.clear()
    return outcome.error or [
        arm["name"] for arm in json.loads(outcome.outputs["6"]["text"][0])["arms"]
    ]


def test_arms_of_files_with_one_name_are_told_apart(answers):
    """And a file that two lines name is drawn once."""
    alike = ["alike/base.safetensors", "alike/half.safetensors", "alike/word.safetensors"]
    names = ["one", "base", *alike, "other/half.safetensors", "embedding:word"]
    assert answer(answers, call_arms) == names


def test_bases_drawn_alike_are_one_arm(answers):
    names = answer(answers, put_together)["names"]
    assert names["alike"] == ["base", "a", "b"]
    assert names["brighter"] == names["of other words"] == ["base", "a", "base", "b"]


def test_an_embedding_written_anew_is_drawn_anew(answers):
    assert answer(answers, put_together)["prints"] == [True, False]


QUESTIONS = (judge, judge_by_clip, run_out_of_memory, refuse, put_together, call_arms)
