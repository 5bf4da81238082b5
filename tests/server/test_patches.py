"""Nodes between the loader and Train Edit LoRA, on a running ComfyUI, which loads its own nodes in its own way."""
import pytest
from running import node, steps_of

SMALL = {"folder": "samples/background-removal-held-out", "resolution": 64}


@pytest.fixture
def trained(client, training):
    """`trained(name, **nodes)`: the report and the steps of a training behind nodes that each take the one before."""

    def run(name, **nodes):
        graph = training(SMALL, name=name)
        known, last = client.get("/object_info"), ["1", 0]
        for key, (class_type, inputs) in nodes.items():
            if class_type not in known:
                pytest.skip(f"this ComfyUI has no {class_type}")
            graph.prompt[key], last = node(class_type, model=last, **inputs), [key, 0]
        graph.prompt[graph.train]["inputs"]["model"] = last
        graph.prompt["report"] = node("PreviewAny", source=[graph.train, 3])
        outcome, steps, _ = steps_of(client, graph)
        return outcome.outputs["report"]["text"][0], steps

    return run


EASY_CACHE = {"reuse_threshold": 0.2, "start_percent": 0.15, "end_percent": 0.95, "verbose": False}
ROPE = {"scale_x": 1.0, "shift_x": 0.0, "scale_y": 1.0, "shift_y": 0.0, "scale_t": 1.0, "shift_t": 0.0}


def test_what_is_left_out_is_said_and_does_not_count(trained):
    report, steps = trained("cached", easy=("EasyCache", EASY_CACHE), cfg=("CFGNorm", {"strength": 1.0}))
    assert "Trained without EasyCache, which keeps results" in report and len(steps) == 3
    assert "does not know" not in report
    _, steps = trained("cached", easy=("EasyCache", EASY_CACHE | {"reuse_threshold": 0.3}))
    assert steps == [], "it is the same training"


def test_other_numbers_are_another_training(trained):
    report, steps = trained("rope", rope=("ScaleROPE", ROPE | {"scale_x": 2.0}))
    assert "Trained" not in report and len(steps) == 3
    assert trained("rope", rope=("ScaleROPE", ROPE | {"scale_x": 2.0}), cfg=("CFGNorm", {"strength": 1.0}))[1] == []
    assert len(trained("rope", rope=("ScaleROPE", ROPE | {"scale_x": 2.1}))[1]) == 3


def test_a_bypass_lora_is_another_base(client, training, trained):
    steps_of(client, training(SMALL, name="first"))
    plain = trained("on_plain")[1]
    bypass = {"lora_name": "first.safetensors", "strength_model": 1.0}
    report, steps = trained("on_plain", lora=("LoraLoaderBypassModelOnly", bypass))
    assert len(plain) == len(steps) == 3 and "Trained" not in report
