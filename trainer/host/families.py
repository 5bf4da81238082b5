"""How each family of base models takes a caption and references: by the very nodes that a generation graph uses.

Nodes that ComfyUI 0.3.75 lacks are imported where a model of their family, which it lacks as well, is conditioned.
"""
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import PureWindowsPath

import comfy.model_base
import comfy.sd
import torch
from comfy_extras.nodes_edit_model import ReferenceLatent
from comfy_extras.nodes_flux import FluxGuidance, FluxKontextImageScale, FluxKontextMultiReferenceLatentMethod
from comfy_extras.nodes_ip2p import InstructPixToPixConditioning
from comfy_extras.nodes_qwen import TextEncodeQwenImageEdit, TextEncodeQwenImageEditPlus

import nodes as comfy_nodes

from . import compat

REVISION = 2  # raise it with every change to what a family's samples are conditioned on: they are encoded again
NATIVE = 1024 * 1024  # pixels that some nodes scale a reference to
NEAR_NATIVE = 0.1  # relative difference up to which training is at that size


@dataclass(frozen=True)
class Edit:
    """What is asked of the model: a caption, references as IMAGEs (1, height, width, 3) in 0..1, and the target's height
    and width."""

    caption: str
    references: list[torch.Tensor]
    size: tuple[int, int]

    @property
    def near_native(self) -> bool:
        """Whether the references are about as large as nodes for editing make them."""
        return all(abs(image.shape[1] * image.shape[2] / NATIVE - 1) < NEAR_NATIVE for image in self.references)

    def images(self, prefix: str, first: int = 1) -> dict[str, torch.Tensor]:
        """The references under the names of a node's inputs."""
        return {f"{prefix}{i}": image for i, image in enumerate(self.references, first)}


@dataclass(frozen=True)
class Family:
    """``condition(clip, vae, edit)`` gives a CONDITIONING; ``most`` is the number of references that the family takes,
    None for any; ``mu`` is the shift at 256 tokens and how much more it is for each further one, None where the family
    is trained with a fixed shift; ``teacher`` is what to train on in place of a distilled model.

    The rest is how a graph samples the family: its ``cfg``, 1 for none; the ``guidance`` that FluxGuidance puts on the
    caption, None for none; its ``scheduler``; and how the ``negative`` is conditioned, None for as an empty caption is."""

    name: str
    condition: Callable[[comfy.sd.CLIP, comfy.sd.VAE, Edit], list]
    most: int | None = None
    mu: tuple[float, float] | None = None
    teacher: str = "the model that it was distilled from"
    cfg: float = 1.0
    guidance: float | None = None
    scheduler: str = "simple"
    negative: Callable[[comfy.sd.CLIP, comfy.sd.VAE, Edit], list] | None = None


def family_of(base: comfy.model_base.BaseModel, file: str = "", references: int = 0) -> Family:
    """The family of a model, by the name of its class or the nearest class it inherits from; a model that is in no list
    takes references as most do, by ReferenceLatent.

    Releases of Qwen-Image-Edit share a class: 2511 can say so in its weights, which newer ComfyUI tells the model; else
    they are told apart by the name of the ``file`` that the model was loaded from, or by the number of ``references``
    that it is to take.
    """
    if type(base.model_config).__name__ == "ZImage":  # of Lumina2's class
        return Z_IMAGE if getattr(base.diffusion_model, "siglip_embedder", None) is None else Z_IMAGE_OMNI
    family = next((FAMILIES[c.__name__] for c in type(base).__mro__ if c.__name__ in FAMILIES), GENERIC)
    if family.name == "FLUX.2" and not base.diffusion_model.params.guidance_embed:
        return FLUX2_KLEIN
    if family.name != "Qwen-Image":
        return family
    if getattr(base.diffusion_model, "default_ref_method", None) == "index_timestep_zero":
        return QWEN_IMAGE_EDIT_2511
    release = re.search("2509|2511|plus", PureWindowsPath(file).name.lower())
    if release and release[0] == "2511":
        return QWEN_IMAGE_EDIT_2511
    return QWEN_IMAGE_EDIT_2509 if release or references > 1 else family


def _text(clip, vae, edit: Edit) -> list:
    return comfy_nodes.CLIPTextEncode().encode(clip, edit.caption)[0]


def _with_latents(conditioning, vae, edit: Edit) -> list:
    for image in edit.references:
        latent = comfy_nodes.VAEEncode().encode(vae, image)[0]
        (conditioning,) = ReferenceLatent.execute(conditioning, latent).args
    return conditioning


def _reference_latents(clip, vae, edit: Edit) -> list:
    return _with_latents(_text(clip, vae, edit), vae, edit)


def _flux(clip, vae, edit: Edit) -> list:
    # Trained with guidance 1, as by diffusers' and ostris' trainers; models without a guidance embedding ignore it.
    return FluxGuidance.execute(_reference_latents(clip, vae, edit), 1.0).args[0]


