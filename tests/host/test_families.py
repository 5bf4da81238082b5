"""Every family against every check, as one matrix that is printed at the end of the run."""
import contextlib
import json
import re

import pytest
import safetensors.torch
import torch

from host import ROOT

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def kinds():
    """The families, by name: their models need ComfyUI, which is not importable yet when tests are collected."""
    return [
        "FLUX.1 Kontext", "FLUX.2", "FLUX.2 klein", "Qwen-Image-Edit", "Qwen-Image-Edit-2509",
        "Qwen-Image-Edit-2511", "OmniGen2", "SD1.5 InstructPix2Pix", "SDXL InstructPix2Pix", "HiDream-E1",
        "LongCat-Image-Edit", "Z-Image Omni", "Boogu", "Mage-Flow", "JoyImage", "Krea2",
        "Flux", "SD1.5", "SDXL", "SD3", "Qwen-Image", "Lumina2", "Z-Image", "Chroma",
    ]  # fmt: skip


EXACT, RECOMPUTED, MIXED = 1e-3, 1e-9, 1e-6


@pytest.fixture(params=kinds())
def kind(request, zoo):
    return next(kind for kind in zoo.KINDS if kind.name == request.param)


@pytest.fixture
def cell(request, matrix, kind):
    """`cell("text")` fills this test's place in the matrix; a family that the host lacks says so and is skipped."""
    check = request.node.originalname.removeprefix("test_").replace("_", " ")
    place = matrix.setdefault(kind.name, {})
    place.setdefault(check, "")
    if kind.missing:
        place[check] = kind.missing
        pytest.skip(kind.missing)

    def fill(text):
        place[check] = text

    return fill


@pytest.fixture
def exact(zoo, tiny, kind, cell):
    """The family in float64: its model, three samples, and a sigma and noise for each."""
    model = zoo.model(kind, torch.float64)
    with torch.inference_mode():  # as in ComfyUI's executor
        samples = [zoo.sample(kind, model, i, max(kind.references, default=0), torch.float64) for i in range(3)]
    return model, samples, *tiny.draws(samples)


def test_finite_differences(zoo, tiny, kind, exact, cell):
    """With the most references that the family is tried with, recomputed, and with the fewest, kept."""
    model, samples, sigma, noise = exact
    with torch.inference_mode():
        few = [zoo.sample(kind, model, 0, min(kind.references, default=0), torch.float64)]
    errors = [
        tiny.finite_difference_error(
            tiny.Training(model, torch.float64, checkpointing=recomputed), sample, sigma[:1], noise[:1]
        )
        for sample, recomputed in ((few, False), (samples[:1], True))
    ]
    cell(f"{max(errors):.0e}")
    assert max(errors) < EXACT


def test_checkpointing(tiny, exact, cell, trainer, monkeypatch):
    model, samples, sigma, noise = exact
    recompute, calls = trainer("host.recompute"), []
    plain = recompute.checkpoint
    monkeypatch.setattr(recompute, "checkpoint", lambda *a, **k: (calls.append(1), plain(*a, **k))[1])
    gradients = [
        tiny.Training(model, torch.float64, checkpointing=c).gradient(samples[:1], sigma[:1], noise[:1])
        for c in (False, True)
    ]
    error = tiny.relative(gradients[1], gradients[0])
    cell(f"{error:.0e}")
    assert error < RECOMPUTED
    assert len(calls) == len(trainer("host.layers").blocks(model.model.diffusion_model)) > 0, "every block was recomputed"


IN_PLACE = {"Flux", "Flux2", "LongCatImage", "Chroma"}  # classes whose blocks update what autograd has saved


def test_in_place_off(tiny, exact, cell, trainer, monkeypatch):
    """Without the measure against updates in place PyTorch refuses, or the gradient is another; where it is right
    without, the family has no updates that matter."""
    model, samples, sigma, noise = exact
    step = samples[:1], sigma[:1], noise[:1]
    right = tiny.Training(model, torch.float64).gradient(*step)
    monkeypatch.setattr(trainer("host.autograd"), "out_of_place_updates", contextlib.nullcontext)
    outcomes = []
    for checkpointing in (False, True):
        try:
            wrong = tiny.Training(model, torch.float64, checkpointing=checkpointing).gradient(*step)
            error = tiny.relative(wrong, right)
            outcomes.append(f"wrong by {error:.0e}" if error > RECOMPUTED else "not needed")
        except RuntimeError as refusal:
            assert "inplace" in str(refusal)
            outcomes.append("refused")
    cell(" / ".join(dict.fromkeys(outcomes)))
    assert ("not needed" in outcomes) == (type(model.model).__name__ not in IN_PLACE)


