"""What the files that the pack saves say of their maker."""
import json
import shutil

import pytest
import safetensors
from running import node, steps_of

from client import Client
from host import ROOT, Server


def header(server, name):
    with safetensors.safe_open(server.base / f"models/loras/{name}.safetensors", "numpy") as file:
        return file.metadata()


@pytest.fixture
def secret(server):
    """A folder of pairs outside ComfyUI's input, typed as a path."""
    folder = server.base / "secret folder/pairs"
    if not folder.exists():
        shutil.copytree(ROOT / "samples/background-removal-held-out", folder)
    return {"path": f'"{folder}"', "resolution": 64, "trigger_word": "zebra"}


def test_no_full_path_is_in_a_lora(client, training, server, secret):
    graph = training(secret, {"accumulation": 2}, name="typed_path", steps=1)
    graph.prompt["note"] = node("PreviewAny", source=f"from {server.base}/input/x.png")
    assert steps_of(client, graph)[1]
    found = header(server, "typed_path")
    assert json.loads(found["prompt"])[graph.ids["PairLoRADataset"][0]]["inputs"]["path"] == "pairs"
    assert json.loads(found["prompt"])["note"]["inputs"]["source"] == "from x.png"
    assert found["modelspec.trigger_phrase"] == "zebra" and json.loads(found["pairlora_dataset"])["name"] == "pairs"
    assert (found["ss_batch_size_per_device"], found["ss_gradient_accumulation_steps"]) == ("1", "2")
    assert not [key for key, value in found.items() if str(server.base) in value or "secret" in value]


def test_with_disabled_metadata_a_lora_says_nothing_of_the_graph(host, training, server, secret):
    with Server(host, "--disable-metadata", base=server.base) as other:
        assert steps_of(Client(other.url), training(secret, name="private", steps=1))[1]
    found = header(server, "private")
    assert not {"prompt", "workflow", "ss_tag_frequency", "ss_sd_model_name", "modelspec.trigger_phrase"} & found.keys()
    assert not [key for key, value in found.items() for word in ("secret", "pairs", "zebra", "background") if word in value]
    assert found["ss_network_dim"] == "16" and found["modelspec.title"] == "private"
