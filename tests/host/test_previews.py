"""What a preview shows is what a graph gives, and training does not know that there was one."""
import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from host import ROOT

STEPS = 3
HELD_OUT = sorted((ROOT / "samples/background-removal-held-out").glob("*_start.png"))[:2]


class Decoder:
    """A VAE that decodes to random mixtures of a latent's channels, a square of 8 x 8 pixels each."""

    def decode(self, latent):
        """(n, height, width, 3), of a VAE for videos (n, 1, height, width, 3), from a latent."""
        mix = torch.randn(3, latent.shape[1], generator=torch.Generator().manual_seed(2)) / latent.shape[1]
        pixels = torch.einsum("oc,nc...->n...o", mix, latent.float()).sigmoid()
        return pixels.repeat_interleave(8, -3).repeat_interleave(8, -2)


@pytest.fixture(scope="module")
def demo(trainer):
    """The tiny base model, its VAE, and two held-out pairs as a run encodes them."""
    families, encode = trainer("host.families"), trainer("host.encode")

    def picture(file):
        return np.asarray(Image.open(file).convert("RGB"), dtype=np.float32) / 255

    with torch.inference_mode():
        model, clip, vae = trainer("host.demo_model").load()
        family = families.family_of(model.model)
        images = [[picture(file), picture(str(file).replace("_start", "_end"))] for file in HELD_OUT]
        samples = [encode.encode(family, clip, vae, "photo", both, "remove the background") for both in images]
    return model, vae, family, samples, images


@pytest.fixture(params=["Flux", "Qwen-Image-Edit", "SD1.5 InstructPix2Pix", "demo"])
def case(request, zoo, trainer, demo):
    """A model, something that decodes for it, its family, a sample and the sample's negative."""
    families, encode = trainer("host.families"), trainer("host.encode")
    if request.param == "demo":
        model, vae, family, samples, _ = demo
        return model, vae, family, samples[0], None
    kind = next(k for k in zoo.KINDS if k.name == request.param.replace("Flux", "FLUX.1 Kontext"))
    with torch.inference_mode():
        model = zoo.model(kind)
        family, sample = families.family_of(model.model, kind.file, 1), zoo.encoded(kind, 1, 1)
        images = [zoo.picture(100, 64, 64), zoo.picture(1, 64, 64)]
        against = encode.encode_negative(family, zoo.Clip(kind), encode.Blank(zoo.Vae(kind)), "sample1", images)
    return model, Decoder(), family, sample, sample.against(against) if family.cfg != 1 else None


@pytest.fixture
def sampled(trainer):
    return trainer("host.preview").sampled


def graph(model, vae, family, sample, negative, seed, steps):
    """What KSampler and VAEDecode make of it in a graph of nodes."""
    from comfy_extras.nodes_flux import FluxGuidance

    import nodes

    with torch.inference_mode():
        positive = sample.conditioning
        if family.guidance:
            positive = FluxGuidance.execute(positive, family.guidance).args[0]
        against = negative or nodes.ConditioningZeroOut().zero_out(positive)[0]
        (latent,) = nodes.KSampler().sample(
            model, seed, steps, family.cfg, "euler", family.scheduler, positive, against, {"samples": torch.zeros_like(sample.latent)}
        )
        return nodes.VAEDecode().decode(vae, latent)[0][0].float().cpu().numpy()


def test_the_picture_of_the_base_is_that_of_a_graph(case, sampled):
    model, _, family, sample, negative = case
    picture = sampled(*case, 7, STEPS)
    assert picture.dtype == np.float32 and picture.shape == (*(8 * side for side in sample.latent.shape[-2:]), 3)
    assert 0 <= picture.min() < picture.max() <= 1
    assert np.array_equal(picture, graph(*case, 7, STEPS))
    assert np.array_equal(picture, sampled(*case, 7, STEPS)) and not np.array_equal(picture, sampled(*case, 8, STEPS))
    if negative:
        assert family.cfg > 1 and not np.array_equal(picture, sampled(*case[:-1], None, 7, STEPS)), "the negative counts"


def test_the_picture_with_a_lora_is_that_of_a_graph_that_has_loaded_it(case, sampled, tiny, trainer, tmp_path):
    model, *rest = case
    training = tiny.Training(model, scale=0.05)
    with training.lora.attached():
        picture = sampled(*case, 7, STEPS)
    safetensors.torch.save_file(training.lora.state_dict(), tmp_path / "lora.safetensors")
    with torch.inference_mode():
        patched = trainer("host.apply").with_lora(model, safetensors.torch.load_file(tmp_path / "lora.safetensors"), 1.0)
    wanted, base = graph(patched, *rest, 7, STEPS), sampled(*case, 7, STEPS)
    effect = np.abs(wanted - base).max()
    print(f"the LoRA changes the picture by up to {effect:.3f}; the preview is off by {np.abs(picture - wanted).max():.1e}")
    assert effect > 0.01 and np.abs(picture - wanted).max() < 1e-3 * effect + 2e-5


