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
    assert all(a.any(1).all() for key, a in lora.items() if "lora_A" in key), "and every rank of every layer can learn"
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


def test_a_unet_as_kohya_names_it(zoo, tiny, trainer, save):
    """As sd-scripts names the layers of SD1.5."""
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
    """The first loss is that of the model with the file through ComfyUI's loader, and every parameter has a gradient."""
    import comfy.model_management

    file = save(FLUX[kind][0](trainer("lora.files"), trained(tiny, base)))
    patched = trainer("host.apply").with_lora(base, safetensors.torch.load_file(file), 1.0)
    trainings = {name: tiny.Training(model, scale=0) for name, model in {"file": patched, "base": base, "start": base}.items()}
    trainings["start"].lora = layers(trainer, base, trainer("lora.start").read(base, file))
    loss = {}
    for name, training in trainings.items():
        with torch.inference_mode():
            samples = [tiny.sample(base, seed) for seed in (1, 2)]
            comfy.model_management.load_models_gpu([training.model])
            with torch.inference_mode(False):
                loss[name] = training.loss(samples, *tiny.draws(samples))
    with torch.inference_mode():
        comfy.model_management.load_models_gpu([base])
    assert abs(loss["start"] - loss["file"]) < 1e-6 * loss["file"] and abs(loss["base"] - loss["file"]) > 1e-2 * loss["file"]
    assert all(p.grad is not None for p in trainings["start"].lora.parameters())


def test_other_loras_on_the_model_are_no_part_of_it(tiny, trainer, base, save):
    first, second = trained(tiny, base), {key: value + 1 for key, value in trained(tiny, base).items()}
    start = trainer("lora.start").read(trainer("host.apply").with_lora(base, first, 1.0), save(second))
    assert all(torch.equal(value, second[key]) for key, value in start.tensors.items()) and start.rank == 2


def test_the_digest_is_of_what_is_used(tiny, trainer, base, save):
    read, lora = trainer("lora.start").read, trained(tiny, base)
    first = read(base, save(lora))
    for same in (save(lora, "renamed.safetensors"), save(dict(reversed(lora.items()))), save(as_kohya(lora, 2.0))):
        assert read(base, same).digest == first.digest
    text = {"lora_te_text_model_encoder_layers_0_mlp_fc1.alpha": torch.tensor(1.0)}
    assert read(base, save(lora | text)).digest == first.digest
    changed = next(iter(lora))
    for other in (as_kohya(lora, 1.0), {k: v for k, v in lora.items() if "linear2" not in k}, lora | {changed: lora[changed] + 1e-3}):
        assert read(base, save(other)).digest != first.digest


def test_it_does_not_lean_on_the_file(tiny, trainer, base, save):
    """Which may be written over while training goes on."""
    file = save(lora := trained(tiny, base))
    start = trainer("lora.start").read(base, file)
    file.write_bytes(bytes(file.stat().st_size))
    assert all(torch.equal(value, lora[key]) for key, value in start.tensors.items())


def test_what_is_left_out_is_named(zoo, tiny, trainer, save):
    model = zoo.model(next(k for k in zoo.KINDS if k.name == "SD1.5 InstructPix2Pix"))
    lora = trained(tiny, model)
    lora |= {
        "lora_unet_input_blocks_1_1_proj_in.lora_down.weight": randn(2, 64, 1, 1),
        "lora_unet_input_blocks_1_1_proj_in.lora_up.weight": randn(64, 2, 1, 1),
        "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": randn(2, 32),
        "text_encoder_2.text_model.encoder.layers.0.mlp.fc1.lora_B.weight": randn(32, 2),
        "lora_unet_of_nothing.lora_down.weight": randn(2, 32),
    }
    start = trainer("lora.start").read(model, save(lora))
    assert len(start.tensors) == len(lora) - 5
    assert start.warnings == [
        f"Left out of lora.safetensors: {what}." for what in (
            "1 layer that training does not touch, first diffusion_model.input_blocks.1.1.proj_in.weight",
            "2 keys for the text encoder, which is not trained, first lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight",
            "1 key without a layer in this model, first lora_unet_of_nothing.lora_down.weight",
        )
    ]  # fmt: skip


