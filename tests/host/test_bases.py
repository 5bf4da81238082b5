"""Bases as users have them: however the weights are stored, gradients are those of the weights that they stand for."""
import contextlib
import copy
import inspect
import weakref

import pytest
import torch

KINDS = ["FLUX.1 Kontext", "SD1.5 InstructPix2Pix"]
FLOAT8 = torch.float8_e4m3fn


@pytest.fixture(params=KINDS)
def kind(request, zoo):
    return next(kind for kind in zoo.KINDS if kind.name == request.param)


@pytest.fixture
def cell(request, matrix, kind):
    name = request.node.callspec.id.removeprefix(kind.name).strip("-") or request.node.originalname.removeprefix("test_")

    def fill(text):
        matrix.setdefault(kind.name, {})[name.replace("_", " ")] = text

    return fill


@pytest.fixture
def compared(zoo, tiny, kind, trainer):
    """`compared(model, weights)`: the relative difference of the gradient to that of the float32 model with ``weights``
    and ``model_sampling``; on the way the model is trained, and found to be as before."""
    import comfy.model_management

    def run(model, weights, model_sampling=None):
        plain = zoo.model(kind)
        for name, p in parameters(plain).items():
            p.data = weights[name].detach().float().clone()
        if model_sampling:
            plain.model.model_sampling = model_sampling
        with torch.inference_mode():  # as in ComfyUI's executor
            samples = [zoo.sample(kind, plain, i, 1) for i in range(2)]
            comfy.model_management.load_models_gpu([model])
            before = tiny.state(model)
        gradients, (_, noise) = [], tiny.draws(samples)
        for patcher in (model, plain):
            sigma = trainer("host.sampling").sigmas(patcher, samples, torch.tensor([0.3, 0.6]), "uniform")
            gradients.append(tiny.Training(patcher, checkpointing=True).gradient(samples, sigma, noise))
        with torch.inference_mode():
            tiny.same(tiny.state(model), before)
            loop = trainer("loop")
            encoded = [zoo.encoded(kind, i, 1) for i in range(2)]
            lora = loop.train(model, encoded, loop.Settings(2, 2, 0), 2, 1e-3)
            tiny.same(tiny.state(model), before)
        assert any(lora[key].abs().sum() > 0 for key in lora if "lora_B" in key)
        return tiny.relative(*gradients)

    return run


def parameters(model):
    return dict(model.model.diffusion_model.named_parameters())


@pytest.mark.parametrize(
    "dtype, compute, tolerance",
    [
        (torch.float32, None, 0), (torch.bfloat16, None, 0.03), (torch.float16, None, 0.005),
        (torch.bfloat16, torch.float32, 1e-6), (FLOAT8, torch.float32, 1e-6), (FLOAT8, torch.bfloat16, 0.03),
    ],
    ids=["float32", "bf16", "fp16", "bf16 in float32", "fp8 in float32", "fp8 in bf16"],
)  # fmt: skip
def test_dtype(zoo, kind, cell, compared, dtype, compute, tolerance):
    model = zoo.model(kind, dtype, compute=compute)
    error = compared(model, parameters(model))
    cell(f"{error:.0e}")
    assert error <= tolerance


def test_fp8_with_fast(zoo, kind, cell, compared):
    """ComfyUI's --fast multiplies in fp8 and clamps a layer's input in place; gradients are those of the weights, within
    the rounding of fp8."""
    import comfy.ops

    model = zoo.model(kind, FLOAT8, compute=torch.float32, operations=comfy.ops.fp8_ops)
    error = compared(model, parameters(model))
    cell(f"{error:.0e}")
    assert error < 0.2


def test_scaled_fp8(zoo, kind, cell, compared):
    import comfy.ops

    if not hasattr(comfy.ops, "scaled_fp8_ops"):
        cell("this ComfyUI reads it as mixed precision")
        pytest.skip("of older ComfyUI")
    model = zoo.model(kind, torch.float32, compute=torch.float32, operations=comfy.ops.scaled_fp8_ops())
    weights, scaled = parameters(model), 0
    for name, module in model.model.diffusion_model.named_modules():
        if hasattr(module, "scale_weight"):
            module.scale_weight.data = torch.tensor(2.0 ** (scaled % 3 - 1))
            module.weight.data = (module.weight / module.scale_weight).to(FLOAT8)
            weights[f"{name}.weight"] = module.weight.float() * module.scale_weight
            scaled += 1
    error = compared(model, weights)
    cell(f"{error:.0e}")
    assert scaled > 10 and error < 1e-5


