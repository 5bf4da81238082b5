"""The dataset node over real HTTP: choosing a folder, looking into it, and what makes it train again."""
import asyncio
import io
import re
import shutil
import sys
import time
import zipfile

import aiohttp
import pytest
from PIL import Image
from running import steps_of

from client import GraphError


def choices(client):
    spec = client.get("/object_info/PairLoRADataset")["PairLoRADataset"]["input"]["required"]["folder"]
    return spec[1]["options"] if spec[0] == "COMBO" else spec[0]


def zipped(folder):
    with zipfile.ZipFile(folder.with_suffix(".zip"), "w") as file:
        for path in folder.iterdir():
            file.write(path, f"{folder.name}/{path.name}")
    shutil.rmtree(folder)
    return folder.with_suffix(".zip")


async def _post(url, body):
    async with aiohttp.ClientSession() as session, session.post(f"{url}/pairlora/preview", data=body) as response:
        return response.status, await response.json()


def look(client, **inputs):
    return client.post("/pairlora/preview", inputs)


def test_a_new_folder_and_a_new_zip_are_in_the_dropdown_without_a_restart(client, server, pairs):
    assert pairs.name in choices(client)
    archive = zipped(pairs)
    assert archive.name in choices(client) and pairs.name not in choices(client)
    archive.unlink()
    assert archive.name not in choices(client)


def test_only_folders_with_images_are_in_the_dropdown(client, server, pairs):
    """ComfyUI itself makes input/3d, clipspace and others."""
    inputs = server.base / "input"
    for folder in ("3d", "texts", "nested/deep/empty"):
        (inputs / folder).mkdir(parents=True, exist_ok=True)
    (inputs / "3d/model.glb").write_bytes(b"no image")
    (inputs / "texts/a.txt").write_text("a caption")
    (inputs / "loop").symlink_to(inputs / "loop")
    for file in pairs.iterdir():
        (inputs / "deep/export/before").mkdir(parents=True, exist_ok=True)
        shutil.copy(file, inputs / "deep/export/before")
    (inputs / "phone").mkdir()
    (inputs / "phone/a_start.HEIC").write_bytes(b"the report says what to do with it")
    offered = choices(client)
    assert {pairs.name, "deep", "phone"} <= set(offered)
    assert not {"3d", "texts", "nested", "loop"} & set(offered)


def test_the_preview_gives_counts_and_pictures_that_the_page_can_show(client, pairs):
    (pairs / "photo002_end.jpg").unlink(missing_ok=True)
    (pairs / "photo002_end.png").unlink(missing_ok=True)
    seen = look(client, folder=pairs.name, resolution=128, trigger_word="zz")
    assert (seen["counts"]["pairs"], seen["counts"]["errors"], seen["checked"]) == (2, 1, False)
    assert [sample["name"] for sample in seen["samples"]] == ["photo001", "photo003"]
    assert seen["samples"][0]["caption"].startswith("zz, ")
    assert seen["findings"][0]["code"] == "missing-target" and len(seen["unused"]) == 2
    for sample in seen["samples"]:
        picture = Image.open(io.BytesIO(client.get("/view", **sample["image"])))
        assert picture.width > 2 * picture.height and picture.convert("L").getextrema()[0] < 100


def test_a_transparent_image_is_shown_over_the_background(client, pairs):
    Image.new("RGBA", (64, 64), (0, 0, 0, 0)).save(pairs / "clear_start.png")
    Image.new("RGBA", (64, 64), (0, 0, 0, 0)).save(pairs / "clear_end.png")

    def colour(background):
        sample = look(client, folder=pairs.name, background=background)["samples"][0]
        assert sample["name"] == "clear"
        return Image.open(io.BytesIO(client.get("/view", **sample["image"]))).convert("RGB").getpixel((5, 30))

    assert colour("#ff0000") == (255, 0, 0) and colour("blue") == (0, 0, 255)


