"""Looking at single samples, editing captions and leaving samples out, over real HTTP."""
import io
import json
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from running import node


def ask(server, route, body=None, **query):
    """Status and answer of a request, GET without a body."""
    url = f"{server.url}/pairlora/{route}?{urllib.parse.urlencode(query)}"
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, {"Content-Type": "application/json"})) as response:
            read = response.read()
            return response.status, read if response.headers.get_content_type() == "image/png" else json.loads(read)
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_a_caption_is_saved_unless_its_file_has_changed_meanwhile(server, client, pairs):
    about = {"folder": pairs.name, "sample": "photo002"}
    file = pairs / "photo002.txt"
    file.write_bytes("größer".encode("utf-16"))
    status, read = ask(server, "caption", **about)
    assert (status, read["text"], read["file"]) == (200, "größer", "photo002.txt") and "UTF-16" in read["remark"]
    status, saved = ask(server, "caption", {**about, "text": "kleiner\nö", "version": read["version"]})
    assert (status, saved["remark"], file.read_bytes()) == (200, None, "kleiner\nö".encode())
    status, refused = ask(server, "caption", {**about, "text": "again", "version": read["version"]})
    assert status == 409 and "photo002.txt has changed" in refused["error"] and file.read_text("utf-8") == "kleiner\nö"
    assert client.post("/pairlora/preview", {"folder": pairs.name})["samples"][1]["caption"] == "kleiner\nö"
    assert not list(pairs.glob(".*"))  # nothing unfinished stays


def test_a_caption_is_added_but_never_over_one_that_came_meanwhile(server, pairs):
    about, file = {"folder": pairs.name, "sample": "photo003"}, pairs / "photo003.txt"
    file.unlink()
    assert ask(server, "caption", **about)[1] == {"file": "photo003.txt", "text": "", "version": None, "remark": None}
    assert ask(server, "caption", {**about, "text": "new", "version": None})[0] == 200 and file.read_text() == "new"
    assert ask(server, "caption", {**about, "text": "other", "version": None})[0] == 409 and file.read_text() == "new"


def test_a_pair_is_left_out_and_back_and_no_image_moves(server, client, pairs):
    before = {path.name: path.read_bytes() for path in pairs.iterdir()}
    about = {"folder": pairs.name, "sample": "photo002"}
    (pairs / "left_out.txt").write_text("gone", encoding="utf-8")
    assert ask(server, "left_out", {**about, "out": True}) == (200, {})
    assert (pairs / "left_out.txt").read_text("utf-8") == "gone\nphoto002\n"
    seen = client.post("/pairlora/preview", {"folder": pairs.name})
    assert [sample["name"] for sample in seen["samples"]] == ["photo001", "photo003"]
    assert [sample["name"] for sample in seen["left_out"]] == ["photo002"]
    assert "left out by left_out.txt: photo002" in seen["text"] and "left_out.txt names gone" in seen["text"]
    assert ask(server, "left_out", {**about, "out": False}) == (200, {})
    assert client.post("/pairlora/preview", {"folder": pairs.name})["counts"]["pairs"] == 3
    (pairs / "left_out.txt").unlink()
    assert {path.name: path.read_bytes() for path in pairs.iterdir()} == before


def test_whole_pictures_are_given_upright_and_the_change_where_the_pair_is_aligned(server, pairs):
    about = {"folder": pairs.name, "sample": "photo001"}
    labels = [side["label"] for side in ask(server, "sides", **about)[1]["sides"]]
    assert labels == ["input", "target", "what changes"]
    start, end, changes = (
        Image.open(io.BytesIO(ask(server, "picture", **about, which=which)[1])) for which in ("0", "1", "changes")
    )
    (original,) = pairs.glob("photo001_end.*")
    assert start.size == end.size == changes.size and end.tobytes() == Image.open(original).convert("RGB").tobytes()
    assert changes.tobytes() != end.tobytes()

    (file,) = pairs.glob("photo001_start.*")
    turned, exif = start.crop((0, 0, 96, 64)), Image.Exif()
    exif[0x0112] = 6
    turned.save(file, exif=exif)
    assert Image.open(io.BytesIO(ask(server, "picture", **about, which="0")[1])).size == (64, 96)
    assert len(ask(server, "sides", **about)[1]["sides"]) == 2  # the two have different ratios now


