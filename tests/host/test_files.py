"""What a LoRA's file says of itself."""
import json

import pytest


@pytest.fixture
def header(trainer, plain):
    """`header(About's arguments)`: the metadata of a LoRA trained on such a dataset."""

    def make(**about):
        about = plain("dataset").About("my pairs", [1, 2], {"a caption": 2}, **about)
        settings = trainer("loop").Settings(rank=8, batch_size=2, seed=5)
        return trainer("lora.files").metadata(
            "my_edit", "run", "FLUX.2", about, settings, 100, 3e-4, 12.0, "fingerprint", "flux2-dev.safetensors",
            {"prompt": {"1": {}}, "workflow": {"nodes": []}, "nothing": None},
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
        "ss_resolution": "(512, 512)",
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
