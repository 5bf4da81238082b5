"""What the model makes of a sample's references at a moment of its training, by ComfyUI's own sampler."""
import contextlib
from collections.abc import Iterator

import comfy.sample
import comfy.sd
import comfy.utils
import numpy as np
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from comfy_extras.nodes_flux import FluxGuidance

import nodes as comfy_nodes

from . import compat, memory, patches
from .encode import Encoded
from .families import Family


def sampled(
    model: ModelPatcher, vae: comfy.sd.VAE, family: Family, sample: Encoded, negative: list | None, seed: int, steps: int
) -> np.ndarray:
    """The picture (height, width, 3) in 0..1 that a graph's KSampler and VAEDecode give for the sample's conditioning.

    ``negative`` is a CONDITIONING (``Encoded.against``); without one there is no guidance by it. The model computes with
    the LoRA while ``LoraLayers.attached()`` is open, and is not to be open for gradients. What was drawn at random before
    is not touched. Afterwards the model may be loaded otherwise, or not at all: load it again before training goes on.

    Raises:
        Exception: an error of the sampler, out of memory (``compat.is_out_of_memory``) or ComfyUI's interrupt.
    """
    positive = sample.conditioning
    if family.guidance is not None:  # the LoRA is trained with 1, and used with this
        positive = FluxGuidance.execute(positive, family.guidance).args[0]
    latent = comfy.sample.fix_empty_latent_channels(model, torch.zeros(sample.latent.shape))
    try:
        with torch.inference_mode(), torch.random.fork_rng(devices=[]), _silent():
            memory.load(model, memory.guess(model, sample, 1))
            with _as_written(model):
                latent = comfy.sample.sample(
                    model, comfy.sample.prepare_noise_inner(latent, torch.Generator().manual_seed(seed)), steps,
                    family.cfg if negative else 1.0, "euler", family.scheduler, positive,
                    negative or comfy_nodes.ConditioningZeroOut().zero_out(positive)[0], latent,
                    callback=lambda *_: memory.check_interrupted(), disable_pbar=True, seed=seed,
                )  # fmt: skip
            (images,) = comfy_nodes.VAEDecode().decode(vae, {"samples": latent})
            return images[0, ..., :3].float().cpu().numpy().copy()
    finally:
        compat.end_phase()


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """ComfyUI's progress bars, which would stand in place of the training's, only end at once when the user cancels."""
    before = comfy.utils.PROGRESS_BAR_HOOK
    comfy.utils.set_progress_bar_global_hook(lambda *_, **__: memory.check_interrupted())
    try:
        yield
    finally:
        comfy.utils.set_progress_bar_global_hook(before)


@contextlib.contextmanager
def _as_written(model: ModelPatcher) -> Iterator[None]:
    """The loaded model computes as its code is written: what torch.compile has made of it is without the LoRA, and to compile
    it anew takes minutes. What newer samplers note on it is taken back."""
    wrappers, attributes = model.wrappers.get(WrappersMP.APPLY_MODEL, {}), vars(model.model)
    kept, noted = dict(wrappers), {key: value for key, value in attributes.items() if key == "latent_shapes"}
    wrappers.pop("torch.compile", None)  # the key of ComfyUI's TorchCompileModel
    try:
        with patches.uncompiled(model.model):
            yield
    finally:
        wrappers.clear()
        wrappers.update(kept)
        attributes.update(noted)
