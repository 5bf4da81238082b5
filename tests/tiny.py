"""A randomly initialised Flux of ComfyUI's own class, and samples for it, small enough for exact tests."""
import importlib

import comfy.model_management
import comfy.model_patcher
import comfy.supported_models
import torch

WIDTH = 32  # of hidden states and text embeddings


def module(name: str):
    return importlib.import_module(f"pairlora.trainer.{name}")


def flux(dtype=torch.float32, hidden=WIDTH, heads=2, axes=(4, 6, 6), depth=2, seed=0, scale=1.0):
    """A ModelPatcher that reads references; every parameter is random, so that nothing is hidden behind zeros."""
    config = comfy.supported_models.Flux(dict(
        image_model="flux", in_channels=4, out_channels=4, patch_size=2, vec_in_dim=WIDTH, context_in_dim=WIDTH,
        hidden_size=hidden, mlp_ratio=4.0, num_heads=heads, depth=depth, depth_single_blocks=depth,
        axes_dim=list(axes), theta=10000, qkv_bias=True, guidance_embed=True, **module("host.compat").flux_options(),
    ))  # fmt: skip
    config.set_inference_dtype(dtype, None)
    model = config.get_model({}, "")
    model.latent_format.latent_channels = 4
    generator = torch.Generator().manual_seed(seed)
    for name, p in model.diffusion_model.named_parameters():
        fan = p.shape[-1] ** -0.5 if p.ndim > 1 else 0.3
        p.data = torch.randn(p.shape, generator=generator, dtype=torch.float32).mul_(fan * scale).to(dtype)
        if "norm" in name:
            p.data += 1
    device = comfy.model_management.get_torch_device()
    return comfy.model_patcher.ModelPatcher(model, device, comfy.model_management.unet_offload_device())


def encoded(seed: int, references=1, size=(8, 8), tokens=6, dtype=torch.float32):
    """A sample with a caption and references of its own."""
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float32).to(dtype)

    conditioning = {
        "pooled_output": randn(1, WIDTH), "guidance": 1.0,
        "reference_latents": [randn(1, 4, *size) for _ in range(references)],
    }  # fmt: skip
    conditioning = [[randn(1, tokens, WIDTH), conditioning]]
    return module("host.encode").Encoded(f"sample{seed}", randn(1, 4, *size), conditioning)


def sample(model, seed: int, **options):
    """The same as ``model`` takes it."""
    return module("host.forward").condition(model, encoded(seed, **options))


def how(checkpointing: bool):
    """What is recomputed: nothing, or every block."""
    recompute = module("host.recompute")
    return recompute.EVERYTHING if checkpointing else recompute.NOTHING


def plan(checkpointing: bool):
    """A plan that does so."""
    return module("plan").Plan(how(checkpointing), 1_000_000 * checkpointing, None, 0, 0, 0)


def watch(on_step=None, on_plan=None, on_warning=None):
    """A Watch that calls ``on_step(step, loss)``, ``on_plan(plan)`` and ``on_warning(text)``."""

    class Calling(module("watch").Watch):
        def stepped(self, state, loss, norm, rate):
            if on_step:
                on_step(state.step, loss)
            return False

    calling = Calling()
    for name, called in (("plan", on_plan), ("warning", on_warning)):
        if called:
            setattr(calling, name, called)
    return calling


class Training:
    """LoRA layers on a model and one training step's gradient, in the dtype of the model."""

    def __init__(self, model, dtype=torch.float32, rank=2, checkpointing=False, scale=0.2):
        self.model, self.dtype, self.checkpointing = model, dtype, checkpointing
        with torch.inference_mode(False):
            self.lora = module("lora.inject").LoraLayers(model.model.diffusion_model, rank, 0, model.load_device)
            generator = torch.Generator().manual_seed(7)
            for layer in self.lora.layers.values():
                layer.to(dtype)
            for p in self.lora.parameters():  # B starts at zero, which would hide half of the gradient
                p.data = (scale * torch.randn(p.shape, generator=generator)).to(p)

    def loss(self, samples, sigma, noise) -> float:
        """The loss; its gradient is left in the parameters."""
        base = self.model.model
        for p in self.lora.parameters():
            p.grad = None
        exact_gradients = module("host.autograd").exact_gradients
        with self.lora.attached(), exact_gradients(base, base.diffusion_model, how(self.checkpointing)):
            return module("step").backward(self.model, samples, sigma, noise).item()

    def gradient(self, samples, sigma, noise) -> torch.Tensor:
        """All gradients in one vector, in float64; zero for layers whose output goes nowhere (Qwen's last text MLP)."""
        self.loss(samples, sigma, noise)
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.lora.parameters()]
        return torch.cat([gradient.flatten().double() for gradient in gradients])


