"""Every family of base models, as a tiny randomly initialised model of ComfyUI's own class."""
from dataclasses import dataclass, field
from importlib.util import find_spec

import comfy.latent_formats
import comfy.model_management
import comfy.model_patcher
import comfy.supported_models
import torch


@dataclass(frozen=True)
class Kind:
    """How to build a family: the class of comfy.supported_models, the arguments of its network, and what its text
    encoder and VAE give. ``references`` are the numbers of reference images that it is tried with."""

    name: str
    config: str
    network: dict
    references: tuple[int, ...] = ()
    width: int = 32  # of text embeddings
    text: dict[str, tuple[int, ...]] = field(default_factory=dict)  # what else the text encoder gives, with shapes
    channels: int = 16  # of latents
    scale: int = 8  # pixels on a side of a latent pixel
    frames: bool = False  # latents have a dimension for time
    file: str = ""  # the name of the file it was loaded from
    needs: str = ""  # what the network's class has on hosts that know the family

    @property
    def missing(self) -> str | None:
        """Why this host cannot run it, or None."""
        if not hasattr(comfy.supported_models, self.config):
            return f"this ComfyUI has no {self.config}"
        if self.needs and not find_spec("comfy_extras.nodes_zimage"):
            return f"this ComfyUI's {self.config} has no {self.needs}"
        return None


FLUX = dict(
    image_model="flux", in_channels=16, out_channels=16, patch_size=2, vec_in_dim=32, context_in_dim=32, hidden_size=32,
    mlp_ratio=4.0, num_heads=2, depth=2, depth_single_blocks=2, axes_dim=[4, 6, 6], theta=10000, qkv_bias=True,
    guidance_embed=True,
)  # fmt: skip
FLUX2 = FLUX | dict(
    image_model="flux2", in_channels=128, out_channels=128, patch_size=1, axes_dim=[4, 4, 4, 4], theta=2000,
    vec_in_dim=None, global_modulation=True, mlp_silu_act=True, mlp_ratio=3.0, qkv_bias=False, ops_bias=False,
    default_ref_method="index", ref_index_scale=10.0,
)  # fmt: skip
QWEN = dict(
    image_model="qwen_image", in_channels=64, out_channels=16, num_layers=2, attention_head_dim=16,
    num_attention_heads=2, joint_attention_dim=32, axes_dims_rope=(4, 6, 6),
)  # fmt: skip
OMNIGEN2 = dict(
    image_model="omnigen2", hidden_size=32, num_layers=2, num_refiner_layers=1, num_attention_heads=2, num_kv_heads=1,
    multiple_of=16, axes_dim_rope=(4, 6, 6), text_feat_dim=32,
)  # fmt: skip
HIDREAM = dict(
    image_model="hidream", patch_size=2, in_channels=16, out_channels=16, num_layers=2, num_single_layers=2,
    attention_head_dim=16, num_attention_heads=2, caption_channels=[32, 32], text_emb_dim=32, num_routed_experts=2,
    num_activated_experts=1, axes_dims_rope=(4, 6, 6), llama_layers=[0, 1, 1, 1],
)  # fmt: skip
UNET = dict(
    image_size=32, in_channels=4, out_channels=4, model_channels=64, num_res_blocks=[1, 1], channel_mult=(1, 2),
    transformer_depth=[1, 1], transformer_depth_output=[1, 1, 1, 1], transformer_depth_middle=1, context_dim=32,
    use_spatial_transformer=True, legacy=False, num_heads=2, num_head_channels=-1, use_temporal_attention=False,
    use_linear_in_transformer=False, adm_in_channels=None,
)  # fmt: skip
SDXL = UNET | dict(num_classes="sequential", adm_in_channels=6 * 256 + 32, use_linear_in_transformer=True)
LUMINA = dict(
    image_model="lumina2", patch_size=2, in_channels=16, dim=64, n_layers=2, n_refiner_layers=1, n_heads=2,
    n_kv_heads=1, qk_norm=True, cap_feat_dim=32, axes_dims=[8, 12, 12], axes_lens=[300, 512, 512],
)  # fmt: skip
Z_IMAGE = LUMINA | dict(
    dim=256, n_heads=8, n_kv_heads=8, axes_lens=[1536, 512, 512], rope_theta=256.0, ffn_dim_multiplier=8 / 3,
    z_image_modulation=True, time_scale=1000.0, pad_tokens_multiple=32,
)  # fmt: skip
Z_IMAGE_OMNI = Z_IMAGE | dict(siglip_feat_dim=32)
LONGCAT = FLUX | dict(guidance_embed=False, vec_in_dim=None, txt_ids_dims=[1, 2])
BOOGU = dict(
    image_model="boogu", hidden_size=32, num_layers=2, num_double_stream_layers=1, num_refiner_layers=1,
    num_attention_heads=2, num_kv_heads=1, multiple_of=16, axes_dim_rope=(4, 6, 6), instruction_feat_dim=32,
)  # fmt: skip
MAGE_FLOW = dict(
    image_model="mage_flow", in_channels=128, out_channels=128, num_layers=2, attention_head_dim=16,
    num_attention_heads=2, joint_attention_dim=32, axes_dims_rope=(4, 6, 6),
)  # fmt: skip
JOYIMAGE = dict(  # its config fixes the rope to heads of 128
    image_model="joyimage", hidden_size=128, num_attention_heads=1, text_dim=32, num_layers=2, rope_dim_list=[16, 56, 56],
    theta=10000,
)  # fmt: skip
KREA2 = dict(
    image_model="krea2", features=32, tdim=32, txtdim=32, heads=2, kvheads=1, layers=2, channels=16, txtlayers=2,
    txtheads=2, txtkvheads=1,
)  # fmt: skip
CHROMA = dict(
    image_model="chroma", in_channels=64, out_channels=64, patch_size=2, context_in_dim=32, hidden_size=32,
    mlp_ratio=4.0, num_heads=2, depth=2, depth_single_blocks=2, axes_dim=[4, 6, 6], theta=10000, qkv_bias=True,
    in_dim=64, out_dim=32, hidden_dim=32, n_layers=2, txt_ids_dims=[], vec_in_dim=None,
)  # fmt: skip
SD3 = dict(
    in_channels=16, patch_size=2, depth=2, adm_in_channels=32, pos_embed_max_size=16, num_patches=256,
    pos_embed_scaling_factor=None, qk_norm="rms",
    context_embedder_config={"target": "torch.nn.Linear", "params": {"in_features": 32, "out_features": 128}},
)  # fmt: skip