@pytest.mark.parametrize(
    "body, words",
    [
        (b'{"folder": "nowhere"}', "There is no folder"),
        (b'{"path": "/no/such/place"}', "/no/such/place"),
        (b'{"path": "a\\u0000b"}', ""),
        (b'{"folder": "samples/try-on", "background": "witte"}', "'witte' is no colour"),
        (b'{"folder": "samples/try-on", "resolution": "many"}', "many"),
        (b'{"unknown": 1}', "unknown"),
        (b'["folder"]', "JSON object"),
        (b"null", "JSON object"),
        (b"no json", ""),
        (b"", ""),
        (b'{"folder": 5}', "folder is 5, which is no text"),
        (b'{"folder": "samples/try-on", "default_caption": ["x"]}', "default_caption is ['x'], which is no text"),
        (b'{"folder": "samples/try-on", "resolution": {}}', ""),
        (b'{"folder": "samples/try-on", "resolution": 1e400}', ""),
        (b'{"folder": null, "path": null}', "There is no folder chosen"),
        (b"[" * 100_000, ""),
    ],
)
def test_a_preview_that_cannot_be_made_says_why(client, body, words):
    status, answer = asyncio.run(_post(client.url, body))
    assert status == 400 and words in answer["error"] and answer["error"]


NAMES = ("folder", "default_caption", "trigger_word", "resolution", "background", "strict", "path")


@pytest.mark.parametrize("name", NAMES)
def test_null_stands_for_the_default_of_an_input(client, name):
    inputs = {"folder": "samples/try-on", "path": ""} if name == "path" else {"folder": "", "path": "samples/try-on"}
    assert look(client, **{**inputs, name: None})["counts"]["pairs"] > 3


def check(folder, **inputs):
    """A graph of the dataset node alone."""
    required = {"default_caption": "", "trigger_word": "", "resolution": 64}
    return {"data": {"class_type": "PairLoRADataset", "inputs": {"folder": folder, **required, **inputs}}}


@pytest.mark.parametrize("write", ["{}", '"{}"', "'{}'", " {}", "\u202a{}", "“{}”", "file://{}"], ids=ascii)
def test_a_typed_path_is_used_in_place_of_a_folder_even_one_that_is_gone(client, tmp_path, pairs, write):
    elsewhere = tmp_path / "else where"
    shutil.move(pairs, elsewhere)
    path = write.format(str(elsewhere).replace(" ", "%20") if "file" in write else elsewhere)
    assert not client.run(check("gone", path=path)).outputs, "the queue's gallery would show it as an empty tile"
    shown = look(client, folder="gone", path=path, resolution=64)
    assert shown["folder"] == "else where" and shown["counts"]["pairs"] == 3 and shown["checked"]
    assert look(client, folder="gone", path=path)["folder"] == "else where"


def test_names_in_the_input_folder_are_taken_as_they_are_written_before_anything_is_read_into_them(client, server, pairs):
    odd = pairs.rename(pairs.with_name(" 'odd'~"))
    assert look(client, folder=odd.name)["folder"] == odd.name == look(client, path=odd.name)["folder"]
    (odd / "in\\ner").mkdir()
    for file in list(odd.glob("photo001*")):
        shutil.copy(file, odd / "in\\ner")
    assert look(client, path=f"{odd}/in\\ner")["counts"]["pairs"] == 1
    shutil.rmtree(odd)


def queue(client, prompt):
    return client.post("/prompt", {"prompt": prompt})


def test_one_wrong_path_is_one_error_at_its_input(client):
    answer = queue(client, check("samples/try-on", path="/no/such place", background="white", strict=False))
    (error,) = answer["node_errors"]["data"]["errors"]
    assert error["extra_info"]["input_name"] == "path" and "There is no folder /no/such place" in error["details"]


@pytest.mark.parametrize("inputs, words", [
    ({"folder": "no such"}, "There is no folder .*no such"), ({"folder": "samples/try-on", "background": "witte"}, "'witte' is no colour"),
])  # fmt: skip
def test_what_else_is_wrong_is_one_error_before_any_other_node_runs(client, inputs, words):
    """With the bare name of its class, which newer ComfyUI puts in front."""
    prompt = check(**inputs)
    prompt["other"] = {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}}
    prompt["late"] = {"class_type": "PreviewImage", "inputs": {"images": ["other", 0]}}
    prompt["report"] = {"class_type": "PreviewAny", "inputs": {"source": ["data", 1]}}
    answer = queue(client, prompt)
    assert not answer["node_errors"]
    while not (history := client.get(f"/history/{answer['prompt_id']}")):
        time.sleep(0.1)
    messages = dict(history[answer["prompt_id"]]["status"]["messages"])
    error = messages["execution_error"]
    assert error["node_id"] == "data" and error["exception_type"] == "DatasetError" and error["executed"] == []
    assert re.search(words, error["exception_message"])


