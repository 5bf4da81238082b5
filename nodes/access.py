"""Who may look where: what is typed into a node reaches any folder of the server's machine, so it is for whoever sits at
that machine. ComfyUI's own dataset nodes were confined for the same reason (its pull request 14807)."""
import os
from pathlib import Path
from urllib.parse import urlsplit

import folder_paths
from comfy.cli_args import args
from server import is_loopback

PACK = Path(__file__).parents[1]


def roots_file() -> Path:
    """Where the operator of a server lists further folders, one a line."""
    return Path(folder_paths.get_user_directory(), "__pairlora", "roots.txt")


def refusal(path: str | Path) -> str | None:
    """Why nobody may look into ``path``, a full one, from the page; None where all may. Symbolic links inside of ComfyUI's
    folders lead where the operator wants them to, but not to what lies beside that: the system follows `link/..` there."""
    if _for_this_machine_only():
        return None
    wanted, folders = Path(path), (*_own_folders(), *_roots())
    if ".." not in wanted.parts and any(wanted.is_relative_to(os.path.abspath(folder)) for folder in folders):
        return None
    return (
        f"This ComfyUI listens for others (--listen {args.listen}), so only its own folders may be looked into, and those that "
        f"its operator lists in {roots_file()}, one a line."
    )


def url_refusal(url: str) -> str | None:
    """Why nobody may have the server fetch from an address; None where all may. Lines of roots.txt such as
    https://huggingface.co allow a server."""
    if _for_this_machine_only() or any(_server(line) == _server(url) for line in _lines() if line.startswith("https://")):
        return None
    return (
        f"This ComfyUI listens for others (--listen {args.listen}), so it only fetches from servers that its operator lists in "
        f"{roots_file()}, one a line, such as https://huggingface.co."
    )


def _for_this_machine_only() -> bool:
    return all(is_loopback(address.strip()) for address in args.listen.split(","))


def _server(url: str) -> tuple | None:
    try:
        parts = urlsplit(url.strip())
        return parts.scheme, parts.hostname, parts.port or 443
    except ValueError:
        return None


def _own_folders() -> list[str]:
    folders = (folder_paths.get_input_directory(), folder_paths.get_output_directory(), folder_paths.get_temp_directory())
    return [*folders, *folder_paths.get_folder_paths("loras"), str(roots_file().parent / "runs"), str(PACK / "samples")]


def _roots() -> list[str]:
    return [line for line in _lines() if os.path.isabs(line)]


def _lines() -> list[str]:
    try:
        return [line.strip() for line in roots_file().read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError):
        return []
