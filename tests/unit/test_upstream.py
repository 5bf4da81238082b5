"""The files that a model in the graph was loaded from."""
import importlib.util
from types import SimpleNamespace

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


TYPES = {
    "UNETLoader": ["MODEL"], "CheckpointLoaderSimple": ["MODEL", "CLIP", "VAE"], "ControlNetLoader": ["CONTROL_NET"],
    "LoraLoaderModelOnly": ["MODEL"], "Wild": ["*"], "ComfySwitchNode": ["COMFY_MATCHTYPE_V3"], "PrimitiveString": ["STRING"],
    "LoraStack": ["LORA_STACK"], "IPAdapter": ["MODEL"], "LoraOfAPack": ["MODEL", "PIPE"], "PrimitiveBoolean": ["BOOLEAN"],
}  # fmt: skip
LOADERS = {
    "k": node("UNETLoader", unet_name="kontext.safetensors"), "s": node("UNETLoader", unet_name="schnell.safetensors"),
    "k2": node("CheckpointLoaderSimple", ckpt_name="kontext.safetensors"),
}  # fmt: skip


@pytest.fixture
def behind(files):
    """`behind(node, ...)`: what is known of the model that the first of the nodes gives; they are "n", "m", ..."""

    def find(*nodes, types=True, model=None):
        prompt = {**LOADERS, "train": node("PairLoRATrain", model=["n", 0]), **dict(zip("nmop", nodes))}
        types = (lambda kind, slot: TYPES.get(kind, ["MODEL"] * 9)[slot]) if types else (lambda kind, slot: None)
        return files(prompt, "train", "model", model, types)

    return find


@pytest.mark.parametrize("types", [True, False])
@pytest.mark.parametrize("inputs, file", [
    ({"switch": True}, "kontext.safetensors"), ({"switch": False}, "schnell.safetensors"),
    ({"switch": ["m", 0]}, ""), ({}, ""), ({"switch": True, "other": False}, ""),
])  # fmt: skip
def test_a_switch_that_the_prompt_shows_is_followed(behind, inputs, file, types):
    switch = node("ComfySwitchNode", **inputs, on_true=["k", 0], on_false=["s", 0])
    assert behind(switch, node("PrimitiveBoolean", value=True), types=types) == (file, [])


@pytest.mark.parametrize("class_type, inputs, file", [
    ("ImpactSwitch", {"select": 2, "input1": ["s", 0], "input2": ["k", 0]}, "kontext.safetensors"),
    ("CR Model Input Switch", {"Input": 1, "model1": ["s", 0], "model2": ["k", 0]}, "schnell.safetensors"),
    ("SomeSwitch", {"select": 1, "model1": ["s", 0], "model2": ["k", 0]}, ""),
    ("SomeSwitch", {"index": 1, "model": ["s", 0], "model_b": ["k", 0]}, ""),
    ("SomeSwitch", {"model_1": ["s", 0], "model_2": ["k", 0]}, ""),
    ("SomeSwitch", {"select": 0, "model_a": ["k2", 0], "model_b": ["k", 0]}, "kontext.safetensors"),
    ("ModelMergeFlux1", {"model1": ["k", 0], "model2": ["s", 0], "img_in.": 1}, "kontext.safetensors"),
])  # fmt: skip
@pytest.mark.parametrize("types", [True, False])
def test_of_several_models_only_the_shown_or_common_is_known(behind, class_type, inputs, file, types):
    assert behind(node(class_type, **inputs), types=types) == (file, [])


def test_types_tell_models_from_what_is_called_so(behind):
    adapter = node("IPAdapter", model=["k", 0], style_model=["m", 0], patch_model=["m", 0])
    assert behind(adapter, node("ControlNetLoader", control_net_name="turbo.safetensors")) == ("kontext.safetensors", [])
    assert behind(node("IPAdapter", unet=["k", 0], image=["m", 0]), node("LoraStack")) == ("kontext.safetensors", [])
    assert behind(node("Wild", any_01=["k", 0])) == ("kontext.safetensors", [])
    assert behind(node("Wild", any_01=["k", 0], any_02=["s", 0])) == ("", [])
    assert behind(node("LoraOfAPack", pipe=["m", 1]), node("LoraOfAPack", model=["k", 0])) == ("", [])


