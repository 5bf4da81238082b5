"""Pictures and captions are encoded once, kept on disk, and only some of them in memory."""
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from pictures import textured


@pytest.fixture
def folder(tmp_path) -> Path:
    folder = tmp_path / "pairs"
    folder.mkdir()
    for i in range(4):
        textured(2 * i, (64, 64)).save(folder / f"photo{i}_start.png")
        textured(2 * i + 1, (64, 64)).save(folder / f"photo{i}_end.png")
        (folder / f"photo{i}.txt").write_text(f"caption {i}")
    return folder


@pytest.fixture
def encoders(zoo, trainer):
    """A text encoder and a VAE that count what they encode, each around a small module that ComfyUI manages."""
    import comfy.model_management
    import comfy.model_patcher

    kind = zoo.KINDS[0]

    def managed(seed):
        module = torch.nn.Linear(4, 4)
        module.weight.data = torch.full((4, 4), float(seed))
        device = comfy.model_management.get_torch_device()
        return comfy.model_patcher.ModelPatcher(module, device, torch.device("cpu"))

    class Clip(zoo.Clip):
        patcher, layer_idx, tokenizer_options, texts = managed(1), None, {}, []

        def encode_from_tokens_scheduled(self, tokens):
            comfy.model_management.load_models_gpu([self.patcher])
            self.texts.append(tokens[0])
            return super().encode_from_tokens_scheduled(tokens)

    class Vae(zoo.Vae):
        patcher, pictures = managed(2), 0

        def encode(self, pixels):
            comfy.model_management.load_models_gpu([self.patcher])
            self.pictures += 1
            return super().encode(pixels)

    return SimpleNamespace(clip=Clip(kind), vae=Vae(kind), model=zoo.model(kind), managed=managed, kind=kind)


@pytest.fixture
def encoded(encoders, folder, trainer, dataset_in, tmp_path):
    """`encoded()`: the samples of the folder as a run gets them, and how many texts and pictures were encoded for it."""
    encoding, families = trainer("encoding"), trainer("host.families")

    def run(family=None, limit=2**40, look=lambda sample: True, guided=(), **reading):
        opened = dataset_in(folder, **reading)
        encoders.clip.texts.clear()
        encoders.vae.pictures = 0
        store = trainer("host.store").Store(tmp_path / "encodings", limit)
        with torch.inference_mode():
            samples = encoding.encoded(
                encoders.model, encoders.clip, encoders.vae, opened, store,
                encoding.encoders_fingerprint(encoders.clip, encoders.vae), family or families.family_of(encoders.model.model),
                lambda text: None, look, guided,
            )  # fmt: skip
        return samples, (len(encoders.clip.texts), encoders.vae.pictures)

    return run


def test_all_captions_are_encoded_before_any_picture(encoded, encoders, monkeypatch):
    """And each is asked as often as if they took turns. The sample looked at has its shapes, but not its pictures yet."""
    asked, seen = [], []
    for encoder, name in ((encoders.clip, "encode_from_tokens_scheduled"), (encoders.vae, "encode")):
        monkeypatch.setattr(encoder, name, lambda *a, ask=getattr(encoder, name), name=name: (asked.append(name), ask(*a))[1])
    samples, counts = encoded(look=lambda sample: seen.append((sample, len(asked))) or True)
    assert asked == ["encode_from_tokens_scheduled"] * 4 + ["encode"] * 8 and counts == (4, 8)
    ((sample, before),) = seen
    assert before == 1 and sample.latent.shape == samples[0].latent.shape and not sample.latent.any()
    assert sample.references[0].shape == samples[0].references[0].shape


def test_the_largest_sample_is_looked_at_first(encoded, folder, trainer):
    """By the pixels it is read with, not by its caption or its files' sizes."""
    for i, size in enumerate([(64, 64), (400, 120), (90, 128), (120, 400)]):
        for part in ("start", "end"):
            textured(i, size).save(folder / f"photo{i}_{part}.png")
    (folder / "photo0.txt").write_text("a caption that is longer than the others")
    textured(9, (64, 64)).save(folder / "unpaired.png")
    (folder / "unpaired.txt").write_text("the longest caption of all, without any input to go with it")
    seen = []
    samples, _ = encoded(look=lambda sample: seen.append(sample.name) or True, resolution=128)
    assert seen == [trainer("loop").largest_of(samples).name] == ["photo2"]


