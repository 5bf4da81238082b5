"""Tiny models of ComfyUI's own classes; they need ComfyUI, which is not importable yet when tests are collected."""
import pytest


@pytest.fixture(scope="session")
def zoo(comfy):
    import zoo

    return zoo


@pytest.fixture(scope="session")
def tiny(comfy):
    import tiny

    return tiny
