"""What nodes put on a MODEL: trained as it then is, left out with a word, or refused by name."""
import inspect
import types

import pytest
import torch
from comfy_nodes import node

FLUX, FLUX2, UNET = "FLUX.1 Kontext", "FLUX.2 klein", "SD1.5 InstructPix2Pix"


@pytest.fixture
def kinds(zoo):
    return {kind.name: kind for kind in zoo.KINDS}


@pytest.fixture
def gradient(zoo, tiny, kinds):
    """`gradient(model, kind)` of a step of ``n`` samples on a loaded model, which is found to be as before."""
    import comfy.model_management

    def run(model, kind, n=2, checkpointing=False, training=None):
        with torch.inference_mode():  # as in ComfyUI's executor
            samples = [zoo.sample(kinds[kind], model, i, 1) for i in range(n)]
            comfy.model_management.load_models_gpu([model])
            before = tiny.state(model)
        step = samples, *tiny.draws(samples)
        result = (training or tiny.Training(model, checkpointing=checkpointing)).gradient(*step)
        tiny.same(tiny.state(model), before)
        return result

    return run


@pytest.fixture
def predicted(zoo, trainer, kinds):
    import comfy.model_management

    def run(model, kind):
        with torch.inference_mode():
            comfy.model_management.load_models_gpu([model])
            return trainer("host.forward").prediction(model, zoo.encoded(kinds[kind], 1, 1))

    return run


def animate2_cache(model):
    pytest.importorskip("comfy.ldm.wan.model_animate2", reason="this ComfyUI has no WanAnimate2Cache")
    return node("wan", "WanAnimate2Cache")(model, "cpu")


def style(model):
    import comfy.model_patcher
    from comfy_extras.nodes_model_patch import USOStyleReference

    states = torch.zeros(1, 24, 4, 32)
    vision = types.SimpleNamespace(all_hidden_states=states, penultimate_hidden_states=states[:, -1])
    projector = comfy.model_patcher.ModelPatcher(torch.nn.Linear(32, 32), model.load_device, model.offload_device)
    return USOStyleReference().apply_patch(model, projector, vision)[0]


LEFT_OUT = {
    "FluxKVCache": (FLUX2, node("flux", "FluxKVCache")),
    "EasyCache": (FLUX, lambda m: node("easycache", "EasyCacheNode")(m, 0.2, 0.15, 0.95, False)),
    "LazyCache": (UNET, lambda m: node("easycache", "LazyCacheNode")(m, 0.2, 0.15, 0.95, False)),
    "WanAnimate2Cache": (FLUX, animate2_cache),
    "TomePatchModel": (UNET, lambda m: node("tomesd", "TomePatchModel")(m, 0.5)),
    "HyperTile": (UNET, lambda m: node("hypertile", "HyperTile")(m, 32, 2, 1, True)),
    "USOStyleReference": (FLUX, style),
}


@pytest.mark.parametrize("name", LEFT_OUT)
def test_left_out_with_a_word(zoo, tiny, trainer, kinds, gradient, monkeypatch, name):
    (kind, put), patches = LEFT_OUT[name], trainer("host.patches")
    plain = zoo.model(kinds[kind])
    with torch.inference_mode():
        model = put(plain)
    (said,) = patches.warnings(model)
    assert f"Trained without {name}, which" in said
    expected = plain
    if model.object_patches:  # where FluxKVCache has references placed is trained as it is
        expected = plain.clone()
        expected.object_patches = dict(model.object_patches)
    assert tiny.relative(gradient(model, kind), gradient(expected, kind)) < 1e-5
    assert patches.warnings(plain) == []
    assert trainer("host.fingerprint").fingerprint(model) == trainer("host.fingerprint").fingerprint(expected)


def test_the_kv_cache_would_train_on_the_first_reference(zoo, trainer, kinds, gradient, monkeypatch):
    with torch.inference_mode():
        model = node("flux", "FluxKVCache")(zoo.model(kinds[FLUX2]))
    without = gradient(model, FLUX2)
    monkeypatch.setattr(trainer("host.patches"), "LEFT_OUT", {})
    assert torch.linalg.vector_norm(gradient(model, FLUX2) - without) > 0.05 * without.norm()