POOLED = {"pooled_output": (1, 32)}
MASKED = {"attention_mask": ()}

KINDS = [
    Kind("FLUX.1 Kontext", "Flux", FLUX | {"txt_ids_dims": []}, (1, 2), text=POOLED),
    Kind("FLUX.2", "Flux2", FLUX2 | {"txt_ids_dims": [3]}, (1, 3), channels=128, scale=16),
    Kind("FLUX.2 klein", "Flux2", FLUX2 | {"txt_ids_dims": [3], "guidance_embed": False}, (1, 3),
         channels=128, scale=16),
    Kind("Qwen-Image-Edit", "QwenImage", QWEN, (1,), frames=True),
    Kind("Qwen-Image-Edit-2509", "QwenImage", QWEN, (1, 3), frames=True, file="qwen_image_edit_2509.safetensors"),
    Kind("Qwen-Image-Edit-2511", "QwenImage", QWEN, (1, 3), frames=True, file="qwen_image_edit_2511.safetensors"),
    Kind("OmniGen2", "Omnigen2", OMNIGEN2, (1, 3), text=MASKED),
    Kind("SD1.5 InstructPix2Pix", "SD15_instructpix2pix", UNET | {"in_channels": 8}, (1,), channels=4),
    Kind("SDXL InstructPix2Pix", "SDXL_instructpix2pix", SDXL | {"in_channels": 8}, (1,), channels=4, text=POOLED),
    Kind("HiDream-E1", "HiDream", HIDREAM, (1,), text=POOLED | {"conditioning_llama3": (1, 2, 5, 32)}),
    Kind("LongCat-Image-Edit", "LongCatImage", LONGCAT, (1,)),
    Kind("Z-Image Omni", "ZImage", Z_IMAGE_OMNI, (1, 2), text=MASKED, needs="siglip_embedder"),
    Kind("Boogu", "Boogu", BOOGU, (1, 2), text=MASKED),
    Kind("Mage-Flow", "MageFlow", MAGE_FLOW, (1, 2), channels=128, scale=16),
    Kind("JoyImage", "JoyImage", JOYIMAGE, (1, 2), frames=True),
    Kind("Krea2", "Krea2", KREA2, (1, 2), width=64, frames=True),
    Kind("Flux", "Flux", FLUX | {"txt_ids_dims": []}, text=POOLED),
    Kind("SD1.5", "SD15", UNET, channels=4),
    Kind("SDXL", "SDXL", SDXL, channels=4, text=POOLED),
    Kind("SD3", "SD3", SD3, text=POOLED),
    Kind("Qwen-Image", "QwenImage", QWEN, frames=True),
    Kind("Lumina2", "Lumina2", LUMINA, text=MASKED),
    Kind("Z-Image", "ZImage", Z_IMAGE, text=MASKED),
    Kind("Chroma", "Chroma", CHROMA),
]  # fmt: skip


