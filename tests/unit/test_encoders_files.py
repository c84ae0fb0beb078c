"""Weight files: converted safely, known by their hash, refused in one message, fetched whole."""

import argparse
import hashlib
import http.server
import os
import pickle
import re
import threading
import zipfile
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from encoder_files import reference, some_pictures, weights
from safetensors import safe_open
from safetensors.torch import save_file

from nsync.errors import InputError
from nsync.evaluation import catalogue, loading
from nsync.evaluation.catalogue import CATALOGUE, WeightFile, download, locate
from nsync.evaluation.loading import load_encoder
from nsync.evaluation.networks import Sizes
from nsync.evaluation.weights import identity, read_weights

WITH_FILES = [
    "csd", "clip-l-14", "clip-l-14-336", "dinov2", "inception", "inception-imagenet", "sscd",
]  # fmt: skip
WHOLE = ("inception", "inception-imagenet", "sscd")  # their references are of the real size


@pytest.fixture
def _small(monkeypatch):
    monkeypatch.setitem(loading.SIZES, "csd", [Sizes(128, 2, 14, 224)])


def csd_checkpoint(path, **more):
    """As published: a training checkpoint, with NumPy scalars under the names of NumPy 1."""
    state = weights(reference("csd")["shapes"])
    state = {f"module.{key}": value for key, value in state.items()}
    rest = {"optimizer": {"state": {0: torch.rand(9)}}, "epoch": 7, "best": np.float64(0.5)}
    settings = argparse.Namespace(lr=1e-3, arch="vit_large")
    torch.save({"model_state_dict": state, "args": settings, **rest, **more}, path)
    return path


def refusal(name, path, **options):
    with pytest.raises(InputError) as error:
        load_encoder(name, path, **options)
    assert str(error.value).count("\n") == 0
    assert str(path.name) in str(error.value)
    return str(error.value)


@pytest.mark.usefixtures("_small")
def test_a_training_checkpoint_is_converted_once(tmp_path, monkeypatch):
    path = csd_checkpoint(tmp_path / "pytorch_model.bin")
    first = load_encoder("csd", path)
    assert any("was written beside" in note for note in first.notes)
    converted = tmp_path / "pytorch_model.bin.safetensors"
    with safe_open(converted, "pt") as file:
        assert {key.partition(".")[0] for key in file.keys()} == {"module"}  # noqa: SIM118
    assert sorted(os.listdir(tmp_path)) == [path.name, converted.name]

    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("read as a pickle again"))
    second, third = load_encoder("csd", path), load_encoder("csd", converted)
    assert first.identity == second.identity == third.identity
    assert torch.equal(second.encode(some_pictures(1)), first.encode(some_pictures(1)))


def test_numpy_scalars_of_both_generations_and_settings_are_read(tmp_path):
    """NumPy 1 called the module numpy.core, NumPy 2 numpy._core; files have either name."""
    path = csd_checkpoint(tmp_path / "new.bin", more=np.float32(1), steps=np.int64(3))
    for name in (b"numpy._core.multiarray", b"numpy.core.multiarray"):
        old = b"cnumpy._core.multiarray\n"
        data = pickle_of(path)
        assert old in data or b"cnumpy.core.multiarray\n" in data
        renamed = re.sub(rb"cnumpy\._?core\.multiarray\n", b"c" + name + b"\n", data)
        target = repacked(path, tmp_path / f"{len(name)}.bin", renamed)
        assert len(read_weights(target)[0]) == len(reference("csd")["shapes"])


def pickle_of(path):
    with zipfile.ZipFile(path) as archive:
        return archive.read(next(n for n in archive.namelist() if n.endswith("data.pkl")))


def repacked(source, target, data):
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for entry in old.infolist():
            is_pickle = entry.filename.endswith("data.pkl")
            new.writestr(entry.filename, data if is_pickle else old.read(entry))
    return target