def effect_error(training, sample) -> float:
    """The effect of the layers on the output as training sees it, against that of the LoRA through ComfyUI's loader."""
    import comfy.model_management

    model, forward = training.model, module("host.forward")
    with torch.inference_mode():
        sigma, (noise,) = draws([sample])
        comfy.model_management.load_models_gpu([model])
        plain = forward.predict_x0(model, [sample], noise, sigma)
        with training.lora.attached():
            seen = forward.predict_x0(model, [sample], noise, sigma)
        patched = module("host.apply").with_lora(model, training.lora.state_dict(), 1.0)
        comfy.model_management.load_models_gpu([patched])
        loaded = forward.predict_x0(patched, [sample], noise, sigma)
        comfy.model_management.load_models_gpu([model])
    return relative((loaded - plain).float(), (seen - plain).float())


def draws(samples, seed=3):
    """A sigma and noise for each sample."""
    generator = torch.Generator().manual_seed(seed)
    sigma = 0.2 + 0.6 * torch.rand(len(samples), generator=generator)
    return sigma.to(samples[0].x0), [torch.randn(s.x0.shape, generator=generator).to(s.x0) for s in samples]


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a - b).norm() / b.norm()).item()


def finite_difference_error(training, samples, sigma, noise, eps=2e-3) -> float:
    """Autograd against central differences, along the gradient and along random directions.

    ComfyUI returns predictions in float32, so the differences are taken along directions in which the loss moves.
    """
    gradient = training.gradient(samples, sigma, noise)
    parameters = training.lora.parameters()
    start = [p.detach().clone() for p in parameters]
    generator = torch.Generator().manual_seed(5)
    errors = []
    for i in range(4):
        # Weighting the gradient at random keeps the slope large and still tests every parameter's share.
        direction = gradient * (1 if i == 0 else torch.rand(gradient.shape, generator=generator))
        direction /= direction.norm()
        losses = []
        for sign in (1, -1):
            for p, p0, d in zip(parameters, start, direction.split([p.numel() for p in parameters])):
                p.data = p0 + sign * eps * d.view_as(p)
            losses.append(training.loss(samples, sigma, noise))
        difference = (losses[0] - losses[1]) / (2 * eps)
        errors.append(abs(difference - (gradient @ direction).item()) / abs(difference))
    for p, p0 in zip(parameters, start):
        p.data = p0
    return max(errors)


def comparable(t: torch.Tensor) -> torch.Tensor:
    """A tensor that torch can compare: older ones cannot compare float8."""
    return t.view(torch.uint8) if t.dtype in (torch.float8_e4m3fn, torch.float8_e5m2) and type(t) is torch.Tensor else t


def state(model):
    """Everything of a model that training could leave changed: weights, buffers, attributes, patches."""
    modules = dict(model.model.named_modules())
    return (
        {k: v.clone() for k, v in model.model.state_dict().items()},
        {name: {k: id(v) for k, v in m.__dict__.items() if not k.startswith("_")} for name, m in modules.items()},
        {name: [id(p) for p in m._parameters.values()] for name, m in modules.items()},
        dict(model.patches), dict(model.object_patches),
        [getattr(torch.Tensor, f"__i{operation}__") for operation in ("add", "sub", "mul", "truediv")],
    )  # fmt: skip


def same(a, b):
    assert a[0].keys() == b[0].keys() and all(torch.equal(*map(comparable, (a[0][k], b[0][k]))) for k in a[0])
    assert a[1:] == b[1:]
