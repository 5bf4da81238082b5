"""How each family of base models takes a caption and references: by the very nodes that a generation graph uses."""
import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PureWindowsPath

import comfy.model_base
import comfy.sd
import torch

import nodes as comfy_nodes

NATIVE = 1024 * 1024  # pixels that some nodes scale a reference to
NEAR_NATIVE = 0.1  # relative difference up to which training is at that size


@dataclass(frozen=True)
class Edit:
    """What is asked of the model: a caption, references as IMAGEs (1, height, width, 3) in 0..1, and the target's height
    and width. ``several`` asks the model as one that takes several references."""

    caption: str
    references: list[torch.Tensor]
    size: tuple[int, int]
    several: bool = False

    @property
    def native(self) -> bool:
        """Whether the references are of the size that nodes for editing scale them to."""
        return all(abs(image.shape[1] * image.shape[2] / NATIVE - 1) < NEAR_NATIVE for image in self.references)

    def images(self, prefix: str, first: int = 1) -> dict[str, torch.Tensor]:
        """The references under the names of a node's inputs."""
        return {f"{prefix}{i}": image for i, image in enumerate(self.references, first)}


@dataclass(frozen=True)
class Family:
    """``condition(clip, vae, edit)`` gives a CONDITIONING; ``most`` is the number of references that the family takes,
    None for any; ``mu`` is the shift at 256 tokens and how much more it is for each further one, None where the family
    is trained with a fixed shift; ``teacher`` is what to train on in place of a distilled model."""

    name: str
    condition: Callable[[comfy.sd.CLIP, comfy.sd.VAE, Edit], list]
    most: int | None = None
    mu: tuple[float, float] | None = None
    teacher: str = "the model that it was distilled from"


def family_of(base: comfy.model_base.BaseModel) -> Family:
    """The family of a model, by the name of its class or the nearest class it inherits from; a model that is in no list
    takes references as most do, by ReferenceLatent."""
    if getattr(base.diffusion_model, "siglip_embedder", None) is not None:  # else of Z-Image's class
        return Z_IMAGE_OMNI
    return next((FAMILIES[c.__name__] for c in type(base).__mro__ if c.__name__ in FAMILIES), GENERIC)


def _run(module: str, node: str, *args, **kwargs):
    """The outputs of one of ComfyUI's own nodes; an older host need not have it."""
    return getattr(importlib.import_module(f"comfy_extras.{module}"), node).execute(*args, **kwargs).args


def _text(clip, vae, edit: Edit) -> list:
    return comfy_nodes.CLIPTextEncode().encode(clip, edit.caption)[0]


def _with_latents(conditioning, vae, edit: Edit) -> list:
    for image in edit.references:
        latent = comfy_nodes.VAEEncode().encode(vae, image)[0]
        (conditioning,) = _run("nodes_edit_model", "ReferenceLatent", conditioning, latent)
    return conditioning


def _reference_latents(clip, vae, edit: Edit) -> list:
    return _with_latents(_text(clip, vae, edit), vae, edit)


def _flux(clip, vae, edit: Edit) -> list:
    # Trained with guidance 1, as by diffusers' and ostris' trainers; models without a guidance embedding ignore it.
    return _run("nodes_flux", "FluxGuidance", _reference_latents(clip, vae, edit), 1.0)[0]


def _seen_by_encoder(encode: Callable) -> Callable:
    """A node whose text encoder sees the references too, ``encode(clip, vae or None, edit)``. It would scale their
    latents to a megapixel, so at another resolution they are attached as they are."""

    def condition(clip, vae, edit: Edit) -> list:
        if not edit.references:
            return _text(clip, vae, edit)
        if edit.native:
            return encode(clip, vae, edit)
        return _with_latents(encode(clip, None, edit), vae, edit)

    return condition


@_seen_by_encoder
def _qwen_image(clip, vae, edit: Edit) -> list:
    if edit.several:
        return _run("nodes_qwen", "TextEncodeQwenImageEditPlus", clip, edit.caption, vae, **edit.images("image"))[0]
    return _run("nodes_qwen", "TextEncodeQwenImageEdit", clip, edit.caption, vae, edit.references[0])[0]


@_seen_by_encoder
def _boogu(clip, vae, edit: Edit) -> list:
    return _run("nodes_boogu", "TextEncodeBooguEdit", clip, edit.caption, "", vae, edit.images("image_"))[0]


@_seen_by_encoder
def _joyimage(clip, vae, edit: Edit) -> list:
    return _run("nodes_joyimage", "TextEncodeJoyImageEdit", clip, edit.caption, vae, edit.images("image", 0))[0]


