"""Uploads through real HTTP: complete and under a new name, or nothing at all."""
import asyncio
import io
import json
import os
import random
import shutil
import socket
import time
import zipfile

import aiohttp
import pytest
from PIL import Image

from host import Server


def png(colour="red"):
    file = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(file, "PNG")
    return file.getvalue()


PAIR = {"a_start.png": png(), "a_end.png": png("blue"), "a.txt": b"make it blue"}


def zipped(entries):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        for name, content in entries.items():
            made.writestr(name, content)
    return file.getvalue()


@pytest.fixture(scope="module")
def inputs(server):
    return server.base / "input"


@pytest.fixture
def before(inputs):
    """What is in the input folder, checked to be still there unchanged at the end."""
    kept = listing(inputs)
    yield kept
    now = listing(inputs)
    assert {name: now.get(name) for name in kept} == kept


def listing(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


async def send(url, parts):
    form = aiohttp.FormData(default_to_multipart=True)
    for name, content in parts:
        form.add_field(name, content, filename="../../ignored.png" if name == "file" else None)
    async with aiohttp.ClientSession() as session, session.post(f"{url}/pairlora/upload", data=form) as response:
        return response.status, await response.json()


@pytest.fixture
def upload(server):
    """`upload("name", {path: content})`: the status and the answer."""

    def upload(name, files, manifest=None):
        manifest = manifest or {"name": name, "files": list(files)}
        parts = [("manifest", json.dumps(manifest)), *(("file", content) for content in files.values())]
        return asyncio.run(send(server.url, parts))

    return upload


def options(client):
    folder = client.get("/object_info/PairLoRADataset")["PairLoRADataset"]["input"]["required"]["folder"]
    return folder[0] if isinstance(folder[0], list) else folder[1]["options"]


def test_a_folder_arrives_and_is_in_the_dropdown(client, inputs, before, upload):
    assert "my pairs" not in options(client)
    files = {f"chosen/{name}": content for name, content in PAIR.items()}
    assert upload("my pairs", files) == (200, {"folder": "my pairs", "skipped": []})
    assert listing(inputs / "my pairs") == PAIR
    assert "my pairs" in options(client) and not any(name.startswith(".") for name in options(client))
    assert (inputs / "my pairs").stat().st_mode == inputs.stat().st_mode  # others may read it, too


def test_a_zip_arrives_unpacked(inputs, before, upload):
    content = zipped({f"top/{side}/{n}.png": png() for side in ("before", "after") for n in "ab"} | {"top/x.psd": b"?"})
    status, answer = upload("siblings.zip", {"siblings.zip": content})
    assert (status, answer["folder"]) == (200, "siblings")
    assert answer["skipped"] == [{"file": "top/x.psd", "reason": "images of this kind are not read; convert it to PNG or JPEG"}]
    assert {name for name, content in listing(inputs / "siblings").items() if content} == {
        "before/a.png", "before/b.png", "after/a.png", "after/b.png"}  # fmt: skip


def test_no_name_is_ever_overwritten(inputs, before, upload):
    assert upload("twice", PAIR)[1]["folder"] == "twice"
    first = listing(inputs / "twice")
    other = {name: content + b"other" for name, content in PAIR.items()}
    assert upload("twice", other)[1]["folder"] == "twice_02"
    assert upload("twice", {"x.zip": zipped(other)})[1]["folder"] == "twice_03"
    (inputs / "a file").write_bytes(b"mine")
    assert upload("a file", PAIR)[1]["folder"] == "a file_02"
    assert listing(inputs / "twice") == first == PAIR and (inputs / "a file").read_bytes() == b"mine"
    assert listing(inputs / "twice_02") == listing(inputs / "twice_03") == other


@pytest.mark.parametrize("name, folder", [("../../escape", "_.._escape"), ("/etc", "_etc"), (".hidden", "hidden"),
                                          ("C:\\x", "C__x"), ("..", "pairs")])  # fmt: skip
def test_a_hostile_folder_name_stays_inside(server, inputs, before, upload, name, folder):
    outside = {path for path in server.base.parent.iterdir()} | {path for path in server.base.iterdir()}
    assert upload(name, PAIR)[1]["folder"] == folder and listing(inputs / folder) == PAIR
    assert {path for path in server.base.parent.iterdir()} | {path for path in server.base.iterdir()} == outside


@pytest.mark.parametrize("packed", [False, True])
def test_hostile_and_useless_files_are_listed(server, inputs, before, upload, packed):
    hostile = ["../up.png", "/tmp/pairlora_abs.png", "C:\\c.png", "..\\..\\w.png", "．．／f.png", "a\u202egnp.png",
               "A_START.png"]  # fmt: skip
    useless = ["x.exe", "more.zip", ".DS_Store", "__MACOSX/._a_start.png"]
    files = {**PAIR, **dict.fromkeys([*hostile, *useless], png("green"))}
    name = f"hostile {packed}"
    status, answer = upload(name, {"x.zip": zipped(files)} if packed else files)
    assert (status, answer["folder"]) == (200, name) and listing(inputs / name) == PAIR
    assert [entry["file"] for entry in answer["skipped"]] == [*hostile, *useless]
    assert all(entry["reason"] for entry in answer["skipped"])
    assert not list(server.base.rglob("up.png")) and not os.path.exists("/tmp/pairlora_abs.png")


@pytest.mark.parametrize("files, manifest, message", [
    ({"a.txt": b"x"}, None, "no image in refused.*only texts"),
    ({"a.exe": b"x", "b.psd": b"x"}, None, "no image in refused.*a.exe: neither"),
    ({"x.zip": b"no zip"}, None, r"x\.zip cannot be unpacked"),
    ({"x.zip": zipped(PAIR)[:-30]}, None, r"x\.zip cannot be unpacked"),
    ({"x.zip": zipped({"a.txt": b"x"})}, None, "no image in refused"),
    (PAIR, {"name": "refused", "files": [*PAIR, "b.png"]}, "incomplete"),
    (PAIR, {"name": "refused", "files": list(PAIR)[:2]}, "more files than its manifest"),
    (PAIR, {"name": "refused", "files": []}, "manifest of an upload is"),
    (PAIR, {"name": 7, "files": list(PAIR)}, "manifest of an upload is"),
    (PAIR, {"name": "refused", "files": [7]}, "manifest of an upload is"),
    ({}, {"name": "refused", "files": ["a.png"] * 60_001}, "holds 60,001 files; the limit is 60,000"),
])  # fmt: skip
def test_what_cannot_be_used_leaves_nothing(inputs, before, upload, files, manifest, message):
    status, answer = upload("refused", files, manifest)
    assert status == 400 and list(answer) == ["error"]
    pytest.raises(ValueError, check, answer["error"]).match(message)
    assert listing(inputs) == before


def check(text):
    raise ValueError(text)


def test_what_is_no_form_is_refused(server, inputs, before):
    async def post(**request):
        url = f"{server.url}/pairlora/upload"
        async with aiohttp.ClientSession() as session, session.post(url, **request) as response:
            return response.status, await response.json()

    for request in ({"json": {}}, {"data": b"--x", "headers": {"Content-Type": "multipart/form-data"}},
                    {"data": b"rubbish", "headers": {"Content-Type": "multipart/form-data; boundary=x"}},
                    {"data": b"--x\r\nrubbish\r\n\r\n", "headers": {"Content-Type": "multipart/form-data; boundary=x"}},
                    {"data": b"--x\r\nContent-Disposition: form-data; name=manifest\r\n\r\n{}",
                     "headers": {"Content-Type": "multipart/form-data; boundary=x"}}):  # fmt: skip
        status, answer = asyncio.run(post(**request))
        assert status == 400 and answer["error"]
    assert listing(inputs) == before


def test_more_than_comfyuis_own_limit(inputs, before, upload):
    """ComfyUI takes requests up to 100 MB; this one is streamed."""
    large = random.Random(0).randbytes(110_000_000)
    assert upload("large", {**PAIR, "b_start.png": large, "b_end.png": b""})[0] == 200
    assert listing(inputs / "large") == {**PAIR, "b_start.png": large, "b_end.png": b""}
    shutil.rmtree(inputs / "large")


def wait_for(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "still not so"
        time.sleep(0.05)


@pytest.mark.parametrize("files", [["a_start.png", "a_end.png"], ["x.zip"]])
def test_an_upload_cut_off_halfway_leaves_nothing(server, client, inputs, before, files):
    """The second file of a folder, or a zip, breaks off in its middle."""
    logged = len(server.server.log.read_text())
    manifest = json.dumps({"name": "cut off", "files": files}).encode()
    fields = [b'Content-Disposition: form-data; name="manifest"\r\n\r\n' + manifest]
    fields += [b'Content-Disposition: form-data; name="file"; filename="x"\r\n\r\n' + bytes(300_000) for _ in files]
    body = b"".join(b"--sep\r\n" + field + b"\r\n" for field in fields) + b"--sep--\r\n"
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(
            b"POST /pairlora/upload HTTP/1.1\r\nHost: %b:%b\r\nContent-Type: multipart/form-data; boundary=sep\r\n"
            b"Content-Length: %d\r\n\r\n" % (host.encode(), port.encode(), len(body)) + body[:-150_000]
        )
        wait_for(lambda: any(p.stat().st_size for p in inputs.glob(".pairlora-upload-*/**/*") if p.is_file()))
    wait_for(lambda: not list(inputs.glob(".pairlora-upload-*")))
    assert listing(inputs) == before
    assert "Traceback" not in server.server.log.read_text()[logged:]


def test_what_a_killed_server_left_is_removed_at_the_next_start(host, server, inputs):
    """But not what another running server is still writing."""
    old, new, mine = inputs / ".pairlora-upload-old", inputs / ".pairlora-upload-new", inputs / ".mine"
    for folder in (old, new, mine):
        (folder / "content").mkdir(parents=True)
        (folder / "content/a_start.png").write_bytes(png())
    for folder in (old, mine):
        for path in (folder, *folder.rglob("*")):
            os.utime(path, (0, 0))
    with Server(host, base=server.base):
        assert not old.exists() and (new / "content/a_start.png").exists() and (mine / "content/a_start.png").exists()
    shutil.rmtree(new)
    shutil.rmtree(mine)