def _kontext(clip, vae, edit: Edit) -> list:
    if edit.near_native:  # else, and where it would change the size, a LoRA would learn the zoom against the target
        scaled = [FluxKontextImageScale.execute(image).args[0] for image in edit.references]
        pairs = zip(edit.references, scaled)
        edit = replace(edit, references=[b if a.shape == b.shape else a for a, b in pairs])
    return _flux(clip, vae, edit)


def _with_method(conditioning, method: str) -> list:
    """Say how the model places its references in space and time, as the graphs of ComfyUI's templates do; a host that
    does not offer the method knows no model that needs it."""
    if method not in compat.reference_methods():
        return conditioning
    return FluxKontextMultiReferenceLatentMethod.execute(conditioning, method).args[0]


def _seen_by_encoder(encode: Callable) -> Callable:
    """A node whose text encoder sees the references too, ``encode(clip, vae or None, edit)``. It scales their latents to
    a megapixel; where that is another size than theirs, they are attached as they are, since a LoRA would learn the
    zoom against the target."""

    def condition(clip, vae, edit: Edit) -> list:
        if not edit.references:
            return _text(clip, vae, edit)
        if edit.near_native:
            conditioning = encode(clip, vae, edit)
            latents = conditioning[0][1]["reference_latents"]
            sizes = [(*image.shape[1:3], *latent.shape[-2:]) for image, latent in zip(edit.references, latents)]
            if all(height % rows == 0 and width % columns == 0 for height, width, rows, columns in sizes):
                return conditioning
        return _with_latents(encode(clip, None, edit), vae, edit)

    return condition


@_seen_by_encoder
def _qwen_image(clip, vae, edit: Edit) -> list:
    return TextEncodeQwenImageEdit.execute(clip, edit.caption, vae, edit.references[0]).args[0]


@_seen_by_encoder
def _qwen_image_plus(clip, vae, edit: Edit) -> list:
    return TextEncodeQwenImageEditPlus.execute(clip, edit.caption, vae, **edit.images("image")).args[0]


def _references_at_timestep_zero(clip, vae, edit: Edit) -> list:
    conditioning = _qwen_image_plus(clip, vae, edit)
    return _with_method(conditioning, "index_timestep_zero") if edit.references else conditioning


def _longcat(clip, vae, edit: Edit) -> list:
    conditioning = _qwen_image(clip, vae, edit)
    return _with_method(conditioning, "index") if edit.references else conditioning


@_seen_by_encoder
def _boogu(clip, vae, edit: Edit) -> list:
    from comfy_extras.nodes_boogu import TextEncodeBooguEdit

    return TextEncodeBooguEdit.execute(clip, edit.caption, "", vae, edit.images("image_")).args[0]


@_seen_by_encoder
def _joyimage(clip, vae, edit: Edit) -> list:
    from comfy_extras.nodes_joyimage import TextEncodeJoyImageEdit

    return TextEncodeJoyImageEdit.execute(clip, edit.caption, vae, edit.images("image", 0)).args[0]


def _mage_flow(clip, vae, edit: Edit) -> list:
    if not edit.references:
        return _text(clip, vae, edit)
    from comfy_extras.nodes_mage import TextEncodeMageFlowEdit

    height, width = edit.size  # references go where the output is
    return TextEncodeMageFlowEdit.execute(clip, edit.caption, "", vae, edit.images("image_"), width, height).args[0]


def _z_image_omni(clip, vae, edit: Edit) -> list:
    from comfy_extras.nodes_zimage import TextEncodeZImageOmni

    # Without the vision encoder, which is optional in the node too.
    images = edit.images("image")
    return TextEncodeZImageOmni.execute(clip, edit.caption, auto_resize_images=False, vae=vae, **images).args[0]


def _instruct_pix2pix(clip, vae, edit: Edit) -> list:
    conditioning = _text(clip, vae, edit)
    if not edit.references:
        return conditioning
    return InstructPixToPixConditioning.execute(conditioning, conditioning, vae=vae, pixels=edit.references[0]).args[0]


def _boogu_negative(clip, vae, edit: Edit) -> list:
    return _reference_latents(clip, vae, replace(edit, caption=""))  # its node shows the encoder no pictures then


def _mage_flow_negative(clip, vae, edit: Edit) -> list:
    return _mage_flow(clip, vae, replace(edit, caption=" "))  # as its node does


# base_shift and max_shift of the schedulers that the models were released with
FLUX_MU = 0.5, (1.15 - 0.5) / (4096 - 256)  # https://huggingface.co/black-forest-labs/FLUX.1-dev, and FLUX.2-dev
QWEN_MU = 0.5, (0.9 - 0.5) / (8192 - 256)  # https://huggingface.co/Qwen/Qwen-Image-Edit

