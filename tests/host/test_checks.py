"""What is checked of a model before the first step: that it learns what it generates with, and from its references."""
import pytest
import torch


@pytest.fixture
def flux(tiny):
    with torch.inference_mode():
        yield tiny.flux(), [tiny.encoded(i) for i in range(2)]


@pytest.fixture
def trained(flux, tiny, trainer):
    """`trained()`: the warnings of two steps on the model."""

    def run():
        warnings, loop = [], trainer("loop")
        loop.train(*flux, loop.Settings(2), 2, 1e-3, tiny.watch(on_warning=warnings.append))
        return warnings

    return run


def rounding(function, only_if):
    """A function whose result is off by a tenth while ``only_if()``."""

    def run(*args, **kwargs):
        result = function(*args, **kwargs)
        return result * (1 + 0.1 * torch.sin(37 * result)) if only_if() else result

    return run


def test_coarse_kernels_for_generating_are_said_and_do_not_stop(trained, comfy, trainer, monkeypatch):
    """A 4-bit model differs by 11 % from its training mode on a card, by a fused rope alone."""
    import comfy.ldm.flux.layers as layers
    import comfy.model_management as management

    assert not trained()
    training, compat = [], trainer("host.compat")
    mode = compat.training_mode

    def watched():
        training.append(True)
        return mode()

    monkeypatch.setattr(compat, "training_mode", watched)
    monkeypatch.setattr(layers, "attention", rounding(layers.attention, lambda: not training))
    (warning,) = trained()
    assert "fast kernels, used to generate, round otherwise" in warning and "%" in warning
    assert not getattr(management, "in_training", False)


def test_code_that_does_something_else_with_gradients_is_refused(trained, comfy, monkeypatch):
    import comfy.ldm.flux.layers as layers

    attention = layers.attention
    called = []

    def run(q, *args, **kwargs):
        called.append(q.requires_grad)
        return rounding(attention, lambda: q.requires_grad)(q, *args, **kwargs)

    monkeypatch.setattr(layers, "attention", run)
    with pytest.raises(RuntimeError, match="gives something else than without gradients"):
        trained()
    assert any(called)


def test_references_that_change_nothing_but_noise_are_ignored_ones(flux, trainer, monkeypatch):
    """Some kernels do not add in the same order twice, so that equal inputs give unequal bits."""
    forward = trainer("host.forward")
    (model, (sample, _)), predict = flux, forward.predict_x0
    predicted = forward.trial(model, sample)
    forward.check_reads_references(model, sample, predicted)

    def noisy(model, samples, *args):
        blind = [forward.Conditioned(s.name, s.x0, {k: v for k, v in s.conds.items() if k != "ref_latents"}) for s in samples]
        x0 = predict(model, blind, *args)
        return x0 * (1 + 1e-6 * torch.randn(x0.shape))

    monkeypatch.setattr(forward, "predict_x0", noisy)
    with pytest.raises(ValueError, match="takes no reference images"):
        forward.check_reads_references(model, sample, forward.trial(model, sample))


def test_newer_hosts_clean_between_the_phases_of_a_run(tiny, flux, trainer, monkeypatch):
    """With dynamic VRAM: as between two nodes."""
    memory = pytest.importorskip("comfy.memory_management", reason="of newer ComfyUI")
    import comfy.model_management
    import comfy.model_prefetch
    import comfy_aimdo.model_vbar

    cleaned = []
    for module, name in [(comfy.model_management, "reset_cast_buffers"), (comfy.model_prefetch, "cleanup_prefetch_queues"),
                         (comfy_aimdo.model_vbar, "vbars_reset_watermark_limits")]:  # fmt: skip
        monkeypatch.setattr(module, name, lambda name=name: cleaned.append(name))
    (model, (sample, _)), encoding = flux, trainer("encoding")
    encoding.check(model, sample)
    assert not cleaned
    monkeypatch.setattr(memory, "aimdo_enabled", True)
    encoding.check(model, sample)
    assert cleaned == ["reset_cast_buffers", "cleanup_prefetch_queues", "vbars_reset_watermark_limits"]
    trainer("host.memory").release(model)
    assert len(cleaned) == 6
