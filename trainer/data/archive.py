"""Zips that come from elsewhere: nothing leaves its folder, nothing grows without limit."""
import contextlib
import io
import itertools
import os
import shutil
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from . import lists
from .moving import replace
from .names import danger, relative
from .pairs import CAPTION_SUFFIXES, IMAGE_SUFFIXES, OTHER_IMAGES, OTHER_KIND, DatasetError
from .text import counted

BLOCK = 1 << 20  # bytes unpacked at a time
LONGEST_LIST = 64 << 20  # bytes of a zip's list of contents, which zipfile reads as a whole
UNIX = 3  # ZipInfo.create_system: the upper half of external_attr holds the file's mode
ARCHIVES = {".zip", ".7z", ".rar", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst"}

# What zipfile, zlib and the file system raise on a file that is broken or made to break them.
BROKEN = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, OverflowError, RuntimeError, ValueError)


@dataclass(frozen=True)
class Limits:
    """How much one upload or archive may hold: files, bytes in all, and bytes that unpack from less than a ``ratio``th
    of theirs. Flat pictures that are not compressed themselves (BMP) shrink a thousandfold, but a zip made to fill the
    disk holds more of that than any dataset."""

    files: int = 60_000
    bytes: int = 50 * 1000**3
    ratio: int = 200
    flat: int = 8 * 1000**3


LIMITS = Limits()


def unused_reason(path: PurePosixPath) -> str | None:
    """Why a file is not taken, or None for images, captions, and lists of them."""
    suffix = path.suffix.lower()
    if "__MACOSX" in path.parts or any(part.startswith(".") for part in path.parts):
        return "a hidden file"
    if suffix in ARCHIVES:
        return "an archive inside; unpack it first"
    if suffix in OTHER_IMAGES:
        return "; ".join(OTHER_KIND)
    taken = suffix in IMAGE_SUFFIXES or suffix in CAPTION_SUFFIXES or suffix in lists.SUFFIXES
    return None if taken else "neither an image nor a caption"


class Intake:
    """Decides on names, one after the other; ``skipped`` lists those that are not taken, with the reason."""

    def __init__(self):
        self.skipped: list[tuple[str, str]] = []
        self._files: set[str] = set()
        self._folders: set[str] = set()

    def take(self, name: str) -> PurePosixPath | None:
        """Where to write the file, or None."""
        if risk := danger(name):
            return self.skip(name, f"an unsafe name: {risk}")
        path = relative(name)
        if reason := unused_reason(path):
            return self.skip(name, reason)
        # Two names that some file system takes for one would overwrite each other there.
        key, *folders = (unicodedata.normalize("NFC", str(p)).casefold() for p in (path, *path.parents))
        if key in self._files or key in self._folders or not self._files.isdisjoint(folders):
            return self.skip(name, "another file already has this name, or one that differs only in case")
        self._files.add(key)
        self._folders.update(folders)
        return path

    def skip(self, name: str, reason: str) -> None:
        self.skipped.append((name, reason))


class _Source(io.BufferedReader):
    """A zip on disk whose list of contents cannot fill the memory."""

    def read(self, size=-1):
        if size > LONGEST_LIST:
            raise zipfile.BadZipFile("its list of contents is too long")
        return super().read(size)


def unpack(
    file: Path, into: Path, limits: Limits = LIMITS, progress: Callable[[int, int], None] | None = None
) -> list[tuple[str, str]]:
    """Unpack the images and texts of a zip, with its subfolders, into an existing empty folder.

    ``progress(done, total)``, in bytes, is called after each block; it may raise to stop.

    Returns:
        Every other entry and every unsafe name, as (name, reason); none of them is written.

    Raises:
        DatasetError: the zip is broken, encrypted or beyond ``limits``; the message names it. After this or any other
            exception ``into`` is empty again.
    """
    if any(into.iterdir()):
        raise DatasetError(f"{into} is not empty. Choose a new folder to unpack {file.name} into.")
    try:
        with _naming(file.name), _Source(io.FileIO(file)) as source, zipfile.ZipFile(source) as archive:
            return _unpack(archive, file, into, limits, progress or (lambda done, total: None))
    except BaseException:
        for path in into.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        raise


