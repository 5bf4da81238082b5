"""HTTP for the panel of the Train node: what the runs in ComfyUI's output folder hold, and asking for things of them.

A run is named by its key, the ten hexadecimal characters at the end of its folder's name, and by nothing else.
"""
import asyncio
import re
from pathlib import Path

import folder_paths
from aiohttp import web
from server import PromptServer

from ..trainer.run.folder import Folder
from ..trainer.run.history import KEY, find, history, is_trained
from ..trainer.run.places import key_of
from ..trainer.run.runs import remove, runs, size
from . import telling

BYTE = re.compile(r"[0-9]{1,15}")

routes = PromptServer.instance.routes


class NoRun(LookupError):
    """There is none of that key on this machine."""


@routes.get("/pairlora/run")
async def run(request: web.Request) -> web.Response:
    """What the run ``key`` has, its metrics ``from`` a byte on: {"key", "subfolder": of the output folder, "size": bytes,
    "lines": at most 5,000 objects of metrics.jsonl, "next": the byte to ask from next, "previews": [{"step", "pictures":
    [{"pair", "after"}]}] and "inputs": [{"pair", "input", "target"}], file names in the folder previews, "checkpoints":
    steps, "finished": [{"step", "best_step", "verdict", "lines", "report", "loras"}], "copies": names in the loras folder,
    "training"}. Else 404 or 400 and {"error"}."""
    key, begin = request.query.get("key", ""), request.query.get("from", "0")
    if not BYTE.fullmatch(begin):
        return _error("from is the number of a byte.", 400)
    return await _answered(_look, key, int(begin))


@routes.get("/pairlora/runs")
async def all_runs(request: web.Request) -> web.Response:
    """{"runs": [{"key", "name", "size": bytes, "step", "finished": [steps]}]}"""
    return await _answered(_list)


@routes.post("/pairlora/run/{what:stop|preview|copy}")
async def ask(request: web.Request) -> web.Response:
    """Of whoever trains the run ``key``, in any process: to stop with the LoRA so far, to make previews, or to put a copy of
    the LoRA into the loras folder. {"asked": true}, or 404 or 409 with {"error"}."""
    return await _answered(_ask, await _key(request), request.match_info["what"])


@routes.post("/pairlora/run/remove")
async def remove_run(request: web.Request) -> web.Response:
    """Delete the run ``key``; LoRAs in the loras folder stay. {"removed": its folder's name, "size": bytes}, or 404 or 409
    with {"error"}."""
    return await _answered(_remove, await _key(request))


async def _answered(act, *args) -> web.Response:
    try:
        return web.json_response(await asyncio.to_thread(act, *args))
    except NoRun as error:
        return _error(str(error), 404)
    except (ValueError, OSError) as error:
        return _error(str(error), 409)


def _error(text: str, status: int) -> web.Response:
    return web.json_response({"error": text}, status=status)


async def _key(request: web.Request) -> str:
    try:
        match await request.json():
            case {"key": str(key)}:
                return key
    except (ValueError, RecursionError):
        pass
    return ""


def output_folder() -> Path:
    return Path(folder_paths.get_output_directory())


def _found(key: str) -> Path:
    if folder := find(output_folder(), key):
        return folder
    raise NoRun("There is no such run in this ComfyUI's output folder.")


def _look(key: str, begin: int) -> dict:
    folder = _found(key)
    return {"key": key, "subfolder": folder.relative_to(output_folder()).as_posix(), "size": size(folder), **history(folder, begin)}


def _list() -> dict:
    return {"runs": [
        {"key": key, "name": run.path.name.removesuffix(f"-{key}"), "size": run.size, "step": run.step, "finished": [*run.finished]}
        for run in runs(output_folder()) if KEY.fullmatch(key := key_of(run.path))
    ]}  # fmt: skip


def _ask(key: str, what: str) -> dict:
    folder = _found(key)
    if not is_trained(folder):
        raise ValueError(f"Nobody trains {folder.name} now. Queue it to train on.")
    Folder(folder).ask(what)
    return {"asked": True}


def _remove(key: str) -> dict:
    folder = _found(key)
    if any(training.key == key for training in telling.active):  # it may be encoding still
        raise ValueError(f"{folder.name} is being trained. Cancel that first.")
    if not (found := [run for run in runs(output_folder()) if run.path == folder]):
        raise NoRun(f"{folder.name} holds nothing of a run yet.")
    remove(found[0])
    return {"removed": folder.name, "size": found[0].size}
