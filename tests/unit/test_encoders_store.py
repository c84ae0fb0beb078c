"""Stored vectors: a picture goes through an encoder once, whatever happens to the files."""

import logging
import threading

import pytest
import torch
from safetensors.torch import load_file, save_file

from nsync.evaluation import store
from nsync.evaluation.encoders import NetworkEncoder
from nsync.evaluation.preprocess import CLIP_224, RULER_64
from nsync.evaluation.store import encode_stored, pixel_hash


class Mean(torch.nn.Module):
    width = 3

    def forward(self, pixels):
        return pixels.mean((2, 3)) + 0.1


class Counting(NetworkEncoder):
    """Counts the pictures that come through."""

    def __init__(self, way=RULER_64, identity="a" * 64):
        super().__init__("csd", Mean(), way, identity)
        self.seen = 0

    def encode(self, pictures, on_item=None):
        self.seen += len(pictures)
        return super().encode(pictures, on_item)


def pictures(*seeds, size=(9, 7)):
    make = [torch.Generator().manual_seed(seed) for seed in seeds]
    return [torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=g) for g in make]


def files(folder):
    return sorted(folder.rglob("*.safetensors"))


def test_only_new_pictures_are_encoded_and_order_is_kept(tmp_path):
    encoder = Counting()
    first = encode_stored(encoder, pictures(1, 2, 3), tmp_path)
    assert torch.equal(first, Counting().encode(pictures(1, 2, 3)))
    again = encode_stored(encoder, pictures(3, 4, 1, 4), tmp_path)
    assert encoder.seen == 4  # the fourth alone, once
    assert torch.equal(again, Counting().encode(pictures(3, 4, 1, 4)))
    assert encode_stored(encoder, [], tmp_path).shape == (0, 3)


def test_key_is_pixels_weights_preprocessing_and_precision(tmp_path):
    encode_stored(Counting(), pictures(1), tmp_path)
    half = Counting()
    half.to("cpu", torch.float16)
    for other in (Counting(way=CLIP_224), Counting(identity="b" * 64), half):
        encode_stored(other, pictures(1), tmp_path)
        assert other.seen == 1
    same = Counting()
    encode_stored(same, pictures(1), tmp_path)
    assert same.seen == 0
    flat = torch.arange(24, dtype=torch.uint8)
    assert pixel_hash(flat.view(3, 2, 4)) != pixel_hash(flat.view(3, 4, 2))
    assert pixel_hash(flat.view(3, 2, 4)) != pixel_hash(flat.view(3, 2, 4) + 1)
    turned = flat.view(3, 2, 4).permute(0, 2, 1)
    assert pixel_hash(turned) == pixel_hash(turned.contiguous())


@pytest.mark.parametrize("content", [b"", b"not safetensors", None])
def test_a_damaged_file_is_ignored_with_a_warning(tmp_path, caplog, content):
    encode_stored(Counting(), pictures(1, 2), tmp_path)
    (path,) = files(tmp_path)
    path.write_bytes(path.read_bytes()[:-2] if content is None else content)
    encoder = Counting()
    with caplog.at_level(logging.WARNING):
        vectors = encode_stored(encoder, pictures(1, 2), tmp_path)
    assert encoder.seen == 2
    assert torch.equal(vectors, Counting().encode(pictures(1, 2)))
    assert "damaged" in caplog.text
    assert path not in files(tmp_path)
    caplog.clear()
    encode_stored(encoder, pictures(1, 2), tmp_path)
    assert encoder.seen == 2
    assert not caplog.text


@pytest.mark.parametrize(
    "row", [torch.full((3,), torch.nan), torch.ones(4), torch.ones(3).double(), torch.ones(1, 3)]
)
def test_vectors_that_cannot_be_are_not_used(tmp_path, row):
    encode_stored(Counting(), pictures(1), tmp_path)
    (path,) = files(tmp_path)
    save_file(dict.fromkeys(load_file(path), row), path)
    encoder = Counting()
    assert torch.equal(encode_stored(encoder, pictures(1), tmp_path), encoder.encode(pictures(1)))


def test_an_interrupted_run_keeps_what_it_had(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "CHUNK", 2)
    seen = []

    def on_item(done, total):
        seen.append((done, total))
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode_stored(Counting(), pictures(*range(6)), tmp_path, on_item)
    assert seen == [(k, 6) for k in range(5)]
    encoder = Counting()
    encode_stored(encoder, pictures(*range(6)), tmp_path)
    assert encoder.seen == 2


def test_a_place_that_cannot_be_written_is_a_warning(tmp_path, caplog):
    (tmp_path / "file").touch()
    with caplog.at_level(logging.WARNING):
        vectors = encode_stored(Counting(), pictures(1), tmp_path / "file")
    assert torch.equal(vectors, Counting().encode(pictures(1)))
    assert "not stored" in caplog.text


def test_writers_at_once_do_not_spoil_each_other(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "CHUNK", 3)
    sets = [pictures(*range(k, k + 20)) for k in range(0, 40, 10)]
    results = {}

    def work(k):
        results[k] = encode_stored(Counting(), sets[k], tmp_path)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k, one in enumerate(sets):
        assert torch.equal(results[k], Counting().encode(one))
    last = Counting()
    encode_stored(last, pictures(*range(50)), tmp_path)
    assert last.seen == 0
