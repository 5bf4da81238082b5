"""File names that a user or a zip brings along: which of them every system can keep, and inside its folder."""
import re
import unicodedata
from pathlib import PurePosixPath

from .pairs import DatasetError

DEEPEST = 16  # folders within each other
LONGEST = 255  # bytes of a name on ordinary disks
ROOM = 120  # bytes of a name that is to be made: encrypted home folders take 143 with the number and suffix behind it
DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d|conin\$|conout\$)", re.IGNORECASE)
JOINERS = "\u200c\u200d"  # invisible, but Persian and emoji are spelled with them
FORBIDDEN = r'<>:"/\|?*'  # by Windows


def danger(name: str) -> str | None:
    """Why a relative path from elsewhere must not be written, or None; backslashes separate, too."""
    folded = unicodedata.normalize("NFKC", name)  # what a careless program or file system makes of it
    parts = [part for part in re.split(r"[/\\]", name) if part not in ("", ".")]
    if any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") and c not in JOINERS for c in name):
        return "it holds invisible characters"
    if name.startswith(("/", "\\")):
        return "it starts at the root of a disk"
    if ":" in name:
        return "it holds a colon (a drive letter or a hidden stream)"
    if len(re.findall(r"[/\\:]", folded)) != len(re.findall(r"[/\\]", name)):
        return "it holds characters that pass for / \\ or :"
    if ".." in re.split(r"[/\\]", folded):
        return "it leads out of the folder"
    if not parts:
        return "it is empty"
    if any(part.endswith((".", " ")) for part in parts):
        return "a part of it ends in a dot or a space"
    if any(DEVICES.fullmatch(unicodedata.normalize("NFKC", part.split(".")[0]).rstrip()) for part in parts):
        return "Windows keeps this name for a device"
    if len(parts) > DEEPEST or any(len(part.encode()) > LONGEST for part in parts):
        return f"it is too long, or more than {DEEPEST} folders deep"
    return None


def name_error(name: str) -> str | None:
    """Why what a user calls a file or a folder cannot be its name on every system, or None. No suffix is expected:
    one of 20 bytes still fits behind it."""
    if not name.strip():
        why = "it is empty"
    elif any(character in FORBIDDEN for character in name):
        why = f"it holds one of {' '.join(FORBIDDEN)}"
    elif name.strip(". ") != name:
        why = "it starts or ends in a dot or a space"
    elif (length := len(name.encode(errors="replace"))) > ROOM:
        why = f"it has {length} bytes, and more than {ROOM} do not fit everywhere (a letter beyond English takes 2 to 4)"
    else:
        why = danger(name)
    shown = name if len(name) <= ROOM else f"{name[:40]}..."
    return why and f"{shown!r} cannot be a name: {why}. Choose another name."


def relative(name: str) -> PurePosixPath:
    return PurePosixPath(name.replace("\\", "/"))


def safe_name(name: str) -> PurePosixPath:
    """The relative path that a user means by ``name`` on every system, perhaps with folders before it.

    Raises:
        DatasetError: it is absolute, leads out of its folder, or some system cannot keep it; the message names it.
    """
    path = relative(name)
    if why := danger(name):
        raise DatasetError(f"{name!r} cannot be a name: {why}. Choose another name.")
    if errors := [error for part in path.parts if (error := name_error(part))]:
        raise DatasetError(errors[0])
    return path


def folder_name(text: str) -> str:
    """A name for a folder, made of what a user calls it; "pairs" where nothing usable is left."""
    kept = re.sub(f"[{re.escape(FORBIDDEN)}\x00-\x1f]", "_", unicodedata.normalize("NFC", text))
    kept = kept.encode(errors="ignore")[:ROOM].decode(errors="ignore").strip(". ")
    return "pairs" if name_error(kept) else kept
