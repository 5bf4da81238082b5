"""Which folders of pairs a queue is reading, so that the page changes nothing in them meanwhile."""
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

writing = threading.Lock()  # looking whether a folder is free, and writing there, are one: two pages may save at once
_read: Counter[Path] = Counter()


@contextmanager
def reading(*folders: Path) -> Iterator[None]:
    """While it lasts, no file of these folders is changed from the page."""
    folders = [folder.resolve() for folder in folders]
    with writing:
        _read.update(folders)
    try:
        yield
    finally:
        _read.subtract(folders)


def is_read(folder: Path) -> bool:
    """Whether a folder, one in it or one around it is being read."""
    folder = folder.resolve()
    read = [other for other, count in _read.items() if count > 0]
    return any(folder.is_relative_to(other) or other.is_relative_to(folder) for other in read)