def test_what_was_heard_is_not_asked_again_after_cancelling(encoded, encoders, monkeypatch):
    encode = encoders.vae.encode

    def cancelled(pixels):
        raise KeyboardInterrupt

    monkeypatch.setattr(encoders.vae, "encode", cancelled)
    with pytest.raises(KeyboardInterrupt):
        encoded()
    assert len(encoders.clip.texts) == 4
    monkeypatch.setattr(encoders.vae, "encode", encode)
    assert encoded()[1] == (0, 8)


def test_negatives_are_heard_with_the_captions_and_kept(encoded, encoders, trainer, monkeypatch):
    """They take no picture more: their references are those of the samples."""
    asked, encoding = [], trainer("encoding")
    for encoder, name in ((encoders.clip, "encode_from_tokens_scheduled"), (encoders.vae, "encode")):
        monkeypatch.setattr(encoder, name, lambda *a, ask=getattr(encoder, name), name=name: (asked.append(name), ask(*a))[1])
    guided = ["photo1", "photo3"]
    samples, counts = encoded(guided=guided)
    assert counts == (6, 8) and asked == ["encode_from_tokens_scheduled"] * 6 + ["encode"] * 8
    assert encoders.clip.texts.count("") == 2
    negatives = encoding.negatives(samples, guided)
    assert encoded(guided=guided)[1] == encoded()[1] == (0, 0) and encoded(guided=["photo0"])[1] == (1, 0)
    assert list(negatives) == guided
    for i, ((text, options),) in zip((1, 3), negatives.values()):
        ((own_text, own),) = samples[i].conditioning
        assert not torch.equal(text, own_text) and options.keys() == own.keys()
        assert options["reference_latents"][0].any() and torch.equal(options["reference_latents"][0], own["reference_latents"][0])


def test_one_after_the_other_gives_what_both_together_give(zoo, trainer, tmp_path):
    """For every family, to the last bit; each is asked as often as together, and the VAE for nothing at first."""
    encode, families, equal = trainer("host.encode"), trainer("host.families"), []
    store = trainer("host.store").Store(tmp_path)

    def told(of, name):
        ask = getattr(of, name)
        setattr(of, name, lambda *args: (asked.append(name), ask(*args))[1])
        return of

    def digest(found):
        return encode.digest([found.latent, found.conditioning])

    for kind in zoo.KINDS:
        for references in () if kind.missing else {0, *kind.references}:
            for size in ((64, 96), (1024, 1024)):
                family = families.family_of(zoo.model(kind).model, kind.file, references)
                images = [zoo.picture(i, *size) for i in range(references + 1)]
                asked, clip = [], told(zoo.Clip(kind), "encode_from_tokens_scheduled")
                vae = told(zoo.Vae(kind), "encode")
                wanted = encode.encode(family, clip, vae, "a", images, "a caption")
                together, listener = asked.copy(), encode.Listener(clip)
                asked.clear()
                blank = encode.encode(family, listener, encode.Blank(vae), "a", images, "a caption")
                store.put("heard", encode.Encoded("a", torch.zeros(0), listener.heard))
                speaker = encode.Speaker(SimpleNamespace(tokenize=clip.tokenize), store.get("heard", "a").conditioning)
                captions = asked.copy()
                found = encode.encode(family, speaker, vae, "a", images, "a caption")
                assert "encode" not in captions and sorted(asked) == sorted(together)
                pairs = zip(encode.tensors([wanted.latent, wanted.conditioning]),
                            encode.tensors([blank.latent, blank.conditioning]), strict=True)  # fmt: skip
                equal += [digest(wanted) == digest(found), all(a.shape == b.shape for a, b in pairs)]
    assert all(equal) and len(equal) > 100


def test_a_vae_that_does_not_tell_its_shapes_is_asked_once_for_each_size(encoded, zoo, monkeypatch):
    monkeypatch.delattr(zoo.Vae, "spacial_compression_encode")
    assert encoded()[1] == (4, 1 + 8)