def test_a_linked_name_is_followed(behind):
    linked = node("UNETLoader", unet_name=["m", 0])
    assert behind(linked, node("PrimitiveString", value="kontext.safetensors")) == ("kontext.safetensors", [])
    assert behind(linked, node("LoraStack")) == ("", [])


@pytest.mark.parametrize("inputs", [
    {"lora_1": {"on": True, "lora": "turbo.safetensors", "strength": 1, "strengthTwo": None}},
    {"lora_1": {"on": False, "lora": "no.safetensors", "strength": 1}, "lora_2": {"on": True, "lora": "turbo.safetensors", "strength": 0.1}},
    {"lora_name": "turbo.safetensors", "strength_model": 0.5, "strength_clip": 0},
    {"lora_01": "turbo.safetensors", "strength_01": 1, "lora_02": "no.safetensors", "strength_02": 0},
    {"switch_1": "On", "lora_name_1": "turbo.safetensors", "model_weight_1": 1, "clip_weight_1": 0,
     "switch_2": "Off", "lora_name_2": "no.safetensors", "model_weight_2": 1},
    {"loras": {"__value__": [{"name": "turbo", "strength": "1.0", "active": True}, {"name": "no", "strength": 1, "active": False}]}},
    {"loras": [{"lora": "no.safetensors", "strength": 0}, {"lora": "turbo.safetensors", "strength": -1}]},
    {"lora_stack": ["m", 0]},
    {"lora_name": ["o", 0], "strength_model": 1.0},
    {"lora_name": "turbo.safetensors", "strength_model": ["o", 0]},
])  # fmt: skip
def test_loras_in_lists_count_where_they_are_on(behind, inputs):
    stack = node("LoraStack", lora_name_1="turbo.safetensors", lora_wt_1=1.0, lora_name_2="no.safetensors", lora_wt_2=0.0)
    nodes = stack, node("PrimitiveString", value="turbo.safetensors")
    file, loras = behind(node("LoraLoaderModelOnly", model=["k", 0], **inputs), *nodes)
    assert file == "kontext.safetensors" and [name.removesuffix(".safetensors") for name in loras] == ["turbo"]


@pytest.mark.parametrize("inputs", [
    {"lora_name": "turbo.safetensors", "strength_model": 0.0, "strength_clip": 1.0},
    {"lora_name": "turbo.safetensors", "strength": 0}, {"lora": "turbo.safetensors", "switch": "Off"},
    {"lora_1": {"on": True, "lora": "turbo.safetensors", "strength": 0, "strengthTwo": 1}},
    {"lora_name": ["o", 0], "strength_model": 0},
])  # fmt: skip
def test_a_lora_at_strength_0_or_switched_off_does_not_count(behind, inputs):
    other = node("PrimitiveString", value="turbo.safetensors")
    assert behind(node("LoraLoaderModelOnly", model=["k", 0], **inputs), other, other) == ("kontext.safetensors", [])


def test_a_loader_of_everything(behind):
    loader = node("Efficient Loader", vae_name="ae.safetensors", ckpt_name="kontext.safetensors", lora_name="turbo.safetensors",
                  lora_model_strength=1.0)  # fmt: skip
    assert behind(loader) == ("kontext.safetensors", ["turbo.safetensors"])


def test_the_object_knows_best(behind):
    """Newer ComfyUI keeps on a model what it would load it from again."""
    loaded = SimpleNamespace(cached_patcher_init=(len, ("/secret/models/flux/kontext-q.safetensors", {})))
    unknown = node("SomeSwitch", model1=["s", 0], model2=["k", 0])
    assert behind(unknown, model=loaded) == ("kontext-q.safetensors", [])
    for nothing in (None, (len, ()), (len, (3,)), (len, ("no file",), 0)):
        assert behind(LOADERS["k"], model=SimpleNamespace(cached_patcher_init=nothing)) == ("kontext.safetensors", [])


def test_a_prompt_that_tells_nothing_gives_nothing(files):
    for prompt, train in ((PROMPT, "10"), (PROMPT, "12"), (PROMPT, "1"), ({}, "4"), (None, "4")):
        assert files(prompt, train) == ("", [])
