"""How each family of base models takes a caption and references: by the very nodes that a generation graph uses."""
import importlib
from collections.abc import Callable
from dataclasses import dataclass

import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import torch

import nodes as comfy_nodes

from .forward import Conditioned, predict_x0

NATIVE = 1024 * 1024  # pixels that Qwen's nodes scale a reference to
NEAR_NATIVE = 0.1  # relative difference up to which training is at that size


@dataclass(frozen=True)
class Family:
    """``condition(clip, vae, caption, references, several)`` gives a CONDITIONING; ``references`` are IMAGEs (1, height,
    width, 3) in 0..1, ``several`` says that some sample of the dataset has more than one. ``most`` is the number of
    references that the family takes, None for any."""

    name: str
    condition: Callable[[comfy.sd.CLIP, comfy.sd.VAE, str, list[torch.Tensor], bool], list]
    most: int | None = None


def family_of(base: comfy.model_base.BaseModel) -> Family:
    """The family of a model, by the name of its class or the nearest class it inherits from; a model that is in no list
    takes references as most do, by ReferenceLatent."""
    return next((FAMILIES[c.__name__] for c in type(base).__mro__ if c.__name__ in FAMILIES), GENERIC)


def _run(module: str, node: str, *args, **kwargs):
    """The outputs of one of ComfyUI's own nodes; an older host need not have it."""
    return getattr(importlib.import_module(f"comfy_extras.{module}"), node).execute(*args, **kwargs).args


def _text(clip, vae, caption, references, several) -> list:
    return comfy_nodes.CLIPTextEncode().encode(clip, caption)[0]


def _with_latents(conditioning, vae, references) -> list:
    for image in references:
        latent = comfy_nodes.VAEEncode().encode(vae, image)[0]
        (conditioning,) = _run("nodes_edit_model", "ReferenceLatent", conditioning, latent)
    return conditioning


def _reference_latents(clip, vae, caption, references, several) -> list:
    return _with_latents(_text(clip, vae, caption, references, several), vae, references)


def _flux(clip, vae, caption, references, several) -> list:
    # Trained with guidance 1, as by diffusers' and ostris' trainers; models without a guidance embedding ignore it.
    return _run("nodes_flux", "FluxGuidance", _reference_latents(clip, vae, caption, references, several), 1.0)[0]


def _qwen_image(clip, vae, caption, references, several) -> list:
    """The text encoder sees the references too. The nodes would scale their latents to a megapixel, so at another
    resolution the latents are attached as they are."""
    if not references:
        return _text(clip, vae, caption, references, several)
    native = all(abs(image.shape[1] * image.shape[2] / NATIVE - 1) < NEAR_NATIVE for image in references)
    latents = vae if native else None
    if several:
        images = {f"image{i}": image for i, image in enumerate(references, 1)}
        (conditioning,) = _run("nodes_qwen", "TextEncodeQwenImageEditPlus", clip, caption, latents, **images)
    else:
        (conditioning,) = _run("nodes_qwen", "TextEncodeQwenImageEdit", clip, caption, latents, references[0])
    return conditioning if native else _with_latents(conditioning, vae, references)


def _instruct_pix2pix(clip, vae, caption, references, several) -> list:
    conditioning = _text(clip, vae, caption, references, several)
    if not references:
        return conditioning
    return _run(
        "nodes_ip2p", "InstructPixToPixConditioning", conditioning, conditioning, vae=vae, pixels=references[0]
    )[0]  # fmt: skip


GENERIC = Family("this model", _reference_latents)
FAMILIES = {
    "Flux": Family("FLUX.1", _flux),
    "Flux2": Family("FLUX.2", _flux),
    "Chroma": Family("Chroma", _text),
    "QwenImage": Family("Qwen-Image", _qwen_image, 3),
    "Omnigen2": Family("OmniGen2", _reference_latents),
    "IP2P": Family("InstructPix2Pix", _instruct_pix2pix, 1),
    "HiDream": Family("HiDream", _instruct_pix2pix, 1),
}


def check_reads_references(model: comfy.model_patcher.ModelPatcher, a: Conditioned, b: Conditioned) -> None:
    """Compare one forward for a sample with that for the same sample with other reference images.

    Found by trying, not by the model's class, since plain Flux and Kontext share one.

    Raises:
        ValueError: the model gives the same for both, so it could never learn an edit.
    """
    with torch.inference_mode():
        comfy.model_management.load_models_gpu([model])
        noise = torch.randn(a.x0.shape, generator=torch.Generator().manual_seed(0)).to(a.x0)
        sigma = model.model.model_sampling.percent_to_sigma(0.5)
        sigma = torch.tensor([float(sigma)], device=a.x0.device)
        if torch.equal(predict_x0(model, [a], noise, sigma), predict_x0(model, [b], noise, sigma)):
            raise ValueError(
                f"This model ({type(model.model).__name__}) takes no reference images, so it cannot learn an edit from "
                "pairs. Load an editing model: FLUX.1 Kontext, FLUX.2, Qwen-Image-Edit or OmniGen2."
            )
