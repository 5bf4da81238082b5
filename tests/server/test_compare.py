"""Before / After: its files, scores and sheet, and what makes it run again."""
import io
import json

import numpy as np
import pytest
from PIL import Image
from running import node

from client import Client, GraphError
from host import Server


@pytest.fixture
def graph():
    """A prompt that compares the inputs with the targets of six samples."""
    return {
        "data": node("PairLoRADataset", folder="samples/try-on-held-out", default_caption="", trigger_word="", resolution=64),
        "samples": node("PairLoRASample", dataset=["data", 0], which="all"),
        "compare": node("PairLoRABeforeAfter", before=["samples", 0], after=["samples", 3], input=["samples", 0],
                        target=["samples", 3], input1=["samples", 1], input2=["samples", 2], names=["samples", 5]),
    }  # fmt: skip


def sheet_of(client, graph, **inputs):
    graph["compare"]["inputs"] |= inputs
    outcome = client.run(graph | {"sheet": node("PreviewImage", images=["compare", 0])})
    (sheet,) = client.images(outcome, "sheet")
    return outcome, sheet


def test_each_side_of_each_sample_is_a_file_with_the_workflow_inside(client, server, graph):
    shown = client.run(graph).outputs["compare"]["images"]
    assert len({image["filename"] for image in shown}) == len(shown) == 6 * 6
    assert (shown[0]["side"], shown[0]["name"]) == ("after", "test001"), "the gallery shows the first one"
    assert {image["side"] for image in shown} == {"input", "input 2", "input 3", "before", "after", "target"}
    for image in shown:
        file = server.base / "output" / image["subfolder"] / image["filename"]
        assert json.loads(Image.open(file).info["prompt"])["compare"]["class_type"] == "PairLoRABeforeAfter"


def test_with_disabled_metadata_the_pictures_say_nothing(host, server, graph):
    with Server(host, "--disable-metadata", base=server.base) as other:
        client = Client(other.url)
        image = client.run(graph).outputs["compare"]["images"][0]
        file = client.get("/view", **{key: image[key] for key in ("filename", "subfolder", "type")})
    assert Image.open(io.BytesIO(file)).info == {}


def test_scores_are_of_the_whole_the_edited_and_the_kept_region(client, graph):
    graph["compare"]["inputs"]["before"] = ["samples", 0]
    shown = {(image["side"], image["sample"]): image for image in client.run(graph).outputs["compare"]["images"]}
    before, after = shown["before", 0]["scores"], shown["after", 0]["scores"]
    assert set(before) == {f"{score}{part}" for score in ("psnr", "ssim") for part in ("", "_edited", "_kept")}
    assert after["psnr"] == 100 and after["ssim"] == 1
    assert before["psnr_kept"] > before["psnr"] > before["psnr_edited"]
    assert not shown["input", 0]["scores"]


def test_the_sheet_is_made_when_it_is_used(client, graph):
    graph["compare"]["inputs"]["input"] = ["samples", 2]  # another graph than those of other tests
    client.run(graph)
    assert "compare" in client.run(graph).cached
    outcome, labelled = sheet_of(client, graph)
    assert "compare" in outcome.ran, "it was not made before"
    _, bare = sheet_of(client, graph, captions=False)
    assert labelled.shape[0] > bare.shape[0] >= 64 and labelled.shape[1] == bare.shape[1]


def test_one_picture_is_compared_with_all(client, graph):
    graph["one"] = node("PairLoRASample", dataset=["data", 0], which="test001")
    graph["compare"]["inputs"]["before"] = ["one", 0]
    shown = [image for image in client.run(graph).outputs["compare"]["images"] if image["side"] == "before"]
    assert [image["sample"] for image in shown] == [None]


def test_counts_that_differ_are_told(client, graph):
    graph["two"] = node("ImageFromBatch", image=["batch", 0], batch_index=0, length=2)
    graph["batch"] = node("RepeatImageBatch", image=["one", 0], amount=2)
    graph["one"] = node("PairLoRASample", dataset=["data", 0], which="test001")
    graph["compare"]["inputs"]["target"] = ["two", 0]
    with pytest.raises(GraphError, match="equally many pictures on every input, or one, but got .*'target': 2"):
        client.run(graph)


def test_it_passes_its_pictures_on(client, graph):
    graph["passed"] = node("PreviewImage", images=["compare", 2])
    graph["given"] = node("PreviewImage", images=["samples", 3])
    outcome = client.run(graph)
    for passed, given in zip(client.images(outcome, "passed"), client.images(outcome, "given"), strict=True):
        assert np.array_equal(passed, given)


def test_what_a_workflow_has_put_out_last_is_known(client, server, graph):
    """By the workflow's id and the node's, for whichever page opens it."""
    asked = {"workflow": "of-a-test", "node": "compare"}
    assert client.get("/pairlora/compared", **asked) == {"images": []}
    for captions in (True, False):
        graph["compare"]["inputs"]["captions"] = captions
        shown = client.run(graph, workflow={"id": asked["workflow"]}).outputs["compare"]["images"]
        assert client.get("/pairlora/compared", **asked) == {"images": shown}
    assert client.get("/pairlora/compared", workflow=asked["workflow"], node="other") == {"images": []}
    for file in (server.base / "output/pairlora/before_after/last").iterdir():
        file.write_text("{")
    assert client.get("/pairlora/compared", **asked) == {"images": []}