def test_what_was_not_heard_is_asked_and_said(encoders, trainer, caplog):
    said = trainer("host.encode").Speaker(encoders.clip, []).encode_from_tokens_scheduled(encoders.clip.tokenize("a caption"))
    assert said and "asked what it was not asked at first" in caplog.text


def test_blank_latents_have_the_shapes_of_comfyuis_vaes(comfy, trainer):
    vae = trainer("host.demo_model").load()[2]
    pixels = torch.rand(1, 70, 132, 3)
    with torch.inference_mode():
        assert trainer("host.encode").Blank(vae).encode(pixels).shape == vae.encode(pixels).shape


def test_nothing_is_encoded_twice(encoded):
    first, counts = encoded()
    assert counts == (4, 8)
    seen = []
    again, counts = encoded(look=lambda sample: seen.append(sample) or True)
    assert counts == (0, 0) and torch.equal(seen[0].latent, first[0].latent)
    for a, b in zip(first, again, strict=True):
        assert a.name == b.name and torch.equal(a.latent, b.latent) and torch.equal(a.references[0], b.references[0])
        assert torch.equal(a.conditioning[0][0], b.conditioning[0][0]) and a.conditioning[0][1]["guidance"] == 1.0


def test_what_comes_from_disk_is_what_the_nodes_gave(encoded, zoo, trainer, folder, plain):
    samples, _ = encoded()
    images = plain("images")
    pictures = [images.load(folder / f"photo2_{part}.png", images.colour("white")) for part in ("start", "end")]
    pictures, kind = images.on_one_grid(pictures, 64), zoo.KINDS[0]
    family = trainer("host.families").family_of(zoo.model(kind).model)
    direct = trainer("host.encode").encode(family, zoo.Clip(kind), zoo.Vae(kind), "photo2", pictures, "caption 2")
    assert samples[2].name == "photo2" and torch.equal(samples[2].latent, direct.latent)
    (text, options), (wanted, wanted_options) = samples[2].conditioning[0], direct.conditioning[0]
    assert torch.equal(text, wanted) and options.keys() == wanted_options.keys()
    assert torch.equal(options["pooled_output"], wanted_options["pooled_output"])


@pytest.mark.parametrize(
    "change, counts",
    [
        (lambda folder, encoders: (folder / "photo1.txt").write_text("another"), (1, 2)),
        (lambda folder, encoders: textured(99, (64, 64)).save(folder / "photo1_start.png"), (1, 2)),
        (lambda folder, encoders: shutil.copy(folder / "photo0_end.png", folder / "photo3_end.png"), (1, 2)),
        (lambda folder, encoders: [file.rename(folder / f"renamed{file.name}") for file in folder.iterdir()], (0, 0)),
        (lambda folder, encoders: setattr(encoders.clip, "layer_idx", -2), (4, 8)),
        (lambda folder, encoders: encoders.clip.tokenizer_options.update(t5xxl_min_length=1), (4, 8)),
        (lambda folder, encoders: setattr(encoders.clip, "patcher", encoders.managed(3)), (4, 8)),
        (lambda folder, encoders: setattr(encoders.vae, "patcher", encoders.managed(3)), (4, 8)),
    ],
    ids=["caption", "input", "target", "names", "clip skip", "tokenizer", "text encoder", "VAE"],
)  # fmt: skip
def test_only_what_has_changed_is_encoded_again(encoded, encoders, folder, change, counts):
    encoded()
    change(folder, encoders)
    samples, seen = encoded()
    encoders.clip.tokenizer_options.clear()
    assert seen == counts and len(samples) == 4


def test_how_it_is_read_matters_too(encoded, trainer, monkeypatch):
    encoded()
    assert encoded(resolution=128)[1] == (4, 8)
    assert encoded(trigger_word="zebra")[1] == (4, 8)
    families = trainer("host.families")
    assert encoded(families.QWEN_IMAGE_EDIT_2509)[1] == (4, 8)
    for module, name in ((families, "REVISION"), (trainer("host.compat"), "VERSION")):
        monkeypatch.setattr(module, name, "another")
        assert encoded()[1] == (4, 8), "other nodes may make something else of it"


