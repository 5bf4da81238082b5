"""Fixtures of all tests. The pack is loaded by its path as `pairlora`, the way ComfyUI does it."""
import importlib
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "demo"), str(ROOT / "tests")]

pytest_plugins = ["running"]  # the fixtures of a running server

import like_windows  # noqa: E402

import launch  # noqa: E402
from host import Host  # noqa: E402

MATRIX = pytest.StashKey[dict[str, dict[str, str]]]()


@pytest.fixture(scope="session")
def host() -> Host:
    return Host()


@pytest.fixture(scope="session")
def comfy(host):
    """ComfyUI's modules are importable; its executor runs nodes in inference mode, and so do the tests that say so."""
    launch.prepare(str(host.comfyui))
    launch.choose_device()
    if "pairlora" not in sys.modules:
        launch.load_pack()


@pytest.fixture(scope="session")
def trainer(comfy):
    """`trainer("loop")` imports a module of the training library."""
    return lambda module: importlib.import_module(f"pairlora.trainer.{module}")


@pytest.fixture(scope="session")
def plain():
    """The part of the library that needs neither ComfyUI nor torch: `plain("pairs")`."""
    if "pairlora" not in sys.modules:
        launch.load_pack()
    return lambda module: importlib.import_module(f"pairlora.trainer.data.{module}")


@pytest.fixture
def windows_files():
    """Files in use stay where they are, as on Windows."""
    if sys.platform != "linux":
        pytest.skip("what a process has open is looked up in /proc")
    like_windows.install()
    like_windows.active = True
    yield like_windows
    like_windows.active, like_windows.longest = False, None


@pytest.fixture(autouse=True)
def _like_windows(request):
    if request.config.getoption("--like-windows"):
        request.getfixturevalue("windows_files")


@pytest.fixture(scope="session")
def dataset_in(plain):
    """`dataset_in(folder, resolution=64, ...)`: the PairedDataset there, read so; nothing is kept of its pixels."""
    dataset = plain("dataset")

    def opened(folder, **options):
        reading = dataset.Reading(**{"resolution": 64, **options})
        with plain("cache").Cache() as cache:
            return dataset.open_dataset(dataset.survey(folder, reading), reading, cache, lambda *_: None)

    return opened


@pytest.fixture(scope="session")
def matrix(request) -> dict[str, dict[str, str]]:
    """Family -> check -> what was seen, printed at the end of the run."""
    return request.config.stash[MATRIX]


def pytest_addoption(parser):
    parser.addoption("--screenshots", type=Path, metavar="FOLDER", help="write pictures of what the browser tests see there")
    parser.addoption("--archive", type=Path, metavar="ZIP", help="test this archive of the pack instead of one like comfy-cli's")
    parser.addoption("--like-windows", action="store_true", help="files in use are neither deleted, renamed nor replaced")
    parser.addoption("--write-locales", action="store_true", help="write locales/en from the nodes' schemas and the widgets")


def pytest_configure(config):
    config.stash[MATRIX] = {}


def pytest_sessionfinish(session):
    if hasattr(session.config, "workeroutput"):  # one of several processes, of which the first prints
        session.config.workeroutput["matrix"] = session.config.stash[MATRIX]


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_testnodedown(node):
    for family, row in getattr(node, "workeroutput", {}).get("matrix", {}).items():
        node.config.stash[MATRIX].setdefault(family, {}).update(row)


def pytest_terminal_summary(terminalreporter, config):
    if table := config.stash[MATRIX]:
        terminalreporter.section("family x check")
        for name, row in table.items():
            cells = "  ".join(f"{check}: {text or 'EMPTY'}" for check, text in row.items())
            terminalreporter.write_line(f"{name:22} {cells}")
