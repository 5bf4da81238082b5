"""What of a LoRA file ComfyUI's loader makes no use of: its own log is the judge."""
import importlib
import re

import pytest
import torch

QKV, MLP, NORM = (f"diffusion_model.double_blocks.0.{layer}" for layer in ("img_attn.qkv", "img_mlp.0", "img_attn.norm.query_norm"))
LORA = {f"{QKV}.lora_A.weight": (2, 32), f"{QKV}.lora_B.weight": (96, 2), f"{QKV}.alpha": ()}
DIFF = {f"{MLP}.diff": (128, 32), f"{MLP}.diff_b": (128,)}
ELSEWHERE = {f"diffusion_model.elsewhere.{key}": (2, 2) for key in ("lora_A.weight", "lora_B.weight", "alpha", "diff", "diff_b", "set_weight")}
TEXT = {f"lora_te1_text_model_encoder_layers_0_mlp_fc1.{key}": (2, 32) for key in ("lora_down.weight", "lora_up.weight")}
FILES = {
    "LoRA": LORA,
    "whole differences alone": DIFF,
    "whole differences with alpha": DIFF | {f"{MLP}.alpha": ()},
    "a norm": {f"{MLP}.w_norm": (128, 32), f"{MLP}.b_norm": (128,)},
    "a whole value": {f"{QKV}.set_weight": (96, 32)},
    "LoRA and differences": LORA | DIFF | {f"{QKV}.diff_b": (96,)},
    "LoRA and what lies elsewhere": LORA | ELSEWHERE,
    "differences and what lies elsewhere": DIFF | ELSEWHERE,
    "a bias of a layer without one": LORA | {"diffusion_model.double_blocks.0.img_attn.norm.query_norm.diff_b": (16,)},
    "for a text encoder": LORA | TEXT,
    "DoRA": LORA | {f"{QKV}.dora_scale": (96, 1)},
    "LoKr": {f"{QKV}.lokr_w1": (4, 4), f"{QKV}.lokr_w2": (24, 8)},
    "of diffusers, divided": {f"transformer.transformer_blocks.0.attn.to_{x}.lora_{m}.weight": (2, 32) if m == "A" else (32, 2)
                              for x in "qkv" for m in "AB"},
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_what_comfyui_loads_is_not_named_and_what_it_does_not_is(trainer, tiny, name, caplog):
    apply, base = trainer("host.apply"), tiny.flux()
    lora = {key: torch.rand(shape) for key, shape in FILES[name].items()}
    with caplog.at_level("WARNING"):
        layers = apply.added(base, apply.with_lora(base, dict(lora), 1.0))
    logged = {found[1] for record in caplog.records if (found := re.match("lora key not loaded: (.*)", record.getMessage()))}
    # A bias that the model has not is loaded and then left out, under the model's name for it.
    logged |= {f"{found[1]}.diff_b" for record in caplog.records if (found := re.match("NOT LOADED (.*).bias", record.getMessage()))}
    assert set(apply.unused(lora, layers)) == logged
    assert len(logged) == sum(key not in LORA | DIFF and ("elsewhere" in key or key in TEXT or "query_norm" in key) for key in lora)


CLIPS = {
    "the demo model": None, "SD1.5": "sd1_clip.SD1ClipModel", "SDXL": "sdxl_clip.SDXLClipModel",
    "SDXL refiner": "sdxl_clip.SDXLRefinerClipModel", "Stable Cascade": "sdxl_clip.StableCascadeClipModel",
    "SD2": "text_encoders.sd2_clip.SD2ClipModel", "SD3": "text_encoders.sd3_clip.SD3ClipModel",
    "FLUX.1": "text_encoders.flux.FluxClipModel", "HunyuanDiT": "text_encoders.hydit.HyditModel",
    "Qwen-Image": "text_encoders.qwen_image.QwenImageTEModel", "Z-Image": "text_encoders.z_image.ZImageTEModel",
    "Anima": "text_encoders.anima.AnimaTEModel",
}  # fmt: skip


@pytest.mark.parametrize("name", CLIPS)
def test_every_name_of_a_text_encoders_layer_is_told_from_the_models(trainer, name):
    """The real text encoders, without their weights."""
    import comfy.lora

    if CLIPS[name]:
        module, kind = CLIPS[name].rsplit(".", 1)
        try:
            clip = getattr(importlib.import_module(f"comfy.{module}"), kind)(device="meta", dtype=torch.float16)
        except ModuleNotFoundError:
            pytest.skip("not in this ComfyUI")
    else:
        clip = trainer("host.demo_model").load()[1].cond_stage_model
    names = [f"{key}.lora_up.weight" for key in comfy.lora.model_lora_keys_clip(clip, {})]
    assert names and trainer("host.apply").of_text_encoder(dict.fromkeys(names)) == sorted(names)


def test_no_name_of_a_models_layer_is_taken_for_a_text_encoders(trainer, zoo):
    import comfy.lora

    for kind in zoo.KINDS:
        if not kind.missing:
            names = comfy.lora.model_lora_keys_unet(zoo.model(kind).model, {})
            assert names and not trainer("host.apply").of_text_encoder(dict.fromkeys(names)), kind.name
