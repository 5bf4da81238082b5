"""Batches one after the other are one large batch, to rounding."""
import pytest
import torch

SPLITS = [(4, 1), (2, 2), (1, 4)]  # batch_size, accumulation


@pytest.fixture
def train(trainer, monkeypatch, tiny):
    """`train(model, samples, batch_size, accumulation)`: what five steps make of the LoRA's B, which begins
    at 0, in one vector; and of each what was drawn, its gradient and loss, and how many samples went through
    the model together."""
    loop, step = trainer("loop"), trainer("step")
    draw, gradient, predict = loop.draw, loop.gradient, step.forward.predict_x0

    def run(model, samples, batch_size, accumulation):
        seen = {"draws": [], "gradients": [], "losses": [], "together": []}

        def seen_draw(model, batch, *args):
            drawn = draw(model, batch, *args)
            seen["draws"].append(([sample.name for sample in batch], drawn[0].tolist(), [n.clone() for n in drawn[1]]))
            return drawn

        def seen_gradient(model, batch, sigma, noise, at_once, parameters, *rest):
            with monkeypatch.context() as within:
                within.setattr(step.forward, "predict_x0", lambda *a: seen["together"].append(len(a[1])) or predict(*a))
                found = gradient(model, batch, sigma, noise, at_once, parameters, *rest)
            seen["gradients"].append(torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]))
            return found

        monkeypatch.setattr(loop, "draw", seen_draw)
        monkeypatch.setattr(loop, "gradient", seen_gradient)
        settings = loop.Settings(2, batch_size, accumulation=accumulation)
        lora = loop.train(model, samples, settings, 5, 1e-3, tiny.watch(lambda step, loss: seen["losses"].append(loss)))
        return torch.cat([t.flatten() for key, t in lora.items() if "lora_B" in key]), seen

    return run


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("name", ["FLUX.1 Kontext", "Qwen-Image-Edit", "SD1.5 InstructPix2Pix"])
def test_small_batches_give_the_gradient_of_a_large_one(zoo, tiny, train, name, mixed):
    """``mixed``: some pictures of a batch are wider than the others, and some captions longer."""
    kind = next(kind for kind in zoo.KINDS if kind.name == name)
    model = zoo.model(kind)
    shapes = [{"size": (64, 96 if mixed and i % 3 == 1 else 64), "caption": "a " * (mixed and i // 4) + "caption"} for i in range(6)]
    samples = [zoo.encoded(kind, i, 1, **shape) for i, shape in enumerate(shapes)]
    with torch.inference_mode():  # as the executor runs it
        (lora, large), *others = [train(model, samples, *split) for split in SPLITS]
    assert len(large["draws"]) == 5 and all(len(names) == 4 for names, *_ in large["draws"])
    assert max(large["together"]) > 2 and (min(large["together"]) < 4) == mixed
    for (batch_size, accumulation), (small_lora, small) in zip(SPLITS[1:], others):
        assert max(small["together"]) == batch_size
        for one, other in zip(large["draws"], small["draws"], strict=True):
            assert one[:2] == other[:2] and all(map(torch.equal, one[2], other[2]))
        error = max(map(tiny.relative, small["gradients"], large["gradients"]))
        off = tiny.relative(small_lora, lora)
        print(f"{name}, {accumulation} batches of {batch_size} against one of 4: gradients {error:.1e}, LoRA {off:.1e}")
        # AdamW divides by the gradient's size, which makes more of the rounding of small ones
        assert error < 1e-5 and off < 1e-4 and small["losses"] == pytest.approx(large["losses"], rel=1e-5)


def test_the_key_of_a_run_without_accumulation_is_as_before(trainer):
    settings = trainer("loop").Settings
    assert "accumulation" not in settings(16, 4).of_training()
    assert settings(16, 4, accumulation=2).of_training()["accumulation"] == 2
