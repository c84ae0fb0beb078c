"""Files of the second method: encoders and text-to-image GANs, in model folders of their own."""

from pathlib import Path

import folder_paths

from ...nsync.errors import InputError

ENCODERS_FOLDER = "supcon_encoders"
GANS_FOLDER = "t2i_gans"

_SUFFIX = ".safetensors"


def register_folders() -> None:
    """Tell the host of both: what is trained goes to the output folder, as LoRAs do; what comes
    from elsewhere goes to the models folder."""
    for name in (ENCODERS_FOLDER, GANS_FOLDER):
        folder_paths.add_model_folder_path(name, str(trained_folder(name)), is_default=True)
        elsewhere = Path(folder_paths.models_dir) / name
        folder_paths.add_model_folder_path(name, str(elsewhere))


def trained_folder(name: str) -> Path:
    """Where what is trained is saved."""
    return Path(folder_paths.get_output_directory()) / name


def file_options(name: str) -> list[str]:
    """The files of a model folder, as the host lists them."""
    return [file for file in folder_paths.get_filename_list(name) if file.endswith(_SUFFIX)]


def resolve_file(name: str, file: str) -> Path:
    """The file that a workflow names.

    Raises:
        InputError: it is not there.
    """
    found = folder_paths.get_full_path(name, file)
    if found is None:
        expected = f"a file in the model folder {name}"
        raise InputError(
            "file", expected, f"{file!r}, which is not there", "Refresh, choose again."
        )
    return Path(found)


def file_fingerprint(name: str, file: str | None) -> str:
    """Changes when the file is written anew."""
    found = folder_paths.get_full_path(name, file) if file else None
    return f"{found} {Path(found).stat().st_mtime_ns}" if found else ""


def listed_as(name: str, file: Path) -> str:
    """What the host's lists call a file that was trained."""
    folder = trained_folder(name)
    return file.relative_to(folder).as_posix() if file.is_relative_to(folder) else file.name
