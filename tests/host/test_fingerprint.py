"""A model is known again whatever ComfyUI has loaded, and told apart from every other."""
import pytest
import torch


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