@pytest.mark.parametrize("equal", [True, False], ids=["equal", "unequal"])
def test_samples_never_mix(zoo, tiny, kind, exact, cell, equal):
    """The gradient of three samples with captions, references, sizes, sigmas and noise of their own is the mean of
    theirs."""
    model, samples, _, _ = exact
    if not equal:
        few, many = min(kind.references, default=0), max(kind.references, default=0)
        with torch.inference_mode():
            samples[1] = zoo.sample(kind, model, 1, few, torch.float64, size=(64, 96))
            samples[2] = zoo.sample(kind, model, 2, many, torch.float64, caption="a caption with many more words")
    sigma, noise = tiny.draws(samples)
    training = tiny.Training(model, torch.float64)
    together = training.gradient(samples, sigma, noise)
    singles = [training.gradient([s], sigma[i : i + 1], [noise[i]]) for i, s in enumerate(samples)]
    error = tiny.relative(together, torch.stack(singles).mean(0))
    cell(f"{error:.0e}")
    assert error < MIXED
    assert tiny.relative(singles[0], singles[1]) > 0.01, "they do differ"


def textbook_error(tiny, model, sample, sigma, noise):
    """The loss against that of what the network itself gives: its velocity against noise - x0, its epsilon against the
    noise, or its v against alpha noise - sigma x0 (https://arxiv.org/abs/2202.00512, appendix D)."""
    import comfy.model_sampling

    training, seen = tiny.Training(model, torch.float64), []
    hook = model.model.diffusion_model.register_forward_hook(lambda module, args, out: seen.append((args[0], out)))
    loss = training.loss([sample], sigma, noise)
    hook.remove()
    ((x, out),) = seen
    x0, s, sampling = sample.x0, sigma[0].item(), model.model.model_sampling
    alpha = (s**2 + 1) ** -0.5
    if isinstance(sampling, comfy.model_sampling.CONST):
        x_t, wanted = (1 - s) * x0 + s * noise[0], noise[0] - x0
    elif isinstance(sampling, comfy.model_sampling.V_PREDICTION):
        x_t, wanted = alpha * (x0 + s * noise[0]), alpha * (noise[0] - s * x0)
    else:
        x_t, wanted = alpha * (x0 + s * noise[0]), noise[0]
    assert tiny.relative(x.reshape(x_t.shape) if x.shape == x_t.shape else x[:, : x_t.shape[1]], x_t) < 1e-5
    return abs(loss / (out.double() - wanted).square().mean().item() - 1)


def test_textbook_loss(tiny, kind, exact, cell, trainer):
    import comfy.model_management
    from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete

    model, samples, sigma, noise = exact
    step = samples[0], sigma[:1], noise[:1]
    errors = {"flow" if trainer("host.sampling").is_flow(model.model.model_sampling) else "epsilon": model}
    if "epsilon" in errors:
        (errors["v"],) = ModelSamplingDiscrete().patch(model, "v_prediction", False)
    for name, patcher in errors.items():
        comfy.model_management.load_models_gpu([patcher])
        errors[name] = textbook_error(tiny, patcher, *step)
    cell(", ".join(f"{name} {error:.0e}" for name, error in errors.items()))
    assert max(errors.values()) < 1e-4


def test_node_ran(zoo, kind, cell, monkeypatch):
    """The node that a generation graph uses did run, and gives the conditioning of that graph."""
    import importlib.util

    wanted = NODES.get(kind.name, [])
    ran = []
    for module, name in {pair for pairs in NODES.values() for pair in pairs}:
        if not importlib.util.find_spec(f"comfy_extras.{module}"):
            continue  # of a newer host
        node = getattr(importlib.import_module(f"comfy_extras.{module}"), name)
        execute = node.execute
        monkeypatch.setattr(node, "execute", lambda *a, _e=execute, _n=name, **k: (ran.append(_n), _e(*a, **k))[1])
    with torch.inference_mode():
        zoo.encoded(kind, 1, max(kind.references, default=0))
    cell(", ".join(sorted(set(ran))) or "CLIPTextEncode")
    assert {name for _, name in wanted} <= set(ran)