# cfg, guidance and scheduler are those of ComfyUI's template graphs, named behind them, at 20 steps and more.
GENERIC = Family("this model", _reference_latents, cfg=4.0)  # sd3.5_simple_example
Z_IMAGE = Family("Z-Image", _text, teacher="Z-Image without Turbo", cfg=4.0)  # image_z_image
Z_IMAGE_OMNI = Family("Z-Image Omni", _z_image_omni, 3, cfg=4.0)  # no template; as Z-Image
QWEN_IMAGE_EDIT_2509 = Family("Qwen-Image-Edit-2509", _qwen_image_plus, 3, QWEN_MU, cfg=2.5)  # image_qwen_image_edit_2509
QWEN_IMAGE_EDIT_2511 = Family(  # image_qwen_image_edit_2511
    "Qwen-Image-Edit-2511", _references_at_timestep_zero, 3, QWEN_MU, cfg=4.0
)
FLUX2 = Family(  # image_flux2
    "FLUX.2", _flux, mu=FLUX_MU, teacher="the base variant of FLUX.2 klein, or FLUX.2 dev", guidance=4.0
)
FLUX2_KLEIN = replace(FLUX2, cfg=5.0, guidance=None)  # image_flux2_klein_image_edit_4b_base
FAMILIES = {
    "Flux": Family(  # flux_kontext_dev_basic
        "FLUX.1", _kontext, mu=FLUX_MU, teacher="FLUX.1 Kontext dev or FLUX.1 dev", guidance=2.5
    ),
    "Flux2": FLUX2,
    "LongCatImage": Family("LongCat-Image", _longcat, 1, FLUX_MU, cfg=4.5),  # image_longcat_image_edit
    "Chroma": Family("Chroma", _text, cfg=3.5),  # image_chroma_text_to_image
    "QwenImage": Family("Qwen-Image", _qwen_image, 3, QWEN_MU, cfg=2.5),  # image_qwen_image_edit
    "MageFlow": Family("Mage-Flow", _mage_flow, 16, cfg=5.0, negative=_mage_flow_negative),  # image_mage_flow_edit_int8
    "Omnigen2": Family("OmniGen2", _reference_latents, cfg=5.0),  # image_omnigen2_image_edit
    "Boogu": Family("Boogu", _boogu, 16, cfg=3.5, negative=_boogu_negative),  # image_boogu_image_0_1_edit
    "JoyImage": Family("JoyImage", _joyimage, 6, cfg=4.0, scheduler="normal"),  # image_joyai_image_edit
    "Krea2": Family("Krea2", _references_at_timestep_zero, 3),  # image_krea2_turbo_int8_image_style_reference
    "Lumina2": Family("Lumina2", _text, cfg=4.0),  # image_netayume_lumina_t2i
    "IP2P": Family(  # Brooks et al. 2023, https://arxiv.org/abs/2211.09800, section 3.2; KSampler's own scheduler
        "InstructPix2Pix", _instruct_pix2pix, 1, cfg=7.5, scheduler="normal"
    ),
    "HiDream": Family("HiDream", _instruct_pix2pix, 1, cfg=3.0),  # hidream_e1_1
}


def check_counts(family: Family, references: dict[str, int]) -> None:
    """Raise ValueError when a sample, by name, has more references than the family takes."""
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

# A LoRA that lies on a distilled model while another is trained there, so that this does not undo the distillation.
ADAPTER = re.compile(r"training[-_ ]?adapter|de[-_ ]?distill", re.IGNORECASE)


def release_warning(family: Family, file: str, references: int) -> str | None:
    """What to say when a release of Qwen-Image-Edit had to be guessed, since the model's file is not known."""
    if family.name not in ("Qwen-Image", "Qwen-Image-Edit-2509") or file or not references:
        return None
    return (
        f"Which release of Qwen-Image-Edit this is cannot be seen, since the node before Train Edit LoRA names no model "
        f"file. It is trained as {'the first one' if family.name == 'Qwen-Image' else '2509'}. For another one connect "
        "the loader itself, or only LoRAs between."
    )


def distilled_warning(family: Family, files: list[str]) -> str | None:
    """What to say when one of the ``files`` of the model or its LoRAs is by its name distilled to few steps: a LoRA
    trained on it undoes that, or gives grey blocks; not where a training adapter lies on it."""
    if any(ADAPTER.search(PureWindowsPath(file).name) for file in files):
        return None
    name = _distilled(files)
    return name and (
        f"{name} seems distilled to few steps, and a LoRA trained on such a model is often blurred or grey. Train on "
        f"{family.teacher}; the LoRA can be used with the distilled model afterwards."
    )



def wants_negative(family: Family, files: list[str]) -> bool:
    """Whether a graph samples the model with a negative; one that is by the name of one of its ``files`` distilled to few
    steps is sampled without (image_flux2_klein_image_edit_4b_distilled)."""
    return family.cfg != 1 and not _distilled(files)


def _distilled(files: list[str]) -> str | None:
    return next((file for file in files if DISTILLED.search(PureWindowsPath(file).name)), None)
