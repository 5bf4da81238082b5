"""ComfyUI's own nodes, run as the executor does."""
import importlib

import pytest


def node(module: str, name: str):
    """`node("freelunch", "FreeU")` gives a function that runs ComfyUI's node and returns its MODEL."""

    def run(model, *args, **inputs):
        try:
            cls = getattr(importlib.import_module(f"comfy_extras.nodes_{module}"), name)
        except (ImportError, AttributeError):
            pytest.skip(f"this ComfyUI has no {name}")
        out = cls.execute(model, *args, **inputs) if hasattr(cls, "execute") else getattr(cls(), cls.FUNCTION)(model, *args, **inputs)
        return getattr(out, "result", out)[0]

    return run
