"""From decoded images and a caption to what the model is conditioned on, by the very nodes a generation graph uses."""
import hashlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import comfy.sd
import numpy as np
import torch

import nodes as comfy_nodes

from .families import Edit, Family

REFERENCES = ("reference_latents", "concat_latent_image")  # where a CONDITIONING has the latents of references


@dataclass(frozen=True)
class Encoded:
    """A sample as the nodes of a graph give it, on the CPU: the target's ``latent`` (1, channels, ..., height, width) as
    the VAE makes it, and a CONDITIONING."""

    name: str
    latent: torch.Tensor
    conditioning: list

    @property
    def references(self) -> list[torch.Tensor]:
        """The latents of the references, (1, channels, ..., height, width), however the model takes them."""
        return list(tensors([self.conditioning[0][1].get(key) for key in REFERENCES]))

    def with_other_references(self) -> "Encoded":
        """The same sample with other pictures as references: the negatives of their latents."""

        return Encoded(self.name, self.latent, self._with_references(torch.neg))

    def resized(self, factor: float) -> "Encoded":
        """A sample whose latents have sides ``factor`` times as long, in steps of two, for its shapes only."""

        def other_size(latent: torch.Tensor) -> torch.Tensor:
            return latent.new_zeros(*latent.shape[:-2], *(max(2, round(side * factor / 2) * 2) for side in latent.shape[-2:]))

        return Encoded(self.name, other_size(self.latent), self._with_references(other_size))

    def against(self, negative: "Encoded") -> list:
        """The CONDITIONING of ``negative`` with the references of this sample."""
        own = {key: value for key, value in self.conditioning[0][1].items() if key in REFERENCES}
        return [[text, options | own] for text, options in negative.conditioning]

    def _with_references(self, change: Callable[[torch.Tensor], torch.Tensor]) -> list:
        """The conditioning with other latents of references."""

        def changed(value):
            return change(value) if isinstance(value, torch.Tensor) else [changed(v) for v in value]

        return [
            [text, {k: changed(v) if k in REFERENCES else v for k, v in options.items()}] for text, options in self.conditioning
        ]


def encode(
    family: Family, clip: comfy.sd.CLIP, vae: comfy.sd.VAE, name: str, images: list[np.ndarray], caption: str
) -> Encoded:
    """A sample from images of (height, width, 3) in 0..1, references first and target last.

    Where memory is short, text encoder and VAE push each other out: one can be asked for all samples first, as a Listener,
    then the other, with a Speaker of what was heard.
    """
    *references, target = (torch.from_numpy(image)[None] for image in images)
    with torch.inference_mode():
        conditioning = family.condition(clip, vae, Edit(caption, references, tuple(target.shape[1:3])))
        latent = comfy_nodes.VAEEncode().encode(vae, target)[0]["samples"]
    return Encoded(name, *copied((latent, conditioning), "cpu"))


def encode_negative(family: Family, clip: comfy.sd.CLIP, vae: comfy.sd.VAE, name: str, images: list[np.ndarray]) -> Encoded:
    """What a graph samples the same sample against, for guidance. Its latents are those of the sample itself, which ``vae``
    may leave blank: see ``Encoded.against``."""
    return encode(replace(family, condition=family.negative or family.condition), clip, vae, name, images, "")


class Listener:
    """A text encoder that keeps what it is asked and says, as [digest of the tokens, CONDITIONING] in ``heard``."""

    def __init__(self, clip: comfy.sd.CLIP):
        self.clip, self.heard = clip, []

    def __getattr__(self, name: str):
        return getattr(self.clip, name)

    def encode_from_tokens_scheduled(self, tokens, *args, **kwargs):
        said = self.clip.encode_from_tokens_scheduled(tokens, *args, **kwargs)
        self.heard.append([digest([tokens, args, kwargs]), copied(said, "cpu")])
        return said


class Speaker:
    """A text encoder that says again what a Listener has heard; what it was not asked it asks the encoder itself."""

    def __init__(self, clip: comfy.sd.CLIP, heard: list):
        self.clip, self.heard = clip, dict(map(tuple, heard))

    def __getattr__(self, name: str):
        return getattr(self.clip, name)

    def encode_from_tokens_scheduled(self, tokens, *args, **kwargs):
        known = self.heard.get(digest([tokens, args, kwargs]))
        if known is None:
            logging.warning("PairLoRA: the text encoder is asked what it was not asked at first, so encoding takes longer.")
            return self.clip.encode_from_tokens_scheduled(tokens, *args, **kwargs)
        return copied(known, "cpu")


class Blank:
    """A VAE that makes latents of zeros in the shapes of its own. One that does not tell its shapes, of another pack, is
    asked itself once for each size of pictures."""

    def __init__(self, vae: comfy.sd.VAE):
        self.vae, self.shapes = vae, {}

    def __getattr__(self, name: str):
        return getattr(self.vae, name)

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """(1, channels, height, width), or (1, channels, 1, height, width) of a VAE for videos, from (1, height, width, 3)."""
        if pixels.shape not in self.shapes:
            self.shapes[pixels.shape] = self._told(pixels) or self.vae.encode(pixels).shape
        return torch.zeros(self.shapes[pixels.shape])

    def _told(self, pixels: torch.Tensor) -> tuple[int, ...] | None:
        try:
            scale, frames = self.vae.spacial_compression_encode(), [1] * (self.vae.latent_dim == 3)
            return 1, self.vae.latent_channels, *frames, *(max(1, side // scale) for side in pixels.shape[1:3])
        except AttributeError:
            return None


def digest(value) -> str:
    """A hash of nested lists, tuples and dicts with tensors."""
    sha = hashlib.sha256(repr(_without_tensors(value)).encode())
    for t in tensors(value):
        sha.update(t.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return sha.hexdigest()


def _without_tensors(value):
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape)
    if isinstance(value, (list, tuple)):
        return [_without_tensors(v) for v in value]
    return {k: _without_tensors(v) for k, v in value.items()} if isinstance(value, dict) else value


def copied(value, device):
    """``value`` with every tensor in it copied to ``device``; made outside inference mode, autograd can use the copies."""
    if isinstance(value, torch.Tensor):
        with torch.inference_mode(False), torch.no_grad():
            return value.clone().to(device)
    if isinstance(value, (list, tuple)):
        return type(value)(copied(v, device) for v in value)
    return {k: copied(v, device) for k, v in value.items()} if isinstance(value, dict) else value


def tensors(value) -> Iterator[torch.Tensor]:
    """Every tensor in nested lists, tuples and dicts."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (list, tuple, dict)):
        for child in value.values() if isinstance(value, dict) else value:
            yield from tensors(child)


def split_caption(clip: comfy.sd.CLIP, caption: str) -> tuple[int, int] | None:
    """Into how many parts the text encoder splits a caption that it cannot read in one go, and how many tokens a part
    has; None when it reads all at once, or one of several encoders does (FLUX.1 follows T5, which reads any length).

    ComfyUI leaves nothing out: CLIP reads 77 tokens at a time and the model sees all parts, one behind the other.
    """
    tokens = clip.tokenize(caption)
    parts = list(tokens.values()) if isinstance(tokens, dict) else []
    return max((len(part), len(part[0])) for part in parts) if parts and all(len(part) > 1 for part in parts) else None