@contextlib.contextmanager
def _naming(what: str):
    """Whatever a broken file raises becomes a DatasetError that names it."""
    try:
        yield
    except DatasetError:
        raise
    except BROKEN as error:
        if isinstance(error, OSError) and error.strerror:
            raise DatasetError(f"{what} cannot be unpacked ({error.strerror}).") from error
        raise DatasetError(f"{what} cannot be unpacked ({str(error) or 'it ends too early'}). Make the zip again.") from error


def _unpack(archive: zipfile.ZipFile, file: Path, into: Path, limits: Limits, progress) -> list[tuple[str, str]]:
    members, skipped = _choose(archive, file, limits)
    total, free = sum(info.file_size for info, _ in members), shutil.disk_usage(into).free
    if total > min(limits.bytes, free):  # as declared; below, the bytes are counted
        raise DatasetError(
            f"{file.name} unpacks to {total / 1e9:.1f} GB; the limit is {limits.bytes / 1e9:.1f} GB and the disk has "
            f"{free / 1e9:.1f} GB free."
        )
    done = flat = 0
    for info, path in members:
        target = into.joinpath(*path.parts)
        target.parent.mkdir(parents=True, exist_ok=True)
        size = 0
        with _naming(f"{file.name}: {path}"), archive.open(info) as source, target.open("xb") as out:
            while block := source.read(BLOCK):
                done += len(block)
                flat += max(0, size + len(block) - max(size, limits.ratio * info.compress_size))
                size += len(block)
                if flat > limits.flat:
                    raise DatasetError(
                        f"{file.name} unpacks to more than {limits.ratio} times its size, as a zip made to fill the disk "
                        f"does ({path}). Store the images as PNG or JPEG."
                    )
                if done > limits.bytes:
                    raise DatasetError(f"{file.name} unpacks to more than the limit of {limits.bytes / 1e9:.1f} GB.")
                out.write(block)
                progress(done, total)
        if size != info.file_size:
            raise DatasetError(f"{file.name}: {path} is not as long as the zip says. Make the zip again.")
    return skipped


def _choose(archive: zipfile.ZipFile, file: Path, limits: Limits):
    """The members to write, each with its path, and the other entries with the reason."""
    entries = archive.infolist()
    if len(entries) > limits.files:
        raise DatasetError(f"{file.name} holds {counted(len(entries), 'file')}; the limit is {limits.files:,}. Split it.")
    if sum(info.compress_size for info in entries) > file.stat().st_size:
        raise DatasetError(f"{file.name} holds entries that lie over each other, as a zip made to fill the disk does.")
    intake, members = Intake(), []
    for info in entries:
        name = _name(info)
        mode = info.external_attr >> 16 if info.create_system == UNIX else 0
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
            intake.skip(name, "a symbolic link" if stat.S_ISLNK(mode) else "not an ordinary file")
        elif name.endswith(("/", "\\")):  # a folder; it comes with its files
            if risk := danger(name):
                intake.skip(name, f"an unsafe name: {risk}")
        elif path := intake.take(name):
            if info.flag_bits & 1:
                raise DatasetError(f"{file.name}: {path} is encrypted. Make a zip without a password.")
            # zipfile bounds what it unpacks at a time only for these; the others could fill the memory.
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise DatasetError(f"{file.name}: {path} is not packed with deflate. Make an ordinary zip.")
            members.append((info, path))
    return members, intake.skipped


def _name(info: zipfile.ZipInfo) -> str:
    """The whole name: zipfile cuts it at a NUL, and reads as cp437 what macOS writes as UTF-8 without saying so."""
    try:
        return info.orig_filename if info.flag_bits & 0x800 else info.orig_filename.encode("cp437").decode()
    except UnicodeError:
        return info.orig_filename


def content_root(folder: Path) -> Path:
    """``folder``, or the folder in it that holds everything: a zipped or uploaded folder brings its own name along."""
    while len(entries := list(folder.iterdir())) == 1 and entries[0].is_dir():
        folder = entries[0]
    return folder


def move_to_free(folder: Path, parent: Path, name: str) -> Path:
    """Move ``folder`` to ``parent/name``, or with the first free number behind it; returns where it is now.

    Nothing is overwritten: a folder with files in it cannot be renamed over, so a race only means another number.
    """
    for number in itertools.count(1):
        target = parent / (name if number == 1 else f"{name}_{number:02}")
        if os.path.lexists(target):
            continue
        try:
            replace(folder, target)
            return target
        except OSError:
            if not os.path.lexists(target):
                raise
