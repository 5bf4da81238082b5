"""Reading and writing caption files without ever mangling them."""
import codecs
import hashlib
import os
from pathlib import Path

from .pairs import DatasetError
from .text import printable, stripped

LONGEST = 100_000  # bytes; far beyond what any text encoder reads
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read(path: Path) -> tuple[str, str | None]:
    """The caption, with plain line ends and nothing invisible around it, and a remark when the file is not UTF-8.

    Raises:
        DatasetError: the encoding cannot be told, or the file is no caption (it is named).
    """
    try:
        with open(path, "rb") as file:
            data = file.read(LONGEST + 1)
    except OSError as error:
        raise DatasetError(f"{path} cannot be read ({error.strerror}).") from error
    if len(data) > LONGEST:
        raise DatasetError(f"{path} is longer than {LONGEST} bytes, which is no caption.")
    encoding, remark = "utf-8-sig", None
    if data.startswith(UTF16):  # Windows' Notepad calls it Unicode
        encoding, remark = "utf-16", "is UTF-16 text and was read as such; save it as UTF-8"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path} is not UTF-8 text. Save it as UTF-8.") from error
    if "\0" in text:
        raise DatasetError(f"{path} holds zero bytes, so it is not UTF-8 text. Save it as UTF-8.")
    return stripped("\n".join(text.split("\r\n")).replace("\r", "\n")), remark


class Changed(DatasetError):
    """A file is another than the one that was shown."""


def version(path: Path) -> str | None:
    """A hash of a file's bytes, or None where there is none."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        return None


def write(path: Path, text: str, shown: str | None) -> None:
    """Put a text into a file whole, as UTF-8; ``shown`` is its version as it was read, None where there was no file.

    Raises:
        Changed: the file is another by now; it stays as it is.
        DatasetError: the text is no caption, or the file is a link.
        OSError: it cannot be written.
    """
    data = printable(text).encode()
    if len(data) > LONGEST or "\0" in text:
        raise DatasetError(f"{path.name} was not saved: a caption has at most {LONGEST} bytes, and none of them is zero.")
    if path.is_symlink():
        raise DatasetError(f"{path.name} is a link. Edit the file that it leads to.")
    unfinished = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    try:
        with unfinished.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if version(path) != shown:
            raise Changed(f"{path.name} has changed on disk meanwhile, so it was not saved. Open it again to see what it says now.")
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