def context_windows(model):
    from comfy_extras.nodes_context_windows import ContextWindowsManualNode as Node

    freenoise = [True] if "freenoise" in inspect.signature(Node.execute).parameters else []
    return Node.execute(model, 16, 4, "standard_static", 1, False, "pyramid", 0, *freenoise).result[0]


def multigpu(model):
    model = model.clone()
    if not hasattr(model, "set_additional_models"):
        pytest.skip("this ComfyUI has no additional models")
    model.set_additional_models("multigpu", [model.clone()])
    return model


NO_PART = {
    "SelfAttentionGuidance": (UNET, lambda m: node("sag", "SelfAttentionGuidance")(m, 0.5, 2.0)),
    "NAGuidance": (UNET, lambda m: node("nag", "NAGuidance")(m, 5.0, 0.5, 1.5)),
    "PerturbedAttentionGuidance": (UNET, lambda m: node("pag", "PerturbedAttentionGuidance")(m, 3.0)),
    "SkipLayerGuidanceDiT": (FLUX, lambda m: node("slg", "SkipLayerGuidanceDiT")(m, 3.0, 0.0, 1.0, "0, 1", "0, 1")),
    "SkipLayerGuidanceDiTSimple": (FLUX, lambda m: node("slg", "SkipLayerGuidanceDiTSimple")(m, 0.0, 1.0, "0, 1", "0, 1")),
    "RescaleCFG": (UNET, lambda m: node("model_advanced", "RescaleCFG")(m, 0.7)),
    "APG": (UNET, lambda m: node("apg", "APG")(m, 1.0, 5.0, 0.0)),
    "CFGZeroStar": (UNET, lambda m: node("cfg", "CFGZeroStar")(m)),
    "CFGNorm": (UNET, lambda m: node("cfg", "CFGNorm")(m, 1.0)),
    "TCFG": (UNET, lambda m: node("tcfg", "TCFG")(m)),
    "Mahiro": (UNET, lambda m: node("mahiro", "Mahiro")(m)),
    "FreSca": (UNET, lambda m: node("fresca", "FreSca")(m, 1.0, 1.25, 20)),
    "EpsilonScaling": (UNET, lambda m: node("eps", "EpsilonScaling")(m, 1.005)),
    "TemporalScoreRescaling": (UNET, lambda m: node("eps", "TemporalScoreRescaling")(m, 0.95, 1.0)),
    "RenormCFG": (UNET, lambda m: node("lumina2", "RenormCFG")(m, 100.0, 1.0)),
    "PerpNeg": (UNET, lambda m: node("perpneg", "PerpNeg")(m, [[torch.zeros(1, 4, 32), {}]], 1.0)),
    "CFGOverride": (UNET, lambda m: node("custom_sampler", "CFGOverride")(m, 1.0, 0.0, 1.0)),
    "DifferentialDiffusion": (UNET, lambda m: node("differential_diffusion", "DifferentialDiffusion")(m, 1.0)),
    "ContextWindowsManual": (FLUX, context_windows),
    "ModelAttentionBackend": (FLUX, lambda m: node("model_advanced", "ModelAttentionBackend")(m, "pytorch attention")),
    "TorchCompileModel": (FLUX, lambda m: node("torch_compile", "TorchCompileModel")(m, "inductor")),
    "MultiGPU": (FLUX, multigpu),
}  # fmt: skip


@pytest.mark.parametrize("name", NO_PART)
def test_has_no_part_in_training(zoo, tiny, trainer, kinds, gradient, monkeypatch, name):
    kind, put = NO_PART[name]
    plain = zoo.model(kinds[kind])
    if name == "TorchCompileModel":  # what it clones with on newer hosts loads the model's file again
        clone = plain.clone
        monkeypatch.setattr(plain, "clone", lambda **options: clone())
    with torch.inference_mode():
        model = put(plain)
    assert model is not plain
    assert trainer("host.patches").warnings(model) == []
    assert tiny.relative(gradient(model, kind), gradient(plain, kind)) < 1e-5