def test_the_old_format_of_torch_is_read_too(tmp_path):
    path = tmp_path / "old.pth"
    torch.save({"a": torch.arange(3)}, path, _use_new_zipfile_serialization=False)
    assert torch.equal(read_weights(path)[0]["a"], torch.arange(3))


class Evil:
    def __reduce__(self):
        return os.system, ("touch evil",)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path, monkeypatch, zipped):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "pytorch_model.bin"
    state = {"a": torch.ones(1), "b": Evil()}
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    assert "does not load" in refusal("csd", path)
    assert os.listdir(tmp_path) == ["pytorch_model.bin"]


def test_torchscript_and_plain_pickles_are_refused(tmp_path):
    path = tmp_path / "sscd_disc_mixup.torchscript.pt"
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)
    assert "TorchScript" in refusal("sscd", path)
    path = tmp_path / "list.pt"
    path.write_bytes(pickle.dumps(["not weights"], protocol=2))
    assert "list.pt" in refusal("sscd", path)
    torch.save([torch.ones(2)], path)
    assert "a list" in refusal("sscd", path)


@pytest.mark.parametrize("name", WITH_FILES)
def test_files_that_are_none_are_refused_in_one_message(tmp_path, name):
    text = tmp_path / "text.safetensors"
    text.write_text("these are not the weights you are looking for\n" * 9, encoding="utf-8")
    assert "safetensors" in refusal(name, text)
    empty = tmp_path / "empty.bin"
    empty.touch()
    refusal(name, empty)
    assert "no such file" in refusal(name, tmp_path / "missing.safetensors")
    (tmp_path / "weights.zip").touch()
    assert "'.zip'" in refusal(name, tmp_path / "weights.zip")
    other = tmp_path / "lora.safetensors"
    save_file({"lora_unet_down.weight": torch.rand(4, 4)}, other)
    refusal(name, other)


OTHERS = [
    (name, family)
    for name in WITH_FILES
    for family in ("csd", "clip", "dinov2", *WHOLE)
    if name != family or family not in WHOLE
]


@pytest.mark.parametrize(("name", "family"), OTHERS)
def test_a_file_of_another_network_is_refused(tmp_path, name, family):
    """Also one of the right family and the wrong size: these have two layers of width 128."""
    path = tmp_path / "other.safetensors"
    save_file(weights(reference(family)["shapes"]), path)
    told = refusal(name, path)
    if name.startswith(family) and family not in WHOLE:
        assert "another network: 2 layers of width 128" in told


@pytest.mark.usefixtures("_small")
def test_missing_and_additional_keys_are_told(tmp_path):
    state = weights(reference("csd")["shapes"])
    path = tmp_path / "csd.safetensors"
    key = "backbone.transformer.resblocks.1.mlp.c_fc.bias"
    save_file({k: v for k, v in state.items() if k != key}, path)
    assert "encoder.layers.1.mlp.fc1.bias" in refusal("csd", path)
    save_file(state | {"backbone.transformer.resblocks.1.extra.bias": torch.ones(2)}, path)
    assert "resblocks.1.extra.bias" in refusal("csd", path)
    save_file(state | {"head.weight": torch.ones(2)}, path)
    assert "head.weight" in refusal("csd", path)
    save_file(state | {key: torch.ones(5)}, path)
    assert "(5,)" in refusal("csd", path)
    plain = {k: v for k, v in state.items() if k != "last_layer_style"}
    save_file(plain, path)
    assert "last_layer_style" in refusal("csd", path)


def test_dinov2_with_registers_is_told_by_its_keys(tmp_path, monkeypatch):
    monkeypatch.setitem(loading.SIZES, "dinov2", [Sizes(128, 2, 14, 518)])
    path = tmp_path / "dinov2.safetensors"
    state = weights(reference("dinov2")["shapes"])
    save_file(state | {"register_tokens": torch.rand(1, 4, 128)}, path)
    assert "register_tokens" in refusal("dinov2", path)
    save_file(state | {"blocks.1.attn.extra": torch.rand(3)}, path)
    assert "blocks.1.attn.extra" in refusal("dinov2", path)