def test_few_samples_stay_in_memory(encoded, trainer, monkeypatch):
    samples, _ = encoded()
    one = sum(t.nbytes for t in trainer("host.encode").tensors([samples[0].latent, samples[0].conditioning]))
    reads = []
    get = samples.store.get
    monkeypatch.setattr(samples.store, "get", lambda *a: (reads.append(a), get(*a))[1])
    bounded = trainer("host.store").Stored(samples.store, dict(samples.keys), limit=2 * one + one // 2)
    for i in (0, 1, 0, 1, 2, 2, 1):
        assert bounded[i].name == f"photo{i}" and len(bounded._kept) <= 2
    assert len(reads) == 3
    bounded[0]
    assert len(reads) == 4, "the least recently used had gone"


def test_a_run_on_little_memory_is_the_same_run(encoded, encoders, trainer):
    loop, samples = trainer("loop"), encoded()[0]
    tight = trainer("host.store").Stored(samples.store, dict(samples.keys), limit=1)
    with torch.inference_mode():
        a, b = (
            loop.train(encoders.model, data, loop.Settings(2, 2, 0), 4, 1e-3) for data in (samples, tight)
        )
    assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_text_encoder_and_vae_are_gone_when_the_model_is_loaded(encoded, encoders, trainer, monkeypatch):
    import comfy.model_management

    beside, load = [], comfy.model_management.load_models_gpu

    def watched(models, *args, **kwargs):
        if encoders.model in models:
            loaded = [m.model for m in comfy.model_management.current_loaded_models]
            beside.append([p for p in loaded if p in (encoders.clip.patcher, encoders.vae.patcher)])
        return load(models, *args, **kwargs)

    monkeypatch.setattr(comfy.model_management, "load_models_gpu", watched)
    samples, _ = encoded()
    loop = trainer("loop")
    with torch.inference_mode():
        loop.train(encoders.model, samples, loop.Settings(2, 1, 0), 1, 1e-3)
    assert beside and not any(beside)


def test_a_damaged_file_is_made_again(encoded, tmp_path):
    encoded()
    file = sorted((tmp_path / "encodings").iterdir())[0]
    file.write_bytes(file.read_bytes()[:-10])
    assert encoded()[1] == (1, 2)


def test_the_least_recently_used_files_make_room(encoded, tmp_path, trainer):
    import os

    encoded()
    files = sorted((tmp_path / "encodings").iterdir())
    for age, file in enumerate(files):
        os.utime(file, (1000 - age, 1000 - age))
    store = trainer("host.store").Store(tmp_path / "encodings", 2 * files[0].stat().st_size + 10)
    store.make_room([files[3].stem])
    assert [file.exists() for file in files] == [True, False, False, True], "what is wanted now is spared"


def test_two_that_share_the_folder_do_not_hinder_each_other(encoded, tmp_path, trainer, monkeypatch):
    samples, _ = encoded()
    store, key = samples.store, samples.keys[0][1]
    first, second = store.get(key, "a"), store.get(key, "b")
    store.put(key, first)
    store.put(key, second)
    unlink = type(tmp_path).unlink

    def already_gone(path, *args, **kwargs):
        unlink(path)
        unlink(path)

    monkeypatch.setattr(type(tmp_path), "unlink", already_gone)
    trainer("host.store").Store(tmp_path / "encodings", 0).make_room([])
    assert not list((tmp_path / "encodings").iterdir())


def test_what_cannot_be_kept_is_named(encoded, tmp_path, trainer):
    samples, _ = encoded()
    store, encode = samples.store, trainer("host.encode")
    hooked = [[samples[0].conditioning[0][0], {"hooks": object()}]]
    with pytest.raises(ValueError, match="conditioning of photo0 holds object.*hooks"):
        store.put("x", encode.Encoded("photo0", samples[0].latent, hooked))
    (tmp_path / "a file").write_text("")
    full = trainer("host.store").Store(tmp_path / "a file")
    with pytest.raises(OSError, match="photo0 cannot be kept in .*a file.*Make room"):
        full.put("x", samples[0])


@pytest.mark.parametrize("encoder, method, asked", [("clip", "encode_from_tokens_scheduled", 2), ("vae", "encode", 4)])
def test_a_file_that_changes_meanwhile_is_named(encoded, encoders, folder, monkeypatch, encoder, method, asked):
    encode, done = getattr(getattr(encoders, encoder), method), []

    def meanwhile(value):
        if not done:
            textured(77, (64, 64)).save(folder / "photo2_end.png")
        done.append(1)
        return encode(value)

    monkeypatch.setattr(getattr(encoders, encoder), method, meanwhile)
    with pytest.raises(ValueError, match="photo2 has changed"):
        encoded()
    assert len(done) == asked


def test_a_model_without_references_is_refused_before_the_rest_is_encoded(encoded, encoders, zoo):
    encoders.model = zoo.model(next(kind for kind in zoo.KINDS if kind.name == "SD3"))
    with pytest.raises(ValueError, match="SD3.*takes no reference images"):
        encoded(look=lambda sample: False)
    assert len(encoders.clip.texts) == 1


def test_latents_of_another_model_are_refused_before_the_rest_is_encoded(encoded, encoders, zoo):
    encoders.model = zoo.model(next(kind for kind in zoo.KINDS if kind.name == "FLUX.2"))
    with pytest.raises(ValueError, match="Flux2 cannot take photo0, whose latent is 8 x 8 with 16 channels.*VAE"):
        encoded(look=lambda sample: False)
    assert len(encoders.clip.texts) == 1


def test_a_caption_in_several_parts_is_said(trainer, dataset_in, folder):
    """With ComfyUI's own tokenizer of Stable Diffusion, which reads 77 tokens at a time."""
    import comfy.sd1_clip

    (folder / "photo3.txt").write_text("a very long caption " * 40)
    opened = dataset_in(folder)
    tokenizer = comfy.sd1_clip.SD1Tokenizer()
    clip = SimpleNamespace(tokenize=tokenizer.tokenize_with_weights)
    warning = trainer("encoding").caption_warning(clip, opened)
    both = SimpleNamespace(tokenize=lambda text: {"l": [77, 77], "t5xxl": [[1] * 256]})
    assert trainer("encoding").caption_warning(both, opened) is None, "T5, which FLUX.1 follows, reads it at once"
    assert "The caption of photo3" in warning and "77 tokens" in warning and "3 parts" in warning
    (folder / "photo3.txt").write_text("a short one")
    opened = dataset_in(folder)
    assert trainer("encoding").caption_warning(clip, opened) is None


def test_a_size_that_the_model_cannot_take_is_named(zoo, tiny, trainer):
    kind = next(kind for kind in zoo.KINDS if kind.name == "SD3")  # made for at most 16 by 16 tokens
    loop = trainer("loop")
    with torch.inference_mode():
        model = zoo.model(kind)
        samples = [zoo.encoded(kind, 1, 0), zoo.encoded(kind, 2, 0, size=(64, 512))]
        with pytest.raises(ValueError, match="SD3 cannot take sample2, whose latent is 64 x 8.*another resolution"):
            loop.train(model, samples, loop.Settings(2, 1, 0), 1, 1e-3, tiny.watch(lambda step, loss: pytest.fail("it trained")))


@pytest.mark.parametrize("method, file, release", [
    ("index_timestep_zero", "", "-2511"), ("index_timestep_zero", "qwen-image-edit-2509.safetensors", "-2511"),
    ("index", "qwen-image-edit-2511.gguf", "-2511"), (None, "qwen-image-edit-2509.safetensors", "-2509"), ("index", "", ""),
])  # fmt: skip
def test_what_the_weights_tell_of_a_release_comes_before_its_name(trainer, method, file, release):
    class QwenImage:
        model_config, diffusion_model = None, SimpleNamespace(default_ref_method=method)

    name = trainer("host.families").family_of(QwenImage(), file, 1).name
    assert name == ("Qwen-Image-Edit" + release if release else "Qwen-Image")
