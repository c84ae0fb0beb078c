"""Our encoders beside the reference implementations: random weights, equal on both sides.

A development job in an environment of its own, for none of the references is needed otherwise:

    pip install --no-deps torch-fidelity==0.4.0 torchmetrics==1.9.0 lightning-utilities pytorch-fid
    pip install "setuptools<81" ftfy scikit-learn
    git clone https://github.com/learn2phoenix/CSD                        # 3a9df32
    git clone https://github.com/sayakpaul/cmmd-pytorch                   # f7673a9
    git clone https://github.com/facebookresearch/sscd-copy-detection
    git clone https://github.com/facebookresearch/dinov2
    git clone https://github.com/abdulfatir/gan-metrics-pytorch
    python scripts/agreement/encoders.py FOLDER_OF_THE_CLONES

It fails where a gate is missed, and writes `tests/unit/agreement/encoders.json`: the figures, and
for the tests what the references made of small inputs.
"""

import argparse
import json
import sys
import tempfile
import types
from importlib.metadata import version
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision import transforms

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "unit")]

from encoder_files import FIXTURES, ODD_SIZES, pattern, some_pictures  # noqa: E402
from inceptions import gan_metrics, inception  # noqa: E402
from record import Record, filled, importable, prepared, same_pixels, unit  # noqa: E402

from nsync.evaluation import loading, preprocess  # noqa: E402
from nsync.evaluation.loading import load_encoder  # noqa: E402
from nsync.evaluation.networks import Sizes  # noqa: E402
from nsync.evaluation.pictures import as_pictures  # noqa: E402

