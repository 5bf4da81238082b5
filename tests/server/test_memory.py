"""What a user sees of the memory plan: in the report, in the LoRA's file, and when nothing fits."""
import pytest
import safetensors
from running import steps_of

from client import Client, GraphError
from host import Server

SMALL = {"folder": "samples/background-removal-held-out", "resolution": 64}


def test_the_report_and_the_file_say_how_the_memory_was_used(client, training, server):
    graph = training(SMALL, name="memory")
    graph.prompt["report"] = {"class_type": "PreviewAny", "inputs": {"source": [graph.train, 3]}}
    outcome, _, name = steps_of(client, graph)
    last = outcome.outputs["report"]["text"][0].splitlines()[-1]
    with safetensors.safe_open(server.base / "models/loras" / name, "numpy") as file:
        assert last == "Memory: " + file.metadata()["pairlora_memory"]
    assert last.startswith("Memory: nothing recomputed; ") and " counted, " in last and last.endswith(" free")


def test_what_cannot_fit_is_refused_after_one_caption(host, base, training):
    texts = []
    with Server(host, "--reserve-vram", "100000", base=base) as other:
        with pytest.raises(GraphError, match="A step takes .* of memory beside the model's weights, and 0 MB are free. No smaller"):
            Client(other.url).run(training({**SMALL, "resolution": 96}, name="too_large").prompt, lambda node, text: texts.append(text))
    assert texts[0].startswith("captions 1/6") and not any(text.startswith(("captions 2", "pictures")) for text in texts)
    assert not list((base / "models/loras").glob("too_large*"))
