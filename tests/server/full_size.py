"""Custom nodes for the tests' servers: random samples, packed weights, and one training step's gradient on a model."""
import hashlib
import importlib
import json
import os
import sys

import comfy.model_management
import comfy.sd
import folder_paths
import safetensors.torch
import torch


def randn(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Samples:
    RETURN_TYPES = ("CONDITIONING", "LATENT")
    OUTPUT_IS_LIST = (True, True)
    FUNCTION = "make"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"side": ("INT", {}), "tokens": ("INT", {}), "width": ("INT", {}), "frames": ("BOOLEAN", {})}}

    def make(self, side, tokens, width, frames):
        """Two samples with a reference each, of ``side`` latent pixels on a side, ``tokens`` of text of this ``width``;
        latents have a dimension for time if ``frames``."""
        shape = (1, 16, 1, side, side) if frames else (1, 16, side, side)
        conditionings, latents = [], []
        for seed in (1, 2):
            reference, target = randn(seed, *shape), randn(10 + seed, *shape)
            options = {"pooled_output": randn(20 + seed, 1, 768), "guidance": 1.0, "reference_latents": [reference]}
            conditionings.append([[randn(30 + seed, 1, tokens, width), options]])
            latents.append({"samples": target})
        return conditionings, latents


class PackedLoader:
    RETURN_TYPES = ("MODEL",)
    FUNCTION = "load"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"unet_name": ("STRING", {})}}

    def load(self, unet_name):
        """A model whose Linears are packed in 8 bits and unpack themselves, as with ComfyUI-GGUF."""
        sys.path.append(os.environ["PAIRLORA_TESTS"])
        import packed

        file = folder_paths.get_full_path("diffusion_models", unet_name)
        model = comfy.sd.load_diffusion_model(file, model_options={"custom_operations": packed.Operations})
        packed.pack(model.model.diffusion_model, everywhere=True)
        return (model,)


class Gradient:
    """Loads the model as a run does and computes the gradient of both samples; ``name`` is the file it is saved to."""

    RETURN_TYPES = ()
    OUTPUT_NODE = True
    FUNCTION = "compute"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",), "dataset": ("PAIRLORA_DATASET",), "name": ("STRING", {})}}

    def compute(self, model, dataset, name):
        sys.path.append(os.environ["PAIRLORA_TESTS"])
        import tiny

        pack = next(m for m in sys.modules if m.endswith("pairlora.trainer.loop")).removesuffix("loop")
        tiny.module = lambda module: importlib.import_module(pack + module)
        memory = tiny.module("host.memory")
        plan = tiny.module("plan").choose(model, dataset.samples[0], 1, 16)
        memory.load(model, plan.needed)
        before = base(model)
        training = tiny.Training(model, rank=16, checkpointing=True, scale=0.01)
        samples = [tiny.module("host.forward").condition(model, sample) for sample in dataset.samples]
        gradient = training.gradient(samples, *tiny.draws(samples))
        safetensors.torch.save_file(
            {"gradient": gradient.float().cpu()}, os.path.join(folder_paths.get_output_directory(), name)
        )
        device = comfy.model_management.get_torch_device()
        seen = {
            "unchanged": base(model) == before,
            "parameters": sum(p.numel() for p in model.model.diffusion_model.parameters()),
            "loaded": model.loaded_size() / model.model_size(),
            "peak": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0,
            "plan": str(plan),
        }
        return {"ui": {"text": [json.dumps(seen)]}}


def base(model) -> list:
    """Where every parameter lies in the tree, and what it holds to the last bit."""
    return [
        (name, str(p.dtype), hashlib.sha256(p.detach().flatten().view(torch.uint8).cpu().numpy()).hexdigest())
        for name, p in model.model.named_parameters()
        if p.device.type != "meta"
    ]


NODE_CLASS_MAPPINGS = {
    "PairLoRATestSamples": Samples, "PairLoRATestPackedLoader": PackedLoader, "PairLoRATestGradient": Gradient,
}  # fmt: skip