def downscale(method):
    return lambda m: node("model_downscale", "PatchModelAddDownscale")(m, 1, 2.0, 0.0, 0.9, True, method, method)


def hypernetwork(model, tmp_path):
    from comfy_extras import nodes_hypernetwork

    generator = torch.Generator().manual_seed(2)
    path = tmp_path / "hypernetwork.pt"
    layers = [
        {f"linear.{i}.{name}": 0.1 * torch.randn(shape, generator=generator)
         for i in range(2) for name, shape in (("weight", (64, 64)), ("bias", (64,)))}
        for _ in range(2)
    ]  # fmt: skip
    torch.save({64: layers, "activation_func": "tanh"}, path)
    patch = nodes_hypernetwork.load_hypernetwork_patch(str(path), 1.0)
    model = model.clone()
    model.set_model_attn1_patch(patch)
    model.set_model_attn2_patch(patch)
    return model


AS_IT_IS = {
    "FreeU": (UNET, lambda m: node("freelunch", "FreeU")(m, 1.3, 1.4, 0.9, 0.2)),
    "FreeU_V2": (UNET, lambda m: node("freelunch", "FreeU_V2")(m, 1.3, 1.4, 0.9, 0.2)),
    "PatchModelAddDownscale": (UNET, downscale("bicubic")),
    "PatchModelAddDownscale bislerp": (UNET, downscale("bislerp")),
    "ScaleROPE": (FLUX, lambda m: node("rope", "ScaleROPE")(m, 2.0, 1.0, 3.0, 0.0, 1.0, 0.0)),
    "HypernetworkLoader": (UNET, hypernetwork),
}


@pytest.mark.parametrize("name", AS_IT_IS)
def test_trained_as_it_is(zoo, tiny, trainer, kinds, gradient, predicted, tmp_path, name):
    """The prediction is what the sampler would get; the gradient is that of differences, with and without
    checkpointing, and samples with sigmas of their own never mix."""
    kind, put = AS_IT_IS[name]
    plain = zoo.model(kinds[kind])
    with torch.inference_mode():
        model = put(plain, *([tmp_path] if put is hypernetwork else []))
    assert trainer("host.patches").warnings(model) == []
    assert not torch.allclose(predicted(model, kind), predicted(plain, kind), rtol=1e-3)

    training = tiny.Training(model)
    whole = gradient(model, kind, n=3, training=training)
    assert tiny.relative(gradient(model, kind, n=3, checkpointing=True), whole) < 1e-6
    with torch.inference_mode():
        samples = [zoo.sample(kinds[kind], model, i, 1) for i in range(3)]
    sigma, noise = tiny.draws(samples)
    singles = [training.gradient([s], sigma[i : i + 1], [noise[i]]) for i, s in enumerate(samples)]
    assert tiny.relative(whole, torch.stack(singles).mean(0)) < 1e-5
    error = tiny.finite_difference_error(training, samples[2:], sigma[2:], noise[2:])
    print(f"{name}: finite differences {error:.1e}")
    assert error < 1e-3


def lora_of(model, tiny, seed=1):
    """A LoRA for the Linears of the blocks, made in inference mode as a loader does, and for a UNet a convolution too."""
    with torch.inference_mode(False):
        lora = tiny.Training(model).lora.state_dict()
    generator = torch.Generator().manual_seed(seed)
    network = model.model.diffusion_model
    if hasattr(network, "input_blocks"):
        path = "input_blocks.1.0.in_layers.2"
        out, into, *kernel = network.get_submodule(path).weight.shape
        lora |= {f"diffusion_model.{path}.lora_B.weight": torch.zeros(out, 2, 1, 1),
                 f"diffusion_model.{path}.lora_A.weight": torch.zeros(2, into, *kernel)}  # fmt: skip
    with torch.inference_mode():
        return {key: 0.1 * torch.randn(value.shape, generator=generator) for key, value in lora.items()}