REFERENCE = ("nodes_edit_model", "ReferenceLatent")
METHOD = ("nodes_flux", "FluxKontextMultiReferenceLatentMethod")
NODES = {
    "FLUX.1 Kontext": [REFERENCE, ("nodes_flux", "FluxGuidance")],
    "FLUX.2": [REFERENCE, ("nodes_flux", "FluxGuidance")],
    "FLUX.2 klein": [REFERENCE],
    "Qwen-Image-Edit": [("nodes_qwen", "TextEncodeQwenImageEdit")],
    "Qwen-Image-Edit-2509": [("nodes_qwen", "TextEncodeQwenImageEditPlus")],
    "Qwen-Image-Edit-2511": [("nodes_qwen", "TextEncodeQwenImageEditPlus")],
    "OmniGen2": [REFERENCE],
    "SD1.5 InstructPix2Pix": [("nodes_ip2p", "InstructPixToPixConditioning")],
    "SDXL InstructPix2Pix": [("nodes_ip2p", "InstructPixToPixConditioning")],
    "HiDream-E1": [("nodes_ip2p", "InstructPixToPixConditioning")],
    "LongCat-Image-Edit": [("nodes_qwen", "TextEncodeQwenImageEdit"), METHOD],
    "Z-Image Omni": [("nodes_zimage", "TextEncodeZImageOmni")],
    "Boogu": [("nodes_boogu", "TextEncodeBooguEdit")],
    "Mage-Flow": [("nodes_mage", "TextEncodeMageFlowEdit")],
    "JoyImage": [("nodes_joyimage", "TextEncodeJoyImageEdit")],
    "Krea2": [("nodes_qwen", "TextEncodeQwenImageEditPlus"), METHOD],
}


def text(run, clip, vae, caption, picture):
    return run("CLIPTextEncode", clip=clip, text=caption)[0]


def pix2pix(run, clip, vae, caption, picture):
    both = text(run, clip, vae, caption, picture)
    return run("InstructPixToPixConditioning", positive=both, negative=both, vae=vae, pixels=picture)[0]


def omni(run, clip, vae, caption, picture):
    return run("TextEncodeZImageOmni", clip=clip, prompt=caption, vae=vae, image1=picture)[0]


# The example graphs that ComfyUI ships for a family; where it ships none, what its users wire.
BY_HAND = {
    "SD1.5 InstructPix2Pix": pix2pix, "SDXL InstructPix2Pix": pix2pix, "Z-Image Omni": omni,
    "Flux": text, "SD1.5": text,
}  # fmt: skip
TEMPLATES = {
    "FLUX.1 Kontext": "flux_kontext_dev_basic",
    "FLUX.2": "image_flux2",
    "FLUX.2 klein": "image_flux2_klein_image_edit_4b_base",
    "Qwen-Image-Edit": "image_qwen_image_edit",
    "Qwen-Image-Edit-2509": "image_qwen_image_edit_2509",
    "Qwen-Image-Edit-2511": "image_qwen_image_edit_2511",
    "OmniGen2": "image_omnigen2_image_edit",
    "HiDream-E1": "hidream_e1_1",
    "LongCat-Image-Edit": "image_longcat_image_edit",
    "Boogu": "image_boogu_image_0_1_edit",
    "Mage-Flow": "image_mage_flow_edit_int8",
    "JoyImage": "image_joyai_image_edit",
    "Krea2": "image_krea2_turbo_int8_image_style_reference",
    "Flux": "flux_dev_checkpoint_example",
    "SD1.5": "default",
    "SDXL": "sdxl_simple_example",
    "SD3": "sd3.5_simple_example",
    "Qwen-Image": "image_qwen_image",
    "Lumina2": "image_netayume_lumina_t2i",
    "Z-Image": "image_z_image_turbo",
    "Chroma": "image_chroma_text_to_image",
}


