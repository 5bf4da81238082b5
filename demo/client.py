"""Talking to a running ComfyUI: queue a prompt over HTTP, follow it over its websocket."""
import asyncio
import io
import json
import struct
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

import aiohttp
import numpy as np
from PIL import Image

TEXT = 3  # ComfyUI's BinaryEventTypes.TEXT: progress text of a node


class GraphError(RuntimeError):
    """ComfyUI refused a prompt, or a node of it failed; the message is what the user would read."""


@dataclass
class Outcome:
    """What became of a queued prompt: the ids of its nodes by how they went, and what output nodes put out."""

    ran: list[str] = field(default_factory=list)
    cached: list[str] = field(default_factory=list)
    outputs: dict[str, dict] = field(default_factory=dict)
    interrupted: bool = False


class Client:
    def __init__(self, url: str):
        self.url = url

    def get(self, path: str, **query: str):
        """The decoded JSON, or the bytes, of a GET request."""
        return asyncio.run(self._request("GET", path, params=query))

    def post(self, path: str, body: dict | None = None):
        return asyncio.run(self._request("POST", path, json=body or {}))

    def post_in_thread(self, path: str, body: dict) -> threading.Thread:
        """While ``run`` waits, which it may be called from."""
        thread = threading.Thread(target=self.post, args=(path, body))
        thread.start()
        return thread

    def run(self, prompt: dict, on_text: Callable[[str, str], None] | None = None, workflow: dict | None = None) -> Outcome:
        """Queue a prompt in the API format and wait for its end; ``on_text(node id, text)`` gets progress texts. The page
        sends its ``workflow``, in its own format, along.

        Raises:
            GraphError: the prompt is not valid, or one of its nodes failed.
        """
        return asyncio.run(self._run(prompt, on_text or (lambda node, text: None), workflow))

    def images(self, outcome: Outcome, node: str) -> list[np.ndarray]:
        """The pictures that an output node saved, as arrays of (height, width, 3) in 0..1."""
        files = [self.get("/view", **image) for image in outcome.outputs[node]["images"]]
        return [np.asarray(Image.open(io.BytesIO(file)).convert("RGB"), dtype=np.float64) / 255 for file in files]

    async def _request(self, method: str, path: str, **options):
        async with aiohttp.ClientSession() as session, session.request(method, self.url + path, **options) as response:
            body = await response.read()
            return json.loads(body) if response.content_type == "application/json" else body

    async def _run(self, prompt: dict, on_text: Callable[[str, str], None], workflow: dict | None) -> Outcome:
        outcome, client = Outcome(), uuid.uuid4().hex
        async with aiohttp.ClientSession() as session, session.ws_connect(
            f"{self.url}/ws?clientId={client}", max_msg_size=0
        ) as socket:
            asked = {"prompt": prompt, "client_id": client, "extra_data": {"extra_pnginfo": {"workflow": workflow}} if workflow else {}}
            async with session.post(f"{self.url}/prompt", json=asked) as response:
                answer = await response.json()
                if response.status != 200 or answer.get("node_errors"):
                    # ComfyUI would still run the outputs that do not depend on a refused node.
                    if "prompt_id" in answer:
                        await session.post(f"{self.url}/queue", json={"delete": [answer["prompt_id"]]})
                        await session.post(f"{self.url}/interrupt")
                    raise GraphError(_refusal(answer))
            async for message in socket:
                if message.type == aiohttp.WSMsgType.BINARY:
                    kind, length = struct.unpack(">II", message.data[:8])
                    if kind == TEXT:
                        on_text(message.data[8 : 8 + length].decode(), message.data[8 + length :].decode())
                    continue
                if message.type != aiohttp.WSMsgType.TEXT:
                    break
                event = json.loads(message.data)
                data = event["data"]
                if data.get("prompt_id") != answer["prompt_id"]:
                    continue
                if event["type"] == "executing" and data["node"]:
                    outcome.ran.append(data["node"])
                elif event["type"] == "execution_cached":
                    outcome.cached += data["nodes"]
                elif event["type"] == "executed" and data["output"]:
                    outcome.outputs[data["node"]] = data["output"]
                elif event["type"] == "execution_error":
                    raise GraphError(f"{data['node_type']}: {data['exception_message'].strip()}")
                elif event["type"] == "execution_interrupted":
                    outcome.interrupted = True
                    return outcome
                elif event["type"] == "execution_success":
                    return outcome
        raise GraphError("ComfyUI closed the connection before the prompt was done; its log says why.")


def _refusal(answer: dict) -> str:
    lines = [answer["error"]["message"]] if answer.get("error") else []
    for node in answer.get("node_errors", {}).values():
        lines += [f"{node['class_type']}: {e['message']}: {e['details']}" for e in node["errors"]]
    return "\n".join(lines)
