"""Each choice in Training Settings: that it does what it says, and that the training is as exact and as durable with it."""
import re

import pytest
import torch

FLUX, QWEN, UNET = "FLUX.1 Kontext", "Qwen-Image-Edit", "SD1.5 InstructPix2Pix"
CHOICES = [
    *(({"bias": bias}, (FLUX, QWEN, UNET)) for bias in ("structure", "detail")),
    ({"loss": "huber"}, (FLUX, QWEN, UNET)),
    ({"loss": "min-snr"}, (UNET,)),
    ({"layers": "attention only"}, (FLUX, QWEN, UNET)),
    ({"layers": "image stream only"}, (FLUX, QWEN)),
    ({"layer_pattern": "(q|v|qkv)$"}, (FLUX, QWEN, UNET)),
]
OF_EACH = [pytest.param(name, choice, id=f"{name}-{choice}") for choice, names in CHOICES for name in names]


@pytest.fixture
def case(zoo):
    """`case(name)`: a model of that family and three samples."""

    def build(name):
        kind = next(kind for kind in zoo.KINDS if kind.name == name)
        return zoo.model(kind), [zoo.encoded(kind, i, 1) for i in range(3)]

    return build


@pytest.fixture
def train(trainer):
    """`train(model, samples, settings, steps, state)`."""

    def run(model, samples, settings, steps=8, state=None):
        with torch.inference_mode():
            return trainer("loop").train(model, samples, settings, steps, 1e-2, None, None, state)

    return run


@pytest.mark.parametrize("name, choice", OF_EACH)
def test_it_trains_otherwise_and_resumes_to_the_same_bytes(case, train, trainer, name, choice):
    model, samples = case(name)
    settings = trainer("loop").Settings(rank=2, batch_size=3, seed=2, **choice)
    whole, plain = train(model, samples, settings), train(model, samples, trainer("loop").Settings(rank=2, batch_size=3, seed=2))
    assert whole.keys() != plain.keys() or not all(torch.equal(whole[key], plain[key]) for key in whole)

    of = trainer("state").State
    first = of(model, settings, 1e-2)
    train(model, samples, settings, 3, first)
    later = of(model, settings, 1e-2)
    later.load(first.saved())
    resumed = train(model, samples, settings, 8, later)
    assert resumed.keys() == whole.keys() and all(torch.equal(resumed[key], whole[key]) for key in whole)


@pytest.mark.parametrize("name, choice", OF_EACH)
def test_comfyui_loads_every_key_and_gives_the_effect_of_training(case, train, trainer, tmp_path, name, choice):
    import safetensors.torch

    model, samples = case(name)
    lora = train(model, samples, trainer("loop").Settings(rank=2, **choice))
    file = tmp_path / "edit.safetensors"
    safetensors.torch.save_file(trainer("lora.files").named(lora, name.partition(" ")[0]), file)
    apply = trainer("host.apply")
    apply.check_loads(model, file, lora)
    apply.prove(model, file, lora)


@pytest.mark.parametrize("name, choice", OF_EACH)
def test_it_is_part_of_the_runs_key_and_of_the_files_header(trainer, name, choice):
    settings = trainer("loop").Settings(**choice)
    assert choice.items() <= settings.of_training().items()
    assert not choice.keys() & trainer("loop").Settings().of_training().keys()  # so that older runs are known still


# what each does


def logits(sigma):
    return torch.log(sigma / (1 - sigma))


def test_bias_moves_timesteps_towards_noise_or_detail(case, trainer):
    sampling, u = trainer("host.sampling"), (torch.arange(1000) + 0.5) / 1000
    model, samples = case(FLUX)
    batch = [trainer("host.forward").condition(model, samples[0])] * len(u)
    for how in ("family default", "uniform", "logit-normal"):
        plain = logits(sampling.sigmas(model, batch, u, how))
        for bias in sampling.BIASES.values():
            torch.testing.assert_close(logits(sampling.sigmas(model, batch, u, how, bias)), plain + bias, rtol=1e-3, atol=1e-3)
    model, samples = case(UNET)
    batch = [trainer("host.forward").condition(model, samples[0])] * len(u)
    low, middle, high = (sampling.sigmas(model, batch, u, "uniform", bias).log().mean() for bias in (-0.7, 0.0, 0.7))
    assert low < middle - 0.3 and middle < high - 0.3


