"""The example as a newcomer takes it, in a real browser: queue, watch, compare, reload. No error and no failed request."""
import json
import re

import pytest
from graphs import load, queue, set_widget, wait_until_compared, wait_until_ready

from make_workflows import template

TRAIN, STEPS = 4, 30


@pytest.fixture
def problems(page):
    """Errors of the pack in the console, and requests for its files, routes and pictures that failed; ComfyUI 0.3.75 has some
    of its own at every reload."""
    found = []

    def answered(response):
        if response.status >= 400 and re.search("pairlora|/view", response.url):
            found.append(f"{response.status} {response.url}")

    page.on("console", lambda m: m.type == "error" and "Failed to load" not in m.text and "pairlora" in f"{m.text} {m.location}".lower() and found.append(m.text))
    page.on("pageerror", lambda error: "pairlora" in f"{error.stack}" and found.append(str(error)))
    page.on("response", answered)
    return found


@pytest.mark.slow
def test_an_example_from_queue_to_comparison_and_back_after_a_reload(page, problems, screenshot):
    load(page, json.loads(template("background-removal").read_text(encoding="utf-8")))
    set_widget(page, TRAIN, "steps", STEPS)
    set_widget(page, TRAIN, "learning_rate", 0.0021)  # so that it is no other test's training
    set_widget(page, TRAIN, "name", "whole_path")
    queue(page)
    page.locator(".pairlora-train").get_by_text("step ").first.wait_for(timeout=240_000)
    wait_until_compared(page, 240_000)
    page.locator(".pairlora-train").get_by_text("whole_path.safetensors").first.wait_for()
    screenshot("the example after its queue")
    page.wait_for_timeout(2000)  # until the page has kept its workflow
    page.reload()
    wait_until_ready(page)
    wait_until_compared(page, 240_000)
    page.locator(".pairlora-train").get_by_text("whole_path.safetensors").first.wait_for()
    screenshot("the example after a reload")
    assert not problems, "\n".join(problems)