def config_of(kind: Kind, dtype, compute=None):
    """Its config on this host, with weights of ``dtype`` that are cast to ``compute``."""
    from tiny import module

    network = dict(kind.network)
    if not module("host.compat").flux_options():
        network.pop("txt_ids_dims", None)
        if kind.config == "Chroma":
            network.pop("vec_in_dim")
    config = getattr(comfy.supported_models, kind.config)(network)
    config.set_inference_dtype(dtype, compute)
    return config


def model(
    kind: Kind, dtype=torch.float32, seed=0, compute=None, operations=None
) -> comfy.model_patcher.ModelPatcher:
    """Every parameter is random, so that nothing is hidden behind zeros. ``compute`` is the dtype that weights of
    ``dtype`` are cast to, ``operations`` a class of layers like those of comfy.ops."""
    config = config_of(kind, dtype, compute)
    config.custom_operations = operations
    base = config.get_model({}, "")
    generator = torch.Generator().manual_seed(seed)
    for name, p in base.diffusion_model.named_parameters():
        fan = p[0].numel() ** -0.5 if p.ndim > 1 else 0.3
        value = torch.randn(p.shape, generator=generator).mul_(fan)
        p.data = (value + ("norm" in name and p.ndim == 1)).to(p.dtype)
    for name, buffer in base.diffusion_model.named_buffers():
        if buffer.is_floating_point():
            buffer.data = torch.randn(buffer.shape, generator=generator).mul_(0.3).to(dtype)
    device = comfy.model_management.get_torch_device()
    return comfy.model_patcher.ModelPatcher(base, device, comfy.model_management.unet_offload_device())


class Clip:
    """A text encoder that gives every caption with its images an embedding of its own, as long as it has words."""

    def __init__(self, kind: Kind, dtype=torch.float32):
        self.kind, self.dtype = kind, dtype

    def tokenize(self, text, images=(), **options):
        return text, [round(float(image.sum()), 3) for image in images], sorted(options)

    def encode_from_tokens_scheduled(self, tokens):
        text, images, options = tokens
        generator = torch.Generator().manual_seed(hash_of(tokens))
        length = len(text.split()) + 4 + 2 * len(images)

        def randn(*shape):
            return torch.randn(shape, generator=generator).to(self.dtype)

        extras = {"pooled_output": None, **{key: randn(*shape) for key, shape in self.kind.text.items()}}
        if "attention_mask" in extras:
            extras["attention_mask"] = torch.ones(1, length, dtype=torch.long)
        return [[randn(1, length, self.kind.width), extras]]


def hash_of(value) -> int:
    import hashlib

    return int.from_bytes(hashlib.sha256(repr(value).encode()).digest()[:4], "big")


class Vae:
    """An autoencoder that mixes the pixels of each square at random; the size of its squares and the number of its
    channels are told as ComfyUI's tell it."""

    def __init__(self, kind: Kind, dtype=torch.float32):
        self.kind, self.dtype = kind, dtype
        generator = torch.Generator().manual_seed(1)
        self.mix = torch.randn(3 * kind.scale**2, kind.channels, generator=generator) / kind.scale

    @property
    def latent_channels(self):
        return self.kind.channels

    @property
    def latent_dim(self):
        return 3 if self.kind.frames else 2

    def spacial_compression_encode(self):
        return self.kind.scale

    def encode(self, pixels):
        scale = self.kind.scale
        height, width = (side // scale * scale for side in pixels.shape[1:3])
        squares = torch.nn.functional.pixel_unshuffle(pixels[:, :height, :width, :3].movedim(-1, 1) * 2 - 1, scale)
        latent = torch.einsum("nchw,cd->ndhw", squares, self.mix).to(self.dtype)
        return latent[:, :, None] if self.kind.frames else latent


def picture(seed: int, height=64, width=64):
    """A random picture of (height, width, 3) in 0..1, as the dataset gives it."""
    generator = torch.Generator().manual_seed(seed)
    small = torch.rand(1, 3, height // 8, width // 8, generator=generator)
    return torch.nn.functional.interpolate(small, (height, width), mode="bicubic")[0].movedim(0, -1).clamp(0, 1).numpy()


def encoded(kind: Kind, seed: int, references: int, dtype=torch.float32, size=(64, 64), caption=None, patcher=None):
    """A sample by the family's conditioning nodes from pictures and a caption of its own, for a tiny model or ``patcher``."""
    from tiny import module

    family = module("host.families").family_of((patcher or model(kind)).model, kind.file, references)
    images = [picture(100 * seed + i, *size) for i in range(references)] + [picture(seed, *size)]
    return module("host.encode").encode(
        family, Clip(kind, dtype), Vae(kind, dtype), f"sample{seed}", images, caption or f"caption {seed}"
    )


def sample(kind: Kind, patcher, seed: int, references: int, dtype=torch.float32, **options):
    """The same as ``patcher`` takes it."""
    from tiny import module

    return module("host.forward").condition(patcher, encoded(kind, seed, references, dtype, **options))
