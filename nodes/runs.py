"""HTTP for the panel of the Train node: what the runs in ComfyUI's output folder hold, and asking for things of them.

A run is named by its key, the ten hexadecimal characters at the end of its folder's name, and by nothing else.
"""
import re
from functools import partial
from pathlib import Path

import folder_paths
from server import PromptServer

from ..trainer.run.folder import Folder
from ..trainer.run.history import KEY, find, history, is_trained
from ..trainer.run.places import key_of
from ..trainer.run.runs import remove, runs, size
from . import telling
from .answers import Missing, answer

BYTE = re.compile(r"[0-9]{1,15}")

routes = PromptServer.instance.routes


def look(asked) -> dict:
    """What the run ``key`` has, its metrics ``from`` a byte on: {"key", "subfolder": of the output folder, "size": bytes,
    "lines": at most 5,000 objects of metrics.jsonl, "next": the byte to ask from next, "previews": [{"step", "pictures":
    [{"pair", "after"}]}] and "inputs": [{"pair", "input", "target"}], file names in the folder previews, "checkpoints":
    steps, "finished": [{"step", "best_step", "verdict", "lines", "report", "loras"}], "copies": names in the loras folder,
    "training"}."""
    begin = asked.get("from", "0")
    if not BYTE.fullmatch(begin):
        raise ValueError("from is the number of a byte.")
    folder = _found(asked)
    subfolder = folder.relative_to(output_folder()).as_posix()
    return {"key": key_of(folder), "subfolder": subfolder, "size": size(folder), **history(folder, int(begin))}


def every(asked) -> dict:
    """{"runs": [{"key", "name", "size": bytes, "step", "finished": [steps]}]}"""
    return {"runs": [
        {"key": key, "name": run.path.name.removesuffix(f"-{key}"), "size": run.size, "step": run.step, "finished": [*run.finished]}
        for run in runs(output_folder()) if KEY.fullmatch(key := key_of(run.path))
    ]}  # fmt: skip


def ask(what: str, asked) -> dict:
    """Of whoever trains the run ``key``, in any process: to stop with the LoRA so far, to make previews, or to put a copy of
    the LoRA into the loras folder. {"asked": true}"""
    folder = _found(asked)
    if not is_trained(folder):
        raise ValueError(f"Nobody trains {folder.name} now. Queue it to train on.")
    Folder(folder).ask(what)
    return {"asked": True}


def remove_run(asked) -> dict:
    """Delete the run ``key``; LoRAs in the loras folder stay. {"removed": its folder's name, "size": bytes}"""
    folder = _found(asked)
    if any(training.key == key_of(folder) for training in telling.active):  # it may be encoding still
        raise ValueError(f"{folder.name} is being trained. Cancel that first.")
    if not (found := [run for run in runs(output_folder()) if run.path == folder]):
        raise Missing(f"{folder.name} holds nothing of a run yet.")
    remove(found[0])
    return {"removed": folder.name, "size": found[0].size}


answer("/pairlora/run", routes.get, look)
answer("/pairlora/runs", routes.get, every)
answer("/pairlora/run/stop", routes.post, partial(ask, "stop"))
answer("/pairlora/run/preview", routes.post, partial(ask, "preview"))
answer("/pairlora/run/copy", routes.post, partial(ask, "copy"))
answer("/pairlora/run/remove", routes.post, remove_run)


def output_folder() -> Path:
    return Path(folder_paths.get_output_directory())


def _found(asked) -> Path:
    match asked:
        case {"key": str(key)} if folder := find(output_folder(), key):
            return folder
    raise Missing("There is no such run in this ComfyUI's output folder.")