def bypassed(model, lora, strength=1.0):
    import comfy.sd

    if not hasattr(comfy.sd, "load_bypass_lora_for_models"):
        pytest.skip("this ComfyUI has no bypass LoRAs")
    with torch.inference_mode():
        return comfy.sd.load_bypass_lora_for_models(model, None, lora, strength, 0)[0]


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("kind", [FLUX, UNET])
def test_a_bypass_lora(zoo, tiny, trainer, kinds, gradient, kind, checkpointing):
    """Its gradient is that of the same LoRA on the weights; once it has been on a model, the bare one still trains."""
    plain = zoo.model(kinds[kind])
    lora = lora_of(plain, tiny)
    model = bypassed(plain, lora, 0.7)
    assert trainer("host.patches").warnings(model) == []
    bare = gradient(plain, kind, checkpointing=checkpointing)
    with torch.inference_mode():
        on_the_weights = trainer("host.apply").with_lora(plain, lora, 0.7)
    expected = gradient(on_the_weights, kind, checkpointing=checkpointing)
    assert tiny.relative(expected, bare) > 0.1
    error = tiny.relative(gradient(model, kind, checkpointing=checkpointing), expected)
    print(f"bypass LoRA against the same on the weights: {error:.1e}")
    assert error < 1e-5
    assert torch.equal(gradient(plain, kind, checkpointing=checkpointing), bare)


def test_forwards_that_every_loading_puts_off_and_on_again(zoo, tiny, trainer, kinds):
    """As bypass LoRAs do: the layers that are trained stay in front of them, also after a preview has loaded the model."""
    from comfy.patcher_extension import PatcherInjection

    plain = zoo.model(kinds[FLUX])
    memory, loop = trainer("host.memory"), trainer("loop")
    linear, other = plain.model.diffusion_model.double_blocks[0].img_mlp[0], plain.model.diffusion_model.img_in

    class Doubled:
        def __init__(self, module):
            self.module, self.original_forward = module, None

        def doubled(self, x):
            return 2 * self.original_forward(x)

        def inject(self, _):
            self.original_forward, self.module.forward = self.module.forward, self.doubled

        def eject(self, _):
            self.module.forward, self.original_forward = self.original_forward, None

    def injected(module):
        model, hook = plain.clone(), Doubled(module)
        model.set_injections("doubled", [PatcherInjection(hook.inject, hook.eject)])
        return model

    class Reloading(trainer("watch").Watch):
        def stepped(self, *_):
            return True

        def between(self, state):
            memory.release(model)
            memory.load(model, 0)
            return True

    samples, settings = [zoo.encoded(kinds[FLUX], i, 1) for i in range(2)], loop.Settings(2, 1, 0, warmup=0)
    trained = []
    for module in (linear, other):
        model = injected(module)
        for watch in (trainer("watch").Watch(), Reloading()):
            trained.append(loop.train(model, samples, settings, 3, 1e-2, watch, plan=tiny.plan(False)))
            memory.release(model)
            assert getattr(linear.forward, "__func__", None) is type(linear).forward, "the model is as it was"
            assert model.callbacks == plain.callbacks
    bare = loop.train(plain, samples, settings, 3, 1e-2, plan=tiny.plan(False))
    for unbroken, reloaded in (trained[:2], trained[2:]):
        assert all(torch.equal(unbroken[key], reloaded[key]) for key in unbroken)
        assert any(not torch.equal(unbroken[key], bare[key]) for key in bare)
        assert all(unbroken[key].any() for key in bare if bare[key].any()), "all learn"


def test_a_bypass_lora_on_streamed_fp8(zoo, tiny, kinds, gradient, trainer, monkeypatch):
    import comfy.model_management

    plain = zoo.model(kinds[FLUX], torch.float8_e4m3fn, compute=torch.float32)
    lora = lora_of(plain, tiny)
    as_float32 = zoo.model(kinds[FLUX])
    for p, stored in zip(as_float32.model.diffusion_model.parameters(), plain.model.diffusion_model.parameters()):
        p.data = stored.float()
    expected = gradient(bypassed(as_float32, lora), FLUX)

    model, partly = bypassed(plain, lora), []
    load = comfy.model_management.load_models_gpu

    def load_partly(models, **options):
        if models == [model] and not partly:
            partly.append(model)
            model.partially_load(model.load_device, 1)
        elif models != [model]:
            load(models, **options)

    monkeypatch.setattr(comfy.model_management, "load_models_gpu", load_partly)
    assert tiny.relative(gradient(model, FLUX), expected) < 1e-5