def test_a_damaged_zip_and_one_without_pairs_are_named_themselves(client, server):
    for name, content in (("damaged.zip", b"PK no zip"), ("useless.zip", None)):
        file = server.base / "input" / name
        if content:
            file.write_bytes(content)
        else:
            with zipfile.ZipFile(file, "w") as made:
                made.writestr("readme.md", "x")
        with pytest.raises(GraphError, match=name) as refused:
            client.run(check(name))
        assert "temp" not in str(refused.value)
        file.unlink()


def test_what_a_zip_holds_and_is_not_read_is_a_warning(client, server, pairs):
    (pairs / "photo009_start.heic").write_bytes(b"x")
    archive = zipped(pairs)
    seen = look(client, folder=archive.name)
    assert seen["folder"] == archive.name
    assert any("photo009_start.heic is not used: images of this kind" in finding["message"] for finding in seen["findings"])
    archive.unlink()


@pytest.mark.skipif(sys.platform == "win32", reason="makes links")
def test_an_entry_of_the_input_folder_that_cannot_be_read_hides_nothing_else(client, server, pairs):
    inputs, before = server.base / "input", choices(client)
    for name in ("round", f"{pairs.name}/round"):
        (inputs / name).symlink_to(inputs / name)
    (inputs / "nowhere").symlink_to(inputs / "gone")
    assert choices(client) == before
    seen = look(client, folder=pairs.name)
    assert seen["counts"]["pairs"] == 3 and {"file": "round", "reason": NOWHERE} in seen["unused"]
    for name in ("round", "nowhere"):
        (inputs / name).unlink()


NOWHERE = "a link that leads nowhere, or no file that can be read"


def test_a_zip_is_a_dataset_and_its_other_files_are_named(client, server, training, pairs):
    (pairs / "notes.docx").write_bytes(b"notes")
    archive = zipped(pairs)
    graph = training(name="zipped", dataset={"folder": archive.name})
    _, steps, _ = steps_of(client, graph)
    shown = look(client, **graph.prompt[graph.ids["PairLoRADataset"][0]]["inputs"])
    assert steps and shown["counts"]["pairs"] == 3
    assert any("notes.docx" in entry["file"] for entry in shown["unused"])
    assert sorted(path.name for path in (server.base / "input").glob(f"{pairs.name}*")) == [archive.name]
    archive.unlink()


def test_strict_stops_at_the_first_error_and_else_the_sample_is_left_out_by_name(client, training, pairs):
    (pairs / "photo001_start.png").unlink(missing_ok=True)
    (pairs / "photo001_start.jpg").unlink(missing_ok=True)
    texts = []
    with pytest.raises(GraphError, match=r"has 1 error, and strict is on: photo001: no photo001_start image"):
        graph = training(name="strict", dataset={"folder": pairs.name, "strict": True})
        client.run(graph.prompt, lambda node, text: texts.append(text))
    assert not texts
    graph = training(name="strict", dataset={"folder": pairs.name, "strict": False})
    _, steps, _ = steps_of(client, graph)
    shown = look(client, **graph.prompt[graph.ids["PairLoRADataset"][0]]["inputs"])
    assert steps and shown["counts"]["pairs"] == 2
    assert "photo001: no photo001_start image" in shown["text"]


def test_a_changed_caption_or_an_added_file_trains_again_a_touched_file_does_not(client, training, pairs):
    graph = training(name="edited", dataset={"folder": pairs.name})
    assert steps_of(client, graph)[1]
    for file in pairs.iterdir():
        file.touch()
    assert not steps_of(client, graph)[1]
    (pairs / "photo001.txt").write_text("another instruction")
    assert steps_of(client, graph)[1]
    for file in list(pairs.glob("photo002*")):
        shutil.copy(file, file.with_name(file.name.replace("photo002", "photo004")))
    assert steps_of(client, graph)[1]
    (pairs / "notes.md").write_text("not used")
    assert not steps_of(client, graph)[1]
