"""Before and after, side by side."""
import folder_paths
import numpy as np
import torch
from comfy_api.latest import io
from PIL import Image, ImageDraw, ImageFont

from ..trainer.data.images import check_pillow

GAP = 8  # pixels between pictures
BACKGROUND, INK = (24, 24, 27), (235, 235, 240)


def pictures(batches: list[torch.Tensor] | None) -> list[Image.Image]:
    """Every image of a list of (n, height, width, 3) batches in 0..1."""
    images = [image for batch in batches or [] for image in batch]
    return [Image.fromarray((image.cpu().numpy()[..., :3].clip(0, 1) * 255).round().astype(np.uint8)) for image in images]


def contact_sheet(columns: dict[str, list[Image.Image]]) -> Image.Image:
    """One labelled column for each entry, one row for each sample; every picture at its full size."""
    columns = {label: images for label, images in columns.items() if images}
    width, height = (max(getattr(i, side) for images in columns.values() for i in images) for side in ("width", "height"))
    font = ImageFont.load_default(max(12, width // 12))
    top = font.size + 2 * GAP
    rows = max(map(len, columns.values()))
    sheet = Image.new("RGB", (len(columns) * (width + GAP) + GAP, top + rows * (height + GAP)), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for column, (label, images) in enumerate(columns.items()):
        x = GAP + column * (width + GAP)
        draw.text((x + width / 2, top / 2), label, INK, font, anchor="mm")
        for row, image in enumerate(images):
            sheet.paste(image, (x, top + row * (height + GAP)))
    return sheet


class PairLoRABeforeAfter(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="PairLoRABeforeAfter",
            display_name="Before / After",
            category="PairLoRA",
            description="Shows what the base model makes of each input (before) next to what it makes with the LoRA "
            "(after), and writes the sheet into ComfyUI's output folder.",
            is_input_list=True,
            is_output_node=True,
            inputs=[
                io.Image.Input("before", tooltip="Pictures made without the LoRA."),
                io.Image.Input("after", tooltip="Pictures made with the LoRA, in the same order."),
                io.Image.Input("input", optional=True, tooltip="The inputs, shown on the left."),
                io.Image.Input("target", optional=True, tooltip="The wanted results, shown on the right."),
            ],
            outputs=[io.Image.Output(display_name="contact_sheet")],
        )

    @classmethod
    def execute(cls, before, after, input=None, target=None):
        check_pillow()
        columns = {"input": input, "before": before, "after": after, "target": target}
        columns = {label: pictures(batches) for label, batches in columns.items()}
        counts = {label: len(images) for label, images in columns.items() if images}
        if len(set(counts.values())) > 1:
            raise ValueError(f"Before / After needs equally many pictures on every input, but got {counts}.")
        sheet = contact_sheet(columns)
        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(
            "pairlora/before_after", folder_paths.get_output_directory(), sheet.width, sheet.height
        )
        file = f"{name}_{counter:05}_.png"
        sheet.save(f"{folder}/{file}")
        image = torch.from_numpy(np.asarray(sheet, dtype=np.float32) / 255)[None]
        return io.NodeOutput(image, ui={"images": [{"filename": file, "subfolder": subfolder, "type": "output"}]})
