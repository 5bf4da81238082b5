"""To whom a training tells what, over the server's own websocket."""
import asyncio
import contextlib
import io
import json
import re
import struct
import uuid

import aiohttp
import pytest
import safetensors.torch
from PIL import Image, ImageChops, ImageStat
from running import node

from client import TEXT, GraphError

PICTURE, NAMED_PICTURE = 1, 4  # ComfyUI's BinaryEventTypes
SMALL = {"folder": "samples/background-removal-held-out", "resolution": 64}
STEP = re.compile(r"step (\d+)/\d+  loss \d+\.\d{4}(?:  (\d+:)?\d+:\d\d left)?$")


async def _listen(client, name, heard, pictures, features, ready):
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{client.url}/ws?clientId={name}") as socket:
        await socket.send_json({"type": "feature_flags", "data": features})
        ready.set()
        async for message in socket:
            if message.type == aiohttp.WSMsgType.BINARY:
                kind, length = struct.unpack(">II", message.data[:8])
                if kind == TEXT:
                    heard.append(message.data[8:].decode())
                elif kind == PICTURE:
                    pictures.append((None, message.data[8:]))
                elif kind == NAMED_PICTURE:
                    pictures.append((json.loads(message.data[8 : 8 + length]), message.data[8 + length :]))
            elif (event := json.loads(message.data))["type"] == "pairlora_train":
                heard.append(event["data"])


@pytest.fixture
def heard(client):
    """`heard(act, name)`: what a client of that name hears while `act` runs. To `pictures` are added the previews that it
    gets as (what is said of it, JPEG)."""

    async def listen(act, name, pictures, features):
        texts, ready = [], asyncio.Event()
        listener = asyncio.create_task(_listen(client, name, texts, pictures, features, ready))
        await ready.wait()
        with contextlib.suppress(GraphError):
            await asyncio.to_thread(act)
        await asyncio.sleep(1)
        listener.cancel()
        return texts

    return lambda act, name=None, pictures=(), features={}: asyncio.run(listen(act, name or uuid.uuid4().hex, pictures, features))


def run_as(client, graph, name, workflow=None):
    """Queue for the client ``name`` (None: for nobody) and wait for the end."""
    body = {"prompt": graph.prompt, **({"client_id": name} if name else {})}
    if workflow:
        body["extra_data"] = {"extra_pnginfo": {"workflow": {"id": workflow}}}
    prompt = client.post("/prompt", body)["prompt_id"]
    while prompt not in (history := client.get(f"/history/{prompt}")):
        asyncio.run(asyncio.sleep(0.3))
    return history[prompt]


def test_only_the_client_that_queued_is_told(client, training, heard):
    graph = training(SMALL, name="told_to_one")
    texts = []
    assert not heard(lambda: client.run(graph.prompt, lambda node, text: texts.append(text)))
    assert any(text.startswith("step ") for text in texts) and "told_to_one.safetensors: 6 samples" in texts[-1]


def test_a_prompt_of_no_client_is_told_to_nobody(client, training, heard):
    client.get("/pairlora/told", workflow="w")  # whoever asks without a name is no page
    assert not heard(lambda: run_as(client, training(SMALL, name="told_to_nobody"), None))


def test_a_page_gets_events_of_its_own_and_may_ask_again(client, training, heard):
    graph, page, workflow = training(SMALL, name="told_to_a_page"), uuid.uuid4().hex, uuid.uuid4().hex
    assert client.get("/pairlora/told", workflow=workflow, client=page) == {"told": []}
    words = heard(lambda: run_as(client, graph, page, workflow), page)
    assert words and all(isinstance(word, dict) for word in words), "no text that ComfyUI draws on whatever is open"
    assert {(word["workflow"], word["node"]) for word in words} == {(workflow, graph.train)}
    assert [word["ended"] for word in words] == [False] * (len(words) - 1) + [True]
    for asking in (page, "another page"):
        assert client.get("/pairlora/told", workflow=workflow, client=asking) == {"told": [words[-1]]}
    assert client.get("/pairlora/told", workflow="another", client=page) == {"told": []}


def test_every_page_that_has_the_workflow_on_screen_is_told_at_once(client, training, heard):
    """A second tab that was open before, whoever queues."""
    second, workflow = uuid.uuid4().hex, uuid.uuid4().hex
    client.get("/pairlora/told", workflow=workflow, client=second)
    words = heard(lambda: run_as(client, training(SMALL, name="told_to_two"), uuid.uuid4().hex, workflow), second)
    assert any(word["key"] and not word["ended"] for word in words) and words[-1]["ended"]
    client.get("/pairlora/told", workflow="another", client=second)
    assert not heard(lambda: run_as(client, training(SMALL, name="told_to_one_of_two"), uuid.uuid4().hex, workflow), second)