QKV = "diffusion_model.double_blocks.0.img_attn.qkv"  # (96, 32)
MODULATION = "diffusion_model.double_blocks.0.img_mod.lin"
REFUSED = {
    "of another base": ({"lora_unet_down_blocks_0.lora_down.weight": (2, 32), "x.y": (1,)}, "no LoRA that ComfyUI loads on this Flux: of its 2 keys for the model 2 fit no layer, such as lora_unet.*, x.y. Choose a LoRA of this base"),
    "mostly of another base": ({f"{QKV}.lora_A.weight": (2, 32), f"{QKV}.lora_B.weight": (96, 2), "a": (1,), "b": (1,), "c": (1,)}, "its 5 keys for the model 3 fit no layer"),
    "empty": ({}, "0 keys for the model"),
    "only for the text encoder": ({"lora_te1_x.lora_down.weight": (2, 2)}, "0 keys for the model"),
    "only layers that are not trained": ({f"{MODULATION}.lora_A.weight": (2, 32), f"{MODULATION}.lora_B.weight": (192, 2)}, f"only such as {MODULATION}"),
    "LoHa": ({f"{QKV}.hada_w{i}_{x}": shape for i in (1, 2) for x, shape in {"a": (96, 2), "b": (2, 32)}.items()}, f"LoHa for {QKV}.*plain LoRA only.*train a new LoRA with it"),
    "LoKr": ({f"{QKV}.lokr_w1": (4, 4), f"{QKV}.lokr_w2": (24, 8)}, f"LoKr for {QKV}"),
    "OFT": ({f"{QKV}.oft_blocks": (4, 24, 24)}, f"OFT for {QKV}"),
    "DoRA": ({f"{QKV}.lora_A.weight": (2, 32), f"{QKV}.lora_B.weight": (96, 2), f"{QKV}.dora_scale": (96, 1)}, f"DoRA .dora_scale. for {QKV}"),
    "a whole difference": ({f"{QKV}.diff": (96, 32)}, f"diff of the whole weight for {QKV}"),
    "a difference of a bias": ({f"{QKV}.lora_A.weight": (2, 32), f"{QKV}.lora_B.weight": (96, 2), f"{QKV}.diff_b": (96,)}, f"diff of the whole weight for {QKV}.bias"),
    "a norm": ({f"{QKV}.w_norm": (96,)}, "diff of the whole weight"),
    "a layer with three matrices": ({f"{QKV}.lora_down.weight": (2, 32), f"{QKV}.lora_up.weight": (96, 2), f"{QKV}.lora_mid.weight": (2, 2, 1, 1)}, f"lora_mid for {QKV}"),
    "a larger model": ({f"{QKV}.lora_A.weight": (2, 64), f"{QKV}.lora_B.weight": (192, 2)}, rf"another model: for {QKV}.weight it has \(192, 2\) times \(2, 64\).*no weight of 96 x 32"),
    "ranks that do not fit": ({f"{QKV}.lora_A.weight": (2, 32), f"{QKV}.lora_B.weight": (96, 3)}, "no weight of 96 x 32"),
    "no rank": ({f"{QKV}.lora_A.weight": (0, 32), f"{QKV}.lora_B.weight": (96, 0)}, "no weight of 96 x 32"),
    "numbers for matrices": ({f"{QKV}.lora_A.weight": (), f"{QKV}.lora_B.weight": ()}, "no weight of 96 x 32"),
    "a part of another size": ({"transformer.transformer_blocks.0.attn.to_q.lora_A.weight": (2, 32), "transformer.transformer_blocks.0.attn.to_q.lora_B.weight": (96, 2)}, "no weight of 32 x 32"),
    "half of it": ({f"{QKV}.lora_up.weight": (96, 2)}, f"damaged: ComfyUI's loader stops at '{QKV}.lora_down.weight'"),
    "two alphas": ({f"{QKV}.lora_A.weight": (2, 32), f"{QKV}.lora_B.weight": (96, 2), f"{QKV}.alpha": (2,)}, "damaged: ComfyUI's loader stops at"),
    "a rank beyond the layers": ({f"{QKV}.lora_A.weight": (33, 32), f"{QKV}.lora_B.weight": (96, 33)}, "rank 33, but .* only 32 dimensions. Choose a LoRA of a smaller rank"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_does_not_fit_is_refused(trainer, base, save, what):
    shapes, why = REFUSED[what]
    with pytest.raises(ValueError, match=rf"^lora\.safetensors (is|has|changes) .*{why}"):
        trainer("lora.start").read(base, save({key: randn(*shape) for key, shape in shapes.items()}))
    assert not base.patches


@pytest.mark.parametrize("where", ["lora_A.weight", "lora_B.weight", "alpha"])
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_nan_is_refused(trainer, base, save, where, number):
    lora = {f"{QKV}.lora_A.weight": randn(2, 32), f"{QKV}.lora_B.weight": randn(96, 2), f"{QKV}.alpha": torch.ones(1)}
    lora[f"{QKV}.{where}"].view(-1)[-1] = number
    with pytest.raises(ValueError, match=f"lora.safetensors is damaged: for {QKV}.weight it has NaN or infinity"):
        trainer("lora.start").read(base, save(lora))


@pytest.mark.parametrize("content", [b"", b"half of a header", b"PK\3\4 a pickle of torch", None], ids=ascii)
def test_a_file_that_cannot_be_read_is_named(trainer, base, tmp_path, content):
    file = tmp_path / "lora.safetensors"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ValueError, match=f"{re.escape(str(file))} is damaged or not a .safetensors file.*Choose another"):
        trainer("lora.start").read(base, file)


def test_a_file_cut_off_is_named(tiny, trainer, base, save):
    file = save(trained(tiny, base))
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match="is damaged or not a .safetensors file"):
        trainer("lora.start").read(base, file)


def test_layers_take_back_what_they_gave(tiny, trainer, base):
    one, other = (tiny.Training(base, scale=scale).lora for scale in (0.2, 0.3))
    parameters, wanted = other.parameters(), one.state_dict()
    with torch.inference_mode():
        other.load({key: value.clone() for key, value in wanted.items()})
    assert all(map(torch.equal, other.state_dict().values(), wanted.values()))
    assert all(a is b and a.requires_grad for a, b in zip(parameters, other.parameters(), strict=True))


def test_layers_take_nothing_else(tiny, trainer, base):
    lora = tiny.Training(base).lora
    before, key = lora.state_dict(), f"{QKV}.lora_A.weight"
    zeros = {k: torch.zeros_like(value) for k, value in before.items()}
    missing = {k: value for k, value in zeros.items() if k != key}
    for tensors, why in (
        (missing, r"lora_A.weight: the layers have \(2, 32\), .* has no such tensor"),
        (zeros | {"x": randn(2)}, r"x: the layers have no such tensor, .* has \(2,\)"),
        (zeros | {key: randn(3, 32)}, r"the layers have \(2, 32\), .* has \(3, 32\)"),
    ):
        with pytest.raises(ValueError, match=why):
            lora.load(tensors)
        assert all(map(torch.equal, lora.state_dict().values(), before.values()))
