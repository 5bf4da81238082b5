"""Model files under the names that the example workflows load, with tiny random models of the real classes in them.

ComfyUI takes most of a model's sizes for granted and looks for only some of them in the file. So beside each of these files
lies another that tells them, and ``install`` makes ComfyUI's own loaders look there; nothing else about loading is changed,
and other files are loaded as ever. It is called in the tests' process, which writes the files, and in that of the server.
"""
import base64
import contextlib
import functools
import json
from dataclasses import replace
from pathlib import Path

import comfy.latent_formats
import comfy.model_detection
import comfy.sd
import comfy.sd1_clip
import comfy.supported_models
import comfy.text_encoders.llama
import comfy.text_encoders.qwen_vl
import comfy.utils
import folder_paths
import safetensors.torch
import torch

import nodes as comfy_nodes

BESIDE = ".tiny.json"
WIDTH = 32
LANGUAGE = dict(
    hidden_size=WIDTH, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1
)  # fmt: skip
TEXT = {  # by ComfyUI's class of a text encoder, or the nearest that it inherits from
    "SDClipModel": dict(hidden_size=WIDTH, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2),
    "T5XXLModel": dict(d_model=WIDTH, d_ff=64, d_kv=16, num_heads=2, num_layers=2),
    "Qwen25_7BVLIModel": LANGUAGE,
    "Qwen3_4BModel": LANGUAGE | dict(num_hidden_layers=30),  # the deepest of the layers that FLUX.2 klein takes is 27
    "Mistral3_24BModel": LANGUAGE | dict(num_hidden_layers=40, vocab_size=400),
    "Qwen3VLClipModel": LANGUAGE,
}
VISION = dict(hidden_size=WIDTH, intermediate_size=64, num_heads=2, num_layers=2)
VISION_3 = dict(hidden_size=WIDTH, intermediate_size=64, num_heads=2, depth=3, deepstack_visual_indexes=[0, 1, 2])

_about: dict | None = None  # what lies beside the file that is being loaded


@contextlib.contextmanager
def loading(about: dict | None):
    global _about
    before, _about = _about, about
    try:
        yield
    finally:
        _about = before


def beside(file) -> dict | None:
    told = Path(f"{file}{BESIDE}")
    return json.loads(told.read_text()) if told.exists() else None


def install() -> None:
    def wrap(owner, name, around):
        inner = getattr(owner, name)
        if not hasattr(inner, "__wrapped__"):  # ComfyUI loads custom nodes once, tests may ask twice
            setattr(owner, name, functools.wraps(inner)(lambda *args, **options: around(inner, *args, **options)))

    def load(inner, *args, **options):
        file = args[0] if args else options.get("ckpt_paths") or options["ckpt_path"]
        with loading(beside(file[0] if isinstance(file, (list, tuple)) else file)):
            return inner(*args, **options)

    def load_vae(inner, self, vae_name, *args):
        with loading(beside(folder_paths.get_full_path("vae", vae_name))):
            return inner(self, vae_name, *args)

    def config(inner, state_dict, prefix, *args, **options):
        if not (_about and "config" in _about):
            return inner(state_dict, prefix, *args, **options)
        return getattr(comfy.supported_models, _about["config"])(dict(_about["network"]))

    def te(inner, state_dict):
        return comfy.sd.TEModel[_about["text"]] if _about and "text" in _about else inner(state_dict)

    def text(inner, self, *args, textmodel_json_config=None, **options):
        if _about is not None:
            whole = textmodel_json_config
            if whole is None:
                whole = Path(comfy.sd1_clip.__file__).with_name("sd1_clip_config.json")
            if not isinstance(whole, dict):
                whole = json.loads(Path(whole).read_text())
            textmodel_json_config = whole | next(TEXT[c.__name__] for c in type(self).__mro__ if c.__name__ in TEXT)
        return inner(self, *args, textmodel_json_config=textmodel_json_config, **options)

    def vision(inner, self, *args, **options):
        return inner(self, *args, **(options | VISION if _about is not None else options))

    def vision_3(inner, self, config, **options):
        return inner(self, config | VISION_3 if _about is not None else config, **options)

    def autoencoder(inner, *args, ddconfig, **options):
        return inner(*args, ddconfig=ddconfig | {"ch": 32} if _about is not None else ddconfig, **options)

    for name in ("load_diffusion_model", "load_clip", "load_checkpoint_guess_config"):
        wrap(comfy.sd, name, load)
    wrap(comfy_nodes.VAELoader, "load_vae", load_vae)
    wrap(comfy.model_detection, "model_config_from_unet", config)
    wrap(comfy.sd, "detect_te_model", te)
    wrap(comfy.sd1_clip.SDClipModel, "__init__", text)
    wrap(comfy.text_encoders.qwen_vl.Qwen2VLVisionTransformer, "__init__", vision)
    with contextlib.suppress(ImportError):  # of a newer ComfyUI
        from comfy.text_encoders.qwen3vl import Qwen3VLVisionModel

        wrap(Qwen3VLVisionModel, "__init__", vision_3)
    wrap(comfy.sd, "AutoencoderKL", autoencoder)


