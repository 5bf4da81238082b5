"""The tiny base model that ships with the pack: ComfyUI's own Flux, Stage A and CLIP classes, very small.

It takes references the way FLUX.1 Kontext does, several of them. `demo/make_base.py` is the recipe of its weights.
"""
from pathlib import Path

import comfy.latent_formats
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.sd1_clip
import comfy.supported_models
import comfy.supported_models_base
import comfy.utils
import torch
from comfy.ldm.cascade.stage_a import StageA

from . import compat

WEIGHTS = Path(__file__).parents[2] / "samples" / "base" / "tiny-reference-flow.safetensors"

# Prefixes of the three parts inside the file, those of an ordinary checkpoint.
FLOW, VAE, CLIP = "model.diffusion_model.", "vae.", "text_encoders."

LATENT_CHANNELS = 24
TOKENS = 16  # length of one chunk of a caption; a longer caption becomes several chunks
WIDTH = 32  # of a text embedding

FLOW_CONFIG = dict(
    image_model="flux", in_channels=LATENT_CHANNELS, out_channels=LATENT_CHANNELS, patch_size=2,
    vec_in_dim=WIDTH, context_in_dim=WIDTH,
    hidden_size=128, mlp_ratio=4.0, num_heads=2, depth=2, depth_single_blocks=4, axes_dim=[8, 28, 28], theta=100,
    qkv_bias=True, guidance_embed=False,
)  # fmt: skip
CLIP_CONFIG = dict(
    hidden_size=WIDTH, num_hidden_layers=1, num_attention_heads=2, intermediate_size=2 * WIDTH,
    hidden_act="quick_gelu", max_position_embeddings=TOKENS, eos_token_id=49407,
)  # fmt: skip


class LatentFormat(comfy.latent_formats.LatentFormat):
    """The autoencoder's latents are centred and of about unit variance as they are."""

    latent_channels = LATENT_CHANNELS


class TinyClip(comfy.sd1_clip.SDClipModel):
    def __init__(self, device="cpu", dtype=None, model_options={}):
        super().__init__(device=device, dtype=dtype, max_length=TOKENS, textmodel_json_config=dict(CLIP_CONFIG),
                         model_options=model_options)  # fmt: skip


class TinyClipModel(comfy.sd1_clip.SD1ClipModel):
    def __init__(self, device="cpu", dtype=None, model_options={}):
        super().__init__(device=device, dtype=dtype, model_options=model_options, clip_model=TinyClip)


class TinyTokenizer(comfy.sd1_clip.SD1Tokenizer):
    def __init__(self, embedding_directory=None, tokenizer_data={}):
        def tokenizer(**kwargs):
            return comfy.sd1_clip.SDTokenizer(max_length=TOKENS, embedding_size=WIDTH, **kwargs)

        super().__init__(embedding_directory, tokenizer_data, tokenizer=tokenizer)


def flow_model(weights: dict[str, torch.Tensor]) -> comfy.model_patcher.ModelPatcher:
    """The MODEL: a reference-conditioned Flux of 2.2M parameters in float32."""
    config = comfy.supported_models.Flux(dict(FLOW_CONFIG, **compat.flux_options()))
    config.latent_format = LatentFormat()
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model({}, "")
    expected = model.diffusion_model.state_dict().keys()
    # Newer hosts call the scale of a norm `weight`.
    model.load_model_weights({k if k in expected else k.replace(".scale", ".weight"): v for k, v in weights.items()})
    return comfy.model_patcher.ModelPatcher(
        model, comfy.model_management.get_torch_device(), comfy.model_management.unet_offload_device()
    )


def autoencoder() -> StageA:
    """Stable Cascade's Stage A without its quantization: 8 x 8 pixels to one position of 24 channels."""
    return StageA(levels=3, bottleneck_blocks=4, c_hidden=192, c_latent=LATENT_CHANNELS, codebook_size=1)


def vae_model(weights: dict[str, torch.Tensor]) -> comfy.sd.VAE:
    """The VAE. ComfyUI knows Stage A by its keys but only in its full size, so the module is put in here."""
    vae = comfy.sd.VAE({"pixel_space_vae": torch.tensor(1.0)}, dtype=torch.float32)
    vae.first_stage_model = autoencoder().train(False)
    vae.first_stage_model.load_state_dict(weights)
    vae.latent_channels, vae.downscale_ratio, vae.upscale_ratio = LATENT_CHANNELS, 8, 8
    vae.memory_used_encode = lambda shape, dtype: 2000 * shape[2] * shape[3]
    vae.memory_used_decode = lambda shape, dtype: 2000 * 64 * shape[2] * shape[3]
    vae.patcher = comfy.model_patcher.ModelPatcher(
        vae.first_stage_model, vae.device, comfy.model_management.vae_offload_device()
    )
    vae.size = None
    return vae


def clip_model(weights: dict[str, torch.Tensor]) -> comfy.sd.CLIP:
    """The CLIP: one layer of 32 channels over ComfyUI's CLIP vocabulary, 16 tokens a chunk."""
    target = comfy.supported_models_base.ClipTarget(TinyTokenizer, TinyClipModel)
    clip = comfy.sd.CLIP(target, parameters=sum(w.numel() for w in weights.values()))
    clip.cond_stage_model.load_state_dict(weights)
    return clip


def load() -> tuple[comfy.model_patcher.ModelPatcher, comfy.sd.CLIP, comfy.sd.VAE]:
    """The tiny base model as ComfyUI's MODEL, CLIP and VAE."""
    weights = comfy.utils.load_torch_file(str(WEIGHTS), safe_load=True)

    def part(prefix: str) -> dict[str, torch.Tensor]:
        return {k[len(prefix):]: v for k, v in weights.items() if k.startswith(prefix)}

    return flow_model(part(FLOW)), clip_model(part(CLIP)), vae_model(part(VAE))
