"""Custom nodes for the tests' servers: a tiny, randomly initialised SD3, which reads no reference images, any value, a
switch, and a training that computes nothing."""
import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import comfy.latent_formats
import comfy.model_management
import comfy.model_patcher
import comfy.supported_models
import folder_paths
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


class LongRun:
    """A training of so many steps in so many seconds, kept and told as any other, of which nothing is computed."""

    RETURN_TYPES = ()
    FUNCTION = "train"
    CATEGORY = "tests"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls):
        hidden = {"unique_id": "UNIQUE_ID", "extra_pnginfo": "EXTRA_PNGINFO"}
        return {"required": {"key": ("STRING",), "steps": ("INT", {"max": 1_000_000}), "seconds": ("FLOAT", {})}, "hidden": hidden}

    def train(self, key, steps, seconds, **hidden):
        telling, folder = (
            next(module for name, module in sys.modules.items() if name.endswith(f"pairlora.{part}"))
            for part in ("nodes.telling", "trainer.run.folder")
        )
        run = Path(folder_paths.get_output_directory(), "pairlora", f"long-{key}")
        run.mkdir(parents=True)
        with telling.Telling(SimpleNamespace(**hidden), steps) as told, folder.Folder(run).locked(print), folder.Metrics(run) as metrics:
            told.run(run)
            told.phase("loading the model")
            begun = time.monotonic()
            for step in range(1, steps + 1):
                loss = 1 / step + 0.01 * (step % 7)
                scored = {"held_out": 0.5 + 1 / step} if step % 50 == 0 else {}
                metrics.write(step=step, loss=loss, norm=1.0, rate=1e-4, seconds=step * 0.1, **scored)
                told.step(step, loss)
                if scored:
                    told.score(step, scored["held_out"])
                time.sleep(max(0.0, begun + seconds * step / steps - time.monotonic()))
            told.report(f"long.safetensors: {steps} steps")
        return ()


NODE_CLASS_MAPPINGS = {
    "PairLoRATestNoReferences": NoReferences, "PairLoRATestValue": Value, "PairLoRATestSwitch": Switch,
    "PairLoRATestLongRun": LongRun,
}  # fmt: skip
