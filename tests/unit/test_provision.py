"""Set-up stops at a wrong file, reuses what is whole, and makes anew what is not."""

import hashlib
import io
import sys
import tarfile

import provision
import pytest
from comfy_host import PACK_NAME, link_pack
from provision import SetupFailed, Source


def archive_with(path, names):
    with tarfile.open(path, "w:gz") as tar:
        for name in names:
            data = name.encode()
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def fake_index(tmp_path, monkeypatch):
    """An index with one file, and how often it was asked."""
    monkeypatch.setattr(provision, "HOSTS", tmp_path / "hosts")
    asked = []
    names = ["pkg-1/vendor/ComfyUI/main.py", "pkg-1/vendor/ComfyUI/comfy/sd.py", "pkg-1/setup.py"]
    sha256 = archive_with(tmp_path / "pkg-1.tar.gz", names)

    def download(source, folder):
        asked.append(source.version)
        target = folder / "pkg-1.tar.gz"
        target.write_bytes((tmp_path / "pkg-1.tar.gz").read_bytes())
        return target

    monkeypatch.setattr(provision, "_download", download)
    return Source("1", sha256), asked


def test_the_tree_is_unpacked_once(fake_index):
    source, asked = fake_index
    folder = provision.unpack("9.9.9", source)
    assert (folder / "comfy" / "sd.py").exists()
    assert not (folder / "setup.py").exists()
    assert provision.unpack("9.9.9", source) == folder
    assert asked == ["1"]


def test_a_wrong_checksum_stops_before_unpacking(fake_index):
    source, _ = fake_index
    wrong = Source("1", "0" * 64)
    with pytest.raises(SetupFailed, match=f"wrong checksum of pkg-1.tar.gz.*{source.sha256}"):
        provision.unpack("9.9.9", wrong)
    assert not provision.locate("9.9.9").exists()


def test_an_interrupted_unpacking_is_repeated(fake_index, monkeypatch):
    source, asked = fake_index

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(provision, "_extract", stop)
        with pytest.raises(KeyboardInterrupt):
            provision.unpack("9.9.9", source)
    assert not provision.locate("9.9.9").exists()
    assert (provision.unpack("9.9.9", source) / "main.py").exists()
    assert asked == ["1", "1"]


def test_a_folder_without_its_stamp_is_made_anew(fake_index):
    source, asked = fake_index
    half = provision.locate("9.9.9")
    half.mkdir(parents=True)
    (half / "half.py").touch()
    folder = provision.unpack("9.9.9", source)
    assert not (folder / "half.py").exists()
    assert asked == ["1"]


def test_paths_out_of_the_archive_are_not_followed(tmp_path):
    names = ["pkg-1/vendor/ComfyUI/main.py", "pkg-1/vendor/ComfyUI/../../../evil.py"]
    archive_with(tmp_path / "bad.tar.gz", names)
    provision._extract(tmp_path / "bad.tar.gz", tmp_path / "deep" / "tree")
    assert not list(tmp_path.rglob("evil.py"))


@pytest.fixture
def fake_venv(tmp_path, monkeypatch):
    """A `.venv` whose making and filling is only counted."""
    venv = tmp_path / "venv"
    calls = []
    monkeypatch.setattr(provision, "VENV", venv)

    def create():
        calls.append("create")
        provision._remove(venv)
        (venv / "bin").mkdir(parents=True)
        (venv / "bin" / "python").symlink_to(sys.executable)

    def run(command, **_):
        calls.append("pip")
        return type("Done", (), {"returncode": 0})

    monkeypatch.setattr(provision, "_create_venv", create)
    monkeypatch.setattr(provision.subprocess, "run", run)
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("aiohttp\n")
    return requirements, calls


@pytest.mark.skipif(sys.platform == "win32", reason="paths of a POSIX virtual environment")
def test_the_environment_is_filled_once_and_again_when_its_inputs_change(fake_venv):
    requirements, calls = fake_venv
    provision.environment(requirements, tests=False)
    provision.environment(requirements, tests=False)
    assert calls == ["create", "pip"]
    requirements.write_text("aiohttp>=3\n")
    provision.environment(requirements, tests=False)
    assert calls == ["create", "pip", "pip"]


@pytest.mark.skipif(sys.platform == "win32", reason="paths of a POSIX virtual environment")
def test_an_environment_whose_filling_was_killed_is_made_anew(fake_venv, monkeypatch):
    requirements, calls = fake_venv

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(provision.subprocess, "run", killed)
        with pytest.raises(KeyboardInterrupt):
            provision.environment(requirements, tests=False)
    provision.environment(requirements, tests=False)
    assert calls == ["create", "create", "pip"]
    provision.environment(requirements, tests=False)
    assert calls == ["create", "create", "pip"]


def test_a_path_without_comfyui_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    with pytest.raises(SetupFailed, match="COMFYUI_PATH: expected ComfyUI's folder"):
        provision.prepare()


def test_the_pack_is_linked_once_under_whatever_name(tmp_path):
    pack = tmp_path / "clone"
    pack.mkdir()
    custom_nodes = tmp_path / "custom_nodes"
    place = link_pack(custom_nodes, pack)
    assert place == custom_nodes / PACK_NAME
    assert place.resolve() == pack
    place.rename(custom_nodes / "other")
    assert link_pack(custom_nodes, pack).name == "other"
    assert len(list(custom_nodes.iterdir())) == 1


def test_a_link_to_a_clone_that_moved_is_renewed(tmp_path):
    custom_nodes = tmp_path / "custom_nodes"
    custom_nodes.mkdir()
    (custom_nodes / PACK_NAME).symlink_to(tmp_path / "gone")
    pack = tmp_path / "clone"
    pack.mkdir()
    assert link_pack(custom_nodes, pack).resolve() == pack


def test_a_folder_of_somebody_else_is_not_touched(tmp_path):
    taken = tmp_path / "custom_nodes" / PACK_NAME
    taken.mkdir(parents=True)
    with pytest.raises(FileExistsError, match="is not this clone"):
        link_pack(tmp_path / "custom_nodes", tmp_path)
    assert taken.is_dir()