def test_mixed_precision(zoo, kind, cell, compared):
    """fp8 layers of ComfyUI's own quantised checkpoints, computed in full precision."""
    import comfy.ops

    plain, state = zoo.model(kind), {}
    weights = parameters(plain)
    linears = {name: m for name, m in plain.model.diffusion_model.named_modules() if isinstance(m, torch.nn.Linear)}
    for name, module in linears.items():
        scale = module.weight.detach().abs().amax() / 448
        packed = (module.weight.detach() / scale).to(FLOAT8)
        weights[f"{name}.weight"] = packed.float() * scale
        state |= {f"{name}.weight": packed, f"{name}.weight_scale": scale.float()}
        state[f"{name}.comfy_quant"] = torch.tensor(list(b'{"format": "float8_e4m3fn"}'), dtype=torch.uint8)
    # 0.3.75 wants the formats here, newer hosts read `comfy_quant`
    named = "layer_quant_config" in inspect.signature(comfy.ops.mixed_precision_ops).parameters
    formats = {name: {"format": "float8_e4m3fn"} for name in linears} if named else {}
    operations = comfy.ops.mixed_precision_ops(formats, torch.float32, full_precision_mm=True)
    with torch.inference_mode():
        model = zoo.model(kind, compute=torch.float32, operations=operations)
        model.model.diffusion_model.load_state_dict({**plain.model.diffusion_model.state_dict(), **state}, strict=False)
    kinds = {type(module.weight).__name__ for name, module in model.model.diffusion_model.named_modules() if name in linears}
    assert kinds != {"Parameter"}, "the layers are quantised"
    error = compared(model, weights)
    cell(f"{error:.0e}")
    assert error < 1e-5


# How to quantise to a format, and how far the gradient may be off where it multiplies rounded activations.
FORMATS = {
    "float8_e5m2": ({"scale": "recalculate"}, 1e-5), "nvfp4": ({"scale": "recalculate"}, 1e-5),
    "mxfp8": ({"scale": "recalculate"}, 1e-5),
    "int8_tensorwise": ({"per_channel": True, "convrot": True, "convrot_groupsize": 64}, 0.03),
    "asym_w4a8_int8": ({"convrot_groupsize": 64}, 0.03), "convrot_w4a4": ({"convrot_groupsize": 64}, 0.3),
}  # fmt: skip


@pytest.mark.parametrize("format", FORMATS)
def test_quantised(zoo, kind, cell, compared, format):
    """The formats of newer ComfyUI's quantised checkpoints, in every layer that is large enough for them."""
    import comfy.ops
    import comfy.quant_ops

    layout = getattr(comfy.quant_ops, "QUANT_ALGOS", {}).get(format, {}).get("comfy_tensor_layout")
    if layout is None or not hasattr(comfy.quant_ops, "TensorCoreNVFP4Layout"):
        cell("this ComfyUI does not know it")
        pytest.skip("of newer ComfyUI")
    (options, tolerance), plain, packed = FORMATS[format], zoo.model(kind), 0
    weights = parameters(plain)
    operations = comfy.ops.mixed_precision_ops({}, torch.float32, full_precision_mm=True)
    with torch.inference_mode():
        model = zoo.model(kind, compute=torch.float32, operations=operations)
        model.model.diffusion_model.load_state_dict(plain.model.diffusion_model.state_dict(), strict=False)
        for name, module in model.model.diffusion_model.named_modules():
            with contextlib.suppress(ValueError, AssertionError, RuntimeError):  # too small for the format
                if hasattr(module, "_full_precision_mm"):
                    value = comfy.ops.QuantizedTensor.from_float(module.weight.detach().clone(), layout, **options)
                    weights[f"{name}.weight"] = value.dequantize().float()
                    module.weight = torch.nn.Parameter(value, requires_grad=False)
                    module.quant_format, module.layout_type = format, layout
                    packed += 1
    error = compared(model, weights)
    cell(f"{error:.0e}")
    assert packed > 3 and error < tolerance


FULL_SIZE = 16 * 128 * 128  # numbers in the latent of a picture of 1024 x 1024 pixels