def test_as_in_example_graph(zoo, kind, cell, trainer):
    """At the size that the example graph scales to, training has that graph's conditioning, to the last bit."""
    import templates

    families, tensors = trainer("host.families"), trainer("host.encode").tensors
    clip, vae, caption = zoo.Clip(kind), zoo.Vae(kind), "remove the background"
    picture = torch.from_numpy(zoo.picture(1, 1024, 1024)).mul(5).round().div(5)[None]  # nodes that scale round to 8 bits
    with torch.inference_mode():
        if kind.name in TEMPLATES and (graph := templates.find(TEMPLATES[kind.name])):
            how, graph = "yes", templates.Template(graph, clip, vae, caption, [picture]).conditionings()[0]
        elif kind.name in BY_HAND:
            how, graph = "yes, wired by hand", BY_HAND[kind.name](templates.run, clip, vae, caption, picture)
        else:
            cell("none in this ComfyUI")
            pytest.skip("this ComfyUI ships no example graph for it")
        (text_wanted, wanted), *_ = graph
        references = [picture] if kind.references else []
        family = families.family_of(zoo.model(kind).model, kind.file, len(references))
        (text, got), *_ = family.condition(clip, vae, families.Edit(caption, references, (1024, 1024)))
    assert torch.equal(text, text_wanted)
    guidances = wanted.pop("guidance", None), got.pop("guidance", None)  # the graph's is for use, ours for training
    assert wanted.keys() == got.keys()
    assert bool(references) == any(key in wanted for key in trainer("host.encode").REFERENCES)
    for key, value in wanted.items():
        assert all(torch.equal(*pair) for pair in zip(tensors(value), tensors(got[key]), strict=True)), key
        assert isinstance(value, (torch.Tensor, list, tuple)) or value == got[key], key
    cell(how + (" but guidance {1} for {0}".format(*guidances) if guidances[0] != guidances[1] else ""))


def test_negative_as_in_example_graph(zoo, kind, cell, trainer):
    """What a preview is sampled against is what that graph's sampler gets, whose negative prompt is left empty."""
    import templates

    families, encode = trainer("host.families"), trainer("host.encode")
    if not kind.references:
        cell("no references")
        pytest.skip("as its positive")
    clip, vae, picture = zoo.Clip(kind), zoo.Vae(kind), torch.from_numpy(zoo.picture(1, 1024, 1024)).mul(5).round().div(5)
    family = families.family_of(zoo.model(kind).model, kind.file, 1)
    if family.cfg == 1:
        cell("cfg 1")
        pytest.skip("it is sampled without")
    with torch.inference_mode():
        if graph := templates.find(TEMPLATES.get(kind.name, "")):
            conditionings = templates.Template(graph, clip, vae, "", [picture[None]], templates.NEGATIVE).conditionings()
        elif kind.name in BY_HAND:
            conditionings = [BY_HAND[kind.name](templates.run, clip, vae, "", picture[None])]
        else:
            cell("none in this ComfyUI")
            pytest.skip("this ComfyUI ships no example graph for it")
        ((text_wanted, wanted), *_), *_ = conditionings
        sample = encode.encode(family, clip, vae, "photo001", [picture.numpy()] * 2, "a caption")
        negative = encode.encode_negative(family, clip, encode.Blank(vae), "photo001", [picture.numpy()] * 2)
        ((text, got),) = sample.against(negative)
    assert torch.equal(text, text_wanted) and not torch.equal(text, sample.conditioning[0][0])
    assert wanted.keys() - {"guidance"} == got.keys() - {"guidance"}
    for key in wanted.keys() - {"guidance"}:
        assert all(torch.equal(*pair) for pair in zip(*map(encode.tensors, (wanted[key], got[key])), strict=True)), key
        assert isinstance(wanted[key], (torch.Tensor, list, tuple)) or wanted[key] == got[key], key
    cell("yes")


def test_references_keep_their_size(zoo, kind, cell, trainer):
    """Whatever a node would scale them to: against the target a LoRA would learn the zoom."""
    families, encode = trainer("host.families"), trainer("host.encode")
    if not kind.references:
        cell("none")
        pytest.skip("it takes none")
    family = families.family_of(zoo.model(kind).model, kind.file)
    for height, width in (64, 96), (960, 1024), (1072, 960), (1024, 1024):
        pictures = [zoo.picture(i, height, width) for i in (1, 2)]
        sample = encode.encode(family, zoo.Clip(kind), zoo.Vae(kind), "photo001", pictures, "caption")
        assert {latent.shape[-2:] for latent in sample.references} == {sample.latent.shape[-2:]}
    cell("yes")


