"""Moving what is complete into its place, also where another program has that file open: Windows keeps such a file from
being replaced, and virus scanners, indexers and viewers open whatever is new."""
import os
import time
from pathlib import Path

PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8)  # seconds between tries


def replace(source: Path, target: Path) -> None:
    """``os.replace``, of a file or a folder, tried for a second and a half.

    Raises:
        PermissionError: it is still refused; names the file and says what to do. ``source`` and ``target`` are as they were.
    """
    for pause in PAUSES:
        try:
            return os.replace(source, target)
        except PermissionError:
            time.sleep(pause)
    try:
        os.replace(source, target)
    except PermissionError as error:
        held = target if os.path.lexists(target) else source
        raise PermissionError(
            f"{target} cannot be put in its place: {held} is open in another program, or write-protected. Close it there, "
            "or lift the protection, and try again."
        ) from error