IMAGENET = transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
BICUBIC = transforms.InterpolationMode.BICUBIC
TOKENIZER = ROOT / "nsync" / "tiny" / "base" / "tokenizer"
TEXTS = ["a red circle on the left", "two blue rings", "a cross"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("clones", type=Path, help="folder with the reference repositories")
    clones = parser.parse_args().clones.resolve()
    torch.set_grad_enabled(False)
    record = Record()
    for check in (csd, clip, sscd, dinov2, inception, gan_metrics, cmmd):
        with tempfile.TemporaryDirectory() as folder:
            check(record, clones, Path(folder))
    if not all(row["difference"] <= row["gate"] for row in record.figures):
        sys.exit("a gate is missed")
    packages = ("torch", "torchvision", "transformers", "Pillow", "torch-fidelity", "torchmetrics")
    versions = {name: version(name) for name in packages}
    content = {"versions": versions, "figures": record.figures, "fixtures": record.fixtures}
    FIXTURES.parent.mkdir(exist_ok=True)
    FIXTURES.write_text(json.dumps(content) + "\n", encoding="utf-8")


def csd(record: Record, clones: Path, folder: Path) -> None:
    """Checks G and H: the network, small and in full size; the preprocessing."""
    repository = clones / "CSD"
    with importable(repository, repository / "models"):
        import clip
        from clip.model import CLIP
        from CSD.loss_utils import transforms_branch0
        from CSD.model import CSD_CLIP

        for width, layers in ((128, 2), (1024, 24)):
            stand_in = CLIP(768, 224, layers, width, 14, 77, 64, 64, 1, 1).eval()
            clip.load = lambda *_, made=stand_in, **__: (made, None)
            model = filled(CSD_CLIP("vit_large"))
            path = folder / f"csd{width}.bin"
            state = {f"module.{key}": value for key, value in model.state_dict().items()}
            torch.save({"model_state_dict": state}, path)
            loading.SIZES["csd"] = [Sizes(width, layers, 14, 224)]
            encoder, theirs = load_encoder("csd", path), model(prepared(preprocess.CLIP_224))[2]
            name = f"CSD network, {layers} layers of width {width}"
            record.compare(f"{name}, fp32", encoder.encode(some_pictures()), theirs, 1e-6)
            half = encoder.to("cpu", torch.float16).encode(some_pictures())
            record.compare(f"{name}, fp16 against fp32", half, theirs, 5e-4)
            if width == 128:
                record.keep("csd", model, values=theirs)
        check = "CSD preprocessing (transforms_branch0)"
        same_pixels(record, check, preprocess.CLIP_224, transforms_branch0, folder)


def clip(record: Record, clones: Path, folder: Path) -> None:
    """Check P: OpenAI's own network, both towers, from a file in its layout."""
    from transformers import CLIPTokenizerFast

    words = CLIPTokenizerFast.from_pretrained(TOKENIZER)
    with importable(clones / "CSD" / "models"):
        from clip.model import CLIP

        model = filled(CLIP(64, 224, 2, 128, 14, 77, len(words), 128, 2, 2))
    save_file(model.state_dict(), folder / "clip.safetensors")
    loading.SIZES["clip-l-14"] = [Sizes(128, 2, 14, 224)]
    encoder = load_encoder("clip-l-14", folder / "clip.safetensors", tokenizer=TOKENIZER)
    # OpenAI takes the feature at the largest token, which the end sign is, and fills up with 0.
    tokens = words(TEXTS)["input_ids"]
    tokens = torch.tensor([row + [0] * (77 - len(row)) for row in tokens])
    seen = unit(model.encode_image(prepared(preprocess.CLIP_224)))
    read = unit(model.encode_text(tokens))
    record.compare("CLIP pictures (OpenAI)", encoder.encode(some_pictures()), seen, 1e-6)
    record.compare("CLIP texts (OpenAI)", encoder.encode_texts(TEXTS), read, 1e-6)
    record.keep("clip", model, values=seen, texts=read)


def sscd(record: Record, clones: Path, folder: Path) -> None:
    """The network, and both preprocessings of the README."""
    stub = types.ModuleType("classy_vision.models")
    stub.build_model = None
    stubs = {"classy_vision": types.ModuleType("classy_vision"), "classy_vision.models": stub}
    with importable(clones / "sscd-copy-detection" / "sscd", **stubs):
        from models.model import Model

        model = filled(Model("TV_RESNET50", 512, 3.0))
    torch.save(model.state_dict(), folder / "sscd.pt")
    theirs = model(prepared(preprocess.SSCD_320))
    ours = load_encoder("sscd", folder / "sscd.pt").encode(some_pictures())
    record.compare("SSCD network, fp32", ours, theirs, 1e-6)
    record.keep("sscd", model, values=theirs)
    for way, size in ((preprocess.SSCD_288, 288), (preprocess.SSCD_320, [320, 320])):
        reference = [transforms.Resize(size), transforms.ToTensor(), IMAGENET]
        check = f"SSCD preprocessing ({way.id})"
        same_pixels(record, check, way, transforms.Compose(reference), folder)


def dinov2(record: Record, clones: Path, folder: Path) -> None:
    """The authors' network, whose position embeddings are of 518 px; dgm-eval's preprocessing."""
    with importable(clones / "dinov2"):
        from dinov2.hub.backbones import dinov2_vitb14, dinov2_vitl14
        from dinov2.models.vision_transformer import DinoVisionTransformer

        small = DinoVisionTransformer(
            img_size=518, patch_size=14, embed_dim=128, depth=2, num_heads=2, init_values=1.0,
            block_chunks=0, interpolate_offset=0.1, interpolate_antialias=False,
        )  # fmt: skip
        big = [dinov2_vitb14(pretrained=False), dinov2_vitl14(pretrained=False)]
        for name, model in zip(("small", "B", "L"), (small, *big), strict=True):
            torch.save(filled(model).state_dict(), folder / "dino.pth")
            loading.SIZES["dinov2"] = [Sizes(model.embed_dim, len(model.blocks), 14, 518)]
            theirs = unit(model(prepared(preprocess.DINOV2_224)))
            ours = load_encoder("dinov2", folder / "dino.pth").encode(some_pictures())
            record.compare(f"DINOv2 {name} network, fp32", ours, theirs, 1e-6)
            if name == "small":
                record.keep("dinov2", model, values=theirs)
    steps = [transforms.Resize((224, 224), BICUBIC), transforms.ToTensor(), IMAGENET]
    check, reference = "DINOv2 preprocessing (dgm-eval)", transforms.Compose(steps)
    same_pixels(record, check, preprocess.DINOV2_224, reference, folder)


def cmmd(record: Record, clones: Path, folder: Path) -> None:
    """Check F: their pipeline over folders, from files to the distance, on a small tower."""
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(
        hidden_size=128, intermediate_size=512, num_hidden_layers=2, num_attention_heads=2,
        image_size=336, patch_size=14, projection_dim=64,
    )  # fmt: skip
    model = filled(CLIPVisionModelWithProjection(config))
    save_file(model.state_dict(), folder / "clip.safetensors")
    loading.SIZES["clip-l-14-336"] = [Sizes(128, 2, 14, 336)]
    encoder = load_encoder("clip-l-14-336", folder / "clip.safetensors")
    with importable(clones / "cmmd-pytorch"):
        import distance
        import embedding
        import io_util

        theirs = object.__new__(embedding.ClipEmbeddingModel)
        theirs._model, theirs.input_image_size = model, 336
        crop = {"height": 336, "width": 336}
        theirs.image_processor = CLIPImageProcessor(size={"shortest_edge": 336}, crop_size=crop)
        rows = []
        for k, name in enumerate("ab"):
            (folder / name).mkdir()
            for i, size in enumerate(ODD_SIZES):
                picture = Image.fromarray(pattern(*size) // (k + 1) + 90 * k)
                picture.save(folder / name / f"{i}.png")
            ours = encoder.encode(as_pictures(sorted((folder / name).iterdir())))
            embedded = io_util.compute_embeddings_for_dir(str(folder / name), theirs, 2)
            rows.append((ours, torch.from_numpy(embedded)))
        ours, embedded = map(torch.cat, zip(*rows, strict=True))
        record.compare("CMMD embeddings, from files", ours, embedded, 1e-6)
        (a, x), (b, y) = rows
        ours, embedded = distance.mmd(a.numpy(), b.numpy()), distance.mmd(x.numpy(), y.numpy())
        record.compare("CMMD, their formula on both", *map(torch.tensor, (ours, embedded)), 5e-4)
        record.keep("clip-336", model, values=x[:3])


if __name__ == "__main__":
    main()