def test_a_clip_file_does_not_pass_for_csd(tmp_path, monkeypatch):
    monkeypatch.setitem(loading.SIZES, "csd", [Sizes(128, 2, 14, 224)])
    path = tmp_path / "clip.safetensors"
    state = weights(reference("clip")["shapes"])
    save_file({k: v for k, v in state.items() if k.startswith("visual.")}, path)
    assert "plain CLIP" in refusal("csd", path)


@pytest.mark.usefixtures("_small")
def test_hashes_are_told(tmp_path, monkeypatch):
    path = csd_checkpoint(tmp_path / "csd_vit_l.bin")
    size, sha256 = path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest()
    known = CATALOGUE["csd"][0]
    assert "not the published file" in load_encoder("csd", path).notes[0]
    monkeypatch.setitem(CATALOGUE, "csd", (replace(known, size=size, sha256=sha256),))
    assert f"the published csd_vit_l.bin, sha256 {sha256}" in load_encoder("csd", path).notes[0]
    monkeypatch.setitem(CATALOGUE, "csd", (replace(known, size=size, sha256=sha256[:8]),))
    assert f"the published csd_vit_l.bin, sha256 {sha256}" in load_encoder("csd", path).notes[0]
    monkeypatch.setitem(CATALOGUE, "csd", (replace(known, size=size),))
    note = load_encoder("csd", path).notes[0]
    assert "wrong hash" in note
    assert sha256 in note
    assert known.sha256 in note
    monkeypatch.setitem(CATALOGUE, "csd", (replace(known, size=0, sha256=""),))
    assert sha256 in load_encoder("csd", path).notes[0]


@pytest.mark.usefixtures("_small")
def test_a_folder_that_cannot_be_written_to_is_no_obstacle(tmp_path, monkeypatch):
    path = csd_checkpoint(tmp_path / "csd.bin")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nsync.evaluation.weights.save_file", full)
    encoder = load_encoder("csd", path)
    assert any("each time" in note and "No space left" in note for note in encoder.notes)
    assert os.listdir(tmp_path) == ["csd.bin"]


@pytest.mark.usefixtures("_small")
def test_a_replaced_original_is_converted_anew(tmp_path):
    path = csd_checkpoint(tmp_path / "csd.bin")
    before = load_encoder("csd", path).identity
    state = {k: v * 1.5 for k, v in weights(reference("csd")["shapes"]).items()}
    torch.save({"model_state_dict": state}, path)
    after = load_encoder("csd", path)
    assert after.identity != before
    assert load_encoder("csd", path).identity == after.identity
    (tmp_path / "csd.bin.safetensors").write_bytes(b"damaged")
    assert load_encoder("csd", path).identity == after.identity


def test_identity_is_of_names_shapes_types_and_values():
    base = {"a": torch.zeros(2, 3), "b": torch.ones(4)}
    others = [
        {"a": torch.zeros(3, 2), "b": torch.ones(4)},
        {"c": torch.zeros(2, 3), "b": torch.ones(4)},
        {"a": torch.zeros(2, 3), "b": torch.ones(4).double()},
        {"a": torch.zeros(2, 3), "b": torch.tensor([1.0, 1, 1, 2])},
        {"a": torch.zeros(2, 3, dtype=torch.int32), "b": torch.ones(4)},
    ]
    assert len({identity(one) for one in [base, *others]}) == 6
    assert identity({"b": base["b"], "a": base["a"]}) == identity(base)


