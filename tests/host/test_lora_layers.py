"""LoRA layers give what peft's give, and keep nothing for the backward pass but what they read."""
import pytest
import torch


@pytest.fixture
def layers(tiny):
    """`layers(dtype)`: the Linears of a model, by path, with LoRA layers that have an effect in front of them."""

    def build(dtype):
        model = tiny.flux(dtype)
        training = tiny.Training(model, scale=0.2)
        with training.lora.attached(), tiny.module("host.autograd").exact_gradients(model.model, model.model.diffusion_model, tiny.how(False)):
            yield training.lora

    contexts = []

    def open_(dtype):
        contexts.append(build(dtype))
        return next(contexts[-1])

    yield open_
    for context in contexts:
        next(context, None)


def test_they_compute_what_pefts_layers_compute(layers, tiny):
    lora = layers(torch.float32)
    generator = torch.Generator().manual_seed(0)
    for path, module in list(lora.modules.items())[:6]:
        seen = []
        for forward in (module.forward, lora.layers[path].forward):
            x = torch.randn(2, 5, module.in_features, generator=generator.manual_seed(1)).requires_grad_()
            y = forward(x)
            y.backward(torch.randn(y.shape, generator=generator.manual_seed(2)))
            a, b = (getattr(lora.layers[path], name)["default"].weight for name in ("lora_A", "lora_B"))
            seen.append([y.detach(), x.grad, a.grad, b.grad])
            a.grad = b.grad = None
        assert all(tiny.relative(*pair) < 1e-6 for pair in zip(*seen)), path


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_they_keep_only_their_input_and_share_it(layers, dtype):
    lora = layers(dtype)
    same = [(path, module) for path, module in lora.modules.items() if path.endswith(("img_attn.qkv", "txt_attn.qkv", "linear1"))]
    assert len({module.in_features for _, module in same}) == 1 < len(same)
    x = torch.randn(2, 64, same[0][1].in_features).to(dtype).requires_grad_()
    parameters, kept = {p.data_ptr() for p in lora.parameters()}, {}

    def keep(t):
        if t.data_ptr() not in parameters:
            kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        outputs = [module.forward(x) for _, module in same]
    assert sum(kept.values()) == x.nbytes
    assert all(y.dtype == dtype for y in outputs)
    sum(y.float().sum() for y in outputs).backward()
    assert x.grad.dtype == dtype and all(p.grad is None or p.grad.dtype == torch.float32 for p in lora.parameters())


def test_models_may_update_their_output_in_place(layers):
    """As the rotary embeddings of OmniGen2, Boogu and Krea2 do in newer ComfyUI."""
    lora = layers(torch.float32)
    module = next(iter(lora.modules.values()))
    y = module.forward(torch.randn(2, 5, module.in_features).requires_grad_())
    y[..., :4].mul_(2)
    y.sum().backward()
    assert any(p.grad is not None for p in lora.parameters())
