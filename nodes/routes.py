"""HTTP for the dataset node: uploading a folder or a zip into ComfyUI's input, and looking into a folder."""
import asyncio
import json
import shutil
import tempfile
import threading
import time
from pathlib import Path, PurePath

import folder_paths
from aiohttp import BodyPartReader, MultipartReader, web
from aiohttp.http import HttpProcessingError
from server import PromptServer

from ..trainer.data import archive, names
from ..trainer.data.pairs import IMAGE_SUFFIXES, DatasetError
from ..trainer.data.text import counted
from .answers import answer
from .dataset import preview

STAGING = ".pairlora-upload-"  # hidden, so that no dropdown lists it
ABANDONED = 3600  # seconds without a change after which the server that was writing there has died
CHUNK = 1 << 16  # bytes read and written at a time
LONGEST_MANIFEST = 32 << 20  # bytes; 60,000 names of 500 bytes

routes = PromptServer.instance.routes


def inputs_folder() -> Path:
    return Path(folder_paths.get_input_directory())


def refusal(error: Exception) -> web.Response:
    return web.json_response({"error": str(error)}, status=400)


def remove_abandoned(inputs: Path) -> None:
    """Remove what uploads to a server that was killed left behind, but nothing that another server still writes."""
    for staging in inputs.glob(f"{STAGING}*"):
        try:
            changed = max(path.lstat().st_mtime for path in (staging, *staging.rglob("*")))
        except OSError:  # another server is done with it
            continue
        if changed < time.time() - ABANDONED:
            shutil.rmtree(staging, ignore_errors=True)


remove_abandoned(inputs_folder())


@routes.post("/pairlora/upload")
async def upload(request: web.Request) -> web.Response:
    """One multipart form: `manifest`, JSON of {"name": FOLDER, "files": [PATH, ...]}, then a `file` for each path.

    The files are those of a folder, or one zip. Answers {"folder": NAME, "skipped": [{"file", "reason"}, ...]}, or
    status 400 with {"error": TEXT}. The parts are streamed, so ComfyUI's --max-upload-size does not apply.
    """
    try:
        return web.json_response(await receive(request, inputs_folder()))
    except (ValueError, OSError, HttpProcessingError) as error:  # DatasetError, full disk, broken form
        return refusal(error)


def look(body) -> dict:
    """What the dataset node finds with the inputs in the JSON body."""
    return preview(**preview_inputs(body))


answer("/pairlora/preview", routes.post, look)


def preview_inputs(body) -> dict:
    """The node's inputs in a request; null stands for an input's default. Raises DatasetError."""
    if not isinstance(body, dict):
        raise DatasetError("What to look into is told as a JSON object with the inputs of the node.")
    inputs = {name: value for name, value in body.items() if value is not None}
    for name, value in inputs.items():
        if name not in ("resolution", "strict") and not isinstance(value, str):
            raise DatasetError(f"{name} is {value!r}, which is no text.")
    return inputs


async def receive(request: web.Request, inputs: Path) -> dict:
    """Write an upload into a staging folder and, once it is complete, move it to its name; else nothing stays."""
    if request.content_type != "multipart/form-data":
        raise DatasetError(f"An upload is a multipart/form-data request, not {request.content_type}.")
    parts = await request.multipart()
    name, files = read_manifest(await read_text(await next_part(parts, "manifest")))
    inputs.mkdir(parents=True, exist_ok=True)
    if (request.content_length or 0) > (free := shutil.disk_usage(inputs).free):
        raise DatasetError(f"The upload has {request.content_length / 1e9:.1f} GB, the disk {free / 1e9:.1f} GB free.")
    staging = Path(tempfile.mkdtemp(prefix=STAGING, dir=inputs))
    try:
        content = staging / "content"  # not the staging folder itself, which others may not read
        content.mkdir()
        if len(files) == 1 and files[0].lower().endswith(".zip"):
            skipped = await receive_zip(parts, files[0], staging, content)
        else:
            skipped = await receive_files(parts, files, content)
        return await asyncio.to_thread(finish, content, inputs, name, skipped)
    finally:
        await asyncio.to_thread(shutil.rmtree, staging, ignore_errors=True)