def test_a_missing_file_says_what_to_get_from_where_and_whereto(tmp_path):
    for name, files in CATALOGUE.items():
        if not files:
            continue
        with pytest.raises(InputError) as error:
            locate(name, [tmp_path, tmp_path / "b"])
        for file in files:
            told = str(error.value)
            wanted = [file.name, file.address, file.licence, f"models/{file.folder}", str(tmp_path)]
            wanted += [f"{file.size:,} bytes", file.sha256] if file.sha256 else ["not published"]
            assert all(part in told for part in wanted)
        converted = tmp_path / f"{files[-1].name}.safetensors"
        converted.touch()
        assert locate(name, [tmp_path]) == converted
        (tmp_path / files[-1].name).touch()
        assert locate(name, [tmp_path / "b", tmp_path]) == tmp_path / files[-1].name


def test_the_catalogue_is_whole():
    files = [file for files in CATALOGUE.values() for file in files]
    assert set(CATALOGUE) == set(loading.NAMES)
    for file in files:
        assert file.address.startswith("https://")
        assert re.fullmatch(r"[0-9a-f]{64}|[0-9a-f]{8}|", file.sha256)
        assert bool(file.sha256) == bool(file.size)
        if "huggingface.co" in file.address:
            assert re.search(r"/resolve/[0-9a-f]{40}/", file.address)


@contextmanager
def served(body, length=None):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/file.bin" else 404)
            self.send_header("Content-Length", str(length or len(body)))
            self.end_headers()
            if self.path == "/file.bin":
                self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


BODY = bytes(range(256)) * 40
SIZE = len(BODY)
SHA256 = hashlib.sha256(BODY).hexdigest()


def offer(monkeypatch, address, size=SIZE, sha256=SHA256, name="file.bin"):
    file = WeightFile("csd.bin", f"{address}/{name}", "MIT", "style_eval", size, sha256)
    monkeypatch.setitem(CATALOGUE, "csd", (file,))


def test_download_whole_and_checked(tmp_path, monkeypatch):
    monkeypatch.setattr(catalogue, "_BLOCK", 4096)
    seen = []
    with served(BODY) as address:
        offer(monkeypatch, address)
        path = download("csd", tmp_path / "new", lambda done, total: seen.append((done, total)))
    assert path.read_bytes() == BODY
    assert seen == [(4096, 10240), (8192, 10240), (10240, 10240)]
    assert download("csd.bin", tmp_path / "new") == path  # the server is gone: not fetched again
    assert os.listdir(tmp_path / "new") == ["csd.bin"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"sha256": "0" * 64}, SHA256),
        ({"size": 3}, "10,240 bytes"),
        ({"name": "nothing.bin"}, "404"),
    ],
)
def test_what_is_not_the_published_file_is_thrown_away(tmp_path, monkeypatch, change, told):
    with served(BODY) as address:
        offer(monkeypatch, address, **change)
        with pytest.raises(InputError, match=told):
            download("csd", tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_broken_connection_an_unreachable_host_and_a_cancel_leave_nothing(tmp_path, monkeypatch):
    with served(BODY[:5000], length=len(BODY)) as address:
        offer(monkeypatch, address)
        with pytest.raises(InputError, match="download"):
            download("csd", tmp_path)
    for came in (5000, 0):  # nor is it published how long it is
        with served(BODY[:came], length=len(BODY)) as address:
            offer(monkeypatch, address, size=0, sha256="")
            with pytest.raises(InputError, match=rf"{came:,} of 10,240 bytes came.*by hand"):
                download("csd", tmp_path)
    with pytest.raises(InputError, match="by hand"):
        download("csd", tmp_path)

    def cancel(done, total):
        raise KeyboardInterrupt

    with served(BODY) as address:
        offer(monkeypatch, address)
        with pytest.raises(KeyboardInterrupt):
            download("csd", tmp_path, cancel)
    assert os.listdir(tmp_path) == []


def test_download_needs_room_and_a_known_name(tmp_path, monkeypatch):
    offer(monkeypatch, "http://127.0.0.1:9", size=10**18)
    with pytest.raises(InputError, match="bytes free"):
        download("csd", tmp_path)
    with pytest.raises(InputError, match="one of clip-l-14"):
        download("ruler", tmp_path)