def given_forwards(model, make):
    """``make(layer, its forward)`` on the Linears of the blocks, as other packs put them there."""
    for path, module in model.model.diffusion_model.named_modules():
        if "blocks." in path and isinstance(module, torch.nn.Linear):
            module.forward = make(module, module.forward)
    return model


def adds(layer, forward):
    generator = torch.Generator().manual_seed(1)
    with torch.inference_mode():
        other = 0.1 * torch.randn(layer.weight.shape, generator=generator)
    return lambda x: forward(x) + torch.nn.functional.linear(x, other)


def multiplies_in_fp8(layer, forward):
    def run(x):
        with torch.no_grad():
            return torch.nn.functional.linear(x.to(torch.float8_e4m3fn).to(x), layer.weight, layer.bias)

    return run


def swaps(layer, forward):
    def run(x):
        weight = layer.weight.data
        layer.weight.data = weight.clone()  # as if it were moved to the device and back
        try:
            return forward(x)
        finally:
            layer.weight.data = weight

    return run


@pytest.mark.parametrize("make, tolerance", [(adds, 1e-5), (multiplies_in_fp8, 0.2), (swaps, 1e-5)])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_layers_with_forwards_of_their_own(zoo, tiny, trainer, kinds, gradient, make, tolerance, checkpointing):
    plain = zoo.model(kinds[FLUX])
    if make is adds:
        for path, module in plain.model.diffusion_model.named_modules():
            if "blocks." in path and isinstance(module, torch.nn.Linear):
                generator = torch.Generator().manual_seed(1)
                module.weight.data += 0.1 * torch.randn(module.weight.shape, generator=generator)
    expected = gradient(plain, FLUX, checkpointing=checkpointing)
    model = given_forwards(zoo.model(kinds[FLUX]), make)
    assert f"Trained with {make.__name__} on the model" in trainer("host.patches").warnings(model)[0]
    error = tiny.relative(gradient(model, FLUX, checkpointing=checkpointing), expected)
    print(f"{make.__name__}: {error:.1e}")
    assert error < tolerance
    assert trainer("host.fingerprint").fingerprint(model) != trainer("host.fingerprint").fingerprint(plain)


def test_a_forward_that_nothing_can_be_learned_through_is_refused(zoo, tiny, trainer, kinds):
    """It adds something that has no gradient; the base is as before."""
    import comfy.model_management

    def steps_in(layer, forward):
        def run(x):
            with torch.no_grad():
                added = x @ torch.ones_like(layer.weight).T
            return forward(x) + added

        return run

    model, forward, loop = given_forwards(zoo.model(kinds[FLUX]), steps_in), trainer("host.forward"), trainer("loop")
    with torch.inference_mode():
        comfy.model_management.load_models_gpu([model])
    before = tiny.state(model)
    match = "has given the layer .*blocks.* another forward.*without it"
    with pytest.raises(ValueError, match=match):
        forward.check_patches(model, zoo.encoded(kinds[FLUX], 1, 1))
    with torch.inference_mode(), pytest.raises(ValueError, match=match):
        loop.train(model, [zoo.encoded(kinds[FLUX], 1, 1)], loop.Settings(2, 1, 0), 2, 1e-3)
    tiny.same(tiny.state(model), before)


def layer_of(model):
    return next(m for path, m in model.model.diffusion_model.named_modules() if path.endswith("single_blocks.0.linear1"))


