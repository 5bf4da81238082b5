"""What the queue does: not training twice, cancelling, never overwriting, and refusing what cannot work."""
import json
import shutil
import threading
import time

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image
from running import steps_of

from client import Client, GraphError
from host import Server, SetupError

SMALL = {"folder": "samples/background-removal-held-out", "resolution": 64}  # 6 pairs, quick to encode


def test_queued_again_unchanged_it_does_not_train_again(client, training):
    graph = training(name="again")
    outcome, steps, name = steps_of(client, graph)
    assert graph.train in outcome.ran and steps and "again.safetensors" in name
    outcome, steps, _ = steps_of(client, graph)
    assert graph.train not in outcome.ran and not steps

    between = training(name="between")
    assert steps_of(client, between)[1]
    outcome, steps, again = steps_of(client, graph)
    assert graph.train in outcome.ran and not steps and again == name


def test_it_survives_a_restart(host, server, training):
    graph = training(name="restart")
    first = steps_of(server.client, graph)
    with Server(host, base=server.base) as other:
        _, steps, name = steps_of(Client(other.url), graph)
    assert first[1] and not steps and name == first[2]


def test_under_another_name_it_is_not_trained_again(client, training, server):
    first = steps_of(client, training(name="first_name", settings={"seed": 3}))
    second = steps_of(client, training(name="second_name", settings={"seed": 3}))
    assert first[1] and not second[1] and "second_name.safetensors" in second[2]
    files = [server.base / f"models/loras/{name}.safetensors" for name in ("first_name", "second_name")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_other_settings_train_again_under_a_new_name(client, training, server):
    name = steps_of(client, training(name="other"))[2]
    before = (server.base / "models/loras/other.safetensors").read_bytes()
    _, steps, second = steps_of(client, training(name="other", learning_rate=0.003))
    assert steps and name != second and "other_02.safetensors" in second
    assert (server.base / "models/loras/other.safetensors").read_bytes() == before


def test_the_same_training_gives_the_same_lora_byte_for_byte(client, training, server):
    if client.get("/system_stats")["devices"][0]["type"] != "cpu":
        pytest.skip("it is promised for the CPU")
    loras, tensors = server.base / "models/loras", []
    for name in ("twin", "twin_again"):
        pairs = {"folder": "samples/background-removal-held-out", "resolution": 64}
        graph = training(pairs, name=name, settings={"batch_size": 2, "seed": 7}, steps=5)
        assert len(steps_of(client, graph)[1]) == 5
        lora = safetensors.numpy.load_file(loras / f"{name}.safetensors")
        tensors.append({key: (tensor.dtype, tensor.shape, tensor.tobytes()) for key, tensor in lora.items()})
        (loras / f"{name}.safetensors").unlink()
        (run,) = (server.base / "output/pairlora").glob(f"{name}-*")
        shutil.rmtree(run)
        shutil.rmtree(server.base / "user/__pairlora/encodings")
    assert tensors[0] == tensors[1]


def test_cancel_stops_training_and_the_server_goes_on(client, training):
    graph = training(name="cancelled", steps=100_000)
    seen = []

    def on_text(node, text):
        if text.startswith("step ") and not seen:
            seen.append(time.monotonic())
            threading.Thread(target=lambda: Client(client.url).post("/interrupt")).start()

    outcome = client.run(graph.prompt, on_text)
    assert outcome.interrupted and time.monotonic() - seen[0] < 20
    assert steps_of(client, training(name="after_cancel"))[1]


def one_pair(folder, **files):
    folder.mkdir()
    for name, content in files.items():
        path = folder / f"{name}.png"
        path.write_bytes(content) if isinstance(content, bytes) else Image.fromarray(content).save(path)


PICTURE = np.full((32, 32, 3), 128, np.uint8)


@pytest.mark.parametrize("change, message", [
    ({"steps": 0}, "steps"),
    ({"learning_rate": 5.0}, "learning_rate"),
    ({"learning_rate": 0.0}, "learning_rate"),
    ({"settings": {"rank": 200}}, "rank is 200, but the layer .* has only 128 dimensions"),
    ({"learning_rate": float("nan")}, "learning_rate is nan, but must be a number, at least 1e-07 and at most 0.1"),
    ({"name": "../../escape"}, "leads out of the folder.*path separators"),
    ({"name": "nul"}, "Windows keeps this name"),
    ({"name": "名" * 90}, "too long"),
    ({"name": ""}, "needs a name"),
    ({"dataset": {"folder": "no such folder"}}, "There is no folder .*no such folder"),
    ({"dataset": {"folder": "/no/such/folder"}}, "There is no folder /no/such/folder"),
    ({"dataset": {"folder": "empty"}}, "empty is empty"),
    ({"dataset": {"folder": "halves"}}, "no complete pair.*a_start.png: no a_end image"),
    ({"dataset": {"folder": "broken"}}, r"a_end\.png cannot be read as an image"),
])  # fmt: skip
def test_bad_input_is_refused_before_training(client, server, training, change, message):
    inputs = server.base / "input"
    if not (inputs / "empty").exists():
        (inputs / "empty").mkdir()
        one_pair(inputs / "halves", a_start=PICTURE, b_end=PICTURE)
        one_pair(inputs / "broken", a_start=PICTURE, a_end=b"no image")
    texts = []
    with pytest.raises(GraphError, match=message):
        client.run(training(**change).prompt, lambda node, text: texts.append(text))
    assert not texts


def linked(graph, node, name, value):
    """The same graph with a value that comes by a link."""
    graph.prompt[node]["inputs"][name] = ["value", 0]
    graph.prompt["value"] = {"class_type": "PairLoRATestValue", "inputs": {"text": json.dumps(value)}}
    return graph


@pytest.mark.parametrize("kind, name, value, message", [
    ("PairLoRADataset", "resolution", 0, "Load Paired Dataset: resolution is 0, but must be .* at least 64 and at most 4096"),
    ("PairLoRADataset", "resolution", -64, "resolution is -64"),
    ("PairLoRADataset", "resolution", 10**9, "resolution is 1000000000"),
    ("PairLoRADataset", "resolution", "large", "resolution is 'large', but must be a whole number"),
    ("PairLoRADataset", "trigger_word", 5, "trigger_word is 5, but must be a text"),
    ("PairLoRADataset", "folder", "no such folder", "There is no folder .*no such folder"),
    ("PairLoRASettings", "batch_size", 0, "Training Settings: batch_size is 0, but must be .* at least 1 and at most 64"),
    ("PairLoRASettings", "rank", 0, "rank is 0"), ("PairLoRASettings", "rank", 1.5, "rank is 1.5, but must be a whole number"),
    ("PairLoRASettings", "rank", None, "rank is None"), ("PairLoRASettings", "seed", -1, "seed is -1"),
    ("PairLoRASettings", "timesteps", "sometimes", "timesteps is 'sometimes', but must be one of 'family default', 'uniform'"),
    ("PairLoRATrain", "steps", 0, "Train Edit LoRA: steps is 0"), ("PairLoRATrain", "steps", float("inf"), "steps is inf"),
    ("PairLoRATrain", "learning_rate", -1e-4, "learning_rate is -0.0001"),
    ("PairLoRATrain", "learning_rate", float("nan"), "learning_rate is nan"),
    ("PairLoRATrain", "name", "a/../../b", "leads out of the folder"), ("PairLoRATrain", "name", 3, "name is 3"),
    ("PairLoRATrain", "model", None, "model input is invalid: None.*your checkpoint does not contain a valid diffusion model"),
    ("PairLoRATrain", "clip", None, "clip input is invalid: None.*your checkpoint does not contain a valid clip"),
    ("PairLoRATrain", "vae", None, "vae input is invalid: None.*your checkpoint does not contain a valid VAE"),
    ("PairLoRATrain", "dataset", None, "dataset is None"),
])  # fmt: skip
def test_a_linked_value_has_the_widgets_limits(client, training, kind, name, value, message):
    graph, texts = training(name="linked"), []
    linked(graph, graph.ids[kind][0], name, value)
    with pytest.raises(GraphError, match=f"(?s){message}"):
        client.run(graph.prompt, lambda node, text: texts.append(text))
    assert not texts


def test_a_linked_number_is_taken_as_the_widget_takes_it(client, training):
    graph = training(SMALL, name="linked_float")
    linked(graph, graph.train, "steps", 3.0)
    assert len(steps_of(client, graph)[1]) == 3


def test_with_nothing_behind_it_it_trains_and_when_wired_on_it_trains_once(client, training, server):
    graph = training(SMALL, name="alone")
    graph.prompt.pop("name")
    seen = []
    outcome = client.run(graph.prompt, lambda node, text: seen.append(text))
    assert graph.train in outcome.ran and (server.base / "models/loras/alone.safetensors").is_file()
    assert len([text for text in seen if text.startswith("step ")]) == 3
    outcome, steps, name = steps_of(client, training(SMALL, name="wired"))
    assert outcome.ran.count(graph.train) == 1 and len(steps) == 3 and "wired" in name


def test_a_deleted_lora_comes_back_at_the_next_queue_without_training(client, training, server):
    loras = server.base / "models/loras"
    graphs = {name: training(SMALL, name=name) for name in ("deleted", "kept")}
    for graph in graphs.values():
        assert steps_of(client, graph)[1]
    before = (loras / "deleted.safetensors").read_bytes()
    for again in range(2):
        (loras / "deleted.safetensors").unlink()
        outcome, steps, name = steps_of(client, graphs["deleted"])
        assert graphs["deleted"].train in outcome.ran and not steps and name == "deleted.safetensors"
        assert (loras / "deleted.safetensors").read_bytes() == before
        outcome, steps, _ = steps_of(client, graphs["deleted"])
        assert graphs["deleted"].train not in outcome.ran and not steps, "and is known to be there"


def test_a_base_without_references_is_named(client, training):
    graph = training(name="plain")
    graph.prompt[graph.train]["inputs"]["model"] = ["sd3", 0]
    graph.prompt["sd3"] = {"class_type": "PairLoRATestNoReferences", "inputs": {}}
    texts = []
    with pytest.raises(GraphError, match=r"This model \(SD3\) takes no reference images.*FLUX.1 Kontext"):
        client.run(graph.prompt, lambda node, text: texts.append(text))
    assert not any(text.startswith("step ") for text in texts)


def test_a_port_in_use_is_named(host, server):
    with pytest.raises(SetupError, match=rf"Port {server.server.port} cannot be used.*--port"):
        with Server(host, base=server.base, port=server.server.port):
            pass
