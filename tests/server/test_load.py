"""Load LoRA (file or URL): whatever way the file is named, and what is wrong with it."""
import hashlib
import json
import os
import re

import pytest
import safetensors.torch
import torch
from running import node, steps_of

from client import GraphError


@pytest.fixture(scope="module")
def load(client, server):
    """`load(lora)`: put the file that is named so on the demo model."""

    def run(lora, on_text=None):
        return client.run({"base": node("PairLoRADemoModel"), "load": node("PairLoRALoad", model=["base", 0], lora=lora, strength=1.0),
                           "show": node("PreviewAny", source=["load", 0])}, on_text)  # fmt: skip

    return run


@pytest.fixture
def file(client, training, server):
    """A LoRA of the demo model, in a folder of the loras folder."""
    file = server.base / "models/loras/deep folder/loadable.safetensors"
    if not file.exists():
        steps_of(client, training({"folder": "samples/background-removal-held-out", "resolution": 64}, steps=1,
                                  name="deep folder/loadable"))  # fmt: skip
    return file


def test_a_file_is_found_as_people_name_it(load, file):
    from_home = os.path.relpath(file, os.path.expanduser("~"))
    for name in ("deep folder/loadable.safetensors", "deep folder\\loadable.safetensors", str(file), f'"{file}"', f" '{file}' ",
                 f"\u202a{file}", f"file://{str(file).replace(' ', '%20')}", f"~/{from_home}"):  # fmt: skip
        assert "load" in load(name).ran, name


@pytest.mark.parametrize("name", ["no.safetensors", "/no/such.safetensors", "", "..\\..\\x.safetensors", "deep folder"])
def test_a_file_that_is_not_there_is_named(load, file, name):
    with pytest.raises(GraphError, match="There is no LoRA '"):
        load(name)


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"version https://git-lfs.github.com/spec/v1\n", None])
def test_a_damaged_file_is_named(load, file, server, content):
    damaged = server.base / "models/loras/damaged.safetensors"
    damaged.write_bytes(file.read_bytes()[:-1000] if content is None else content)
    with pytest.raises(GraphError, match=r"damaged\.safetensors is damaged or no LoRA .*Download it again, or train it again"):
        load("damaged.safetensors")


@pytest.fixture
def downloaded(file, server):
    """`downloaded(url, content)`: as if the address had been fetched before."""
    folder = server.base / "models/loras/downloaded"
    folder.mkdir(exist_ok=True)

    def put(url, content):
        sha256 = hashlib.sha256(content).hexdigest()
        (folder / f"{sha256[:12]}.safetensors").write_bytes(content)
        entry = {"file": f"{sha256[:12]}.safetensors", "sha256": sha256}
        (folder / "addresses.json").write_text(json.dumps({hashlib.sha256(url.encode()).hexdigest(): entry}))
        return sha256

    return put


def test_what_was_fetched_once_needs_no_network_and_shows_its_hash(load, file, downloaded):
    said = []
    url = "https://lora.invalid/a.safetensors?token=1"
    sha256 = downloaded(url, file.read_bytes())
    assert "load" in load(url, lambda node, text: said.append(text)).ran
    assert f"sha256 {sha256}" in said[-1] and "fit nothing" not in said[-1]


@pytest.mark.parametrize("url, why", [
    ("https://127.0.0.1/a.safetensors", "127.0.0.1 is 127.0.0.1, an address of this machine or its network"),
    ("https://localhost:8188/a.safetensors", "an address of this machine or its network"),
    ("http://example.com/a.safetensors", "does not begin with https://"),
    ("https://me:word@example.com/a.safetensors", "holds a user's name or password"),
    ("https://lora.invalid/a.safetensors", "There is no lora.invalid"),
])  # fmt: skip
def test_addresses_that_are_not_fetched_from(load, url, why):
    with pytest.raises(GraphError, match=re.escape(why)):
        load(url)


def test_what_does_not_fit_the_model_is_named(load, file, server):
    weights = safetensors.torch.load_file(file)
    weights.update({f"diffusion_model.elsewhere.lora_{x}.weight": torch.zeros(2, 2) for x in "AB"})
    safetensors.torch.save_file(weights, server.base / "models/loras/partly.safetensors")
    said = []
    load("partly.safetensors", lambda node, text: said.append(text))
    assert "2 tensors of partly.safetensors fit nothing in this model, first diffusion_model.elsewhere.lora_A.weight" in said[-1]


def test_what_is_for_a_text_encoder_is_told_from_what_does_not_fit(load, file, server):
    said, loras = [], server.base / "models/loras"
    text = {f"lora_te_text_model_encoder_layers_0_mlp_fc1.lora_{x}.weight": torch.zeros(2, 2) for x in ("down", "up")}
    safetensors.torch.save_file(safetensors.torch.load_file(file) | text, loras / "both.safetensors")
    load("both.safetensors", lambda node, text: said.append(text))
    assert said[-1].startswith("2 tensors of both.safetensors are for a text encoder") and "fit nothing" not in said[-1]
    safetensors.torch.save_file(text, loras / "text.safetensors")
    with pytest.raises(GraphError, match="Nothing in text.safetensors fits this model"):
        load("text.safetensors")


def test_whole_differences_fit(load, file, server):
    key = next(key for key in safetensors.torch.load_file(file) if key.endswith(".lora_up.weight"))
    weights = safetensors.torch.load_file(file)
    shape = len(weights[key]), weights[key.replace("lora_up", "lora_down")].shape[1]
    diff = {key.replace(".lora_up.weight", ".diff"): torch.zeros(shape)}
    safetensors.torch.save_file(diff, server.base / "models/loras/difference.safetensors")
    said = []
    assert "load" in load("difference.safetensors", lambda node, text: said.append(text)).ran and not said
