"""Runs a Python script as ComfyUI would run it: `python launch.py COMFYUI_FOLDER SCRIPT ARGUMENTS`.

Standing between Python and ComfyUI, it mends two packages that the CPU build of torch cannot load.
"""
import importlib.machinery
import importlib.metadata
import importlib.util
import runpy
import sys
import types
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def prepare(comfyui: str) -> None:
    """Make ComfyUI's modules importable."""
    sys.path.insert(0, comfyui)
    try:
        import torchaudio  # noqa: F401
    except Exception:  # missing, or built for another torch
        for name in ("torchaudio", "torchaudio.transforms", "torchaudio.functional"):
            sys.modules[name] = importlib.util.module_from_spec(importlib.machinery.ModuleSpec(name, None))
        sys.modules["torchaudio"].transforms = sys.modules["torchaudio.transforms"]
        sys.modules["torchaudio"].functional = sys.modules["torchaudio.functional"]

    if "+cpu" in importlib.metadata.version("torch") and "+cpu" not in importlib.metadata.version("torchvision"):
        # torchvision's wheel cannot register its operators with the CPU build and stops at "nms does not exist".
        import torch

        library = prepare.library = torch.library.Library("torchvision", "FRAGMENT")  # undone when it is collected
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def choose_device() -> None:
    """What --cpu does for a server: let ComfyUI use the CPU where there is no GPU."""
    import comfy.cli_args
    import torch

    comfy.cli_args.args.cpu = not torch.cuda.is_available()


def load_pack() -> types.ModuleType:
    """The pack as `pairlora`, loaded by its path as ComfyUI does, for work without a server."""
    spec = importlib.util.spec_from_file_location("pairlora", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
    pack = sys.modules["pairlora"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pack)
    return pack


if __name__ == "__main__":
    comfyui, script, *arguments = sys.argv[1:]
    sys.path[0] = str(Path(script).parent)
    prepare(comfyui)
    sys.argv = [script, *arguments]
    runpy.run_path(script, run_name="__main__")
