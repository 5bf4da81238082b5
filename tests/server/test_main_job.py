"""The main job with the example workflows on a running ComfyUI: pairs in, LoRA out, before and after."""
import json

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from client import Client
from figures import exchange_references, psnr, white_part
from host import Server

REMOVAL_GAIN, TRY_ON_GAIN = 8.0, 1.5  # dB; lower bounds for fewer steps than the examples


@pytest.fixture(scope="session")
def removal(client, workflow):
    """Background removal with fewer steps than the example."""
    return run(client, workflow("background-removal", steps=300, name="removal"))


def run(client, graph):
    texts = []
    graph.outcome = client.run(graph.prompt, lambda node, text: texts.append((node, text)))
    graph.texts = [text for node, text in texts if node == graph.train]
    graph.pictures = {role: client.images(graph.outcome, node) for role, node in graph.previews.items()}
    return graph


def test_background_removal_learns(removal):
    pictures, target = removal.pictures, removal.pictures["target"]
    figures = {role: psnr(pictures[role], target) for role in ("input", "before", "after")}
    blank = psnr([image * 0 + 1 for image in target], target)
    subject = [~white_part(image) for image in target]
    inside = {role: psnr(pictures[role], target, subject) for role in ("before", "after")}
    print({**figures, "blank": blank, "inside": inside})
    assert figures["after"] >= max(figures["input"], figures["before"]) + REMOVAL_GAIN
    assert figures["after"] >= blank + 2
    assert inside["after"] >= inside["before"] - 4


@pytest.mark.slow
def test_try_on_learns(client, server, workflow):
    graph = run(client, workflow("try-on", steps=150, name="try_on"))
    target = graph.pictures["target"]
    figures = {role: psnr(graph.pictures[role], target) for role in ("input", "before", "after")}
    swapped = exchange_references(server.base, "try-on")
    graph.prompt[graph.ids["PairLoRADataset"][1]]["inputs"]["folder"] = swapped
    exchanged = psnr(client.images(client.run(graph.prompt), graph.previews["after"]), target)
    print(figures, exchanged)
    assert figures["after"] >= max(figures["input"], figures["before"]) + TRY_ON_GAIN
    assert figures["after"] >= exchanged + 1.5  # it uses its references


def test_progress_shows_step_loss_and_time_left(removal):
    steps = [text for text in removal.texts if text.startswith("step ")]
    assert len(steps) > 20 and steps[0].startswith("step 1/300  loss ") and steps[-1].endswith(" left")
    assert "24 samples and 6 held out, 300 steps of 4" in removal.texts[-1]


def test_the_lora_is_in_the_loras_folder_and_in_every_dropdown(removal, client, server):
    assert (server.base / "models/loras/removal.safetensors").is_file()
    loader = client.get("/object_info/LoraLoaderModelOnly")["LoraLoaderModelOnly"]
    assert "removal.safetensors" in loader["input"]["required"]["lora_name"][0]
    file = server.base / "models/loras/removal.safetensors"
    names = safetensors.numpy.load_file(file)
    assert all(k.startswith("diffusion_model.") and k.endswith((".lora_down.weight", ".lora_up.weight")) for k in names)


def test_the_file_says_what_it_is(removal, server):
    """In the keys that ComfyUI, Lora Manager and Civitai read."""
    with safetensors.safe_open(server.base / "models/loras/removal.safetensors", "numpy") as file:
        header = file.metadata()
    assert header["modelspec.architecture"] == "FLUX.1/lora" and header["modelspec.title"] == "removal"
    assert (header["ss_network_dim"], header["ss_steps"], header["ss_num_train_images"]) == ("16", "300", "24")
    assert header["ss_output_name"] == "removal" and header["modelspec.resolution"] == "128x128"
    (captions,) = json.loads(header["ss_tag_frequency"]).values()
    assert sum(captions.values()) == 24
    assert json.loads(header["pairlora_dataset"]) == {"name": "background-removal", "samples": 24, "inputs": [1] * 24}
    assert json.loads(header["pairlora_settings"])["rank"] == 16
    assert len(header["pairlora_base"]) == 64 and "ss_sd_model_name" not in header, "the demo model is no file of the user's"
    assert json.loads(header["prompt"])[removal.train]["inputs"]["steps"] == 300


