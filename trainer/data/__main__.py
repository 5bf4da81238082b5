"""The pair doctor in a terminal: `python3 -m trainer.data FOLDER`. Needs Pillow and numpy, nothing else."""
import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

if not __package__:  # run by its path: the Python of Windows' portable ComfyUI does not look into the present folder
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    import trainer.data  # noqa: F401 - what is relative to it is found then

    __package__ = "trainer.data"

from . import archive
from .cache import Cache
from .dataset import Reading, examine
from .pairs import DatasetError
from .text import counted


def main() -> int:
    parser = argparse.ArgumentParser(prog="python3 -m trainer.data", description="Reports what a folder of pairs holds.")
    parser.add_argument("folder", type=Path, help="a folder, or a zip, of NAME_start.jpg, NAME_end.jpg, NAME.txt files")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--resolution", type=int, default=1024, help="pixels to train at (1024); smaller images are named")
    parser.add_argument("--default-caption", default="", help="stands in for samples without a caption file")
    parser.add_argument("--trigger-word", default="", help="put in front of every caption")
    options = parser.parse_args()
    if options.resolution < 16:
        parser.error(f"--resolution is {options.resolution}; it is at least 16. Start with 1024.")
    reading = Reading(options.default_caption, options.trigger_word, options.resolution)
    sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")  # names need not be text, nor be in a console's code page
    try:
        with tempfile.TemporaryDirectory(prefix="pairlora-") as temporary, Cache() as cache:
            folder = options.folder
            skipped = []
            if folder.is_file():
                folder = Path(temporary)
                skipped = archive.unpack(options.folder, folder)
            examined = examine(folder, reading, cache, progress, str(options.folder))
            examined.found.skip(skipped)
    except DatasetError as error:
        message = {"level": "error", "code": "no-folder", "sample": None, "message": str(error)}
        print(json.dumps({"samples": [], "unused": [], "findings": [message]}, indent=2) if options.json else error)
        return 1
    print(json.dumps(examined.as_dict(), indent=2) if options.json else examined.text())
    return 1 if examined.errors() else 0


def progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{done}/{counted(total, 'image')}", end="\n" if done == total else "", file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        code = main()
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code)
