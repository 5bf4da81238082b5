"""What Windows refuses and Linux does not, refused here too: `pytest --like-windows`, or the fixture `windows_files`.

A file that this process has open, or whose bytes it has mapped as safetensors does, can be neither deleted, renamed nor
replaced, and neither can the folder that it lies in. Where ``longest`` is set, no longer path can be opened or made.
"""
import errno
import os
import sys

LOCKS = ("lock", ".lock")  # filelock has a class of its own for Windows

active, longest, installed = False, None, False


def install() -> None:
    """Python's audit hooks see every call of open, os.remove, os.rename, ...; they cannot be taken away again."""
    global installed
    if not installed:
        sys.addaudithook(_look)
    installed = True


def held(path: str) -> bool:
    """Whether the file, or one in the folder, is in use by this process."""
    return any(file == path or file.startswith(f"{path}/") for file in _in_use() if os.path.basename(file) not in LOCKS)


def _in_use() -> set[str]:
    files = set()
    for handle in os.listdir("/proc/self/fd"):
        try:
            files.add(os.readlink(f"/proc/self/fd/{handle}"))
        except OSError:  # that of the listing itself
            continue
    with os.fdopen(os.open("/proc/self/maps", os.O_RDONLY), encoding="utf-8", errors="surrogateescape") as maps:
        files.update(line.split(maxsplit=5)[5].rstrip("\n") for line in maps if line.count("/"))
    return {file for file in files if file.startswith("/") and not os.path.isdir(file)}


def _full(path, folder: int) -> str:
    path = os.fsdecode(path)
    if folder not in (None, -1):
        path = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), path)
    return os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))


def _look(event: str, args: tuple) -> None:
    global active
    if not active or event not in ("os.remove", "os.rename", "open", "os.mkdir"):
        return
    active = False  # what follows opens files itself
    try:
        if event in ("open", "os.mkdir"):
            if longest and not isinstance(args[0], int) and len(_full(args[0], None)) > longest:
                raise FileNotFoundError(errno.ENOENT, "The system cannot find the path specified", args[0])
            return
        count = 2 if event == "os.rename" else 1
        for path, folder in zip(args[:count], args[count:]):
            if held(_full(path, folder)):
                raise PermissionError(errno.EACCES, "The process cannot access the file because it is being used by another process",
                                      path)  # fmt: skip
    finally:
        active = True
