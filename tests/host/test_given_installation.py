"""An installation that is there (COMFYUI_PATH) is used, and left as it is."""

import shutil

from comfy_host import PACK, PACK_NAME, ComfyServer, Installation

ALLOWED = {"custom_nodes", "output", "user"}
GRAPH = {
    "1": {
        "class_type": "EmptyImage",
        "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": 0},
    },
    "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    "3": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "kept"}},
}


def listing(folder):
    """Every path with its size and time of change, but for what may be written."""
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.relative_to(folder).parts[0] not in ALLOWED and path.is_file()
    }


def test_nothing_is_written_but_custom_nodes_output_and_user(installation, tmp_path):
    folder = tmp_path / "ComfyUI"
    emptied = {"custom_nodes", "input", "models", "output", "user"}  # gigabytes, with some users

    def unneeded(place, names):
        top = place == str(installation.folder)
        return {"__pycache__", ".git"} | (emptied if top else set())

    shutil.copytree(installation.folder, folder, ignore=unneeded)
    for name in emptied:
        (folder / name).mkdir()
    before = listing(folder)
    given = Installation("COMFYUI_PATH", folder, installation.python)
    with ComfyServer(given, tmp_path / "log" / "server.log") as server:
        outcome = server.run(GRAPH)
        assert outcome.ok, outcome.error
    assert listing(folder) == before
    assert (folder / "custom_nodes" / PACK_NAME).resolve() == PACK
    assert list((folder / "output").glob("kept*.png"))