@pytest.mark.parametrize(
    "dtype, tolerance", [(torch.float16, 0.01), (torch.bfloat16, 0.02)],
    ids=["fp16 at full size", "bf16 at full size"],
)  # fmt: skip
def test_gradient_of_a_full_size_latent(zoo, tiny, kind, cell, trainer, monkeypatch, dtype, tolerance):
    """The loss is a mean over the latent: its gradient begins as small as at the size that users train at, which float16
    holds only under a loss scale."""
    loop, objective, LossScale = trainer("loop"), trainer("objective"), trainer("loss_scale").LossScale
    losses = objective.sample_losses
    models = [zoo.model(kind, dtype), zoo.model(kind)]
    for name, p in parameters(models[1]).items():
        p.data = parameters(models[0])[name].detach().float().clone()
    samples = [zoo.sample(kind, models[1], i, 1) for i in range(2)]
    sigma, noise = tiny.draws(samples)
    part = samples[0].x0.numel() / FULL_SIZE
    monkeypatch.setattr(objective, "sample_losses", lambda *args: part * losses(*args))

    def gradient(model, scale):
        training = tiny.Training(model, checkpointing=True, scale=0.05)
        base, layers = model.model, training.lora.parameters()
        with training.lora.attached(), trainer("host.autograd").exact_gradients(base, base.diffusion_model, tiny.how(True)):
            _, norm = loop.gradient(model, samples, sigma, noise, 2, layers, scale)
        clipped = max(1.0, norm)
        return clipped * torch.cat([torch.zeros(1) if p.grad is None else p.grad.flatten() for p in layers])

    wanted = gradient(models[1], LossScale(torch.float32))
    error = tiny.relative(gradient(models[0], LossScale(dtype)), wanted)
    cell(f"{error:.1%}")
    assert error < tolerance
    if dtype == torch.float16:
        unscaled = tiny.relative(gradient(models[0], LossScale(torch.float32)), wanted)
        assert unscaled > 4 * error, "the tiny latent does not hide it"


@pytest.mark.parametrize("everywhere", [False, True], ids=["gguf", "gguf in every layer"])
def test_gguf(zoo, kind, cell, compared, everywhere):
    """Newer hosts with dynamic VRAM, the default on NVIDIA, give GGUF's tensors to norms and convolutions, too."""
    import packed

    model = zoo.model(kind, torch.float32, compute=torch.float32, operations=packed.Operations)
    weights = parameters(model)
    with torch.inference_mode():  # as a node loads them
        others = packed.pack(model.model.diffusion_model, everywhere)
    for name, module in model.model.diffusion_model.named_modules():
        if hasattr(module, "pack"):
            weights[f"{name}.weight"] = module.weight.float() * module.scale
    error = compared(model, weights)
    cell(f"{error:.0e}")
    assert error < 1e-5 and (others > 5 or not everywhere or kind.name.startswith("FLUX"))


def test_streamed(zoo, kind, cell, compared, monkeypatch):
    """Weights that stay where they are and are moved layer by layer, as on a device that has no room for them."""
    import comfy.model_management

    model, loaded = zoo.model(kind), []

    def load(models, **options):
        if models == [model] and not loaded:
            model.partially_load(model.load_device, 1)
            loaded.append(model)

    monkeypatch.setattr(comfy.model_management, "load_models_gpu", load)
    error = compared(model, parameters(model))
    assert any(getattr(m, "comfy_cast_weights", False) for m in model.model.modules()), "layers are streamed"
    cell(f"{error:.0e}")
    assert error < 1e-6


def test_streamed_through_one_buffer(zoo, kind, cell, compared, trainer, monkeypatch):
    """Newer hosts stream every layer's weights through the same buffer, made in inference mode."""
    import comfy.ops

    fetch, autograd = comfy.ops.cast_bias_weight, trainer("host.autograd")
    with torch.inference_mode():
        buffer = torch.empty(2**20)

    def through_buffer(module, *args, **kwargs):
        weight, bias, *stream = fetch(module, *args, **kwargs)
        held, start = [], 0
        for t in (weight, bias):
            held.append(None if t is None else buffer[start : start + t.numel()].view(t.shape).copy_(t))
            start += 0 if t is None else t.numel()
        return *held, *stream

    model = zoo.model(kind, operations=comfy.ops.manual_cast)
    monkeypatch.setattr(comfy.ops, "cast_bias_weight", through_buffer)
    error = compared(model, parameters(model))
    cell(f"{error:.0e}")
    assert error < 1e-6
    monkeypatch.setattr(autograd, "lasting_weights", contextlib.nullcontext)
    with pytest.raises(RuntimeError, match="[Ii]nference"):
        compared(model, parameters(model))


