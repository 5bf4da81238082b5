"""Who may look where: what is typed into a node reaches any folder of the server's machine, so it is for whoever sits at
that machine. ComfyUI's own dataset nodes were confined for the same reason (its pull request 14807)."""
import os
from pathlib import Path

import folder_paths
from comfy.cli_args import args
from server import is_loopback

PACK = Path(__file__).parents[1]


def roots_file() -> Path:
    """Where the operator of a server lists further folders, one a line."""
    return Path(folder_paths.get_user_directory(), "__pairlora", "roots.txt")


def refusal(path: str | Path) -> str | None:
    """Why nobody may look into ``path``, a full one, from the page; None where all may. Symbolic links inside of ComfyUI's
    folders lead where the operator wants them to."""
    if all(is_loopback(address.strip()) for address in args.listen.split(",")):
        return None
    wanted = os.path.abspath(path)
    if any(_is_within(wanted, folder) for folder in (*_own_folders(), *_roots())):
        return None
    return (
        f"This ComfyUI listens for others (--listen {args.listen}), so only its own folders may be looked into, and those that "
        f"its operator lists in {roots_file()}, one a line."
    )


def _own_folders() -> list[str]:
    folders = (folder_paths.get_input_directory(), folder_paths.get_output_directory(), folder_paths.get_temp_directory())
    return [*folders, *folder_paths.get_folder_paths("loras"), str(roots_file().parent), str(PACK / "samples")]


def _roots() -> list[str]:
    try:
        lines = roots_file().read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    return [line.strip() for line in lines if os.path.isabs(line.strip())]


def _is_within(path: str, folder: str) -> bool:
    try:
        return os.path.commonpath((path, os.path.abspath(folder))) == os.path.abspath(folder)
    except ValueError:  # on another drive
        return False