def randomised(tensors: dict) -> dict:
    """The same tensors with numbers in them: ComfyUI leaves what it creates as the memory was."""
    generator = torch.Generator().manual_seed(0)

    def numbers(name: str, tensor):
        if not tensor.is_floating_point():
            return tensor.clone()
        if tensor.ndim < 2:
            return torch.full(tensor.shape, 0.0 if name.endswith("bias") or "mean" in name else 1.0)
        return torch.randn(tensor.shape, generator=generator) * tensor[0].numel() ** -0.5

    return {name: numbers(name, tensor).contiguous() for name, tensor in tensors.items()}


def text_encoders(kind: str, text: str, extra: dict | None = None) -> list[dict]:
    """The weights of the text encoders that ComfyUI makes for a type of its CLIP loaders."""
    how_many = 2 if kind == "FLUX" else 1
    with loading({"text": text}):
        clip = comfy.sd.load_text_encoder_state_dicts(
            [dict(extra or {}) for _ in range(how_many)], clip_type=getattr(comfy.sd.CLIPType, kind, comfy.sd.CLIPType.STABLE_DIFFUSION)
        )  # fmt: skip
    models = [m for m in clip.cond_stage_model.modules() if isinstance(m, comfy.sd1_clip.SDClipModel)]
    return [randomised(model.transformer.state_dict()) | (extra or {}) for model in models]


def tekken() -> dict:
    """The smallest vocabulary that FLUX.2's tokenizer can be made of: bytes, and what its template has."""
    special = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "<pad>", "<a>", "<b>", "<c>", "<d>"]
    vocabulary = {
        "config": {"default_vocab_size": 256 + len(special), "default_num_special_tokens": len(special)},
        "vocab": [{"rank": i, "token_bytes": base64.b64encode(bytes([i])).decode()} for i in range(256)],
        "special_tokens": [{"rank": i, "token_str": token} for i, token in enumerate(special)],
    }
    return {"tekken_model": torch.frombuffer(bytearray(json.dumps(vocabulary).encode()), dtype=torch.uint8)}


def autoencoder(channels: int) -> dict:
    """Of the small class that ComfyUI tells by its file, for latents of so many channels."""
    from comfy.taesd.taesd import TAESD

    return randomised(TAESD(latent_channels=channels).state_dict())


def flux2_autoencoder() -> dict:
    from comfy.ldm.models.autoencoder import AutoencoderKL

    config = dict(double_z=True, z_channels=32, resolution=256, in_channels=3, out_ch=3, ch=32, ch_mult=[1, 2, 4, 4],
                  num_res_blocks=2, attn_resolutions=[], dropout=0.0, batch_norm_latent=True)  # fmt: skip
    return randomised(AutoencoderKL(ddconfig=config, embed_dim=32).state_dict())


def video_autoencoder() -> dict:
    from comfy.ldm.wan.vae import WanVAE

    return randomised(WanVAE(dim=8, z_dim=16, dim_mult=[1, 2, 4, 4], num_res_blocks=2, attn_scales=[],
                             temperal_downsample=[False, True, True], dropout=0.0).state_dict())  # fmt: skip


