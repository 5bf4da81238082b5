"""Reading and writing caption files without ever mangling them."""
import codecs
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


def encoded(text: str) -> bytes:
    """What a caption file holds; raises DatasetError where it could not be read back."""
    data = printable(text).encode()
    if len(data) > LONGEST or "\0" in text:
        raise DatasetError(f"It was not saved: a caption has at most {LONGEST:,} bytes, and none of them is zero.")
    return data