def test_reads_references(zoo, kind, cell, trainer):
    forward = trainer("host.forward")
    with torch.inference_mode():
        model, sample = zoo.model(kind), zoo.encoded(kind, 1, max(kind.references, default=1))
        predicted = forward.trial(model, sample)
        if kind.references or kind.name in ("Flux", "Qwen-Image"):  # one class with their editing models
            forward.check_reads_references(model, sample, predicted)
            cell("yes")
        else:
            with pytest.raises(ValueError, match="takes no reference images"):
                forward.check_reads_references(model, sample, predicted)
            cell("no: refused")


def test_too_many_references(zoo, kind, cell, trainer):
    families = trainer("host.families")
    family = families.family_of(zoo.model(kind).model, kind.file)
    most = family.most
    cell("any number" if most is None else f"over {most}: refused")
    families.check_counts(family, {"photo001": most or 9})
    with pytest.raises(ValueError, match="photo002 has") if most else contextlib.nullcontext():
        families.check_counts(family, {"photo001": 1, "photo002": (most or 9) + 1})


def test_file(zoo, tiny, kind, cell, trainer, tmp_path):
    """Every key of the saved LoRA is used by ComfyUI's loader, and the output is that of training."""
    families, files = trainer("host.families"), trainer("lora.files")
    with torch.inference_mode():
        model = zoo.model(kind)
        sample = zoo.sample(kind, model, 1, max(kind.references, default=0))
        training = tiny.Training(model)
        lora = training.lora.state_dict()
        safetensors.torch.save_file(files.named(lora, families.family_of(model.model).name), tmp_path / "x.safetensors")
        trainer("host.apply").prove(model, tmp_path / "x.safetensors", lora)
    error = tiny.effect_error(training, sample)
    cell(f"{error:.0e}")
    assert error < 1e-5


class Cancel(BaseException):
    """ComfyUI's interrupt is a BaseException in newer versions."""


def test_base_as_before(zoo, tiny, kind, cell, trainer):
    """Weights, buffers, attributes and patches, after success, cancel, error and out of memory."""
    import comfy.model_management

    loop = trainer("loop")
    with torch.inference_mode():
        model = zoo.model(kind)
        samples = [zoo.encoded(kind, i, max(kind.references, default=0)) for i in range(2)]
        comfy.model_management.load_models_gpu([model])
        before = tiny.state(model)
        for end in (None, Cancel, RuntimeError, torch.cuda.OutOfMemoryError):

            def on_step(step, loss, end=end):
                if end and step == 2:
                    raise end("stop")

            with pytest.raises(end) if end else contextlib.nullcontext():
                lora = loop.train(model, samples, loop.Settings(2, 2, 0), 2, 1e-3, tiny.watch(on_step), plan=tiny.plan(True))
            tiny.same(tiny.state(model), before)
    assert any(lora[key].abs().sum() > 0 for key in lora if "lora_B" in key)
    cell("yes")


def test_the_readme_names_it(zoo, kind, cell):
    """With the file that its graph loads, and whether the oldest ComfyUI has it."""
    import comfyui_version
    import templates

    readme = (ROOT / "README.md").read_text(encoding="utf-8").split("### Newest models")[1]
    (row,) = re.findall(rf"^\| {re.escape(kind.name)} \| (.*) \| (.*) \| (.*) \|$", readme, re.MULTILINE)
    file, since, graph = (text.strip("`") for text in row)
    assert graph == TEMPLATES.get(kind.name, "none; wired by hand")
    if found := templates.find(graph):
        assert f'"{file}' in json.dumps(found)
    oldest = tuple(map(int, comfyui_version.__version__.split("."))) <= (0, 3, 75)
    assert since == "0.3.75" if oldest else since in ("0.3.75", "newer")
    cell(f"{file}, {since}")


def test_every_cell_is_filled(request, matrix, zoo):
    """A family that no test looked at, or a cell without a figure or a reason, fails."""
    assert {kind.name for kind in zoo.KINDS} == set(kinds())
    checks = {item.originalname for item in request.session.items if item.module is request.module}
    if len(checks) > 1 and request.config.getoption("keyword") == "":
        assert set(matrix) == set(kinds())
        assert not [(name, check) for name, row in matrix.items() for check, text in row.items() if not text]
