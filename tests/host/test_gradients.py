"""Gradients through ComfyUI's model code are exact, and each measure that makes them so is needed."""
import contextlib

import pytest
import torch


def in_float64(tiny, **options):
    model = tiny.flux(torch.float64)
    samples = [tiny.sample(model, 1, references=2, dtype=torch.float64)]
    return tiny.Training(model, torch.float64, **options), samples, *tiny.draws(samples)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_against_finite_differences(tiny, checkpointing):
    error = tiny.finite_difference_error(*in_float64(tiny, checkpointing=checkpointing))
    print(f"finite differences, checkpointing {checkpointing}: {error:.1e}")
    assert error < 1e-3


def test_checkpointing_changes_nothing(tiny):
    plain, *step = in_float64(tiny)
    recomputed, *_ = in_float64(tiny, checkpointing=True)
    error = tiny.relative(recomputed.gradient(*step), plain.gradient(*step))
    print(f"with against without checkpointing: {error:.1e}")
    assert error < 1e-9


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_checks_fail_without_the_in_place_measures(tiny, trainer, monkeypatch, checkpointing):
    """Either PyTorch refuses, or the differences show that the gradient is wrong."""
    monkeypatch.setattr(trainer("host.autograd"), "out_of_place_updates", contextlib.nullcontext)
    try:
        error = tiny.finite_difference_error(*in_float64(tiny, checkpointing=checkpointing))
    except RuntimeError as refusal:
        print(f"checkpointing {checkpointing}: {refusal}")
        assert "inplace" in str(refusal)
    else:
        print(f"checkpointing {checkpointing}: finite differences {error:.1e}")
        assert error > 1e-3


def test_checkpointing_recomputes_every_block(tiny, trainer, monkeypatch):
    calls = []
    plain = trainer("host.recompute").checkpoint
    monkeypatch.setattr(trainer("host.recompute"), "checkpoint", lambda *a, **k: calls.append(1) or plain(*a, **k))
    training, *step = in_float64(tiny, checkpointing=True)
    training.gradient(*step)
    assert len(calls) == 2 + 2


@pytest.mark.parametrize("same_shapes", [True, False])
def test_samples_of_a_batch_never_mix(tiny, same_shapes):
    """The gradient of three samples with captions, references, sigmas and noise of their own is the mean of theirs."""
    model = tiny.flux(torch.float64)
    shapes = [{}, {}, {}] if same_shapes else [{}, {"references": 2}, {"size": (8, 12), "tokens": 9}]
    samples = [tiny.sample(model, i, dtype=torch.float64, **shape) for i, shape in enumerate(shapes)]
    training = tiny.Training(model, torch.float64)
    sigma, noise = tiny.draws(samples)
    together = training.gradient(samples, sigma, noise)
    singles = [training.gradient([s], sigma[i : i + 1], [noise[i]]) for i, s in enumerate(samples)]
    error = tiny.relative(together, torch.stack(singles).mean(0))
    print(f"batch of three against the mean of singles: {error:.1e}")
    assert error < 1e-6
    assert tiny.relative(singles[0], singles[1]) > 0.1


def test_the_loss_is_the_velocity_loss(tiny, trainer):
    """The weighted x0 error is the textbook flow matching loss |v - (noise - x0)|^2, computed here on its own."""
    model = tiny.flux()
    sample = tiny.sample(model, 1)
    (sigma,), (noise,) = tiny.draws([sample])
    loss = tiny.Training(model).loss([sample], sigma[None], [noise])
    training = tiny.Training(model)
    x_t = (1 - sigma) * sample.x0 + sigma * noise
    conds = {k: c.cond for k, c in sample.conds.items()}
    with training.lora.attached(), torch.no_grad():
        v = model.model.diffusion_model(
            x_t, sigma[None], context=conds["c_crossattn"], y=conds["y"], guidance=conds["guidance"],
            ref_latents=conds["ref_latents"], transformer_options={},
        )  # fmt: skip
    assert loss == pytest.approx((v - (noise - sample.x0)).square().mean().item(), rel=1e-4)
