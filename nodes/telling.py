"""What a training tells whoever queued it: how far it is, warnings, the report, and that it has ended.

Every page that draws this in the node itself (web/train.js) and has its workflow on screen gets it as the event
`pairlora_train`, as does the one that queued it; another client that queued it gets ComfyUI's own progress text, which
names a node's number only and so appears on whatever workflow is open. What was told last is kept, for a page that is
loaded again.
"""
import logging
import math
import time
from collections import deque
from pathlib import Path

import comfy.model_management
import comfy.utils
import torch
from aiohttp import web
from comfy.cli_args import args
from comfy_execution.utils import get_executing_context
from PIL import Image
from server import PromptServer

from ..trainer.plan import Plan
from ..trainer.run.listener import Listener
from ..trainer.run.places import key_of

WHOLE = 20  # the first steps are all told; after them
PAUSE = 0.25  # seconds lie between two
LOGGED = 50  # steps between two lines in the server's log
WINDOW = 50  # steps that the time left is reckoned from
KNOWN = 1.0  # seconds that they must have taken
KEPT = 100  # trainings whose last word is kept

pages: dict[str, str | None] = {}  # by the ids of clients that draw it themselves: the workflow that each has on screen
active: list["Telling"] = []  # the trainings that are going on
last: dict[tuple[str, str], dict] = {}  # by workflow and node: what was told last


@PromptServer.instance.routes.get("/pairlora/told")
async def told(request: web.Request) -> web.Response:
    """{"told": [...]}: what `pairlora_train` said last of each training in ``workflow``, an id. A ``client`` that asks is one
    that draws it itself, and is told from now on what comes."""
    client, workflow = request.query.get("client"), request.query.get("workflow")
    if client:
        pages[client] = workflow or None
    return web.json_response({"told": [word for (its_workflow, _), word in list(last.items()) if its_workflow == workflow]})


@PromptServer.instance.routes.post("/pairlora/stop")
async def stop(request: web.Request) -> web.Response:
    """End the training of ``node`` in ``workflow``, an id, after its present step; the graph goes on with the LoRA so far.
    404 when none is going on there."""
    try:
        asked = await request.json()
        wanted = asked["workflow"], asked["node"]
    except (ValueError, TypeError, LookupError, RecursionError):  # what a request may hold
        return web.json_response({"error": 'What to stop is told as {"workflow": ID, "node": ID}.'}, status=400)
    found = [telling for telling in active if (telling.about["workflow"], telling.about["node"]) == wanted]
    for telling in found:
        telling.asked_to_stop = True
    return web.json_response({"stopping": len(found)}, status=200 if found else 404)


