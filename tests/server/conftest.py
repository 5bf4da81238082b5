"""What tests of a real server share beside the server itself (tests/running.py)."""
import shutil

import pytest

from host import ROOT


@pytest.fixture
def pairs(server, request):
    """A folder of three pairs in ComfyUI's input."""
    folder = server.base / "input" / request.node.name.split("[")[0]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for file in (ROOT / "samples/background-removal").glob("photo00[123]*"):
        shutil.copy(file, folder)
    return folder
