"""A LoRA as PairLoRA saves it, loaded into diffusers' own pipelines, where it must add what training did.

The models are the zoo's, and diffusers' of the same sizes, without memory for their weights: FLUX.1 has to be as wide
as the real one, since diffusers' converters know no other width.
"""
import dataclasses
import inspect
import logging

import pytest
import safetensors.torch
import torch

HEADS = dict(num_layers=2, attention_head_dim=16, num_attention_heads=2, joint_attention_dim=32)
FLUX2 = HEADS | dict(num_single_layers=2, axes_dims_rope=(4, 4, 4, 4))
Z_IMAGE = dict(dim=384, n_heads=12, n_kv_heads=12)  # ComfyUI rounds the MLP of other sizes up, diffusers does not
Z_IMAGE_REST = dict(n_layers=2, n_refiner_layers=1, cap_feat_dim=32, axes_dims=(8, 12, 12), axes_lens=(1536, 512, 512))

# Of diffusers: a pipeline, its transformer and what that is built with. Of the zoo: what its network is changed to.
CASES = {
    "FLUX.1 Kontext": (
        "FluxKontextPipeline", "FluxTransformer2DModel",
        HEADS | dict(attention_head_dim=128, num_attention_heads=24, num_single_layers=2, pooled_projection_dim=32),
        dict(hidden_size=3072, num_heads=24, axes_dim=[16, 56, 56]),
    ),
    "FLUX.2": ("Flux2Pipeline", "Flux2Transformer2DModel", FLUX2, {}),
    "FLUX.2 klein": ("Flux2KleinPipeline", "Flux2Transformer2DModel", FLUX2 | dict(guidance_embeds=False), {}),
    "Qwen-Image-Edit": (
        "QwenImageEditPipeline", "QwenImageTransformer2DModel", HEADS | dict(axes_dims_rope=(4, 6, 6)), {}
    ),
    "Z-Image": ("ZImagePipeline", "ZImageTransformer2DModel", Z_IMAGE | Z_IMAGE_REST, Z_IMAGE),
}  # fmt: skip


@pytest.fixture(scope="module")
def diffusers(comfy):
    import diffusers  # costs seconds

    try:
        diffusers.FluxKontextPipeline  # noqa: B018 (imported when it is asked for)
    except RuntimeError as error:
        pytest.skip(f"this diffusers does not run on torch {torch.__version__}: {error}")
    return diffusers


@pytest.fixture(scope="module")
def trained(comfy, trainer):
    """`trained(name, network)`: a model of the zoo, a random LoRA on it, and that under the names it is saved with."""
    import zoo

    import tiny

    def trained(name, network):
        kind = next(kind for kind in zoo.KINDS if kind.name == name)
        with torch.device("meta"):
            model = zoo.model(dataclasses.replace(kind, network=kind.network | network))
        lora = tiny.Training(model).lora.state_dict()
        return model, lora, trainer("lora.files").named(lora, trainer("host.families").family_of(model.model).name)

    return trained


def probe(width: int) -> torch.Tensor:
    """(width, 3): what a layer makes of it stands for the whole matrix, which would take gigabytes."""
    return torch.randn(width, 3, generator=torch.Generator().manual_seed(width))


@pytest.fixture
def wanted(diffusers):
    """What each layer of diffusers' model has to add: the LoRA's matrices as a ComfyUI checkpoint, by the converter
    that diffusers has for whole checkpoints."""
    from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES

    def wanted(name, model, lora):
        checkpoint = {
            # Newer ComfyUI calls weight what is scale in FLUX.1's files.
            key.replace("y_norm.weight", "y_norm.scale"): torch.zeros(w.shape if w.ndim < 2 else (len(w), 3))
            for key, w in model.model.diffusion_model.state_dict().items()
        }
        for key, a in lora.items():
            if "lora_A" in key:
                path = key.removeprefix("diffusion_model.").replace("lora_A.", "")
                checkpoint[path] = lora[key.replace("lora_A", "lora_B")] @ (a @ probe(a.shape[1]))
        converted = SINGLE_FILE_LOADABLE_CLASSES[CASES[name][1]]["checkpoint_mapping_fn"](checkpoint)
        return {key.removesuffix(".weight"): value for key, value in converted.items() if value.any()}

    return wanted


