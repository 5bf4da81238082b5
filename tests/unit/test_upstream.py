"""The files that a model in the graph was loaded from."""
import importlib.util

import pytest

from host import ROOT


@pytest.fixture(scope="module")
def files():
    spec = importlib.util.spec_from_file_location("upstream", ROOT / "nodes/upstream.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.files


def node(class_type, **inputs):
    return {"class_type": class_type, "inputs": inputs}


PROMPT = {
    "1": node("UNETLoader", unet_name="flux1-kontext.safetensors", weight_dtype="default"),
    "2": node("LoraLoader", model=["1", 0], clip=["9", 0], lora_name="style/turbo.safetensors", strength_model=1.0),
    "3": node("ModelSamplingFlux", model=["2", 0], max_shift=1.15),
    "4": node("PairLoRATrain", model=["3", 0], clip=["9", 0], vae=["8", 0], name="my_edit"),
    "5": node("PairLoRATrain", model=["6", 0]),
    "6": node("ModelMergeSimple", model1=["7", 0], model2=["1", 0], ratio=0.5),
    "7": node("UnetLoaderGGUF", unet_name="qwen-image-edit-2509-Q4_K_M.GGUF"),
    "8": node("VAELoader", vae_name="ae.safetensors"),
    "9": node("CLIPLoader", clip_name="t5.safetensors"),
    "10": node("PairLoRATrain", model=["11", 0]),
    "11": node("Loop", model=["10", 0]),
    "12": node("PairLoRATrain", model=["no such node", 0]),
}


def test_the_way_up_goes_along_the_model(files):
    assert files(PROMPT, "4") == ("flux1-kontext.safetensors", ["style/turbo.safetensors"])
    assert files(PROMPT, "5") == ("qwen-image-edit-2509-Q4_K_M.GGUF", [])


def test_a_lora_is_not_taken_for_the_model(files):
    """What made the model names no file, so its own is not known."""
    prompt = {**PROMPT, "1": node("PairLoRADemoModel")}
    assert files(prompt, "4") == ("", ["style/turbo.safetensors"])


def test_a_way_that_is_lost_gives_no_model(files):
    """A switch, or a LoRA loader whose input is called otherwise: the LoRA's file is not the model's."""
    prompt = PROMPT | {
        "3": node("LoraOfAPack", pipe=["1", 0], lora_name="my-2509-detail.safetensors"),
        "5": node("PairLoRATrain", model=["13", 0]), "13": node("AnySwitch", any_01=["1", 0]),
    }  # fmt: skip
    assert files(prompt, "4") == ("", ["my-2509-detail.safetensors"]) and files(prompt, "5") == ("", [])


def test_a_prompt_that_tells_nothing_gives_nothing(files):
    for prompt, train in ((PROMPT, "10"), (PROMPT, "12"), (PROMPT, "1"), ({}, "4"), (None, "4")):
        assert files(prompt, train) == ("", [])
