"""Load LoRA's file as it is typed on Windows, with Windows' own rules for paths."""
import importlib
import ntpath
import sys
from pathlib import PureWindowsPath
from types import SimpleNamespace

import aiohttp.web
import pytest

HERE = {"C:\\loras\\mine.safetensors", "C:\\loras\\styles\\mine.safetensors", "D:\\elsewhere\\mine.safetensors"}


class Windows(PureWindowsPath):
    def is_file(self):
        return str(self) in HERE


def relpath(path, start):
    if ntpath.splitdrive(path)[0] not in ("", "C:"):  # where ComfyUI runs
        raise ValueError("path is on mount 'D:', start on mount 'C:'")
    return ntpath.relpath(path, start)


@pytest.fixture
def resolve(comfy, monkeypatch):
    import folder_paths

    before = set(sys.modules)
    instance = SimpleNamespace(routes=aiohttp.web.RouteTableDef())  # no server runs, and none is asked
    monkeypatch.setitem(sys.modules, "server", SimpleNamespace(PromptServer=SimpleNamespace(instance=instance), is_loopback=None))
    apply = importlib.import_module("pairlora.nodes.apply")
    theirs = SimpleNamespace(join=ntpath.join, islink=lambda path: False, isfile=lambda path: ntpath.normpath(path) in HERE, relpath=relpath)
    monkeypatch.setattr(folder_paths, "os", SimpleNamespace(path=theirs))
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "loras", (["C:\\loras"], {".safetensors"}))
    monkeypatch.setattr(apply, "Path", Windows)
    monkeypatch.setattr(apply.typed, "WINDOWS", True)
    monkeypatch.setattr(apply.access, "refusal", lambda path: None)
    yield apply.resolve
    for name in set(sys.modules) - before:
        if name.startswith("pairlora.nodes"):
            del sys.modules[name]


@pytest.mark.parametrize("typed, meant", [
    ("mine.safetensors", "C:\\loras\\mine.safetensors"), ("styles\\mine.safetensors", "C:\\loras\\styles\\mine.safetensors"),
    ("styles/mine.safetensors", "C:\\loras\\styles\\mine.safetensors"), ('"C:\\loras\\mine.safetensors"', "C:\\loras\\mine.safetensors"),
    ("D:\\elsewhere\\mine.safetensors", "D:\\elsewhere\\mine.safetensors"), ("D:/elsewhere/mine.safetensors", "D:\\elsewhere\\mine.safetensors"),
    ('"D:\\elsewhere\\mine.safetensors"', "D:\\elsewhere\\mine.safetensors"), ("file:///D:/elsewhere/mine.safetensors", "D:\\elsewhere\\mine.safetensors"),
])  # fmt: skip
def test_a_lora_is_found_by_name_and_on_every_drive(resolve, typed, meant):
    assert str(resolve(typed)) == meant


@pytest.mark.parametrize("typed", ["other.safetensors", "D:mine.safetensors", "\\\\server\\share\\mine.safetensors", "D:\\elsewhere", ""])
def test_what_is_none_is_named(resolve, typed):
    with pytest.raises(ValueError, match="There is no LoRA"):
        resolve(typed)