def _mage_flow(clip, vae, edit: Edit) -> list:
    if not edit.references:
        return _text(clip, vae, edit)
    height, width = edit.size  # references go where the output is
    return _run(
        "nodes_mage", "TextEncodeMageFlowEdit", clip, edit.caption, "", vae, edit.images("image_"), width, height
    )[0]  # fmt: skip


def _z_image_omni(clip, vae, edit: Edit) -> list:
    # Without the vision encoder, which is optional in the node too.
    return _run("nodes_zimage", "TextEncodeZImageOmni", clip, edit.caption, auto_resize_images=edit.native, vae=vae,
                **edit.images("image"))[0]  # fmt: skip


def _instruct_pix2pix(clip, vae, edit: Edit) -> list:
    conditioning = _text(clip, vae, edit)
    if not edit.references:
        return conditioning
    return _run(
        "nodes_ip2p", "InstructPixToPixConditioning", conditioning, conditioning, vae=vae, pixels=edit.references[0]
    )[0]  # fmt: skip


# base_shift and max_shift of the schedulers that the models were released with
FLUX_MU = 0.5, (1.15 - 0.5) / (4096 - 256)  # https://huggingface.co/black-forest-labs/FLUX.1-dev, and FLUX.2-dev
QWEN_MU = 0.5, (0.9 - 0.5) / (8192 - 256)  # https://huggingface.co/Qwen/Qwen-Image-Edit

GENERIC = Family("this model", _reference_latents)
Z_IMAGE_OMNI = Family("Z-Image Omni", _z_image_omni, 3)
FAMILIES = {
    "Flux": Family("FLUX.1", _flux, mu=FLUX_MU, teacher="FLUX.1 Kontext dev or FLUX.1 dev"),
    "Flux2": Family("FLUX.2", _flux, mu=FLUX_MU, teacher="the base variant of FLUX.2 klein, or FLUX.2 dev"),
    "LongCatImage": Family("LongCat-Image", _qwen_image, 1, FLUX_MU),
    "Chroma": Family("Chroma", _text),
    "QwenImage": Family("Qwen-Image", _qwen_image, 3, QWEN_MU),
    "MageFlow": Family("Mage-Flow", _mage_flow, 16),
    "Omnigen2": Family("OmniGen2", _reference_latents),
    "Boogu": Family("Boogu", _boogu, 16),
    "JoyImage": Family("JoyImage", _joyimage, 6),
    "Lumina2": Family("Lumina2 or Z-Image", _text, teacher="Z-Image without Turbo"),
    "IP2P": Family("InstructPix2Pix", _instruct_pix2pix, 1),
    "HiDream": Family("HiDream", _instruct_pix2pix, 1),
}


def check_counts(base: comfy.model_base.BaseModel, references: dict[str, int]) -> None:
    """Raise ValueError when a sample, by name, has more references than the model's family takes."""
    family = family_of(base)
    for name, count in references.items():
        if family.most is not None and count > family.most:
            raise ValueError(
                f"{name} has {count} inputs, but {family.name} takes {family.most} at most. Take some out, or load a "
                "model that takes more, such as FLUX.2."
            )


# As file names have them. FLUX.2 klein is distilled unless it says base; nothing in the weights tells them apart.
DISTILLED = re.compile(
    r"schnell|turbo|lightning|distill|hyper[-_ ]?(sd|flux)|klein(?!.*base)|(?<![a-z])(lcm|dmd2?)(?![a-z])"
    r"|(?<!\d)\d{1,2}[-_ ]?steps?(?![a-z])",
    re.IGNORECASE,
)
FOR_SEVERAL = re.compile(r"2509|2511|plus", re.IGNORECASE)  # Qwen-Image-Edit's later releases


def distilled_warning(base: comfy.model_base.BaseModel, files: list[str]) -> str | None:
    """What to say when one of the ``files`` that the model was loaded from is by its name distilled to few steps: a LoRA
    trained on it undoes that, or gives grey blocks."""
    name = next((file for file in files if DISTILLED.search(PureWindowsPath(file).name)), None)
    return name and (
        f"{name} seems distilled to few steps, and a LoRA trained on such a model is often blurred or grey. Train on "
        f"{family_of(base).teacher}; the LoRA can be used with the distilled model afterwards."
    )


def made_for_several(files: list[str]) -> bool:
    """Whether the model is by its file's name one that is always asked as taking several references."""
    return any(FOR_SEVERAL.search(PureWindowsPath(file).name) for file in files[-1:])