@pytest.mark.parametrize("name", ["Conv2d", "GroupNorm", "LayerNorm"])
def test_what_was_fetched_is_held_until_the_layer_has_run(comfy, trainer, monkeypatch, name):
    """Another stream may still be writing it: let go of earlier, its memory would be given to something else."""
    import comfy.ops

    layer = {"Conv2d": lambda ops: ops.Conv2d(4, 4, 1), "GroupNorm": lambda ops: ops.GroupNorm(2, 4),
             "LayerNorm": lambda ops: ops.LayerNorm(4)}[name](comfy.ops.manual_cast)  # fmt: skip
    layer.requires_grad_(False)
    fetch, let_go, alive = comfy.ops.cast_bias_weight, comfy.ops.uncast_bias_weight, []
    originals: list[weakref.ref] = []

    def streaming(module, *args, **kwargs):
        weight, bias, stream = fetch(module, *args, **kwargs)
        fetched = [torch.empty_like(t).copy_(t) for t in (weight, bias)]
        originals.extend(map(weakref.ref, fetched))
        return *fetched, ("a stream", *stream[1:]) if isinstance(stream, tuple) else "a stream"

    def uncast(module, weight, bias, stream):
        alive.extend(original() is not None for original in originals)
        return let_go(module, weight, bias, (None, *stream[1:]) if isinstance(stream, tuple) else None)

    monkeypatch.setattr(comfy.ops, "cast_bias_weight", streaming)
    monkeypatch.setattr(comfy.ops, "uncast_bias_weight", uncast)
    x = torch.randn(2, 4, 4, 4, requires_grad=True)
    with trainer("host.autograd").lasting_weights():
        y = layer(x)
    assert alive == [True, True]
    assert not any(original() is not None for original in originals), "and no longer"
    y.sum().backward()


def test_patched(zoo, tiny, kind, cell, compared, trainer):
    """Another LoRA is on the model: it is trained as what it then is."""
    plain = zoo.model(kind)
    with torch.inference_mode(False):
        lora = tiny.Training(plain).lora.state_dict()
    model = trainer("host.apply").with_lora(plain, lora, 0.5)
    weights = {name: copy.deepcopy(p) for name, p in parameters(plain).items()}
    for key in lora:
        if key.endswith("lora_A.weight"):
            path = key.removeprefix("diffusion_model.").removesuffix(".lora_A.weight")
            weights[f"{path}.weight"].data += 0.5 * lora[key.replace("lora_A", "lora_B")] @ lora[key]
    error = compared(model, weights)
    cell(f"{error:.0e}")
    assert error < 1e-5


def test_another_sampling(zoo, tiny, kind, cell, compared, trainer):
    """Flux with the graph's own shift, a UNet told to predict v: both are trained as what they then are."""
    from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete, ModelSamplingFlux

    plain = zoo.model(kind)
    if kind.name.startswith("FLUX"):
        (model,) = ModelSamplingFlux().patch(plain, 2.0, 2.0, 1024, 1024)
    else:
        (model,) = ModelSamplingDiscrete().patch(plain, "v_prediction", False)
    error = compared(model, parameters(plain), model.get_model_object("model_sampling"))
    assert compared(model, parameters(plain)) > 0.1, "without it the gradient is another"
    cell(f"{error:.0e}")
    assert error < 1e-6


@pytest.mark.parametrize(
    "dtype, compute, tolerance",
    [(torch.float32, None, 1e-5), (torch.bfloat16, None, 0.1), (torch.float16, None, 0.02), (FLOAT8, torch.bfloat16, 1)],
    ids=["effect in float32", "effect in bf16", "effect in fp16", "effect in fp8"],
)  # fmt: skip
def test_file(zoo, tiny, kind, cell, dtype, compute, tolerance):
    """How far the effect of the LoRA, which ComfyUI adds to weights of this dtype, is from what training saw."""
    model = zoo.model(kind, dtype, compute=compute)
    with torch.inference_mode():
        sample = zoo.sample(kind, model, 1, 1)
    error = tiny.effect_error(tiny.Training(model), sample)
    cell(f"{error:.0e}")
    assert error < tolerance
