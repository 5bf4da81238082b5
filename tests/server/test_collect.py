"""Collect Conditioning on a running ComfyUI: samples that the graph's own nodes have encoded train the same LoRA."""
import numpy as np
import pytest
import safetensors.numpy
from running import node, steps_of

from client import GraphError

CLIP, VAE = ["1", 1], ["1", 2]  # Tiny Demo Model in the example workflows
SMALL = {"folder": "samples/background-removal-held-out", "resolution": 64}  # 6 pairs, quick to encode


@pytest.fixture
def collecting(training):
    """A prompt that only trains, on what ComfyUI's nodes for FLUX.1 Kontext make of a dataset's samples."""

    def load(references=1, dataset=SMALL, **options):
        graph = training(dataset, **options)
        train = graph.prompt[graph.train]["inputs"]
        graph.prompt |= {
            "samples": node("PairLoRASample", dataset=train["dataset"], which="all"),
            "positive": node("CLIPTextEncode", clip=CLIP, text=["samples", 4]),
            "latent": node("VAEEncode", vae=VAE, pixels=["samples", 3]),
            "collect": node("PairLoRACollect", conditioning=["positive", 0], latent=["latent", 0]),
        }
        for i in range(references):
            graph.prompt[f"start{i}"] = node("VAEEncode", vae=VAE, pixels=["samples", i])
            add(graph.prompt, "ReferenceLatent", latent=[f"start{i}", 0])
        add(graph.prompt, "FluxGuidance", guidance=1.0)
        train["dataset"] = ["collect", 0]
        return graph

    return load


def add(prompt, class_type, name="conditioning", of="conditioning", **inputs):
    """Put another node between what Collect Conditioning gets now and itself."""
    new = f"{class_type}{len(prompt)}"
    prompt[new] = node(class_type, **{name: prompt["collect"]["inputs"][of]}, **inputs)
    prompt["collect"]["inputs"][of] = [new, 0]


def weights(server, name):
    """The tensors of a LoRA file, by name: bytes and shapes."""
    tensors = safetensors.numpy.load_file(server.base / f"models/loras/{name}.safetensors")
    assert any(np.abs(tensor).max() > 0 for key, tensor in tensors.items() if "lora_up" in key), "it has learned"
    return {key: (tensor.dtype, tensor.shape, tensor.tobytes()) for key, tensor in tensors.items()}


@pytest.mark.parametrize("dataset, references", [("background-removal", 1), ("try-on-held-out", 3)])
def test_a_collected_dataset_trains_the_same_lora(client, server, training, collecting, dataset, references):
    options = {"dataset": {"folder": f"samples/{dataset}", "resolution": 64}, "steps": 4, "settings": {"batch_size": 2, "seed": 7, "hold_out": "none"}}
    runs = {
        f"direct_{dataset}": training(name=f"direct_{dataset}", **options),
        f"collected_{dataset}": collecting(name=f"collected_{dataset}", references=references, **options),
        f"without_{dataset}": collecting(name=f"without_{dataset}", references=references - 1, **options),
    }
    assert all(len(steps_of(client, graph)[1]) == 4 for graph in runs.values())
    direct, collected, without = (weights(server, name) for name in runs)
    assert collected == direct, "byte for byte"
    assert without != direct, "what is collected is what is trained on"


def test_a_collected_dataset_queued_again_does_not_train_again(client, training, collecting):
    graph = collecting(name="collected_again")
    _, steps, name = steps_of(client, graph)
    assert steps
    outcome, steps, _ = steps_of(client, graph)
    assert graph.train not in outcome.ran and not steps

    steps_of(client, training(SMALL, name="collected_between"))  # ComfyUI forgets what it has cached
    outcome, steps, again = steps_of(client, graph)
    assert graph.train in outcome.ran and "collect" in outcome.ran and not steps and again == name


def test_one_conditioning_serves_for_every_latent(client, collecting):
    graph = collecting(name="one_for_all", references=0)
    graph.prompt["positive"]["inputs"]["text"] = "remove the background"
    graph.prompt["report"] = node("PreviewAny", source=[graph.train, 3])
    outcome, steps, _ = steps_of(client, graph)
    assert steps and "6 samples" in outcome.outputs["report"]["text"][0]


def of_more(prompt):
    prompt["more"] = node("PairLoRADataset", folder="samples/background-removal", default_caption="", trigger_word="",
                          resolution=64)  # fmt: skip
    prompt["others"] = node("PairLoRASample", dataset=["more", 0], which="all")
    prompt["latent"]["inputs"]["pixels"] = ["others", 3]


def masked(prompt):
    prompt["mask"] = node("SolidMask", value=1.0, width=64, height=64)
    add(prompt, "SetLatentNoiseMask", "samples", "latent", mask=["mask", 0])


@pytest.mark.parametrize("change, message", [
    (of_more, "6 conditionings and 24 latents; connect one of each for every sample"),
    (lambda prompt: add(prompt, "RepeatLatentBatch", "samples", "latent", amount=2),
     "latent of sample 1 holds 2 images; encode one image at a time"),
    (masked, "latent of sample 1 has a mask.*Encode the image without one"),
    (lambda prompt: add(prompt, "ConditioningCombine", "conditioning_1", conditioning_2=["positive", 0]),
     "conditioning of sample 1 has 2 parts; train on one"),
    (lambda prompt: add(prompt, "ConditioningSetTimestepRange", start=0.0, end=0.5), "start_percent.*Leave it out"),
    (lambda prompt: add(prompt, "ConditioningSetArea", width=64, height=64, x=0, y=0, strength=1.0),
     "area.*Leave it out"),
], ids=["lengths", "batch", "mask", "combined", "range", "area"])  # fmt: skip
def test_what_training_would_ignore_is_refused_before_training(client, server, collecting, change, message):
    graph, texts = collecting(name="refused"), []
    change(graph.prompt)
    with pytest.raises(GraphError, match=f"PairLoRACollect: .*{message}"):
        client.run(graph.prompt, lambda node, text: texts.append(text))
    assert not texts and not list((server.base / "models/loras").glob("refused*"))


def test_a_model_that_ignores_collected_references_is_refused(client, server, collecting):
    graph = collecting(name="ignored")
    graph.prompt["other"] = node("PairLoRATestNoReferences")
    graph.prompt[graph.train]["inputs"]["model"] = ["other", 0]
    with pytest.raises(GraphError, match="SD3.*takes no reference images"):
        client.run(graph.prompt)
    assert not list((server.base / "models/loras").glob("ignored*"))


def test_a_collected_dataset_has_no_pictures(client, collecting):
    graph = collecting()
    prompt = graph.prompt | {"out": node("PairLoRASample", dataset=["collect", 0], which="all")}
    prompt |= {"shown": node("PreviewAny", source=["out", 5])}
    with pytest.raises(GraphError, match="collected dataset has no pictures.*Connect Load Paired Dataset"):
        client.run(prompt)
