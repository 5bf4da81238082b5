"""A model is known again whatever ComfyUI has loaded, and told apart from every other."""
import functools
import threading

import pytest
import torch
from comfy_nodes import node


@pytest.fixture
def fingerprint(trainer):
    return trainer("host.fingerprint").fingerprint


@pytest.fixture
def kinds(zoo):
    return {kind.name: kind for kind in zoo.KINDS}


def patched(model, trainer, strength=0.5, seed=1):
    """With a LoRA on it."""
    import tiny

    with torch.inference_mode(False):
        lora = tiny.Training(model).lora.state_dict()
    return trainer("host.apply").with_lora(model, {key: seed * value for key, value in lora.items()}, strength)


def shifted(model, shift=2.0):
    from comfy_extras.nodes_model_advanced import ModelSamplingFlux

    return ModelSamplingFlux().patch(model, shift, shift, 1024, 1024)[0]


def sampled(model, kind, zsnr=False):
    from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete

    return ModelSamplingDiscrete().patch(model, kind, zsnr)[0]


def test_it_does_not_depend_on_what_is_loaded(kinds, zoo, trainer, fingerprint):
    import comfy.model_management

    with torch.inference_mode():
        model = zoo.model(kinds["FLUX.1 Kontext"])
        clones = {"plain": model, "shifted": shifted(model), "patched": patched(model, trainer)}
        clones["both"] = shifted(clones["patched"])
        before = {name: fingerprint(clone) for name, clone in clones.items()}
        assert len(set(before.values())) == 4
        for loaded in (*clones.values(), model):
            comfy.model_management.load_models_gpu([loaded])
            assert {name: fingerprint(clone) for name, clone in clones.items()} == before
        comfy.model_management.unload_all_models()
        assert {name: fingerprint(clone) for name, clone in clones.items()} == before


def test_the_same_model_loaded_again_is_known(kinds, zoo, trainer, fingerprint):
    a, b = (zoo.model(kinds["FLUX.1 Kontext"]) for _ in range(2))
    assert fingerprint(a) == fingerprint(b)
    assert fingerprint(shifted(patched(a, trainer))) == fingerprint(shifted(patched(b, trainer)))


def test_how_it_samples_tells_models_apart(kinds, zoo, fingerprint):
    model, flux = zoo.model(kinds["SD1.5 InstructPix2Pix"]), zoo.model(kinds["FLUX.1 Kontext"])
    others = [sampled(model, "eps"), sampled(model, "v_prediction"), sampled(model, "x0"), sampled(model, "eps", zsnr=True)]
    others += [flux, shifted(flux), shifted(flux, 2.5)]
    assert len({fingerprint(other) for other in others}) == len(others)


def test_what_is_put_on_it_tells_models_apart(kinds, zoo, trainer, fingerprint):
    def attention(q, k, v, extra_options):
        return q, k, v

    model = zoo.model(kinds["SD1.5 InstructPix2Pix"])
    others = [model, patched(model, trainer), patched(model, trainer, 0.6), patched(model, trainer, seed=2), model.clone()]
    others[-1].set_model_attn1_patch(attention)
    assert len({fingerprint(other) for other in others}) == len(others)


class Packed(torch.Tensor):
    """Like the weights of ComfyUI-GGUF: a subclass around packed bytes."""


def quantised(weight):
    import comfy.ops

    if hasattr(comfy.ops, "scaled_fp8_ops"):  # 0.3.75
        return comfy.ops.QuantizedTensor.from_float(weight, "TensorCoreFP8Layout")
    return comfy.ops.QuantizedTensor.from_float(weight, "TensorCoreFP8E4M3Layout")


@pytest.mark.parametrize("pack", [quantised, lambda weight: (weight * 100).to(torch.int8).as_subclass(Packed)],
                         ids=["mixed precision", "GGUF"])  # fmt: skip
def test_packed_weights_tell_models_apart(kinds, zoo, fingerprint, pack):
    def model(seed):
        patcher = zoo.model(kinds["FLUX.1 Kontext"])
        linear = patcher.model.diffusion_model.double_blocks[0].img_mlp[0]
        weight = torch.randn(linear.weight.shape, generator=torch.Generator().manual_seed(seed))
        linear.weight = torch.nn.Parameter(pack(weight), requires_grad=False)
        assert type(linear.weight) is not torch.nn.Parameter
        return patcher

    assert fingerprint(model(1)) == fingerprint(model(1)) != fingerprint(model(2))


