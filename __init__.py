"""PairLoRA: train image-editing LoRAs from before/after pairs inside ComfyUI."""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    """ComfyUI calls this to get the nodes; importing them here keeps the package importable without ComfyUI."""
    from .nodes import PairLoRAExtension

    return PairLoRAExtension()
