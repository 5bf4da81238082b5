"""What a run has on disk, for whoever looks at it while it is trained or later."""
import contextlib
import json
import re
from pathlib import Path

import filelock

from .folder import Folder
from .places import KEYED, folders

KEY = re.compile(rf"[0-9a-f]{{{KEYED}}}")
MOST = 5000  # lines that are given at once
PICTURE = re.compile(r"step(\d+)-(\d+)\.png")
BESIDE = re.compile(r"pair-(\d+)-(input|target)\.png")
NOTE = re.compile(r"step(\d+)(?:-cooled-\d+)?\.json")
FILES = ("run.json", "metrics.jsonl", "step*.safetensors", "lock")  # one of which every run has


def find(output: Path, key: str) -> Path | None:
    """The folder of the run of that key in ComfyUI's output folder."""
    if not KEY.fullmatch(key):
        return None
    found = (folder for folder in folders(Path(output, "pairlora"), key) if folder.is_dir())
    return next((folder for folder in found if any(any(folder.glob(name)) for name in FILES)), None)


def history(folder: Path, begin: int) -> dict:
    """Its metrics from the byte ``begin`` on, which ends another look's, and what else is there: see nodes/runs.py."""
    lines, after = _lines(folder / "metrics.jsonl", begin)
    previews, inputs = _pictures(folder / "previews")
    return {
        "lines": lines, "next": after, "previews": previews, "inputs": inputs,
        "checkpoints": sorted({place.step for place in Folder(folder).checkpoints.places()}),
        "finished": _finished(folder), "copies": Folder(folder).copies(), "training": is_trained(folder),
    }  # fmt: skip


def is_trained(folder: Path) -> bool:
    """Whether someone trains it now."""
    if not (folder / "holder.json").exists():  # so that nobody who begins to finds the lock taken by this look
        return False
    lock = filelock.FileLock(folder / "lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        return True
    except OSError:
        return False
    lock.release()
    return False


def _lines(file: Path, begin: int) -> tuple[list[dict], int]:
    """Whole lines, and where the next one begins; all from the start when the file has become shorter."""
    found: list[dict] = []
    try:
        with open(file, "rb") as opened:
            begin = begin if begin <= opened.seek(0, 2) else 0
            opened.seek(begin)
            while len(found) < MOST and (line := opened.readline()).endswith(b"\n"):
                begin += len(line)
                with contextlib.suppress(ValueError, RecursionError):  # torn, when whoever wrote it was killed
                    values = json.loads(line, parse_constant=lambda _: None)  # a page can read no Infinity
                    if isinstance(values, dict):
                        found.append(values)
        return found, begin
    except OSError:
        return [], 0


def _pictures(folder: Path) -> tuple[list[dict], list[dict]]:
    previews: dict[int, list[dict]] = {}
    inputs: dict[int, dict] = {}
    for file in sorted(folder.glob("*.png")):
        if match := PICTURE.fullmatch(file.name):
            previews.setdefault(int(match[1]), []).append({"pair": int(match[2]), "after": file.name})
        elif match := BESIDE.fullmatch(file.name):
            inputs.setdefault(int(match[1]), {"pair": int(match[1])})[match[2]] = file.name
    rounds = [{"step": step, "pictures": sorted(of, key=lambda p: p["pair"])} for step, of in sorted(previews.items())]
    return rounds, [inputs[pair] for pair in sorted(inputs)]


def _finished(folder: Path) -> list[dict]:
    found = []
    for file in folder.glob("step*.json"):
        with contextlib.suppress(OSError, ValueError, AttributeError, TypeError):
            if (match := NOTE.fullmatch(file.name)) and "files" in (note := json.loads(file.read_text(encoding="utf-8"))):
                found.append({
                    "step": int(match[1]), "best_step": note.get("best_step"), "verdict": note.get("verdict"),
                    "lines": note.get("lines", []), "report": note.get("report", ""), "loras": [*note["files"].values()],
                })  # fmt: skip
    return sorted(found, key=lambda of: of["step"])