def test_held_out_pairs_are_scored_alike_whatever_the_bias(case, trainer, monkeypatch):
    """Else scores of two biases could not be compared."""
    model, samples = case(FLUX)
    sampling, biases = trainer("host.sampling"), []
    sigmas = sampling.sigmas

    def seen(model, batch, u, how, bias=0.0):
        biases.append(bias)
        return sigmas(model, batch, u, how, bias)

    monkeypatch.setattr(sampling, "sigmas", seen)
    with torch.inference_mode():
        assert trainer("scores").held_out_loss(model, samples, "uniform") == trainer("scores").held_out_loss(model, samples, "uniform")
    assert len(biases) == 2 * len(samples) and not any(biases)


def test_huber_is_the_square_of_small_errors_and_the_size_of_large_ones(trainer):
    losses, x0 = trainer("objective").sample_losses, torch.zeros(1, 4, 8, 8)
    weight = torch.tensor([4.0])
    for error, wanted in ((1e-3, 4e-6), (50.0, 0.2 * 100.0)):
        value = losses(torch.full_like(x0, error), x0, weight, "huber").item()
        assert value == pytest.approx(wanted, rel=2e-3)
    error = torch.zeros_like(x0, requires_grad=True)
    wild = torch.full_like(x0, 0.01)
    wild[0, 0, 0, 0] = 30.0  # one element that is wrong has as much pull as a thousand others in the square, not in this
    pull = {
        loss: torch.autograd.grad(losses(error + wild, x0, weight, loss).sum(), error)[0].flatten() for loss in ("squared", "huber")
    }  # fmt: skip
    assert pull["squared"][0] / pull["squared"][1] > 2900 and pull["huber"][0] / pull["huber"][1] < 6


def test_min_snr_weighs_as_in_its_paper(case, trainer):
    """The weight of the error of x0 is the signal-to-noise ratio, but at most 5."""
    import comfy.model_sampling as of

    sampling, sigma = trainer("host.sampling"), torch.tensor([0.05, 0.3, 0.447, 1.0, 10.0])
    for kind, snr in ((of.EPS(), sigma**-2), (of.V_PREDICTION(), sigma**-2)):
        kind.sigma_data = 1.0
        weight = sampling.x0_error_weight(kind, sigma) * sampling.min_snr(kind, sigma)
        torch.testing.assert_close(weight, snr.clamp_max(5))


def test_min_snr_is_refused_on_a_flow_model(case, trainer):
    model, _ = case(FLUX)
    with pytest.raises(ValueError, match="loss is min-snr.*Flux.*does not. Choose squared in Training Settings"):
        trainer("host.sampling").check_loss(model, "min-snr")
    trainer("host.sampling").check_loss(case(UNET)[0], "min-snr")


def test_layers_of_every_family(zoo, trainer):
    inject = trainer("lora.inject")
    for kind in zoo.KINDS:
        if kind.missing:
            continue
        network = zoo.model(kind).model.diffusion_model
        every = set(inject.targets(network))
        attention = set(inject.targets(network, inject.Layers("attention only")))
        assert attention and attention < every, kind.name
        assert not [path for path in attention if re.search(r"mlp|\bff|feed_forward", path)], kind.name
        rest = every - attention
        assert all(re.search(r"mlp|\bff|feed_forward|\.net\.", path) for path in rest), kind.name
        assert not [path for path in every if ".experts." in path], kind.name
        image = set(inject.targets(network, inject.Layers("image stream only")))
        streams = [path for path in every if re.search(r"txt|add_|context|instruct_(to|out|feed)|_t\b", path)]
        assert image == every - set(streams), kind.name
        if not streams:
            with pytest.raises(ValueError, match="image stream only, but .* has no stream"):
                inject.check(network, 2, inject.Layers("image stream only"))


def test_a_pattern_names_blocks(case, trainer):
    inject, network = trainer("lora.inject"), case(FLUX)[0].model.diffusion_model
    assert {path.split(".")[0] for path in inject.targets(network, inject.Layers(pattern=r"double.*\.1\."))} == {"double_blocks"}
    with pytest.raises(ValueError, match=r"layer_pattern is double\(, which is no regular expression"):
        inject.check(network, 2, inject.Layers(pattern="double("))
    with pytest.raises(ValueError, match="No layer of Flux is among attention only with layer_pattern mlp; it has such as double_blocks.0"):
        inject.check(network, 2, inject.Layers("attention only", "img_mlp"[4:]))


def test_a_plan_counts_the_chosen_layers(case, trainer):
    inject, (model, samples) = trainer("lora.inject"), case(FLUX)
    adapters = {
        which: trainer("plan").choose(model, samples[0], 1, 4, 1, inject.Layers(which)).counted.adapter for which in inject.CHOICES
    }
    trained = {which: 4 * inject.trainable(model.model.diffusion_model, 4, inject.Layers(which)) for which in inject.CHOICES}
    assert adapters == trained and len(set(adapters.values())) == 3
