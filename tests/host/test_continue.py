"""A LoRA file as the start of a training: the same effect as through ComfyUI's loader, and what does not fit is named."""
import re

import pytest
import safetensors.torch
import torch


@pytest.fixture(scope="module")
def base(tiny):
    return tiny.flux()


@pytest.fixture
def save(tmp_path):
    def save(tensors, name="lora.safetensors"):
        safetensors.torch.save_file({key: t.contiguous() for key, t in tensors.items()}, tmp_path / name)
        return tmp_path / name

    return save


def randn(*shape):
    """Different for every shape and call, always the same for a test."""
    return torch.randn(shape, generator=randn.generator) * 0.2


@pytest.fixture(autouse=True)
def seeded():
    randn.generator = torch.Generator().manual_seed(0)


def trained(tiny, model, rank=2):
    """A LoRA as training leaves it."""
    return tiny.Training(model, rank=rank).lora.state_dict()


def as_kohya(lora, alpha):
    """The same under kohya's names, at a scale of alpha / rank."""
    named = {}
    for key, value in lora.items():
        path, matrix, _ = key.removeprefix("diffusion_model.").rsplit(".", 2)
        layer = "lora_unet_" + path.replace(".", "_")
        named[f"{layer}.{'lora_down' if matrix == 'lora_A' else 'lora_up'}.weight"] = value
        named[f"{layer}.alpha"] = torch.tensor(alpha)
    return named


def as_diffusers(hidden=32, rank=1):
    """FLUX.1 as diffusers divides it, each part with an A and a B of its own; the first block's k and v share theirs."""
    sizes = {f"transformer_blocks.0.attn.{name}": (hidden, hidden) for name in (
        "to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out",
    )}  # fmt: skip
    sizes |= {f"single_transformer_blocks.1.attn.to_{x}": (hidden, hidden) for x in "qkv"}
    sizes |= {"single_transformer_blocks.1.proj_mlp": (4 * hidden, hidden), "single_transformer_blocks.1.proj_out": (hidden, 5 * hidden)}
    named = {}
    for path, (rows, columns) in sizes.items():
        named |= {f"transformer.{path}.lora_A.weight": randn(rank, columns), f"transformer.{path}.lora_B.weight": randn(rows, rank)}
    shared = "transformer.transformer_blocks.0.attn.to_{}.lora_A.weight"
    return named | {shared.format("v"): named[shared.format("k")].clone()}


def through_comfyui(trainer, model, file):
    """What ComfyUI's loader adds to each weight."""
    import comfy.lora

    apply, weights = trainer("host.apply"), model.model.state_dict()
    layers = apply.added(model, apply.with_lora(model, safetensors.torch.load_file(file), 1.0))
    return {key: comfy.lora.calculate_weight(parts, torch.zeros_like(weights[key], dtype=torch.float32), key) for key, parts in layers.items()}


def layers(trainer, model, start, seed=0):
    """Layers as a training that starts there has them."""
    with torch.inference_mode(False):
        lora = trainer("lora.inject").LoraLayers(model.model.diffusion_model, start.rank, seed, model.load_device)
    lora.load(start.over(lora.state_dict()))
    return lora


def error(tiny, trainer, model, file, start):
    """The largest relative difference from ComfyUI's loader in what a layer's weight becomes."""
    wanted, lora = through_comfyui(trainer, model, file), layers(trainer, model, start).state_dict()
    got = {key.replace(".lora_A", ""): lora[key.replace("lora_A", "lora_B")] @ a for key, a in lora.items() if "lora_A" in key}
    assert wanted.keys() <= got.keys(), "what training does not touch is not in these files"
    assert not any(value.any() for key, value in got.items() if key not in wanted), "the others begin without effect"
    return max(tiny.relative(got[key], value) for key, value in wanted.items())