def test_other_patches_of_weights(zoo, tiny, kinds, gradient):
    """Attention multiply, merging, weight wrappers, the compute dtype: trained as what the weights then are."""
    plain, other = zoo.model(kinds[UNET]), zoo.model(kinds[UNET], seed=1)
    with torch.inference_mode():
        model = node("attention_multiply", "UNetSelfAttentionMultiply")(plain, 1.2, 0.9, 1.1, 1.3)
        model = node("model_merging", "ModelMergeSimple")(model, other, 0.7)
    expected = zoo.model(kinds[UNET])
    theirs = dict(other.model.diffusion_model.named_parameters())
    factors = {"to_q.weight": 1.2, "to_k.weight": 0.9, "to_v.weight": 1.1, "to_out.0.weight": 1.3, "to_out.0.bias": 1.3}
    for name, p in expected.model.diffusion_model.named_parameters():
        if "attn1" in name:
            p.data *= next((factor for end, factor in factors.items() if name.endswith(end)), 1)
        p.data = 0.7 * p.data + 0.3 * theirs[name].data
    assert tiny.relative(gradient(model, UNET), gradient(expected, UNET)) < 1e-4


def test_weight_wrappers_and_the_compute_dtype(zoo, tiny, kinds, gradient):
    plain = zoo.model(kinds[FLUX], torch.bfloat16)
    with torch.inference_mode():
        model = node("model_advanced", "ModelComputeDtype")(plain, "fp32")
    key = "diffusion_model.single_blocks.0.linear1.weight"
    model.add_weight_wrapper(key, lambda weight: weight * 1.5)
    expected = zoo.model(kinds[FLUX])
    for p in expected.model.diffusion_model.parameters():
        p.data = p.data.bfloat16().float()
    layer_of(expected).weight.data *= 1.5
    assert tiny.relative(gradient(model, FLUX), gradient(expected, FLUX)) < 1e-3


def test_chroma_radiance_options_reach_the_model(zoo, tiny, trainer, kinds, gradient):
    plain = zoo.model(kinds[FLUX])
    options = dict(preserve_wrapper=True, start_sigma=1.0, end_sigma=0.0, nerf_tile_size=16)
    with torch.inference_mode():
        cls = pytest.importorskip("comfy_extras.nodes_chroma_radiance").ChromaRadianceOptions
        if "force_sequential_txt_ids" in inspect.signature(cls.execute).parameters:
            options["force_sequential_txt_ids"] = True
        model = cls.execute(model=plain, **options).result[0]
    seen = []
    run = plain.model.diffusion_model.forward
    plain.model.diffusion_model.forward = lambda *a, **k: seen.append(k["transformer_options"]) or run(*a, **k)
    gradient(model, FLUX)
    assert all(option["chroma_radiance_options"]["nerf_tile_size"] == 16 for option in seen) and len(seen) == 2
    assert not [said for said in trainer("host.patches").warnings(model) if "Trained without" in said]


def compiled(model, how):
    network = model.model.diffusion_model
    if how == "blocks":
        for blocks in (network.double_blocks, network.single_blocks):
            for i, block in enumerate(blocks):
                blocks[i] = torch.compile(block, backend="eager")
    elif how == "whole":
        model.model.diffusion_model = torch.compile(network, backend="eager")
    elif how == "object patches":
        for i, block in enumerate(network.double_blocks):
            model.add_object_patch(f"diffusion_model.double_blocks.{i}", torch.compile(block, backend="eager"))
    else:
        network.compile(backend="eager")
    return model


@pytest.mark.parametrize("how", ["blocks", "whole", "object patches", "in place"])
def test_compiled(zoo, tiny, trainer, kinds, gradient, how, tmp_path):
    """Trained as the modules that were compiled, which are compiled again afterwards; the LoRA has their names."""
    import safetensors.torch

    plain, model = zoo.model(kinds[FLUX]), compiled(zoo.model(kinds[FLUX]), how)
    assert torch.equal(gradient(model, FLUX, checkpointing=True), gradient(plain, FLUX, checkpointing=True))
    loop, apply, settings = trainer("loop"), trainer("host.apply"), trainer("loop").Settings(2, 1, 0)
    loras = []
    for base in (model, plain):
        with torch.inference_mode():
            samples = [zoo.encoded(kinds[FLUX], 1, 1)]
            loras.append(loop.train(base, samples, settings, 2, 1e-3))
    assert loras[0].keys() == loras[1].keys()
    assert all(torch.allclose(loras[0][key], loras[1][key], atol=1e-6) for key in loras[0])
    safetensors.torch.save_file(loras[0], tmp_path / "lora.safetensors")
    apply.prove(model, tmp_path / "lora.safetensors", loras[0])
    if how != "object patches":
        assert trainer("host.fingerprint").fingerprint(model) == trainer("host.fingerprint").fingerprint(plain)


