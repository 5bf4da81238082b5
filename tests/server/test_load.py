"""Load LoRA (file): whatever way the file is named, and what is wrong with it."""
import os

import pytest
from running import node, steps_of

from client import GraphError


@pytest.fixture(scope="module")
def load(client, server):
    """`load(lora)`: put the file that is named so on the demo model."""

    def run(lora):
        return client.run({"base": node("PairLoRADemoModel"), "load": node("PairLoRALoad", model=["base", 0], lora=lora, strength=1.0),
                           "show": node("PreviewAny", source=["load", 0])})  # fmt: skip

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
