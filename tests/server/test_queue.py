"""What the queue does: not training twice, cancelling, never overwriting, and refusing what cannot work."""
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
    ({"name": "../../escape"}, "path separators"),
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