def read_manifest(text: bytes) -> tuple[str, list[str]]:
    """The folder's name and the paths of the files; raises DatasetError."""
    manifest = json.loads(text)
    match manifest:
        case {"name": str(name), "files": [str(), *_] as files} if all(isinstance(file, str) for file in files):
            if len(files) > archive.LIMITS.files:
                held = counted(len(files), "file")
                raise DatasetError(f"{name} holds {held}; the limit is {archive.LIMITS.files:,}. Split it.")
            return name, files
    raise DatasetError('The manifest of an upload is {"name": FOLDER, "files": [PATH, ...]} with at least one path.')


async def receive_files(parts: MultipartReader, files: list[str], content: Path) -> list[tuple[str, str]]:
    """Write the images and texts of a folder; returns the others, with the reason."""
    intake, room = archive.Intake(), archive.LIMITS.bytes
    for name, path in zip(files, await asyncio.to_thread(lambda: list(map(intake.take, files)))):
        part = await next_part(parts, "file")
        if path:  # the next part skips over what was not read of this one
            room -= await save(part, content.joinpath(*path.parts), room)
    await expect_end(parts)
    return intake.skipped


async def receive_zip(parts: MultipartReader, name: str, staging: Path, content: Path) -> list[tuple[str, str]]:
    """Save a zip and unpack it; returns what of it was not taken, with the reason."""
    file = staging / f"{names.folder_name(PurePath(name).stem)}.zip"  # errors name it
    await save(await next_part(parts, "file"), file, archive.LIMITS.bytes)
    await expect_end(parts)
    stopped = threading.Event()

    def check(done: int, total: int) -> None:
        if stopped.is_set():
            raise DatasetError(f"{file.name} was not unpacked, since the upload was cancelled.")

    work = asyncio.ensure_future(asyncio.to_thread(archive.unpack, file, content, progress=check))
    try:
        return await asyncio.shield(work)
    finally:  # when this is cancelled, the thread must end before its folder is removed
        stopped.set()
        await asyncio.gather(work, return_exceptions=True)


def finish(content: Path, inputs: Path, name: str, skipped: list[tuple[str, str]]) -> dict:
    """Give the complete folder its name in ``inputs``; raises DatasetError when there is no image in it."""
    if not any(path.suffix.lower() in IMAGE_SUFFIXES for path in content.rglob("*")):
        reasons = "; ".join(f"{file}: {reason}" for file, reason in skipped[:5]) or "only texts"
        raise DatasetError(f"There is no image in {name} that can be used. Found: {reasons}")
    name = names.folder_name(name.removesuffix(".zip"))
    folder = archive.move_to_free(archive.content_root(content), inputs, name)
    return {"folder": folder.name, "skipped": [{"file": file, "reason": reason} for file, reason in skipped]}


async def next_part(parts: MultipartReader, field: str) -> BodyPartReader:
    part = await parts.next()
    if not isinstance(part, BodyPartReader) or part.name != field:
        raise DatasetError(f"The upload is incomplete: a field {field!r} is missing. Upload it again.")
    return part


async def expect_end(parts: MultipartReader) -> None:
    if await parts.next() is not None:
        raise DatasetError("The upload holds more files than its manifest names.")


async def read_text(part: BodyPartReader) -> bytes:
    text = bytearray()
    while not part.at_eof():
        text += await part.read_chunk(CHUNK)
        if len(text) > LONGEST_MANIFEST:
            raise DatasetError("The list of files is too long. Upload fewer at a time.")
    return bytes(text)


async def save(part: BodyPartReader, file: Path, room: int) -> int:
    """Write a part to a new file and return its bytes; raises DatasetError when there are more than ``room``."""
    size = 0
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("xb") as out:
        while not part.at_eof():
            chunk = await part.read_chunk(CHUNK)
            size += len(chunk)
            if size > room:
                raise DatasetError(f"The upload exceeds the limit of {archive.LIMITS.bytes / 1e9:.0f} GB. Split it.")
            await asyncio.to_thread(out.write, chunk)  # a slow disk must not hold up the server
    return size
