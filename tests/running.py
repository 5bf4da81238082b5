"""A running ComfyUI with the pack, and the example workflows made small."""
import copy
import json
import shutil
import zlib
from pathlib import Path
from types import SimpleNamespace

import pytest

from client import Client
from figures import add_previews
from host import ROOT, Server


@pytest.fixture(scope="session")
def base(host, tmp_path_factory) -> Path:
    """A base directory of its own for the tests' servers: its loras folder starts empty."""
    base = host.make_base(tmp_path_factory.mktemp("comfyui"))
    for name in ("no_references.py", "read_tiny_files.py"):
        shutil.copy(ROOT / "tests/server" / name, base / "custom_nodes")
    return base


@pytest.fixture(scope="session")
def server(host, base):
    with Server(host, base=base) as server:
        yield SimpleNamespace(client=Client(server.url), base=base, server=server, url=server.url)


@pytest.fixture(scope="session")
def client(server) -> Client:
    return server.client


@pytest.fixture(scope="session")
def workflow():
    """`workflow("try-on", steps=10)`: the demo's prompt with other training steps and previews of all pictures."""

    def load(dataset="background-removal", steps=10, name="test", **train):
        prompt = json.loads((ROOT / f"demo/workflows/{dataset}.api.json").read_text(encoding="utf-8"))
        ids = {}
        for node, content in prompt.items():
            ids.setdefault(content["class_type"], []).append(node)
        prompt[ids["PairLoRATrain"][0]]["inputs"] |= {"steps": steps, "name": name, **train}
        previews = add_previews(prompt, ids["PairLoRABeforeAfter"][0])
        return SimpleNamespace(prompt=prompt, ids=ids, previews=previews, train=ids["PairLoRATrain"][0])

    return load


@pytest.fixture
def training(workflow):
    """A prompt that only trains, with the given inputs changed, and shows the LoRA's name: quick to run. Under another
    name it is another training, by its seed."""

    def load(dataset=None, settings=None, **train):
        graph = workflow(**{"steps": 3, **train})
        keep = ("PairLoRADemoModel", "PairLoRADataset", "PairLoRASettings", "PairLoRATrain")
        held_out = graph.ids["PairLoRADataset"][1]
        prompt = {k: copy.deepcopy(v) for k, v in graph.prompt.items() if v["class_type"] in keep and k != held_out}
        del prompt[graph.train]["inputs"]["held_out"]
        prompt[graph.ids["PairLoRADataset"][0]]["inputs"] |= dataset or {}
        prompt[graph.ids["PairLoRASettings"][0]]["inputs"] |= {
            "batch_size": 1, "seed": zlib.crc32(train.get("name", "").encode()), **(settings or {})
        }  # fmt: skip
        prompt["name"] = {"class_type": "PreviewAny", "inputs": {"source": [graph.train, 2]}}
        return SimpleNamespace(prompt=prompt, train=graph.train, ids=graph.ids)

    return load


def node(class_type: str, **inputs) -> dict:
    """A node of a prompt in the API format."""
    return {"class_type": class_type, "inputs": inputs}


def steps_of(client, graph):
    """Run and return the outcome, the training steps seen and the LoRA's name."""
    texts = []
    outcome = client.run(graph.prompt, lambda node, text: texts.append(text))
    return outcome, [text for text in texts if text.startswith("step ")], outcome.outputs["name"]["text"][0]