class Telling(Listener):
    """A context in which one node trains; when it is left by an error or by cancelling, that is told."""

    def __init__(self, hidden, steps: int):
        """``hidden`` has the node's unique_id and extra_pnginfo."""
        workflow = (hidden.extra_pnginfo or {}).get("workflow")
        self.client = PromptServer.instance.client_id
        self.about = {
            "prompt": get_executing_context().prompt_id,
            "workflow": str(workflow.get("id")) if isinstance(workflow, dict) else "",
            "node": hidden.unique_id,
        }
        self.steps, self.bar = steps, comfy.utils.ProgressBar(steps)
        self.text, self.warnings, self.sent = "", [], 0.0
        self.key, self.folder = None, None  # of the run, once it is known
        self.told = {"step": 0, "loss": None, "held_out": None, "plan": "", "verdict": None, "copies": []}
        self.changed = 0
        self.done = deque(maxlen=WINDOW + 1)  # when the last steps were, in seconds
        self.asked_to_stop = False

    def __enter__(self) -> "Telling":
        active.append(self)
        return self

    def __exit__(self, kind, error, traceback) -> None:
        active.remove(self)
        if error is not None:
            at = f" ({self.text.split('  ')[0]})" if self.text else ""
            cancelled = isinstance(error, comfy.model_management.InterruptProcessingException)
            text = f"Cancelled{at}" if cancelled else f"Failed{at}: {str(error) or kind.__name__}"
            self._send(text, ended=True, failed=True)

    def run(self, folder: Path) -> None:
        self.key, self.folder = key_of(folder), folder

    def phase(self, text: str) -> None:
        counts = self.client in pages and text.split(" ")[0] == self.text.split(" ")[0]  # as pictures 2/6 after 1/6
        if counts and time.monotonic() - self.sent < PAUSE:
            self.text = text
        else:
            self._send(text)

    def plan(self, plan: Plan) -> None:
        self.told["plan"] = str(plan)

    def step(self, step: int, loss: float) -> None:
        self.bar.update_absolute(step, self.steps)
        self.told |= {"step": step, "loss": loss}
        now = time.monotonic()
        self.done.append(now)
        text = f"step {step}/{self.steps}  loss {loss:.4f}{self._left(step)}"
        if step % LOGGED == 0 or step == self.steps:
            logging.info(f"PairLoRA: {text}")
        first = step <= WHOLE and self.client not in pages  # which draws the history
        if first or step == self.steps or now - self.sent >= PAUSE:
            self._send(text)

    def score(self, step: int, loss: float) -> None:
        self.told["held_out"] = loss if math.isfinite(loss) else None  # a page can read no NaN
        self._change()

    def preview(self, step: int, pictures: list[Path]) -> None:
        """The first goes out as a sampler's preview does too: App mode, the queue and other clients have no panel."""
        self._change()
        with Image.open(pictures[0]) as picture:
            self.bar.update_absolute(step, self.steps, ("JPEG", picture.convert("RGB"), args.preview_size))

    def checkpoint(self, step: int) -> None:
        self._change()

    def verdict(self, text: str) -> None:
        self.told["verdict"] = text
        self._change()

    def copy(self, step: int, name: str) -> None:
        self.told["copies"] = [*self.told["copies"], name]
        self._change()

    def should_stop(self) -> bool:
        return self.asked_to_stop

    def warning(self, text: str) -> None:
        logging.warning(f"PairLoRA: {text}")
        self.warnings.append(text)

    def report(self, text: str) -> None:
        """The last word of a training that went well."""
        logging.info(f"PairLoRA: {text}")
        self.warnings.clear()  # the report has them
        self._send(text, ended=True)

    def _change(self) -> None:
        """There is more in the run's folder; what is told grows, also over other trainings and a restart."""
        self.changed = time.time_ns() // 1_000_000

    def _pace(self) -> float | None:
        """Seconds a step, once that can be known: the first step also loads and compiles."""
        steps = len(self.done) - 1
        return (self.done[-1] - self.done[0]) / steps if steps >= 2 and self.done[-1] - self.done[0] >= KNOWN else None

    def _left(self, step: int) -> str:
        """How long the rest takes."""
        if (pace := self._pace()) is None:
            return ""
        minutes, seconds = divmod(round(pace * (self.steps - step)), 60)
        hours, minutes = divmod(minutes, 60)
        return f"  {hours}:{minutes:02}:{seconds:02} left" if hours else f"  {minutes}:{seconds:02} left"

    def _send(self, text: str, ended: bool = False, failed: bool = False) -> None:
        begun, self.text, self.sent = bool(self.text), text, time.monotonic()
        pace = self._pace()
        word = {
            **self.about, "when": time.time(), "text": text, "warnings": [*self.warnings], "ended": ended, "failed": failed,
            "key": self.key, **self.told, "steps": self.steps, "seconds_a_step": pace,
            "left": pace and pace * (self.steps - self.told["step"]), "memory": _memory(), "changed": self.changed,
        }  # fmt: skip
        self._keep(word)
        watching = [client for client, workflow in list(pages.items()) if client == self.client or workflow == self.about["workflow"]]
        for client in watching:
            PromptServer.instance.send_sync("pairlora_train", word, client)
        if self.client not in (None, *watching) and (begun or not failed):  # what is refused at once has no text to replace
            PromptServer.instance.send_progress_text("\n".join([text, *self.warnings]), self.about["node"], self.client)

    def _keep(self, word: dict) -> None:
        key = word["workflow"], word["node"]
        last.pop(key, None)  # the newest come last
        last[key] = word
        if len(last) > KEPT:
            del last[next(iter(last))]


def _memory() -> dict[str, int] | None:
    """Bytes of the device's memory that are used, and all of it; None on the CPU, whose is that of everything else too."""
    device = comfy.model_management.get_torch_device()
    if device.type != "cuda":
        return None
    free, total = torch.cuda.mem_get_info(device)
    return {"used": total - free, "total": total}
