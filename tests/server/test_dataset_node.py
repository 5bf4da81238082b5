"""The dataset node over real HTTP: choosing a folder, looking into it, and what makes it train again."""
import asyncio
import io
import shutil
import zipfile

import aiohttp
import pytest
from PIL import Image
from running import steps_of

from client import GraphError
from host import ROOT


@pytest.fixture
def pairs(server, request):
    """A folder of three pairs in ComfyUI's input."""
    folder = server.base / "input" / request.node.name.split("[")[0]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for file in (ROOT / "samples/background-removal").glob("photo00[123]*"):
        shutil.copy(file, folder)
    return folder


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
        (b'["folder"]', ""),
        (b"no json", ""),
        (b"", ""),
    ],
)
def test_a_preview_that_cannot_be_made_says_why(client, body, words):
    status, answer = asyncio.run(_post(client.url, body))
    assert status == 400 and words in answer["error"] and answer["error"]


@pytest.mark.parametrize("quotes", ["", '"'], ids=["plain", "as Windows copies it"])
def test_a_typed_path_is_used_in_place_of_the_folder(client, training, tmp_path, pairs, quotes):
    elsewhere = tmp_path / "else where"
    shutil.move(pairs, elsewhere)
    graph = training(name="typed", dataset={"folder": "samples/try-on", "path": f"{quotes}{elsewhere}{quotes}"})
    dataset = graph.ids["PairLoRADataset"][0]
    outcome = client.run(graph.prompt)
    (shown,) = outcome.outputs[dataset]["pairlora_dataset"]
    assert shown["folder"] == "else where" and shown["counts"]["pairs"] == 3 and shown["checked"]


def test_a_zip_is_a_dataset_and_its_other_files_are_named(client, server, training, pairs):
    (pairs / "notes.docx").write_bytes(b"notes")
    archive = zipped(pairs)
    graph = training(name="zipped", dataset={"folder": archive.name})
    outcome, steps, _ = steps_of(client, graph)
    (shown,) = outcome.outputs[graph.ids["PairLoRADataset"][0]]["pairlora_dataset"]
    assert steps and shown["counts"]["pairs"] == 3
    assert any("notes.docx" in entry["file"] for entry in shown["unused"])
    assert sorted(path.name for path in (server.base / "input").glob(f"{pairs.name}*")) == [archive.name]
    archive.unlink()


def test_strict_stops_at_the_first_error_and_else_the_sample_is_left_out_by_name(client, training, pairs):
    (pairs / "photo001_start.png").unlink(missing_ok=True)
    (pairs / "photo001_start.jpg").unlink(missing_ok=True)
    texts = []
    with pytest.raises(GraphError, match=r"\(strict\).*photo001: no photo001_start image"):
        graph = training(name="strict", dataset={"folder": pairs.name, "strict": True})
        client.run(graph.prompt, lambda node, text: texts.append(text))
    assert not texts
    graph = training(name="strict", dataset={"folder": pairs.name, "strict": False})
    outcome, steps, _ = steps_of(client, graph)
    (shown,) = outcome.outputs[graph.ids["PairLoRADataset"][0]]["pairlora_dataset"]
    assert steps and shown["counts"]["pairs"] == 2
    assert "photo001: no photo001_start image" in shown["text"]


def test_a_background_that_is_no_colour_is_refused_when_queued(client, training):
    with pytest.raises(GraphError, match="'witte' is no colour"):
        client.run(training(dataset={"background": "witte"}).prompt)


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