class OldTorch(torch.overrides.TorchFunctionMode):
    """Refuses what torch 2.9 and older cannot do with one-byte floats on the CPU."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.Tensor.__getitem__ and args[0].dtype in (torch.float8_e4m3fn, torch.float8_e5m2):
            raise RuntimeError('"index_cpu" not implemented for \'Float8_e4m3fn\'')
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
def test_one_byte_floats_are_known_on_old_torch(kinds, zoo, fingerprint, dtype):
    first, again, other = (zoo.model(kinds["FLUX.1 Kontext"], dtype, seed, compute=torch.bfloat16) for seed in (1, 1, 2))
    with OldTorch():
        with pytest.raises(RuntimeError, match="index_cpu"):
            torch.zeros(2, dtype=dtype)[torch.tensor([0])]
        assert fingerprint(first) == fingerprint(again) != fingerprint(other)


def test_the_numbers_of_patches_tell_models_apart(kinds, zoo, trainer, fingerprint):
    """The same numbers are known again; other numbers, other code, other tensors and other objects are not."""
    freed, downscaled = node("freelunch", "FreeU"), node("model_downscale", "PatchModelAddDownscale")

    def closed_over(value):
        return lambda q, k, v, extra_options: (q, k, v) if value else None

    def by_default(q, k, v, extra_options, value=1.0):
        return q, k * value, v

    def other_default(q, k, v, extra_options, value=2.0):
        return q, k * value, v

    other_default.__qualname__ = by_default.__qualname__

    class Scales:
        def __init__(self, value):
            self.value = value

        def __call__(self, q, k, v, extra_options):
            return q, k * self.value, v

    def attention(patch):
        model = zoo.model(kinds["SD1.5 InstructPix2Pix"]).clone()
        model.set_model_attn1_patch(patch)
        return model

    def models():
        plain = zoo.model(kinds["SD1.5 InstructPix2Pix"])
        yield plain
        for numbers in ((1.1, 1.2, 0.9, 0.2), (1.1, 1.2, 0.9, 0.3)):
            yield freed(plain, *numbers)
        for end in (0.35, 0.4):
            yield downscaled(plain, 3, 2.0, 0.0, end, True, "bicubic", "bicubic")
        values = [1.0, 2.0, torch.ones(3), torch.ones(3) * 1.001, {"a": [1]}, {"a": [2]}, Scales, plain, torch.nn.Linear(1, 1)]
        for value in values[:-1]:
            yield attention(closed_over(value))
        for patch in (by_default, other_default, functools.partial(by_default, value=3.0)):
            yield attention(patch)
        for value in (1.0, 2.0):
            yield attention(Scales(value))
            yield attention(Scales(value).__call__)

    first, second = ([fingerprint(model) for model in models()] for _ in range(2))
    assert first == second
    assert len(set(first)) == len(first)


def test_what_cannot_be_known_is_never_known_again(kinds, zoo, fingerprint):
    model = zoo.model(kinds["SD1.5 InstructPix2Pix"])
    lock = threading.Lock()
    model.set_model_attn1_patch(lambda q, k, v, extra_options: (q, k, v) if lock else None)
    assert fingerprint(model) != fingerprint(model)


def test_sampling_is_known_on_every_device(kinds, zoo, fingerprint, trainer):
    """The sums of a device differ in the last digits from those of another, bytes do not."""
    model = zoo.model(kinds["SD1.5 InstructPix2Pix"])
    before = fingerprint(model)
    norm = torch.Tensor.norm
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "norm", lambda self, *args, **kwargs: norm(self, *args, **kwargs) * (1 + 1e-6))
        assert fingerprint(model) == before
    sigmas = model.model.model_sampling.sigmas
    sigmas[500] = sigmas[500] * (1 + 1e-5)
    assert fingerprint(model) != before


def test_a_bypass_lora_tells_models_apart(kinds, zoo, tiny, fingerprint):
    """By what it holds and its strength, whatever is loaded: loading moves and rounds its weights."""
    import comfy.model_management
    import comfy.sd

    if not hasattr(comfy.sd, "load_bypass_lora_for_models"):
        pytest.skip("this ComfyUI has no bypass LoRAs")
    plain = zoo.model(kinds["FLUX.1 Kontext"], torch.bfloat16, compute=torch.float32)
    with torch.inference_mode(False):
        lora = tiny.Training(plain).lora.state_dict()
    with torch.inference_mode():

        def bypassed(strength, scale=1.0):
            scaled = {key: (scale * value).half() for key, value in lora.items()}
            return comfy.sd.load_bypass_lora_for_models(plain, None, scaled, strength, 0)[0]

        clones = [plain, bypassed(1.0), bypassed(0.5), bypassed(1.0, 1.1), bypassed(1.0)]
        before = [fingerprint(clone) for clone in clones]
        assert before[1] == before[4] and len(set(before)) == 4
        for loaded in (*clones, plain):
            comfy.model_management.load_models_gpu([loaded])
            assert [fingerprint(clone) for clone in clones] == before


def test_what_the_weights_are_used_as_tells_models_apart(kinds, zoo, fingerprint):
    """With dynamic VRAM weights stay as they are in the file until they are used; the layers know what they are then."""
    plain = zoo.model(kinds["FLUX.1 Kontext"], torch.bfloat16)
    as_fp8 = zoo.model(kinds["FLUX.1 Kontext"], torch.bfloat16)
    for module in as_fp8.model.diffusion_model.modules():
        for name, _ in module.named_parameters(recurse=False):
            setattr(module, f"{name}_comfy_model_dtype", torch.float8_e4m3fn)
    compute = zoo.model(kinds["FLUX.1 Kontext"], torch.bfloat16, compute=torch.float32)
    in_float32 = node("model_advanced", "ModelComputeDtype")(plain, "fp32")
    wrapped = plain.clone()
    wrapped.add_weight_wrapper("diffusion_model.img_in.weight", lambda weight: weight * 2)
    others = [plain, as_fp8, compute, in_float32, wrapped]
    assert len({fingerprint(other) for other in others}) == len(others)


def test_the_encoders_are_known_whatever_is_loaded(trainer):
    import comfy.model_management

    encoders = trainer("encoding").encoders_fingerprint
    with torch.inference_mode():
        _, clip, vae = trainer("host.demo_model").load()
        before = encoders(clip, vae)
        vae.encode(torch.rand(1, 64, 64, 3))
        clip.encode_from_tokens_scheduled(clip.tokenize("a caption"))
        assert encoders(clip, vae) == before
        comfy.model_management.unload_all_models()
        assert encoders(clip, vae) == before
