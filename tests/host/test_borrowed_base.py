"""The base model is the graph's own: trained in place, and bit for bit as before whatever happens."""
import pytest
import safetensors.torch
import torch


class Cancel(BaseException):
    """ComfyUI's interrupt is a BaseException in newer versions."""


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("end", [None, Cancel, RuntimeError, torch.cuda.OutOfMemoryError])
def test_the_base_is_as_before(tiny, trainer, end, checkpointing):
    import comfy.model_management

    loop = trainer("loop")
    with torch.inference_mode():  # as in ComfyUI's executor: weights are inference tensors
        model = tiny.flux()
        samples = [tiny.encoded(i) for i in range(2)]
        comfy.model_management.load_models_gpu([model])
        before, steps = tiny.state(model), []

        def on_step(step, loss):
            steps.append(loss)
            if end and step == 3:
                raise end("stop")

        def train():
            return loop.train(model, samples, loop.Settings(2, 2, 0), 5, 1e-3, tiny.watch(on_step), plan=tiny.plan(checkpointing))

        if end:
            with pytest.raises(end):
                train()
        else:
            lora = train()
            assert any(lora[k].abs().sum() > 0 for k in lora if "lora_B" in k)
        assert len(steps) == (3 if end else 5)
        tiny.same(tiny.state(model), before)
        sample = tiny.sample(model, 0)
        model.model.apply_model(sample.x0, torch.tensor([0.5]), **{k: c.cond for k, c in sample.conds.items()})


def test_the_same_arguments_give_the_same_lora(tiny, trainer):
    loop = trainer("loop")
    with torch.inference_mode():
        model = tiny.flux()
        samples = [tiny.encoded(i) for i in range(3)]
        first, second = (
            loop.train(model, samples, loop.Settings(2, 2, seed), 4, 1e-3) for seed in (5, 5)
        )
        other = loop.train(model, samples, loop.Settings(2, 2, 6), 4, 1e-3)
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert any(not torch.equal(first[k], other[k]) for k in first)


def test_the_file_does_in_comfyui_what_training_saw(tiny, trainer, tmp_path):
    """The output with the layers attached equals the output with the LoRA on the model through ComfyUI's loader."""
    apply = trainer("host.apply")

    def save(tensors):
        safetensors.torch.save_file(tensors, tmp_path / "x.safetensors")
        return tmp_path / "x.safetensors"

    with torch.inference_mode():
        model = tiny.flux()
        training = tiny.Training(model)
        lora = training.lora.state_dict()
        apply.prove(model, save(lora), lora)
    assert tiny.effect_error(training, tiny.sample(model, 1)) < 1e-5

    key = next(k for k in lora if "lora_A" in k)
    with pytest.raises(RuntimeError, match="would not load 1 key,"):
        apply.prove(model, save({**lora, "diffusion_model.no_such.lora_A.weight": torch.zeros(2, 2)}), lora)
    with pytest.raises(RuntimeError, match="the effect on .* differs"):
        apply.prove(model, save({**lora, key.replace("lora_A.weight", "alpha"): torch.tensor(1.0)}), lora)
    with pytest.raises(RuntimeError, match="layers, training"):
        apply.prove(model, save({k: v for k, v in lora.items() if not k.startswith(key[: -len("lora_A.weight")])}), lora)


def test_a_base_that_ignores_references_is_refused(tiny, trainer):
    forward, model = trainer("host.forward"), tiny.flux()

    def check(sample):
        forward.check_reads_references(model, sample, forward.trial(model, sample))

    check(tiny.encoded(1))
    with pytest.raises(ValueError, match="Flux.*takes no reference images.*Kontext"):
        check(tiny.encoded(1, references=0))


def test_a_model_that_gives_nan_only_in_training_is_named(trainer):
    check = trainer("host.forward").check_unchanged
    check(torch.ones(2), torch.ones(2))
    with pytest.raises(RuntimeError, match="gives something else"):
        check(torch.ones(2), torch.tensor([torch.nan, 1]))


def test_out_of_memory_is_not_taken_for_a_wrong_model(tiny, trainer, monkeypatch):
    """ComfyUI unloads every model when it sees one, whatever class the error has."""
    import comfy.model_management as management

    forward = trainer("host.forward")
    monkeypatch.setattr(management, "is_oom", lambda error: "out of memory" in str(error), raising=False)
    for error in (torch.cuda.OutOfMemoryError("out of memory"), RuntimeError("CUDA error: out of memory")):

        def prediction(*_, error=error):
            raise error

        monkeypatch.setattr(forward, "prediction", prediction)
        with pytest.raises(type(error), match="^(CUDA error: )?out of memory$"):
            forward.trial(tiny.flux(), tiny.encoded(1))


def test_a_damaged_base_is_named(tiny, trainer):
    loop = trainer("loop")
    with torch.inference_mode():
        model = tiny.flux()
        samples = [tiny.encoded(i) for i in range(2)]
        name, p = next((n, p) for n, p in model.model.named_parameters() if n.endswith("single_blocks.1.linear2.weight"))
        p[0, 0] = torch.nan
        with pytest.raises(ValueError, match=f"{name} holds NaN"):
            loop.train(model, samples, loop.Settings(2, 1, 0), 2, 1e-3)