def test_the_guidance_of_the_family_takes_the_place_of_that_of_training(zoo, trainer, sampled):
    """Only where the model has one: FLUX.2 klein is guided by its negative."""
    families = trainer("host.families")
    found = {}
    for kind in zoo.KINDS:
        if kind.name in ("FLUX.1 Kontext", "FLUX.2", "FLUX.2 klein"):
            family = families.family_of(zoo.model(kind).model)
            found[kind.name] = family.guidance, family.cfg, families.wants_negative(family, [])
    assert found == {"FLUX.1 Kontext": (2.5, 1, False), "FLUX.2": (4, 1, False), "FLUX.2 klein": (None, 5, True)}
    klein = families.FLUX2_KLEIN
    assert families.wants_negative(klein, ["flux-2-klein-base-4b.safetensors"])
    assert not families.wants_negative(klein, ["flux-2-klein-4b.safetensors"])
    assert not families.wants_negative(families.QWEN_IMAGE_EDIT_2509, ["qwen.safetensors", "lightning-4steps.safetensors"])
    with torch.inference_mode():
        model, sample = zoo.model(zoo.KINDS[0]), zoo.encoded(zoo.KINDS[0], 1, 1)
    assert sample.conditioning[0][1]["guidance"] == 1
    pictures = [sampled(model, Decoder(), families.family_of(model.model), sample, None, 7, STEPS)]
    sample.conditioning[0][1]["guidance"] = 30.0
    pictures.append(sampled(model, Decoder(), families.family_of(model.model), sample, None, 7, STEPS))
    assert np.array_equal(*pictures) and sample.conditioning[0][1]["guidance"] == 30


@pytest.fixture
def train(trainer):
    """`train(model, samples, between)`: four steps of a training by hand, with ``between()`` called after two; returns
    the LoRA and the optimizer's state."""

    def run(model, samples, between):
        steps, loop, memory = trainer("step"), trainer("loop"), trainer("host.memory")
        exact_gradients, EVERYTHING = trainer("host.autograd").exact_gradients, trainer("host.recompute").EVERYTHING
        base = model.model
        with torch.inference_mode(False):
            lora = trainer("lora.inject").LoraLayers(base.diffusion_model, 2, 0, model.load_device)
        optimizer = torch.optim.AdamW(lora.parameters(), 1e-2)
        generator, order = torch.Generator().manual_seed(0), loop.shuffled(len(samples), 0)
        scale = trainer("loss_scale").LossScale(torch.float32)
        with lora.attached():
            for part in range(2):
                memory.load(model, 0)
                with exact_gradients(base, base.diffusion_model, EVERYTHING):
                    for _ in range(2):
                        batch = [trainer("host.forward").condition(model, samples[next(order)]) for _ in range(2)]
                        drawn = steps.draw(model, batch, "family default", generator)
                        steps.gradient(model, batch, *drawn, 1, lora.parameters(), scale)
                        optimizer.step()
                        optimizer.zero_grad()
                if part == 0:
                    between()
        state = [t for of in optimizer.state.values() for t in of.values()]
        return lora.state_dict(), state, torch.random.get_rng_state()

    return run


@pytest.mark.parametrize("case", ["Flux", "Qwen-Image-Edit", "demo"], indirect=True)
def test_training_goes_on_as_if_there_had_been_none(case, sampled, train, zoo, tiny):
    import comfy.model_management

    model, sample = case[0], case[3]
    with torch.inference_mode():
        comfy.model_management.load_models_gpu([model])
        before = tiny.state(model)
        pictures, results = [], []
        for preview in (False, True):
            torch.manual_seed(5)
            results.append(train(model, [sample] * 2, lambda: pictures.append(sampled(*case, 7, STEPS)) if preview else None))
        comfy.model_management.load_models_gpu([model])
        tiny.same(tiny.state(model), before)
    (lora, state, drawn), (lora_with, state_with, drawn_with) = results
    assert len(pictures) == 1 and not np.array_equal(pictures[0], sampled(*case, 7, STEPS)), "the LoRA had begun"
    assert any(lora[key].any() for key in lora if "lora_B" in key)
    assert lora.keys() == lora_with.keys() and all(torch.equal(lora[key], lora_with[key]) for key in lora)
    assert all(map(torch.equal, state, state_with)) and torch.equal(drawn, drawn_with)


