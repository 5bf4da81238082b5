"""A real browser on the running server's page."""
import os

import pytest
from playwright.sync_api import sync_playwright

SIZES, THEMES = ((1280, 720), (1920, 1080)), ("dark", "light")


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


@pytest.fixture
def screenshot(page, request):
    """`screenshot("a training")` writes what the page shows, or another tab, in two sizes and two themes, where --screenshots
    asks for it."""
    folder, shared = request.config.getoption("screenshots"), page

    def write(name: str, page=shared) -> None:
        if folder is None:
            return
        renderer = "vue" if page.evaluate("app.extensionManager.setting.get('Comfy.VueNodes.Enabled')") else "canvas"
        before = page.viewport_size
        for theme in THEMES:
            page.evaluate("theme => app.extensionManager.setting.set('Comfy.ColorPalette', theme)", theme)
            for width, height in SIZES:
                page.set_viewport_size({"width": width, "height": height})
                page.wait_for_timeout(500)  # until it is drawn anew
                page.screenshot(path=folder / f"{name} {renderer} {width}x{height} {theme}.png")
        page.evaluate("theme => app.extensionManager.setting.set('Comfy.ColorPalette', theme)", THEMES[0])
        page.set_viewport_size(before)

    return write
