"""Before and after: every picture as a file of its own, scores, and one labelled sheet."""
import contextlib
import hashlib
import json
import time
from pathlib import Path

import folder_paths
import numpy as np
import torch
from comfy_api.latest import io, ui
from server import PromptServer

from ..trainer.data.images import check_pillow
from ..trainer.data.sheet import contact_sheet
from ..trainer.data.writing import to_image
from ..trainer.run.places import whole
from ..trainer.similarity import by_region, changed
from .answers import answer
from .dataset import linked

SHEET = 0  # the output
FOLDER = "pairlora/before_after"  # in ComfyUI's output folder

routes = PromptServer.instance.routes


def pictures(batches: list[torch.Tensor] | None) -> list[torch.Tensor]:
    """Every image (height, width, 3) of a list of (n, height, width, channels) batches in 0..1."""
    return [image[..., :3].cpu() for batch in batches or [] if batch is not None for image in batch]


def last(workflow: str, node: str) -> Path:
    """The file that names the pictures which a node of a workflow, each called by its id, has put out last."""
    name = hashlib.sha256(json.dumps([workflow, node]).encode()).hexdigest()[:32]
    return Path(folder_paths.get_output_directory(), FOLDER, "last", f"{name}.json")


def compared(asked: dict) -> dict:
    """What a node of a workflow has put out last, whichever page has queued it: {"workflow": id, "node": id} gives
    {"images": [...]}, none where that is not known."""
    images = []
    with contextlib.suppress(OSError, ValueError):
        images = json.loads(last(asked.get("workflow", ""), asked.get("node", "")).read_text(encoding="utf-8"))
    return {"images": images}


answer("/pairlora/compared", routes.get, compared)


class PairLoRABeforeAfter(io.ComfyNode):
    SIDES = ("input", "input1", "input2", "before", "after", "target")
    LABELS = {"input1": "input 2", "input2": "input 3"}

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="PairLoRABeforeAfter",
            display_name="Before / After",
            category="PairLoRA",
            description="Compares what the base model makes of each input (before) with what it makes with the LoRA (after), "
            "and keeps every picture in ComfyUI's output folder.",
            is_input_list=True,
            is_output_node=True,
            inputs=[
                io.Image.Input("before", tooltip="Pictures made without the LoRA; one alone is compared with all."),
                io.Image.Input("after", tooltip="Pictures made with the LoRA, in the same order."),
                io.Image.Input("input", optional=True, tooltip="The inputs."),
                io.Image.Input("target", optional=True, tooltip="The wanted results; before and after are scored by them."),
                io.Image.Input("input1", optional=True, tooltip="The second input of each sample."),
                io.Image.Input("input2", optional=True, tooltip="The third input of each sample."),
                io.String.Input(
                    "names", optional=True, force_input=True,
                    tooltip="What each picture is called: name of Samples of a Dataset, or label of Checkpoints of a Run.",
                ),
                io.Boolean.Input("captions", default=True, optional=True, tooltip="Whether the sheet is labelled."),
            ],
            outputs=[
                io.Image.Output(display_name="contact_sheet"),
                io.Image.Output(display_name="before", is_output_list=True),
                io.Image.Output(display_name="after", is_output_list=True),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo, io.Hidden.unique_id],
        )  # fmt: skip

    @classmethod
    def fingerprint_inputs(cls, **_):
        """Whether a sheet is wanted: it is made when first used, though no input has changed. Only newer ComfyUI tells a
        node's number here, so that of any such node."""
        running = [item[2] for item in list(PromptServer.instance.prompt_queue.currently_running.values())]
        return any(
            linked(prompt, node, SHEET)
            for prompt in running for node, content in prompt.items() if content["class_type"] == "PairLoRABeforeAfter"
        )  # fmt: skip

    @classmethod
    def execute(cls, before, after, input=None, target=None, input1=None, input2=None, names=None, captions=None):
        check_pillow()
        given = {"input": input, "input1": input1, "input2": input2, "before": before, "after": after, "target": target}
        sides = {side: images for side in cls.SIDES if (images := pictures(given[side]))}
        counts = {side: len(images) for side, images in sides.items()}
        many = max(counts.values(), default=0)
        if missing := [side for side in ("before", "after") if side not in sides]:
            raise ValueError(f"Before / After got no picture as {missing[0]}. Look at the node that it is linked to.")
        if set(counts.values()) - {1, many}:
            raise ValueError(f"Before / After needs equally many pictures on every input, or one, but got {counts}.")
        names = [name for name in names or [] if name]
        saved = {
            side: ui.ImageSaveHelper.save_images(images, f"{FOLDER}/{side}", io.FolderType.output, cls)
            for side, images in sides.items()
        }
        found, when = cls.scored(sides, many), time.time_ns() // 1_000_000
        shown = [
            {**file, "side": cls.LABELS.get(side, side), "sample": sample if counts[side] == many else None,
             "name": names[sample] if sample < len(names) else "", "scores": found.get((side, sample), {}), "when": when}
            for sample in range(many)
            for side in ("after", *(side for side in sides if side != "after"))  # the gallery shows the first one
            if sample < counts[side]
            for file in [saved[side][sample]]
        ]  # fmt: skip
        cls.remember(shown)
        sheet = None
        if linked(cls.hidden.prompt or {}, cls.hidden.unique_id, SHEET):
            columns = {cls.LABELS.get(side, side): [np.asarray(to_image(image.numpy())) for image in images] for side, images in sides.items()}
            made = contact_sheet(columns, names, not captions or bool(captions[0]))
            sheet = torch.from_numpy(np.asarray(made, dtype=np.float32) / 255)[None]
        return io.NodeOutput(sheet, before, after, ui={"images": shown})

    @classmethod
    def remember(cls, shown: list[dict]) -> None:
        """For pages that open the workflow later; what they cannot be told is no reason to fail."""
        workflow = (cls.hidden.extra_pnginfo or {}).get("workflow")
        if not isinstance(workflow, dict) or not workflow.get("id"):
            return
        file = last(str(workflow["id"]), str(cls.hidden.unique_id))
        with contextlib.suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            with whole(file) as unfinished:
                unfinished.write_text(json.dumps(shown), encoding="utf-8")

    @staticmethod
    def scored(sides: dict[str, list[torch.Tensor]], many: int) -> dict[tuple[str, int], dict[str, float]]:
        """How near before and after are to the target, by side and sample: as a whole and, where there is an input, in the
        region that the edit changes and in the one that it keeps. None where the sizes differ."""
        if "target" not in sides:
            return {}

        def of(side: str, sample: int) -> np.ndarray | None:
            images = sides.get(side)
            return images and images[min(sample, len(images) - 1)].numpy()

        found = {}
        for sample in range(many):
            start, target = of("input", sample), of("target", sample)
            region = None if start is None else changed(start, target)
            for side in ("before", "after"):
                picture = of(side, sample)
                if sample < len(sides[side]) and picture.shape == target.shape:
                    values = by_region(picture, target, region).items()
                    found[side, sample] = {name.replace("_changed", "_edited"): round(value, 4) for name, value in values}
        return found