@pytest.mark.parametrize("features", [{}, {"supports_preview_metadata": True}], ids=["old", "new"])
def test_a_preview_goes_out_as_a_sampler_sends_one(client, server, training, heard, features):
    """Whoever has no panel sees the first held-out pair at each round, where it says so with the node that it is of."""
    name, pictures = "shown" + "".join(features), []
    graph = training({**SMALL, "folder": "samples/background-removal"}, name=name)
    client_id = uuid.uuid4().hex
    heard(lambda: run_as(client, graph, client_id), client_id, pictures, features)
    (folder,) = (server.base / "output/pairlora").glob(f"{name}-*/previews")
    files = sorted(folder.glob("step*-1.png"))
    assert len(pictures) == len(files) == 3, "at first, in the middle and at last"
    assert {about and about["node_id"] for about, _ in pictures} == ({graph.train} if features else {None})
    for file, (_, sent) in zip(files, pictures, strict=True):
        whole, seen = (Image.open(source).convert("RGB") for source in (file, io.BytesIO(sent)))
        assert max(seen.size) == 512, "as large as ComfyUI's other previews"
        assert max(ImageStat.Stat(ImageChops.difference(whole.resize(seen.size), seen)).mean) < 8


def test_the_report_is_an_output_that_the_history_keeps(client, training):
    graph = training(SMALL, name="kept")
    for _ in range(2):  # the second time it is cached
        outputs = run_as(client, graph, uuid.uuid4().hex)["outputs"]
        (report,), (file,) = outputs[graph.train]["text"], outputs[graph.train]["files"]
        assert "kept.safetensors: 6 samples" in report
        assert client.get("/view", **file).decode() == report, "of texts, App mode shows files only"


def test_an_error_is_the_last_that_is_told(client, training, heard):
    graph, name = training(SMALL, name="told_of_an_error"), uuid.uuid4().hex
    graph.prompt[graph.train]["inputs"]["model"] = ["sd3", 0]
    graph.prompt["sd3"] = node("PairLoRATestNoReferences")
    client.get("/pairlora/told", workflow="w", client=name)
    last = heard(lambda: run_as(client, graph, name), name)[-1]
    assert last["ended"] and last["failed"]
    assert re.match(r"Failed( \((captions|pictures) 1/6\))?: This model \(SD3\) takes no reference images", last["text"])


def test_the_log_has_the_report_and_some_steps_and_no_time_is_left_before_it_is_known(client, server, training):
    texts = []
    client.run(training(SMALL, settings={"batch_size": 6}, name="logged", steps=120).prompt, lambda node, text: texts.append(text))
    log = server.server.log.read_text(encoding="utf-8")
    assert "PairLoRA: logged.safetensors: 6 samples, 120 steps" in log
    logged = re.findall(r"PairLoRA: step (\d+)/120  loss", log)
    assert logged == ["50", "100", "120"]
    steps = [text for text in texts if text.startswith("step ")]
    assert all(STEP.match(text) for text in steps)
    assert not any(text.endswith("left") for text in steps[:2]) and steps[-1].endswith("left")
    assert len({text.split()[1] for text in steps[:20]}) == 20, "short trainings are told whole"


def test_while_it_trains_it_can_be_asked_for_things(client, server, training, heard):
    graph, page, seen = training(SMALL, name="asked", steps=100_000), uuid.uuid4().hex, {}
    client.get("/pairlora/told", workflow="asked", client=page)

    def act():
        async def until(found):
            for _ in range(600):
                if result := await asyncio.to_thread(found):
                    return result
                await asyncio.sleep(0.1)
            raise AssertionError("it never came")

        async def asking():
            training = asyncio.create_task(asyncio.to_thread(run_as, client, graph, page, "asked"))
            try:
                folder = await until(lambda: next((server.base / "output/pairlora").glob("asked-*/holder.json"), None))
                seen["key"] = key = folder.parent.name[-10:]
                await until(lambda: client.get("/pairlora/run", key=key)["lines"])
                post = lambda what: client.post(f"/pairlora/run/{what}", {"key": key})  # noqa: E731
                seen["refused"] = await asyncio.to_thread(post, "remove")
                seen["asked"] = await asyncio.to_thread(post, "copy")
                seen["copies"] = await until(lambda: client.get("/pairlora/run", key=key)["copies"])
                seen["training"] = (await asyncio.to_thread(client.get, "/pairlora/run", key=key))["training"]
                await asyncio.to_thread(post, "stop")
                await training
            finally:
                await asyncio.to_thread(client.post, "/interrupt")

        asyncio.run(asking())

    words = heard(act, page)
    assert "is being trained" in seen["refused"]["error"]
    assert seen["asked"] == {"asked": True} and seen["training"]
    (copy,) = seen["copies"]
    assert copy.startswith("asked_step")
    tensors = safetensors.torch.load_file(server.base / "models/loras" / copy)
    final = safetensors.torch.load_file(server.base / "models/loras/asked.safetensors")
    assert tensors.keys() == final.keys()
    last = words[-1]
    assert last["ended"] and not last["failed"] and last["key"] == seen["key"] and last["copies"] == seen["copies"]
    assert 0 < last["step"] < last["steps"] == 100_000 and last["loss"] > 0 and last["plan"] and last["verdict"]
    changes = [word["changed"] for word in words]
    assert changes == sorted(changes) and len({*changes}) > 1
    steps = [word["when"] for word in words if word["text"].startswith("step ")]
    assert len(steps) <= 4 * (steps[-1] - steps[0]) + 2, "at most four a second"
    assert any(word["seconds_a_step"] and word["left"] for word in words)
    model = {key: value for key, value in graph.prompt.items() if value["class_type"] == "PairLoRADemoModel"}
    load = node("PairLoRALoad", model=[next(iter(model)), 0], lora=copy, strength=1.0)
    client.run({**model, "load": load, "show": node("PreviewAny", source=["load", 0])})