FLUX = {
    "ours": (lambda files, lora: files.named(lora, "FLUX.1"), 2),
    "of peft": (lambda files, lora: lora, 2),
    "of kohya, with alpha": (lambda files, lora: as_kohya(lora, 0.7), 2),
    "of diffusers, divided": (lambda files, lora: as_diffusers(), 4),
    "of several ranks": (lambda files, lora: lora | {
        "diffusion_model.double_blocks.1.img_mlp.0.lora_A.weight": randn(5, 32),
        "diffusion_model.double_blocks.1.img_mlp.0.lora_B.weight": randn(128, 5),
    }, 5),
    "of some layers": (lambda files, lora: dict(list(lora.items())[6:10]), 2),
    "in half precision": (lambda files, lora: files.rounded(lora, "bf16"), 2),
}  # fmt: skip


@pytest.mark.parametrize("name", FLUX)
def test_flux(tiny, trainer, base, save, name):
    build, rank = FLUX[name]
    file = save(build(trainer("lora.files"), trained(tiny, base)))
    start = trainer("lora.start").read(base, file)
    assert (start.rank, start.warnings) == (rank, [])
    assert error(tiny, trainer, base, file, start) < 1e-6


@pytest.mark.parametrize("kind", ["FLUX.2", "Qwen-Image-Edit-2509", "OmniGen2", "SD1.5 InstructPix2Pix", "Z-Image", "SD3"])
def test_families(zoo, tiny, trainer, save, kind):
    """As PairLoRA saves them; Z-Image's q, k and v share an A, so that the rank stays."""
    model = zoo.model(next(k for k in zoo.KINDS if k.name == kind))
    lora = trained(tiny, model)
    file = save(trainer("lora.files").named(lora, trainer("host.families").family_of(model.model).name))
    start = trainer("lora.start").read(model, file)
    assert (start.rank, start.warnings) == (2, [])
    assert error(tiny, trainer, model, file, start) < 1e-6
    assert all(torch.equal(value, lora[key]) for key, value in start.tensors.items()) and start.tensors.keys() == lora.keys()


def test_unet_under_the_names_of_diffusers_in_kohyas_file(zoo, tiny, trainer, save):
    """As sd-scripts names the layers of SD1.5, with alpha and a layer that training does not touch."""
    model = zoo.model(next(k for k in zoo.KINDS if k.name == "SD1.5 InstructPix2Pix"))
    names = {"attn1_to_q": (64, 64), "attn2_to_k": (64, 32), "ff_net_2": (64, 256)}
    layers, lora = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_", {}
    for name, (rows, columns) in names.items():
        lora |= {f"{layers}{name}.lora_down.weight": randn(3, columns), f"{layers}{name}.lora_up.weight": randn(rows, 3)}
        lora |= {f"{layers}{name}.alpha": torch.tensor(1.0)}
    file = save(lora)
    start = trainer("lora.start").read(model, file)
    assert start.rank == 3 and len(start.tensors) == 6
    assert error(tiny, trainer, model, file, start) < 1e-6


@pytest.mark.parametrize("kind", ["of kohya, with alpha", "of diffusers, divided"])
def test_training_goes_on_at_the_effect_of_the_file(tiny, trainer, base, save, kind):
    """The first loss is that of the model with the file through ComfyUI's loader, and there is a gradient for all of A."""
    import comfy.model_management

    step = trainer("step")
    file = save(FLUX[kind][0](trainer("lora.files"), trained(tiny, base)))
    with torch.inference_mode():
        samples = [tiny.sample(base, seed) for seed in (1, 2)]
        sigma, noise = tiny.draws(samples)
        training = tiny.Training(base)
        training.lora = layers(trainer, base, trainer("lora.start").read(base, file))
        comfy.model_management.load_models_gpu([base])
        with torch.inference_mode(False):
            loss = training.loss(samples, sigma, noise)
        plain = tiny.Training(base, scale=0).loss
        patched = trainer("host.apply").with_lora(base, safetensors.torch.load_file(file), 1.0)
        comfy.model_management.load_models_gpu([patched])
        with torch.inference_mode(False):
            without = tiny.Training(patched, scale=0).loss(samples, sigma, noise)
        comfy.model_management.load_models_gpu([base])
        with torch.inference_mode(False):
            untrained = plain(samples, sigma, noise)
    assert abs(loss - without) < 1e-5 * loss and abs(loss - untrained) > 1e-3 * loss
    assert step and all(p.grad is not None for p in training.lora.parameters())