def test_every_picture_is_in_the_output_folder(removal, server):
    shown = removal.outcome.outputs[removal.ids["PairLoRABeforeAfter"][0]]["images"]
    assert shown[0]["side"] == "after" and len(shown) == 6 * 4
    assert all((server.base / "output" / image["subfolder"] / image["filename"]).is_file() for image in shown)


def loaded_with(graph, class_type, **inputs):
    """The same prompt with another node in place of training."""
    prompt = {k: v for k, v in graph.prompt.items() if v["class_type"] not in ("PairLoRATrain", "PairLoRASettings")}
    prompt.pop(graph.ids["PairLoRADataset"][0])
    prompt[graph.train] = {"class_type": class_type, "inputs": {"model": ["1", 0], **inputs}}
    return prompt


def largest_difference(a, b):
    return max(float(np.abs(x - y).max()) for x, y in zip(a, b, strict=True)) * 255


def test_strength_0_is_the_base(removal, client):
    prompt = loaded_with(removal, "PairLoRALoad", lora="removal.safetensors", strength=0.0)
    outcome = client.run(prompt)
    after = client.images(outcome, removal.previews["after"])
    assert largest_difference(after, removal.pictures["before"]) == 0


def test_pairlora_load_takes_the_linked_name(removal, client):
    prompt = json.loads(json.dumps(removal.prompt))
    prompt["load"] = {"class_type": "PairLoRALoad",
                      "inputs": {"model": ["1", 0], "lora": [removal.train, 2], "strength": 1.0}}  # fmt: skip
    for node in prompt.values():
        if node["class_type"] == "KSampler" and node["inputs"]["model"] == [removal.train, 0]:
            node["inputs"]["model"] = ["load", 0]
    after = client.images(client.run(prompt), removal.previews["after"])
    assert largest_difference(after, removal.pictures["after"]) <= 2


def test_a_fresh_server_makes_the_same_picture_with_comfyuis_loader(removal, host, server):
    prompt = loaded_with(removal, "LoraLoaderModelOnly", lora_name="removal.safetensors", strength_model=1.0)
    with Server(host, base=server.base) as other:
        client = Client(other.url)
        after = client.images(client.run(prompt), removal.previews["after"])
        log = other.log.read_text(encoding="utf-8").lower()
    difference = largest_difference(after, removal.pictures["after"])
    print(f"largest pixel difference {difference:.0f}/255")
    assert difference <= 2
    assert "not loaded" not in log and "got prompt" in log


def test_the_lora_output_works_with_comfyuis_own_nodes(removal, client, server):
    prompt = json.loads(json.dumps(removal.prompt))
    prompt["loader"] = {"class_type": "LoraModelLoader", "inputs": {
        "model": ["1", 0], "lora": [removal.train, 1], "strength_model": 1.0, "bypass": False}}  # fmt: skip
    prompt["saver"] = {"class_type": "SaveLoRA", "inputs": {"lora": [removal.train, 1], "prefix": "loras/own"}}
    for node in prompt.values():
        if node["class_type"] == "KSampler" and node["inputs"]["model"] == [removal.train, 0]:
            node["inputs"]["model"] = ["loader", 0]
    after = client.images(client.run(prompt), removal.previews["after"])
    assert largest_difference(after, removal.pictures["after"]) <= 2
    (saved,) = (server.base / "output/loras").glob("own*.safetensors")
    ours = safetensors.numpy.load_file(server.base / "models/loras/removal.safetensors")
    theirs = safetensors.numpy.load_file(saved)
    assert ours.keys() == theirs.keys() and all(np.array_equal(ours[k], theirs[k]) for k in ours)
