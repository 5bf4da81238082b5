"""Custom nodes for the tests' servers: a tiny, randomly initialised SD3, which reads no reference images, any value, and a
switch."""
import json

import comfy.latent_formats
import comfy.model_management
import comfy.model_patcher
import comfy.supported_models
import torch


class NoReferences:
    RETURN_TYPES = ("MODEL",)
    FUNCTION = "load"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

    def load(self):
        embedder = {"target": "torch.nn.Linear", "params": {"in_features": 32, "out_features": 128}}
        config = comfy.supported_models.SD3(dict(
            in_channels=24, patch_size=2, depth=2, input_size=None, adm_in_channels=32, context_size=32,
            context_embedder_config=embedder, pos_embed_max_size=32, num_patches=1024,
        ))  # fmt: skip
        config.latent_format = comfy.latent_formats.LatentFormat()
        config.latent_format.latent_channels = 24
        config.set_inference_dtype(torch.float32, None)
        model = config.get_model({}, "")
        for p in (*model.diffusion_model.parameters(), *model.diffusion_model.buffers()):
            p.data = torch.randn(p.shape, generator=torch.Generator().manual_seed(0)) * 0.05
        device = comfy.model_management.get_torch_device()
        return (comfy.model_patcher.ModelPatcher(model, device, comfy.model_management.unet_offload_device()),)


class AnyType(str):
    """Equal to every type, as packs do it."""

    def __ne__(self, other):
        return False


class Value:
    """What a text of JSON says, for any input."""

    RETURN_TYPES = (AnyType("*"),)
    FUNCTION = "give"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"text": ("STRING",)}}

    def give(self, text):
        return (json.loads(text),)


class Switch:
    """One of two models, as switches of packs do it."""

    RETURN_TYPES = ("MODEL",)
    FUNCTION = "choose"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"select": ("INT", {}), "model1": ("MODEL",), "model2": ("MODEL",)}}

    def choose(self, select, model1, model2):
        return (model1 if select == 1 else model2,)


NODE_CLASS_MAPPINGS = {
    "PairLoRATestNoReferences": NoReferences, "PairLoRATestValue": Value, "PairLoRATestSwitch": Switch,
}  # fmt: skip