@pytest.mark.parametrize("sample", ["../photo001", "photo001_start", "/etc/passwd", "photo001\0", ""])
def test_no_request_reaches_a_file_that_is_no_sample(server, pairs, sample):
    for route in ("caption", "sides", "picture"):
        assert ask(server, route, folder=pairs.name, sample=sample, which="0")[0] == 400
    for route in ("caption", "left_out"):
        status, refused = ask(server, route, {"folder": pairs.name, "sample": sample, "text": "x", "version": None, "out": True})
        assert status == 400 and "has no sample" in refused["error"]
    assert ask(server, "picture", folder=pairs.name, sample="photo001", which="7")[0] == 400
    assert ask(server, "caption", ["x"])[0] == 400
    assert not (pairs / "left_out.txt").exists()


def test_left_out_txt_in_a_zip_counts_and_the_zip_stays_as_it_is(server, client, pairs):
    (pairs / "left_out.txt").write_text("photo002\n", encoding="utf-8")
    archive = shutil.make_archive(str(pairs), "zip", pairs.parent, pairs.name)
    before, name = Path(archive).read_bytes(), Path(archive).name
    seen = client.post("/pairlora/preview", {"folder": name, "resolution": 64})
    assert [sample["name"] for sample in seen["samples"]] == ["photo001", "photo003"]
    assert [sample["name"] for sample in seen["left_out"]] == ["photo002"]
    assert f"left out by {pairs.name}/left_out.txt: photo002" in seen["text"] and "is a zip" in seen["read_only"]
    for route in ("left_out", "caption"):
        about = {"folder": name, "sample": "photo002", "text": "x", "version": None, "out": False}
        status, refused = ask(server, route, about)
        assert status == 400 and "is a zip, which is not changed. Upload it, or unpack it" in refused["error"]
    assert client.post("/pairlora/preview", {"folder": name, "resolution": 64}) == seen
    assert Path(archive).read_bytes() == before
    Path(archive).unlink()


def test_the_packs_own_samples_are_read_only(server):
    about = {"folder": "samples/background-removal", "sample": "photo001"}
    status, read = ask(server, "caption", **about)
    for route in ("caption", "left_out"):
        status, refused = ask(server, route, {**about, "text": "x", "version": read["version"], "out": True})
        assert status == 400 and "read-only" in refused["error"]


@pytest.fixture(params=["reading the pairs", "training"])
def slow_to_read(request, client, training, pairs):
    """A folder, and a prompt that reads it for seconds."""
    if request.param == "training":
        graph = training(dataset={"folder": pairs.name}, steps=20_000)
        dataset = graph.ids["PairLoRADataset"][0]
        client.run({dataset: graph.prompt[dataset]})  # so that the training alone reads
        return pairs, graph.prompt
    noise = np.random.default_rng(0).integers(0, 256, (1024, 1024, 3), np.uint8)
    for number in range(40):
        noise[0, 0, 0] = number
        for role in ("start", "end"):
            Image.fromarray(noise).save(pairs / f"noise{number}_{role}.bmp")
    reading = node("PairLoRADataset", folder=pairs.name, default_caption="", trigger_word="", resolution=64)
    return pairs, {"reading": reading}


def test_nothing_is_edited_while_a_queue_reads_the_folder(server, client, slow_to_read):
    pairs, prompt = slow_to_read
    about = {"folder": pairs.name, "sample": "photo001"}
    text = (pairs / "photo001.txt").read_text()

    def save(wanted):
        """Try until it is answered so; the last answer."""
        for _ in range(600):
            answer = ask(server, "caption", {**about, "text": text, "version": ask(server, "caption", **about)[1]["version"]})
            if answer[0] == wanted:
                break
            time.sleep(0.02)
        return answer

    client.post("/prompt", {"prompt": prompt})
    try:
        status, refused = save(400)
        assert status == 400 and "A queue is reading" in refused["error"]
        status, refused = ask(server, "left_out", {**about, "out": True})
        assert status == 400 and "A queue is reading" in refused["error"]
        assert client.get("/queue")["queue_running"]
    finally:
        client.post("/interrupt")
    assert save(200)[0] == 200
