"""The two Inceptions beside their references: the 2015 network, and torchvision's."""

import os
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from encoder_files import ODD_SIZES, pattern, some_pictures
from PIL import Image
from record import Record, filled, importable
from torch import Tensor
from torchvision.models import Inception3

from nsync.evaluation import preprocess
from nsync.evaluation.loading import load_encoder
from nsync.evaluation.paper import subset_kernel
from nsync.evaluation.pictures import as_pictures


def inception(record: Record, clones: Path, folder: Path) -> None:
    """Checks K, L and M: trunk, resize, and features of odd sizes end to end."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    from torchmetrics.image.fid import NoTrainInceptionV3

    with patch("torch.nn.Module.load_state_dict"), patch("torch.load"):
        blank = FeatureExtractorInceptionV3("blank", ["2048"], "no file")
    path = folder / "inception.pth"
    torch.save(filled(blank).state_dict(), path)
    wanted = ["2048", "logits_unbiased"]
    model = FeatureExtractorInceptionV3("inception-v3-compat", wanted, str(path))
    encoder = load_encoder("inception", path)
    square = [torch.from_numpy(pattern(299, 299) // (k + 1)) for k in range(3)]
    odd = as_pictures([torch.from_numpy(pattern(*size)) for size in ODD_SIZES])
    for label, pictures in (("at 299 px", as_pictures(square)), ("at odd sizes", odd)):
        ours = encoder.encode(pictures)
        pool, logits = map(torch.cat, zip(*(model(one[None]) for one in pictures), strict=True))
        record.compare(f"Inception {label}, pool features", ours, pool, 1e-5, True)
        record.compare(f"Inception {label}, logits", encoder.logits(ours), logits, 1e-5, True)
    other = NoTrainInceptionV3("inception-v3-compat", ["2048"], str(path), antialias=False)
    theirs = torch.cat([other(picture[None]) for picture in odd])
    record.compare("Inception at odd sizes, torchmetrics", ours, theirs, 1e-5, True)
    record.keep("inception", blank, values=pool[:3], logits=logits[:3])
    tensorflow_resize(record, odd)


def tensorflow_resize(record: Record, pictures: list[Tensor]) -> None:
    from torch_fidelity.interpolate_compat_tensorflow import (
        interpolate_bilinear_2d_like_tensorflow1x as resize,
    )

    def theirs(picture: Tensor) -> Tensor:
        return (resize(picture[None].float(), (299, 299), align_corners=False)[0] - 128) / 128

    way = preprocess.INCEPTION_299.prepare
    worst = max(float((way(one) - theirs(one)).abs().max()) for one in pictures)
    record.add("Inception resize (TensorFlow 1), bit for bit", worst, 0)
    small = theirs(torch.from_numpy(pattern(8, 6)).permute(2, 0, 1))
    record.fixtures["tensorflow"] = {"values": small[0, 100:104, 150:156].tolist()}


def gan_metrics(record: Record, clones: Path, folder: Path) -> None:
    """Check N: what NSYNC cites, from files to features and KID, on torchvision's Inception.

    Its FID of so few pictures ends in "Imaginary component"; `formulas.py` compares that formula.
    """
    checkpoints = folder / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)
    model = filled(Inception3(init_weights=False))
    path = checkpoints / "inception_v3_google-0cc3c7bd.pth"
    torch.save(model.state_dict(), path)
    encoder = load_encoder("inception-imagenet", path)
    sets = {name: _same_sized(folder / name, k + 1) for k, name in enumerate("ab")}
    x, y = (encoder.encode(as_pictures(files)) for files in sets.values())
    with importable(clones / "gan-metrics-pytorch"), patch.dict(os.environ, TORCH_HOME=str(folder)):
        import fid_score
        import kid_score

        network = fid_score.InceptionV3([3])
        read = [fid_score.get_activations(files, network, 4) for files in sets.values()]
        for label, ours, theirs in zip("ab", (x, y), map(torch.from_numpy, read), strict=True):
            check = f"ImageNet Inception from files of set {label}, gan-metrics"
            record.compare(check, ours, theirs, 1e-4, True)
        np.random.seed(5)
        kid = kid_score.polynomial_mmd_averages(*read, n_subsets=100, subset_size=len(x))[0].mean()
        theirs = torch.cat([network(picture[None] / 255)[0] for picture in some_pictures()])
    pair = torch.tensor(subset_kernel(x, y, seed=5)[0]), torch.tensor(kid)
    record.compare("KID from files, gan-metrics", *pair, 1e-4, True)
    record.keep("inception-imagenet", model, values=theirs.flatten(1))


def _same_sized(folder: Path, part: int) -> list[Path]:
    """Pictures as that paper saved its own. Others than of one size cannot be stacked, and those
    over a whole number of batches would be dropped."""
    folder.mkdir()
    paths = [folder / f"{i}.png" for i in range(8)]
    for i, path in enumerate(paths):
        Image.fromarray(np.roll(pattern(256, 256) // part + 20 * i, 31 * i, 0)).save(path)
    return paths
