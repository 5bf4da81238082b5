"""No optimizer step is taken with a gradient that is not finite, and none is lost to float16's range."""
import pytest
import torch


@pytest.fixture
def stepped(monkeypatch):
    """Whether all gradients were finite, for every step of the optimizer."""
    seen, step = [], torch.optim.AdamW.step

    def spy(self, *args, **kwargs):
        gradients = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        seen.append(all(torch.isfinite(g).all() for g in gradients))
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    return seen


@pytest.fixture
def train(tiny, trainer):
    def run(dtype, steps=4, learning_rate=1e-3):
        loop, losses = trainer("loop"), []
        with torch.inference_mode():
            model = tiny.flux(dtype)
            samples = [tiny.encoded(i) for i in range(2)]
            lora = loop.train(model, samples, loop.Settings(2), steps, learning_rate, tiny.watch(lambda step, loss: losses.append(loss)))
        return lora, losses

    return run


def test_an_overflow_is_computed_again_with_a_smaller_scale(train, tiny, trainer, stepped, monkeypatch):
    wanted, losses = train(torch.float16)
    monkeypatch.setattr(trainer("loss_scale"), "START", 2.0**40)
    lora, again = train(torch.float16)
    assert stepped == [True] * 8 and losses == pytest.approx(again, rel=1e-3)
    assert tiny.relative(*(torch.cat([t.flatten() for t in of.values()]) for of in (lora, wanted))) < 0.01


def test_the_scale_grows_back(trainer, monkeypatch):
    loss_scale = trainer("loss_scale")
    monkeypatch.setattr(loss_scale, "PATIENCE", 3)
    scale = loss_scale.LossScale(torch.float16)
    assert scale.back_off() and scale.back_off()
    seen = []
    for _ in range(9):
        scale.grow()
        seen.append(scale.value / loss_scale.START)
    assert seen == [0.25, 0.25, 0.5, 0.5, 0.5, 1, 1, 1, 1]
    assert loss_scale.LossScale(torch.bfloat16).value == 1 and not loss_scale.LossScale(torch.float32).back_off()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("at, advice", [(1, "another weight_dtype"), (3, r"Lower the learning rate \(0.001\)")])
def test_a_gradient_that_is_not_finite_stops_the_training(train, trainer, stepped, monkeypatch, dtype, at, advice):
    """The loss is finite; only its gradient is not."""
    objective, calls = trainer("objective"), []
    losses = objective.sample_losses

    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            return grad * float("nan")

    def breaking(*args):
        calls.append(args)
        return Broken.apply(losses(*args)) if len(calls) >= at else losses(*args)

    monkeypatch.setattr(objective, "sample_losses", breaking)
    with pytest.raises(FloatingPointError, match=f"At step {at} the loss became [0-9.]+ and its gradient nan. .*{advice}"):
        train(dtype)
    assert stepped == [True] * (at - 1)


def test_a_learning_rate_that_is_too_high_is_named(train, stepped):
    with pytest.raises(FloatingPointError, match=r"Lower the learning rate \(1e\+30\)"):
        train(torch.float32, steps=20, learning_rate=1e30)
    assert all(stepped)
