"""What a LoRA's file says of itself."""
import json

import pytest


@pytest.fixture
def header(trainer, plain):
    """`header(graph, About's arguments)`: the metadata of a LoRA trained on such a dataset."""
    nodes = {"prompt": {"1": {}}, "workflow": {"nodes": []}, "nothing": None}

    def make(graph=nodes, **about):
        about = plain("dataset").About("my pairs", [1, 2], {"a caption": 2}, **about)
        settings = trainer("loop").Settings(rank=8, batch_size=2, seed=5, accumulation=3)
        return trainer("lora.files").metadata(
            "my_edit", "run", "FLUX.2", about, settings, 100, 3e-4, 12.0, "fingerprint", "flux2-dev.safetensors",
            graph, "nothing recomputed",
        )  # fmt: skip

    return make


def test_everything_is_text(header):
    assert all(isinstance(key, str) and isinstance(value, str) for key, value in header().items())


def test_what_other_programs_read(header):
    found = header(resolution=512, trigger_word="zebra")
    assert found.items() >= {
        "modelspec.sai_model_spec": "1.0.1", "modelspec.architecture": "FLUX.2/lora", "modelspec.title": "my_edit",
        "modelspec.resolution": "512x512", "modelspec.trigger_phrase": "zebra",
        "ss_output_name": "my_edit", "ss_sd_model_name": "flux2-dev.safetensors", "ss_base_model_version": "FLUX.2",
        "ss_network_module": "networks.lora", "ss_network_dim": "8", "ss_network_alpha": "8", "ss_learning_rate": "0.0003",
        "ss_steps": "100", "ss_batch_size_per_device": "2", "ss_seed": "5", "ss_num_train_images": "2",
        "ss_resolution": "(512, 512)", "ss_gradient_accumulation_steps": "3",
    }.items()  # fmt: skip
    assert json.loads(found["ss_tag_frequency"]) == {"my pairs": {"a caption": 2}}
    assert float(found["ss_training_finished_at"]) - float(found["ss_training_started_at"]) == pytest.approx(12, abs=0.1)


def test_what_the_pack_reads_and_the_graph(header):
    found = header()
    assert found["pairlora_base"] == "fingerprint" and found["pairlora_run"] == "run"
    assert json.loads(found["pairlora_settings"])["timesteps"] == "family default"
    assert json.loads(found["pairlora_dataset"]) == {"name": "my pairs", "samples": 2, "inputs": [1, 2]}
    assert json.loads(found["prompt"]) == {"1": {}} and json.loads(found["workflow"]) == {"nodes": []}
    assert "nothing" not in found


def test_what_is_not_known_is_left_out(header):
    assert not {"modelspec.trigger_phrase", "modelspec.resolution", "ss_resolution"} & header().keys()


def test_without_a_graph_nothing_that_the_user_wrote_is_in_it(header):
    found = header(None, resolution=512, trigger_word="zebra")
    assert not {"prompt", "workflow", "ss_tag_frequency", "ss_sd_model_name", "modelspec.trigger_phrase"} & found.keys()
    assert json.loads(found["pairlora_dataset"]) == {"samples": 2, "inputs": [1, 2]}
    assert not any(word in value for value in found.values() for word in ("my pairs", "caption", "zebra", "flux2"))
    assert found["modelspec.title"] == "my_edit" and found["modelspec.architecture"] == "FLUX.2/lora"


PATHS = {
    "/data/secret/pairs": "pairs", "/secret": "secret", "/data/secret folder/my pairs/": "my pairs",
    " '/data/secret/it is' ": "it is", '"C:\\Users\\secret\\my pairs"': "my pairs", "C:/secret/x.safetensors": "x.safetensors",
    "\\\\secret\\share\\pairs": "pairs", "~/secret/pairs": "pairs", "file:///data/secret/pairs": "pairs",
    "\u202aC:\\secret\\pairs": "pairs", "put it into /data/secret/pairs, then": "put it into pairs, then",
    "dir=/data/secret/x and C:\\secret\\y\nmodels:/secret/z": "dir=x and y\nmodels:z",
    '{"path": "/data/secret/x"}': '{"path": "x"}', '{"path": "C:\\\\secret\\\\x"}': '{"path": "x"}',
}  # fmt: skip
KEPT = ["style/turbo.safetensors", "a cat and/or dog, 1/2", "https://example.com/a/b", "see https://example.com/a/b.", "/", " / ",
        "./a/b", "../a/b", "a /b", "16:9", "\\d+", "8 a.m./p.m.", "<lora:x:1>"]  # fmt: skip


@pytest.mark.parametrize("text, left", [*PATHS.items(), *((text, text) for text in KEPT)], ids=ascii)
def test_no_full_path_is_in_it(header, text, left):
    graph = {"prompt": {"1": {"inputs": {"path": text}}}, "workflow": {"nodes": [{"widgets_values": [1, None, [text]]}]}}
    found = header(graph, trigger_word=text)
    assert json.loads(found["prompt"])["1"]["inputs"]["path"] == left == found["modelspec.trigger_phrase"]
    assert json.loads(found["workflow"])["nodes"][0]["widgets_values"] == [1, None, [left]]