@pytest.fixture
def loaded(diffusers, tmp_path, caplog, monkeypatch):
    """What each layer of diffusers' model adds after `load_lora_weights`, which must have nothing to warn of."""
    import peft

    monkeypatch.setattr(logging.getLogger("diffusers"), "propagate", True)

    def loaded(name, tensors):
        pipeline, transformer, config, _ = CASES[name]
        with torch.device("meta"):
            model = getattr(diffusers, transformer)(**config)
        # Beside weights on "meta" the LoRA would be put there too, and its values lost.
        weights = {key: torch.zeros(()).expand(w.shape) for key, w in model.state_dict().items()}
        model.load_state_dict(weights, assign=True)
        pipeline = getattr(diffusers, pipeline)
        parts = [key for key, part in inspect.signature(pipeline).parameters.items() if part.default is part.empty]
        safetensors.torch.save_file(tensors, tmp_path / "lora.safetensors", {"format": "pt"})
        pipe = pipeline(**dict.fromkeys(parts) | {"transformer": model})
        pipe.load_lora_weights(tmp_path, weight_name="lora.safetensors", adapter_name="ours")
        warnings = [record.getMessage() for record in caplog.records if record.name.startswith("diffusers")]
        # FLUX.1's pipeline says so of every LoRA that has nothing for its text encoder.
        assert not [text for text in warnings if "prefix='text_encoder'. This is safe to ignore" not in text]
        layers = {path: m for path, m in model.named_modules() if isinstance(m, peft.tuners.lora.LoraLayer)}
        return {
            path: m.scaling["ours"] * m.lora_B["ours"](m.lora_A["ours"](probe(m.in_features).T)).T.detach()
            for path, m in layers.items()
        }

    return loaded


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.allclose(a[key], b[key], rtol=1e-4, atol=1e-4) for key in a)


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("name", CASES)
def test_diffusers_adds_what_training_did(trained, loaded, wanted, name):
    model, lora, tensors = trained(name, CASES[name][3])
    assert same(loaded(name, tensors), wanted(name, model, lora))


@pytest.mark.parametrize("name", CASES)
def test_comfyui_takes_the_same_file(trained, trainer, tmp_path, name):
    model, lora, tensors = trained(name, {})
    safetensors.torch.save_file(tensors, tmp_path / "lora.safetensors")
    trainer("host.apply").prove(model, tmp_path / "lora.safetensors", lora)


def test_flux_is_not_loaded_under_the_names_of_peft(trained, loaded):
    _, lora, _ = trained("FLUX.1 Kontext", CASES["FLUX.1 Kontext"][3])
    with pytest.raises(AssertionError, match="No LoRA keys associated to FluxTransformer2DModel"):
        loaded("FLUX.1 Kontext", lora)


@pytest.mark.parametrize("damage", ["renamed", "left out", "rows in another order"])
@pytest.mark.parametrize("name", CASES)
def test_a_damaged_layer_is_seen(trained, loaded, wanted, name, damage):
    model, lora, tensors = trained(name, CASES[name][3])
    right, (down, up) = wanted(name, model, lora), list(tensors)[-2:]
    if damage == "rows in another order":
        tensors[up] = tensors[up].roll(1, 0)
    else:
        layer = {key: tensors.pop(key) for key in (down, up)}
        tensors |= {key.replace(".1.", ".1.x"): value for key, value in layer.items() if damage == "renamed"}
    try:
        assert not same(loaded(name, tensors), right)
    except ValueError as refusal:
        assert "keys" in str(refusal)
