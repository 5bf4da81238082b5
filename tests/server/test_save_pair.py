"""Building a dataset in a graph, through a real queue."""
import numpy as np
import pytest
from PIL import Image

from client import GraphError


def graph(folder, inputs=1, targets=1, caption="", **more):
    """Grey inputs and blue targets, as batches of the given sizes; ``more`` are sizes of further inputs."""
    colours = {"inputs": 0x808080, "target": 0x0000FF, "inputs1": 0xFF0000, "inputs2": 0x00FF00}
    sizes = {"inputs": inputs, "target": targets, **more}
    prompt = {
        name: {"class_type": "EmptyImage",
               "inputs": {"width": 32, "height": 16, "batch_size": size, "color": colours[name]}}
        for name, size in sizes.items()
    }  # fmt: skip
    links = {name: [name, 0] for name in sizes}
    prompt["save"] = {"class_type": "PairLoRASavePair", "inputs": {"folder": folder, "caption": caption, **links}}
    for output, name in enumerate(("folder", "names")):
        prompt[name] = {"class_type": "PreviewAny", "inputs": {"source": ["save", output]}}
    return prompt


def dataset(folder):
    options = {"default_caption": "", "trigger_word": "", "resolution": 64}
    return {"class_type": "PairLoRADataset", "inputs": {"folder": folder, **options}}


@pytest.fixture
def inputs(server):
    return server.base / "input"


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def pair(number, *others):
    return sorted(f"pair{number:04}{end}" for end in ("_start.png", "_end.png", *others))


def test_a_batch_becomes_pairs_and_the_next_queue_goes_on(client, inputs):
    outcome = client.run(graph("made", inputs=2, targets=2, caption="make it blue"))
    assert files(inputs / "made") == pair(1, ".txt") + pair(2, ".txt")
    with Image.open(inputs / "made/pair0002_end.png") as image:
        assert (image.mode, image.size, image.getpixel((0, 0))) == ("RGB", (32, 16), (0, 0, 255))
    assert (inputs / "made/pair0001.txt").read_text() == "make it blue"
    assert outcome.outputs["folder"]["text"] == [str(inputs / "made")]
    assert outcome.outputs["names"]["text"] == ["pair0001", "pair0002"]
    shown = client.images(outcome, "save")
    assert len(shown) == 2 and np.allclose(shown[0], [0, 0, 1])

    written = {path: path.read_bytes() for path in (inputs / "made").iterdir()}
    assert "save" not in client.run(graph("made", inputs=2, targets=2, caption="make it blue")).ran
    outcome = client.run(graph("made", inputs=1, targets=2))
    assert outcome.outputs["names"]["text"] == ["pair0003", "pair0004"]
    assert files(inputs / "made") == sorted(pair(1, ".txt") + pair(2, ".txt") + pair(3) + pair(4))
    assert all(path.read_bytes() == content for path, content in written.items())


def test_what_was_saved_can_be_loaded(client):
    client.run(graph("loaded", inputs=2, targets=2, caption="make it blue", inputs1=1, inputs2=2))
    prompt = {
        "data": dataset("loaded"),
        "samples": {"class_type": "PairLoRASample", "inputs": {"dataset": ["data", 0], "which": "all"}},
        "start2": {"class_type": "PreviewImage", "inputs": {"images": ["samples", 2]}},
        "caption": {"class_type": "PreviewAny", "inputs": {"source": ["samples", 4]}},
    }
    outcome = client.run(prompt)
    assert outcome.outputs["caption"]["text"] == ["make it blue"] * 2
    assert np.allclose(client.images(outcome, "start2")[1], [0, 1, 0], atol=0.01)


def test_a_list_writes_a_pair_for_each(client, inputs):
    """Nodes that give lists, such as Samples of a Dataset, run this node once for each."""
    prompt = graph("listed")
    prompt["data"] = dataset("samples/background-removal-held-out")
    prompt["samples"] = {"class_type": "PairLoRASample", "inputs": {"dataset": ["data", 0], "which": "all"}}
    prompt["save"]["inputs"] |= {"inputs": ["samples", 0], "target": ["samples", 3], "caption": ["samples", 4]}
    outcome = client.run(prompt)
    assert files(inputs / "listed") == sorted(sum((pair(n, ".txt") for n in range(1, 7)), []))
    assert outcome.outputs["names"]["text"] == [f"pair000{n}" for n in range(1, 7)]
    assert len(client.images(outcome, "save")) == 6


def test_an_absolute_folder_is_used_and_shows_nothing(client, tmp_path):
    outcome = client.run(graph(str(tmp_path / "elsewhere")))
    assert files(tmp_path / "elsewhere") == pair(1) and "save" not in outcome.outputs


@pytest.mark.parametrize("write", ['"{}"', "'{}'", " {}", "\u202a{}", "file://{}"], ids=ascii)
def test_a_folder_is_understood_as_people_write_it(client, inputs, tmp_path, write):
    client.run(graph(write.format(tmp_path / "typed")))
    assert files(tmp_path / "typed") == pair(1)
    client.run(graph(write.replace("file://", "").format("by\\name")))
    assert "pair0001_end.png" in files(inputs / "by/name")


@pytest.mark.parametrize("folder", ["nul", "a/con.txt", "名" * 60, "what?", "dot."])
def test_a_name_that_some_system_cannot_keep_is_refused(client, inputs, folder):
    with pytest.raises(GraphError, match="cannot be a name.*Choose another name"):
        client.run(graph(folder))


def test_a_file_is_no_folder(client, inputs):
    (inputs / "taken.txt").write_text("mine")
    with pytest.raises(GraphError, match=r"taken\.txt is a file"):
        client.run(graph("taken.txt"))


@pytest.mark.parametrize("sizes, message", [
    ({"inputs": 3, "targets": 2}, "Of targets there are 2, of inputs 3"),
    ({"inputs": 2, "targets": 1}, "Of targets there are 1, of inputs 2"),
    ({"inputs": 4, "targets": 4, "inputs1": 3}, "Of targets there are 4, of inputs 4 and 3"),
])  # fmt: skip
def test_counts_that_do_not_agree_write_nothing(client, inputs, sizes, message):
    with pytest.raises(GraphError, match=message):
        client.run(graph("mismatch", **sizes))
    assert not (inputs / "mismatch").exists()


@pytest.mark.parametrize("folder", ["", "..", "../escape", "a/../../escape", "a\\..\\..\\escape", "C:\\escape", "．．／x"])
def test_a_name_may_not_leave_the_input_folder(client, server, folder):
    before = sorted(server.base.rglob("*"))
    with pytest.raises(GraphError, match="cannot be a name"):
        client.run(graph(folder))
    assert sorted(server.base.rglob("*")) == before


def test_a_linked_name_is_checked_when_it_runs(client, inputs):
    prompt = graph(["text", 0])
    prompt["text"] = {"class_type": "PrimitiveString", "inputs": {"value": "../escape"}}
    with pytest.raises(GraphError, match="leads out of the folder"):
        client.run(prompt)
    assert not (inputs.parent / "escape").exists()