def test_a_patch_of_another_pack(zoo, trainer, tiny, kinds, gradient):
    """It is trained as it is, in place or not, and named."""

    def halves_in_place(q, k, v, extra_options):  # ComfyUI gives one tensor for all three
        k[:, :, ::2] = k[:, :, ::2] * 0.5
        v.mul_(0.5)
        return q, k, v

    def halves(q, k, v, extra_options):
        x = torch.stack((q[:, :, ::2] * 0.5, q[:, :, 1::2]), -1).flatten(-2) * 0.5
        return x, x, x

    models = [zoo.model(kinds[UNET]) for _ in range(2)]
    for model, patch in zip(models, (halves_in_place, halves)):
        model.set_model_attn1_patch(patch)
    (said,) = trainer("host.patches").warnings(models[0])
    assert "Trained with test_a_patch_of_another_pack on the model" in said
    for checkpointing in (False, True):
        error = tiny.relative(*(gradient(model, UNET, checkpointing=checkpointing) for model in models))
        assert error < 1e-6


def test_a_patch_that_keeps_something_is_refused(zoo, trainer, kinds):
    forward, patches = trainer("host.forward"), trainer("host.patches")

    class Cache:
        def __init__(self):
            self.kept = {}

        def __call__(self, q, k, v, extra_options):
            return q, self.kept.setdefault(str(extra_options["block"]), k), v

    def skipping():
        last = {}

        def every_other_call(q, k, v, extra_options):
            block = str(extra_options["block"])
            return q, last.pop(block) if block in last else last.setdefault(block, k), v

        return every_other_call

    def remembers_nothing_of_samples(q, k, v, extra_options, sizes={}):  # noqa: B006
        sizes.setdefault(k.shape, torch.ones(k.shape[-1]))
        return q, k * sizes[k.shape], v

    def noisy(q, k, v, extra_options):
        return q, k + torch.randn_like(k), v

    sample = zoo.encoded(kinds[UNET], 1, 1)
    for patch in (Cache(), skipping(), noisy):
        model = zoo.model(kinds[UNET])
        model.set_model_attn1_patch(patch)
        with pytest.raises(ValueError, match="changes with the pictures before it.*test_a_patch_that_keeps.*without it"):
            forward.check_patches(model, sample)
        assert not getattr(patch, "kept", None)
    model = zoo.model(kinds[UNET])
    model.set_model_attn1_patch(remembers_nothing_of_samples)
    forward.check_patches(model, sample)
    with torch.inference_mode():  # ComfyUI's own are not tried, since it is known what they do
        model = node("freelunch", "FreeU")(zoo.model(kinds[UNET]), 1.3, 1.4, 0.9, 0.2)
    assert patches.strangers(model) == []
    forward.check_patches(model, sample)


def test_wrappers_and_callbacks_of_another_pack_are_named(zoo, tiny, trainer, kinds, gradient):
    import comfy.patcher_extension

    def wraps(executor, *args, **kwargs):
        raise AssertionError

    def starts(patcher):
        raise AssertionError

    wraps.__module__ = "/somewhere/custom_nodes/ComfyUI-Faster.nodes"
    plain = zoo.model(kinds[FLUX])
    model = plain.clone()
    model.add_wrapper(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, wraps)
    model.add_callback(comfy.patcher_extension.CallbacksMP.ON_PRE_RUN, starts)
    comfy.patcher_extension.add_wrapper("apply_model", wraps, model.model_options, is_model_options=True)
    model.set_model_unet_function_wrapper(wraps)
    (said,) = trainer("host.patches").warnings(model)
    assert "of ComfyUI-Faster and" in said and "somewhere" not in said
    assert torch.equal(gradient(model, FLUX), gradient(plain, FLUX))
