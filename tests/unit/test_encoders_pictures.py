"""From whatever comes to 8-bit pixels, and from those to what each network takes."""

import numpy as np
import pytest
import torch
from encoder_files import pattern, reference, some_pictures, write_pictures
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize
from torchvision.transforms import ToTensor as PilToTensor

from nsync.errors import InputError
from nsync.evaluation import preprocess
from nsync.evaluation.pictures import as_picture, as_pictures
from nsync.evaluation.preprocess import as_in_the_paper

BICUBIC = InterpolationMode.BICUBIC
CLIP = Normalize((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
IMAGENET = Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
SIZES = [(208, 1074), (223, 225), (97, 64)]


def cmmd_crop(image):
    """`_center_crop_and_resize` of the CMMD code."""
    side = min(image.size)
    top, left = (image.height - side) // 2, (image.width - side) // 2
    image = image.crop((left, top, left + side, top + side))
    return image.resize((336, 336), resample=Image.BICUBIC)


REFERENCES = {
    preprocess.CLIP_224: [Resize(224, BICUBIC), CenterCrop(224), PilToTensor(), CLIP],
    preprocess.CMMD_336: [cmmd_crop, PilToTensor(), CLIP],
    preprocess.DINOV2_224: [Resize((224, 224), BICUBIC), PilToTensor(), IMAGENET],
    preprocess.SSCD_288: [Resize(288), PilToTensor(), IMAGENET],
    preprocess.SSCD_320: [Resize([320, 320]), PilToTensor(), IMAGENET],
    preprocess.RULER_64: [lambda image: image.resize((64, 64)), PilToTensor()],
}


@pytest.mark.parametrize("way", REFERENCES, ids=lambda way: way.id)
def test_files_are_prepared_to_the_bit_as_the_reference_does(tmp_path, way):
    """Odd sizes, each in RGB, grey, with alpha, from a palette, and turned by EXIF."""
    shown = write_pictures(tmp_path, SIZES)
    for path, image in shown.items():
        ours, theirs = way.prepare(as_picture(path)), Compose(REFERENCES[way])(image)
        assert ours.dtype == torch.float32
        assert torch.equal(ours, theirs), path.name


def test_the_papers_way_resizes_to_256_first(tmp_path):
    way = as_in_the_paper(preprocess.CLIP_224)
    assert way.id == "nsync256+clip-224"
    Image.fromarray(pattern(208, 1074)).resize((256, 256)).save(tmp_path / "theirs.png")
    ours = way.prepare(torch.from_numpy(pattern(208, 1074)).permute(2, 0, 1))
    assert torch.equal(ours, preprocess.CLIP_224.prepare(as_picture(tmp_path / "theirs.png")))


def test_inception_resizes_as_tensorflow_did():
    """Against torch-fidelity's numbers, and where pixels are known: corner to corner, no blur."""
    small = torch.from_numpy(pattern(8, 6)).permute(2, 0, 1)
    ours = preprocess.INCEPTION_299.prepare(small)
    assert ours.shape == (3, 299, 299)
    assert torch.equal(ours[0, 100:104, 150:156], torch.tensor(reference("tensorflow")["values"]))
    double = torch.from_numpy(pattern(598, 598)).permute(2, 0, 1)
    every_second = (double[:, ::2, ::2].float() - 128) / 128
    assert torch.equal(preprocess.INCEPTION_299.prepare(double), every_second)


def test_every_way_has_a_name_of_its_own():
    ways = [way for way in vars(preprocess).values() if isinstance(way, preprocess.Preprocessing)]
    ways += [as_in_the_paper(way) for way in ways]
    assert len({way.id for way in ways}) == len(ways) == 16


def test_floats_are_cut_to_8_bit_as_the_host_saves_them(tmp_path):
    """nodes.py, SaveImage: np.clip(255. * image, 0, 255).astype(np.uint8)."""
    image = torch.rand(9, 7, 3, generator=torch.Generator().manual_seed(0)) * 1.2 - 0.1
    saved = np.clip(255.0 * image.numpy(), 0, 255).astype(np.uint8)
    Image.fromarray(saved).save(tmp_path / "saved.png")
    assert torch.equal(as_picture(image), as_picture(tmp_path / "saved.png"))
    assert torch.equal(as_picture(image), torch.from_numpy(saved).permute(2, 0, 1))


def test_a_loaded_picture_goes_through_unchanged():
    every = torch.arange(256, dtype=torch.uint8).reshape(16, 16, 1).expand(16, 16, 3)
    assert torch.equal(as_picture(every.float() / 255), every.permute(2, 0, 1))
    assert torch.equal(as_picture(every), every.permute(2, 0, 1))


def test_alpha_of_a_tensor_is_put_on_white_as_that_of_its_file(tmp_path):
    rgba = pattern(12, 10, 4)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    ours = as_picture(torch.from_numpy(rgba).float() / 255)
    assert torch.equal(ours, as_picture(tmp_path / "a.png"))
    clear = torch.zeros(2, 2, 4)
    assert (as_picture(clear) == 255).all()


def test_grey_channels_first_and_batches():
    grey = torch.from_numpy(pattern(6, 5, 1))
    assert torch.equal(as_picture(grey), grey.permute(2, 0, 1).expand(3, -1, -1))
    first, second = some_pictures(2)
    assert torch.equal(as_picture(first), first)
    batch = torch.rand(2, 4, 5, 3)
    several = as_pictures([batch, second])
    assert [one.shape for one in several] == [(3, 4, 5), (3, 4, 5), second.shape]
    assert torch.equal(several[1], as_picture(batch[1]))
    assert len(as_pictures(batch)) == 2


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_pixels_that_are_no_numbers_are_refused_by_picture(bad):
    pictures = [torch.rand(4, 4, 3), torch.rand(4, 4, 3)]
    pictures[1][2, 1, 0] = bad
    with pytest.raises(InputError, match=r"`candidates 2`.*NaN"):
        as_pictures(pictures, "candidates")


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (torch.zeros(4, 4), "\\[h, w, c\\]"),
        (torch.zeros(5, 5, 7), "\\[h, w, c\\]"),
        (torch.zeros(0, 4, 3), "\\[h, w, c\\]"),
        (torch.zeros(4, 4, 3, dtype=torch.int64), "int64"),
        (torch.zeros(1, 101, 3), "100 times as long"),
        ("no_such.png", "no such file"),
    ],
)
def test_what_is_no_picture_is_refused(source, told):
    with pytest.raises(InputError, match=told):
        as_picture(source)
