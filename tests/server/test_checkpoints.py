"""The checkpoints of a run, given out and kept."""
import pytest
import safetensors.torch
import torch
from running import node

from client import GraphError


@pytest.fixture(scope="module")
def name():
    return "stages"


@pytest.fixture
def staged(training):
    """`staged(name, every)`: a prompt that trains and tells the labels of the checkpoints."""

    def load(name, every=1):
        graph = training(settings={"checkpoint_steps": every, "cooldown": 0}, name=name, steps=40)
        graph.prompt["stages"] = node("PairLoRACheckpoints", model=["1", 0], lora=[graph.train, 2], strengths="0.5, 1")
        graph.prompt["labels"] = node("PreviewAny", source=["stages", 1])
        return graph

    return load


@pytest.fixture
def graph(staged, name):
    return staged(name)


def steps_of(labels):
    """Which are kept depends on how long they take to write."""
    return sorted({int(label.split()[2]) for label in labels})


def test_each_checkpoint_is_given_out_at_each_strength(client, graph):
    labels = client.run(graph.prompt).outputs["labels"]["text"]
    steps = steps_of(labels)
    assert labels == [f"stages step {step} at {strength}" for step in steps for strength in ("0.5", "1")]
    assert len(steps) > 1 and steps[-1] == 40
    graph.prompt["stages"]["inputs"]["strengths"] = "much"
    with pytest.raises(GraphError, match="strengths are 'much', but must be numbers"):
        client.run(graph.prompt)


def test_at_most_so_many_and_those_that_are_damaged_are_named(client, server, staged):
    graph = staged("thinned", every=1000)
    inputs = graph.prompt["stages"]["inputs"]
    inputs["strengths"] = "1"
    for steps in (40, 50, 60):  # each ends with a checkpoint
        graph.prompt[graph.train]["inputs"]["steps"] = steps
        client.run(graph.prompt)
    (folder,) = (server.base / "output/pairlora").glob("thinned-*")
    (folder / "step40.safetensors").unlink()  # the finished LoRA, which would be taken
    assert steps_of(client.run(graph.prompt).outputs["labels"]["text"]) == [40, 50, 60]
    inputs["most"] = 2
    assert len(few := steps_of(client.run(graph.prompt).outputs["labels"]["text"])) == 2 and few[-1] == 60

    inputs["most"] = 6
    (left,) = folder.glob("checkpoints/lora000040-*")
    left.write_bytes(left.read_bytes()[:-1] + b"!")
    texts = []
    labels = client.run(graph.prompt, lambda node, text: texts.append(text)).outputs["labels"]["text"]
    assert steps_of(labels) == [50, 60]
    assert any(f"{left.name} is damaged" in text for text in texts)
    assert not left.exists() and [*folder.glob(f"damaged/*{left.name}")]


def test_a_checkpoint_is_kept_as_a_lora_that_loads(client, server, graph, name):
    step, *_ = steps_of(client.run(graph.prompt).outputs["labels"]["text"])
    kept = [client.post("/pairlora/keep", {"lora": name, "step": step})["file"] for _ in range(2)]
    assert kept == [f"{name}_step{step}.safetensors"] * 2, "the same is not kept twice"
    file = server.base / "models/loras" / kept[0]
    tensors = safetensors.torch.load_file(file)
    with safetensors.safe_open(file, "pt") as opened:
        assert opened.metadata()["ss_steps"] == str(step)
    (last,) = (server.base / "output/pairlora").glob(f"{name}-*/step40.safetensors")
    final = safetensors.torch.load_file(last)
    assert final.keys() == tensors.keys() and not all(torch.equal(final[key], tensors[key]) for key in final)
    graph.prompt["load"] = node("PairLoRALoad", model=["1", 0], lora=kept[0], strength=0.8)
    client.run(graph.prompt)

    file.write_bytes(b"of the user")
    assert client.post("/pairlora/keep", {"lora": name, "step": step})["file"] == f"{name}_step{step}_02.safetensors"
    assert file.read_bytes() == b"of the user"


@pytest.mark.parametrize("body", [
    {"lora": "../stages", "step": 2}, {"lora": "/etc/passwd", "step": 2}, {"lora": "a\0b", "step": 2}, {"lora": "stages", "step": "2"},
    {"lora": "stages", "step": 77}, [], {"lora": "nowhere", "step": 1},
])  # fmt: skip
def test_what_cannot_be_kept_is_refused_with_the_reason(client, server, body):
    before = set((server.base / "models/loras").rglob("*"))
    assert client.post("/pairlora/keep", body)["error"]
    assert set((server.base / "models/loras").rglob("*")) == before
