"""A training on a real ComfyUI that is killed, stopped, cancelled or asked for twice."""
import json
import random
import shutil
import threading

import numpy as np
import pytest
from PIL import Image
from running import node, steps_of
from safetensors.torch import load_file
from torch import equal

from client import Client, GraphError
from host import ROOT, Server

KILLS = 20


def lora_of(base, name):
    return load_file(base / f"models/loras/{name}")


def same(a, b):
    return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)


def long_training(training, name, **settings):
    return training({"resolution": 64}, {"checkpoint_steps": 20, **settings}, name=name, steps=900)


@pytest.mark.slow
@pytest.mark.skipif("os.name == 'nt'", reason="there is no kill -9")
def test_killed_at_random_moments_it_goes_on(client, host, base, training, tmp_path):
    graph, rng, resumed = long_training(training, "killed"), random.Random(0), []
    with Server(host, "--output-directory", str(tmp_path / "killed"), base=base) as server:
        for kill in range(KILLS):
            killer, moments = None, ("captions", "pictures", "loading", "step") if kill % 2 else "step"

            def kill_soon(node, text):
                nonlocal killer
                if killer is None and text.startswith(moments):
                    resumed.append(int(text.split()[1].split("/")[0]) if text.startswith("step") else 0)
                    killer = threading.Timer(rng.uniform(0, 1), server.kill)
                    killer.start()

            with pytest.raises((GraphError, OSError)):
                Client(server.url).run(graph.prompt, kill_soon)
            killer.join()
            server.start()
        texts = []
        outcome = Client(server.url).run(graph.prompt, lambda node, text: texts.append(text))
    lora = lora_of(base, outcome.outputs["name"]["text"][0])
    outcome = client.run(graph.prompt)  # whose output folder has no such run
    assert same(lora, lora_of(base, outcome.outputs["name"]["text"][0]))
    note = json.loads(next((tmp_path / "killed").glob("pairlora/*/step900.json")).read_text())
    print(f"killed {KILLS} times, resumed from steps up to {note['resumed_from']}: the same LoRA as unbroken")
    assert note["resumed_from"] > 0


def test_stopped_the_graph_goes_on_with_the_lora_so_far(client, training):
    graph, told = training(name="stopped", steps=100_000), []

    def stop(node, text):
        if text.startswith("step") and not told:
            told.append(client.post_in_thread("/pairlora/stop", {"workflow": "", "node": graph.train}))

    outcome = client.run(graph.prompt, stop)
    told[0].join()
    assert outcome.outputs["name"]["text"][0].startswith("stopped") and not outcome.interrupted
    report = outcome.outputs[graph.train]["text"][0]
    steps = int(report.split(" samples, ")[-1].split(" step")[0].replace(",", "").split()[-1])
    assert 0 < steps < 100_000
    graph.prompt[graph.train]["inputs"]["steps"] = steps + 2
    _, seen, _ = steps_of(client, graph)
    assert len(seen) == 2, "it goes on"


def test_stopped_it_is_not_cached(client, training):
    graph, told = training(name="not cached", steps=400), []

    def stop(node, text):
        if text.startswith("step") and not told:
            told.append(client.post_in_thread("/pairlora/stop", {"workflow": "", "node": graph.train}))

    client.run(graph.prompt, stop)
    told[0].join()
    outcome, seen, _ = steps_of(client, graph)
    assert graph.train in outcome.ran and seen and not seen[0].startswith("step 1/")


def test_stop_without_a_training_says_so(client):
    assert client.post("/pairlora/stop", {"workflow": "none", "node": "1"}) == {"stopping": 0}


@pytest.mark.parametrize("phase", ["captions 1", "captions 3", "pictures", "loading", "step 1/", "step 5/"])
def test_cancelled_in_any_phase_it_goes_on(client, training, phase):
    """Under another caption, so that it is encoded anew."""
    name = "cancelled in " + phase.rstrip("/")
    graph = training({"trigger_word": phase, "folder": "samples/try-on-held-out"}, name=name, steps=130)

    def cancel(node, text):
        if text.startswith(phase):
            client.post_in_thread("/interrupt", {})

    outcome = client.run(graph.prompt, cancel)
    assert outcome.interrupted
    outcome, seen, _ = steps_of(client, graph)
    assert seen[-1].startswith("step 130/")


def test_cancelled_while_the_pairs_are_read_it_reads_them_again(client, base):
    folder, pixels = base / "input/slow to read", np.random.default_rng(0).integers(0, 256, (768, 768, 3), np.uint8)
    folder.mkdir()
    for number in range(16):
        pixels[0, 0, 0] = number
        for role in ("start", "end"):
            Image.fromarray(pixels).save(folder / f"photo{number:03}_{role}.png", compress_level=1)
    prompt = {"1": node("PairLoRADataset", folder=folder.name, default_caption="", trigger_word="", resolution=64)}

    def cancel():
        while not client.get("/queue")["queue_running"]:
            pass
        client.post("/interrupt")

    cancelling = threading.Thread(target=cancel)
    cancelling.start()
    assert client.run(prompt).interrupted
    cancelling.join()
    outcome = client.run(prompt)
    assert not outcome.interrupted and client.post("/pairlora/preview", prompt["1"]["inputs"])["checked"]


def test_two_nodes_that_train_the_same_train_once(client, training):
    graph = training(name="twice", steps=5)
    graph.prompt["second"] = json.loads(json.dumps(graph.prompt[graph.train]))
    graph.prompt["second"]["inputs"]["name"] = "twice under another name"
    graph.prompt["other name"] = {"class_type": "PreviewAny", "inputs": {"source": ["second", 2]}}
    outcome, seen, name = steps_of(client, graph)
    assert len(seen) == 5 and {name, outcome.outputs["other name"]["text"][0]} == {"twice.safetensors", "twice under another name.safetensors"}


def test_two_servers_on_one_output_folder_train_once(host, server, training):
    graph, texts = training({"resolution": 64}, name="both", steps=300), {"first": [], "second": []}
    names, waited = {}, threading.Event()

    def run(which, url):
        def tell(node, text):
            texts[which].append(text)
            if text.startswith("step"):
                waited.set()

        names[which] = Client(url).run(graph.prompt, tell).outputs["name"]["text"][0]

    with Server(host, base=server.base) as other:
        first = threading.Thread(target=run, args=("first", server.url))
        first.start()
        assert waited.wait(120)
        run("second", other.url)
        first.join()
    assert any(text.startswith("waiting: process") for text in texts["second"])
    assert not any(text.startswith("step") for text in texts["second"])
    assert names["first"] == names["second"] == "both.safetensors"


def test_a_finished_run_is_found_after_a_restart_under_a_moved_folder(host, server, training):
    graph = training(name="moved", steps=4)
    copied = server.base / "input/moved pairs"
    shutil.copytree(ROOT / "samples/background-removal", copied, dirs_exist_ok=True)
    server.client.run(graph.prompt)
    graph.prompt[graph.ids["PairLoRADataset"][0]]["inputs"]["folder"] = "moved pairs"
    with Server(host, base=server.base) as other:
        _, seen, name = steps_of(Client(other.url), graph)
    assert not seen and name == "moved.safetensors"