class Writer:
    """Writes them into the ``models`` folder of a ComfyUI."""

    def __init__(self, models: Path):
        self.models = models
        install()

    def write(self, directory: str, name: str, tensors: dict, **about) -> None:
        folder = self.models / directory
        folder.mkdir(parents=True, exist_ok=True)
        safetensors.torch.save_file({key: value.contiguous().clone() for key, value in tensors.items()}, folder / name)
        (folder / f"{name}{BESIDE}").write_text(json.dumps(about))

    def network(self, name: str, kind, directory="diffusion_models", prefix="", more=None) -> None:
        """A diffusion model of a Kind of tests/zoo.py."""
        import zoo

        patcher = zoo.model(kind)
        weights = {f"{prefix}{key}": value for key, value in patcher.model.diffusion_model.state_dict().items()}
        network = {k: v for k, v in zoo.config_of(kind, torch.float32).unet_config.items() if k != "dtype"}
        self.write(directory, name, weights | (more or {}), config=kind.config, network=network)

    def base_model(self, slug: str) -> None:
        """All files that the example workflow of that name loads."""
        import zoo

        import make_workflows as w

        kinds = {kind.name: kind for kind in zoo.KINDS}

        def text(files, kind, encoder, extra=None):
            for (name, *_), tensors in zip(files, text_encoders(kind, encoder, extra)):
                self.write("text_encoders", name, tensors, text=encoder)

        def three_layers(kind):  # of its text encoder, one behind the other
            return replace(kind, network=kind.network | {"context_in_dim": 3 * WIDTH})

        if slug == "kontext":
            self.network(w.KONTEXT[0], kinds["FLUX.1 Kontext"])
            text((w.CLIP_L, w.T5), "FLUX", "CLIP_L")
            self.write("vae", w.FLUX_VAE[0], autoencoder(16))
        elif slug in ("flux2-dev", "flux2-klein"):
            file, kind = (w.FLUX2, "FLUX.2") if slug == "flux2-dev" else (w.KLEIN, "FLUX.2 klein")
            self.network(file[0], three_layers(kinds[kind]))
            if slug == "flux2-dev":
                text((w.MISTRAL,), "FLUX2", "MISTRAL3_24B", tekken())
            else:
                text((w.QWEN3_4B,), "FLUX2", "QWEN3_4B")
            self.write("vae", w.FLUX2_VAE[0], flux2_autoencoder())
        elif slug in ("qwen-2509", "qwen-2511"):
            file, kind = (w.QWEN_2509, "2509") if slug == "qwen-2509" else (w.QWEN_2511, "2511")
            self.network(file[0], kinds[f"Qwen-Image-Edit-{kind}"])
            text((w.QWEN_VL,), "QWEN_IMAGE", "QWEN25_7B")
            self.write("vae", w.QWEN_VAE[0], video_autoencoder())
        elif slug == "longcat":
            self.network(w.LONGCAT[0], kinds["LongCat-Image-Edit"])
            text((w.QWEN_VL,), "LONGCAT_IMAGE", "QWEN25_7B")
            self.write("vae", w.FLUX_VAE[0], autoencoder(16))
        elif slug == "pix2pix":
            clip, *_ = text_encoders("STABLE_DIFFUSION", "CLIP_L")
            more = {f"cond_stage_model.transformer.{key}": value for key, value in clip.items()}
            more |= {f"first_stage_model.{key}": value for key, value in autoencoder(4).items()}
            self.network(w.PIX2PIX[0], kinds["SD1.5 InstructPix2Pix"], "checkpoints", "model.diffusion_model.", more)
        elif slug in ("style", "training-adapter"):
            self.network((w.Z_IMAGE if slug == "style" else w.Z_IMAGE_TURBO)[0], kinds["Z-Image"])
            text((w.QWEN3_4B,), "LUMINA2", "QWEN3_4B")
            self.write("vae", w.FLUX_VAE[0], autoencoder(16))
            if slug == "training-adapter":
                key = "diffusion_model.layers.0.feed_forward.w1"
                out, into = zoo.model(kinds["Z-Image"]).model.diffusion_model.layers[0].feed_forward.w1.weight.shape
                lora = {f"{key}.lora_A.weight": torch.ones(1, into), f"{key}.lora_B.weight": torch.full((out, 1), 1e-3)}
                self.write("loras", w.ADAPTER[0], lora)
        elif slug == "caption":
            text((w.QWEN3_VL,), "IDEOGRAM4", "QWEN3VL_4B")
