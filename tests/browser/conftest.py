"""A real browser on the running server's page."""
import os

import pytest
from playwright.sync_api import sync_playwright


@pytest.fixture(scope="module")  # its event loop would be in the way of other tests
def browser():
    with sync_playwright() as p:
        path = os.environ.get("PAIRLORA_CHROMIUM")
        browser = p.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")  # loading it takes seconds
def page(browser, server):
    page = browser.new_page(viewport={"width": 1600, "height": 900})
    page.goto(server.url)
    page.wait_for_function("window.app?.graph && Object.keys(LiteGraph.registered_node_types).length > 100", timeout=90_000)
    yield page
    page.close()
