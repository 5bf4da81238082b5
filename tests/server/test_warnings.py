"""What Train Edit LoRA warns of on a running ComfyUI, and trains all the same."""
import shutil

import pytest
import safetensors
import safetensors.torch
from running import node, steps_of

SMALL = {"folder": "samples/background-removal-held-out", "resolution": 64}  # 6 pairs, quick to encode


def base_file(server, name):
    """What a LoRA file says that its model was loaded from."""
    with safetensors.safe_open(server.base / f"models/loras/{name}.safetensors", "numpy") as lora:
        return lora.metadata().get("ss_sd_model_name")


@pytest.fixture
def reported(client, server):
    """`reported(graph)`: the report of a training that made a LoRA, and the texts of its steps."""

    def run(graph):
        graph.prompt["report"] = node("PreviewAny", source=[graph.train, 3])
        texts = []
        outcome = client.run(graph.prompt, lambda node, text: texts.append(text))
        steps = [text for text in texts if text.startswith("step ")]
        assert steps and (server.base / "models/loras" / outcome.outputs["name"]["text"][0]).is_file()
        return outcome.outputs["report"]["text"][0], steps

    return run


def test_a_distilling_lora_on_the_model_is_named(client, server, training, reported):
    plain, _ = reported(training(SMALL, name="my-turbo-8steps", steps=1))  # its own name is no matter
    assert "distilled" not in plain

    graph = training(SMALL, name="on_turbo")
    graph.prompt["turbo"] = node("LoraLoaderModelOnly", model=["1", 0], lora_name="my-turbo-8steps.safetensors",
                                 strength_model=1.0)  # fmt: skip
    graph.prompt[graph.train]["inputs"]["model"] = ["turbo", 0]
    report, steps = reported(graph)
    warning = report.splitlines()[1]
    assert warning.startswith("my-turbo-8steps.safetensors seems distilled to few steps")
    assert "Train on FLUX.1 Kontext dev or FLUX.1 dev" in warning
    assert all(text.endswith(warning) for text in steps), "it is on the node while it trains"
    assert base_file(server, "on_turbo") is None, "a LoRA is not the model"

    graph.prompt["turbo"]["inputs"]["strength_model"] = 0.0
    graph.prompt[graph.train]["inputs"]["name"] = "on_no_turbo"
    assert "distilled" not in reported(graph)[0]
    graph.prompt["turbo"]["inputs"]["strength_model"] = 1.0
    graph.prompt[graph.train]["inputs"]["name"] = "on_turbo"

    steps_of(client, training(SMALL, name="on_turbo_between"))
    graph.prompt.pop("report")  # now it is run again, and finds that it was trained
    graph.prompt["again"] = node("PreviewAny", source=[graph.train, 3])
    outcome, steps, _ = steps_of(client, graph)
    assert graph.train in outcome.ran and not steps and warning in outcome.outputs["again"]["text"][0]


@pytest.fixture
def diffusion_model(comfy, server):
    """`diffusion_model(name)`: a file of a tiny, randomly initialised SD3 that ComfyUI's own loader takes."""
    import zoo

    folder = server.base / "models/diffusion_models"
    folder.mkdir(parents=True, exist_ok=True)
    kind = next(kind for kind in zoo.KINDS if kind.name == "SD3")
    first = folder / "tiny-sd3.safetensors"
    safetensors.torch.save_file(zoo.model(kind).model.diffusion_model.state_dict(), first)
    return lambda name: shutil.copy(first, folder / name)


@pytest.mark.parametrize("file, warned", [("sd3.5_large_turbo.safetensors", True), ("sd3.5_large.safetensors", False)])
def test_a_distilled_model_is_known_by_its_file(training, server, reported, diffusion_model, file, warned):
    diffusion_model(file)
    name = f"on_{file.removesuffix('.safetensors')}"
    graph = training(name=name)
    train = graph.prompt[graph.train]["inputs"]
    graph.prompt |= {
        "file": node("UNETLoader", unet_name=file, weight_dtype="default"),
        "text": node("CLIPTextEncode", clip=["1", 1], text="a picture"),
        "empty": node("EmptySD3LatentImage", width=64, height=64, batch_size=1),
        "collect": node("PairLoRACollect", conditioning=["text", 0], latent=["empty", 0]),
    }
    train |= {"model": ["file", 0], "dataset": ["collect", 0]}
    report, _ = reported(graph)
    assert (f"{file} seems distilled to few steps" in report) == warned
    assert ("Train on the model that it was distilled from" in report) == warned
    assert base_file(server, name) == file


@pytest.mark.parametrize("select, turbo", [(1, True), (2, False)])
def test_behind_a_switch_no_other_model_is_believed(training, server, reported, diffusion_model, select, turbo):
    """Newer ComfyUI keeps the file on the model; for an older one it is not known."""
    graph = training(name=f"switched_{select}")
    train = graph.prompt[graph.train]["inputs"]
    files = ["sd3.5_large_turbo.safetensors", "sd3.5_large.safetensors"]
    for i, file in enumerate(files):
        diffusion_model(file)
        graph.prompt[f"file{i}"] = node("UNETLoader", unet_name=file, weight_dtype="default")
    graph.prompt |= {
        "switch": node("PairLoRATestSwitch", select=select, model1=["file0", 0], model2=["file1", 0]),
        "text": node("CLIPTextEncode", clip=["1", 1], text="a picture"),
        "empty": node("EmptySD3LatentImage", width=64, height=64, batch_size=1),
        "collect": node("PairLoRACollect", conditioning=["text", 0], latent=["empty", 0]),
    }
    train |= {"model": ["switch", 0], "dataset": ["collect", 0], "clip": ["nothing", 0], "vae": ["nothing", 0]}
    graph.prompt["nothing"] = node("PairLoRATestValue", text="null")  # a collected dataset needs neither
    report, _ = reported(graph)
    file = base_file(server, f"switched_{select}")
    assert file in (None, files[select - 1]) and ("distilled" in report) == (turbo and file is not None)


def test_a_caption_longer_than_the_encoder_reads_is_said(training, reported):
    report, _ = reported(training(SMALL | {"trigger_word": "a white background behind it " * 4}, name="long"))
    assert "caption of test001 is longer than the 16 tokens" in report and "read in 2 parts" in report
    report, _ = reported(training(SMALL, name="short"))
    assert "tokens" not in report
