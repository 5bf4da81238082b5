"""Building a dataset out of the pictures of a graph."""
import os
from pathlib import Path

import folder_paths
from comfy_api.latest import io

from ..trainer.data import typed
from ..trainer.data.names import safe_name
from ..trainer.data.pairs import DatasetError
from ..trainer.data.writing import write_pairs
from . import access


def resolve(folder: str) -> Path:
    """The folder meant by a name inside ComfyUI's input or an absolute path; raises DatasetError when it is neither, or when
    nobody may write there from the page."""
    there = Path(folder)
    if not (there.is_absolute() and os.path.isdir(there)):
        folder = typed.path(folder)
    there = Path(folder) if Path(folder).is_absolute() else Path(folder_paths.get_input_directory(), safe_name(folder))
    if why := access.refusal(there):
        raise DatasetError(why)
    if os.path.isfile(there):
        raise DatasetError(f"{there} is a file. Write the name of a folder.")
    return there


class PairLoRASavePair(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="PairLoRASavePair",
            display_name="Save Pair to Dataset",
            category="PairLoRA",
            description="Writes pictures of the graph as pairs that Load Paired Dataset reads, numbering on from what "
            "is there. Nothing is overwritten.",
            is_output_node=True,
            inputs=[
                io.String.Input(
                    "folder",
                    default="my_pairs",
                    tooltip="A folder inside ComfyUI's input folder, or a full path. It is made where it is missing.",
                ),
                io.Image.Input("inputs", tooltip="What the edit starts from: one for each target, or one for all."),
                io.Image.Input("target", tooltip="The wanted result. A batch of 8 writes 8 pairs."),
                io.String.Input(
                    "caption",
                    default="",
                    tooltip="The edit instruction, for example: remove the background. Empty writes no NAME.txt.",
                ),
                io.Image.Input("inputs1", optional=True, tooltip="A second input, for models that take several."),
                io.Image.Input("inputs2", optional=True, tooltip="A third input, for models that take several."),
            ],
            outputs=[
                io.String.Output(display_name="folder"),
                io.String.Output(display_name="name", is_output_list=True),
            ],
        )

    @classmethod
    def validate_inputs(cls, folder):
        try:
            if folder is not None:  # None: linked, known only when it runs
                resolve(folder)
        except DatasetError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, folder, inputs, target, caption, inputs1=None, inputs2=None):
        path = resolve(folder)
        starts = [batch.cpu().float().numpy() for batch in (inputs, inputs1, inputs2) if batch is not None]
        names = write_pairs(path, starts, target.cpu().float().numpy(), caption)
        root = Path(folder_paths.get_input_directory())
        shown = [
            {"filename": f"{name}_end.png", "subfolder": path.relative_to(root).as_posix(), "type": "input"}
            for name in names
            if path.is_relative_to(root)  # ComfyUI shows no other folder's pictures
        ]
        return io.NodeOutput(str(path), names, ui={"images": shown} if shown else None)
