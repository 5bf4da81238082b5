"""Which sigmas are trained on."""
import pytest
import torch


@pytest.fixture
def drawn(zoo, trainer):
    """`drawn("FLUX.2", "uniform")`: ten thousand sigmas for a picture of 64x64 pixels, or of another size."""

    def run(name, how="family default", model=None, size=(64, 64)):
        kind = next(kind for kind in zoo.KINDS if kind.name == name)
        model = model or zoo.model(kind)
        sample = zoo.sample(kind, model, 1, 0, size=size)
        u = trainer("objective").stratified(10_000, torch.Generator().manual_seed(0))
        return trainer("host.sampling").sigmas(model, [sample] * len(u), u, how)

    return run


def logit(sigma):
    return torch.log(sigma / (1 - sigma))


def test_each_flow_family_has_the_shift_it_was_made_with(drawn):
    """A logit-normal shifted by mu is a logit-normal around mu."""
    for name, tokens, mu in (("FLUX.1 Kontext", 16, 0.459), ("FLUX.2", 16, 0.459), ("Qwen-Image-Edit", 16, 0.488)):
        values = logit(drawn(name))
        assert values.mean().item() == pytest.approx(mu, abs=0.01), name
        assert values.std().item() == pytest.approx(1, abs=0.03)


def test_a_larger_picture_is_trained_with_more_noise(drawn):
    assert logit(drawn("FLUX.1 Kontext", size=(512, 512))).mean().item() == pytest.approx(0.5 + 768 * 0.65 / 3840, abs=0.01)


def test_other_flow_models_are_logit_normal_around_their_own_shift(drawn):
    assert logit(drawn("SD3")).mean().item() == pytest.approx(torch.tensor(3.0).log().item(), abs=0.01)
    assert torch.equal(drawn("SD3"), drawn("SD3", "logit-normal"))


def test_uniform_takes_all_timesteps_alike(drawn):
    sigma = drawn("SD3", "uniform")  # shift 3: sigma = 3t / (1 + 2t)
    t = sigma / (3 - 2 * sigma)
    assert torch.histc(t, 10, 0, 1).std() < 20


def test_stable_diffusion_is_uniform_over_its_thousand_steps(drawn):
    sigma = drawn("SD1.5")
    assert torch.equal(sigma, drawn("SD1.5", "uniform"))
    assert 0.029 <= sigma.min() < 0.05 and 13 < sigma.max() <= 14.7


@pytest.mark.parametrize("kind", ["edm", "v_prediction"])
def test_continuous_models_are_uniform_in_the_logarithm_of_sigma(drawn, zoo, kind):
    """CosXL Edit is such a model of InstructPix2Pix."""
    from comfy_extras.nodes_model_advanced import ModelSamplingContinuousEDM

    name = "SDXL InstructPix2Pix"
    (model,) = ModelSamplingContinuousEDM().patch(zoo.model(next(k for k in zoo.KINDS if k.name == name)), kind, 120.0, 0.002)
    logs = drawn(name, model=model).log()
    assert 0.002 <= logs.exp().min() < 0.01 and 100 < logs.exp().max() <= 120
    assert torch.histc(logs, 10).std() < 20


def test_a_shift_that_the_graph_has_set_is_honoured(drawn, zoo):
    from comfy_extras.nodes_model_advanced import ModelSamplingFlux

    kind = next(kind for kind in zoo.KINDS if kind.name == "FLUX.1 Kontext")
    model = ModelSamplingFlux().patch(zoo.model(kind), 2.0, 2.0, 1024, 1024)[0]
    for how in ("family default", "resolution-shifted", "logit-normal"):
        assert logit(drawn(kind.name, how, model)).mean().item() == pytest.approx(2, abs=0.02)


def test_every_choice_of_the_node_works_for_every_family(drawn, zoo):
    for kind in zoo.KINDS:
        model = None if kind.missing else zoo.model(kind)
        for how in ("family default", "uniform", "logit-normal", "resolution-shifted") if model else ():
            sigma = drawn(kind.name, how, model)
            assert torch.isfinite(sigma).all() and (sigma > 0).all() and sigma.std() > 0