@pytest.mark.parametrize("case", ["demo"], indirect=True)
@pytest.mark.parametrize("end", ["cancelled", "out of memory", "out of memory when decoding"])
def test_an_end_in_the_middle_leaves_everything_as_it_was(case, sampled, train, tiny, trainer, monkeypatch, end):
    import comfy.model_management
    import comfy.utils

    model, vae, family, sample, _ = case
    calls, apply_model = [], model.model.apply_model
    error = comfy.model_management.InterruptProcessingException if end == "cancelled" else torch.cuda.OutOfMemoryError

    def failing(*args, **kwargs):
        calls.append(1)
        if end == "cancelled":
            comfy.model_management.interrupt_current_processing()
        elif len(calls) == 2:
            raise torch.cuda.OutOfMemoryError("out of memory")
        return apply_model(*args, **kwargs)

    def preview():
        with pytest.raises(error) as raised, monkeypatch.context() as patched:
            if end == "out of memory when decoding":
                patched.setattr(vae, "decode", lambda *_: (_ for _ in ()).throw(torch.cuda.OutOfMemoryError("out of memory")))
            else:
                patched.setattr(model.model, "apply_model", failing, raising=True)
            sampled(*case, 7, STEPS)
        if end != "cancelled":
            assert trainer("host.compat").is_out_of_memory(raised.value)

    def hook(*_, **__):
        pass

    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", hook)
    with torch.inference_mode():
        comfy.model_management.load_models_gpu([model])
        before, options = tiny.state(model), repr(model.model_options)
        loras = [train(model, [sample] * 2, between)[0] for between in (lambda: None, preview)]
        comfy.model_management.load_models_gpu([model])
        tiny.same(tiny.state(model), before)
    assert len(calls) == {"cancelled": 1, "out of memory": 2}.get(end, 0)
    assert all(torch.equal(loras[0][key], loras[1][key]) for key in loras[0])
    assert comfy.utils.PROGRESS_BAR_HOOK is hook and repr(model.model_options) == options


def test_the_page_hears_nothing_of_it(demo, sampled, monkeypatch):
    """Neither of the sampler nor of a VAE that decodes in tiles; a bar of another's still lets the user cancel."""
    import comfy.model_management
    import comfy.utils

    model, vae, family, samples, _ = demo
    heard, decode = [], vae.decode

    def in_tiles(latent):
        comfy.utils.ProgressBar(2).update(1)
        return decode(latent)

    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", lambda *args, **_: heard.append(args))
    monkeypatch.setattr(vae, "decode", in_tiles)
    sampled(model, vae, family, samples[0], None, 7, STEPS)
    assert not heard

    def cancelled_in_tiles(latent):
        comfy.model_management.interrupt_current_processing()
        return in_tiles(latent)

    monkeypatch.setattr(vae, "decode", cancelled_in_tiles)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        sampled(model, vae, family, samples[0], None, 7, STEPS)


def test_nothing_is_compiled_for_a_preview(zoo, tiny, trainer, sampled):
    """It would take minutes, and what was compiled before is without the LoRA; the model shows it all the same."""
    import comfy_api.torch_helpers

    made = []

    def backend(graph, inputs):
        made.append(graph)
        return graph.forward

    def compiled(how):
        model = zoo.model(kind)
        network = model.model.diffusion_model
        if how == "a block":
            network.double_blocks[0] = torch.compile(network.double_blocks[0], backend=backend)
        elif how == "whole":
            model.model.diffusion_model = torch.compile(network, backend=backend)
        elif how == "in place":
            network.compile(backend=backend)
        elif how == "by ComfyUI's node":
            comfy_api.torch_helpers.set_torch_compile_wrapper(model, backend=backend)
        return model

    kind, pictures = zoo.KINDS[0], []
    with torch.inference_mode():
        sample = zoo.encoded(kind, 1, 1)
    for how in ("not at all", "a block", "whole", "in place", "by ComfyUI's node"):
        model = compiled(how)
        training, wrappers = tiny.Training(model), repr(model.wrappers)
        with training.lora.attached():
            pictures.append(sampled(model, Decoder(), trainer("host.families").FAMILIES["Flux"], sample, None, 7, STEPS))
        assert not made and np.array_equal(pictures[-1], pictures[0]), how
        assert repr(model.wrappers) == wrappers


def test_scores_of_the_tiny_base(demo, sampled, trainer):
    """The base copies its input: far from the target where the edit should change it, near to it elsewhere."""
    model, vae, family, samples, images = demo
    similarity = trainer("similarity")
    for sample, (start, target) in zip(samples, images):
        picture = sampled(model, vae, family, sample, None, 0, 20)
        region = similarity.changed(start, target)
        of = {
            name: (similarity.psnr(shown, target, region), similarity.psnr(shown, target, ~region), similarity.ssim(shown, target))
            for name, shown in (("input", start), ("base", picture))
        }
        print({name: [round(value, 2) for value in values] for name, values in of.items()})
        assert similarity.psnr(picture, start) > 20
        assert abs(of["base"][0] - of["input"][0]) < 3 and of["base"][1] > of["base"][0] + 8
