"""The workflows in ComfyUI's real page: listed, loaded, run by pressing Run."""

import json
import time

import pytest
from comfy_host import PACK, PACK_NAME
from workflow_api import to_api

from .conftest import SCREENSHOTS

WORKFLOWS = ("nsync_embedding", "nsync_evaluate", "nsync_quickstart", "nsync_sd15", "supcon_gan")
SMALLER = {
    "NSYNC_TinyStylePictures": {"count": 6},
    "NSYNC_NegativeSetGenerator": {"steps": 4},
    "NSYNC_ContrastiveLoRATrainer": {"steps": 4, "preview_every": 2, "preview_steps": 4},
    "NSYNC_StyleComparison": {"steps": 4},
    "KSampler": {"steps": 4},
    "EmptyLatentImage": {"batch_size": 1},
    "NSYNC_TinyWorldPictures": {"count": 24},
    "NSYNC_SupConPretrainer": {"steps": 4, "validation": 8},
    "NSYNC_SupConGANTrainer": {"steps": 4, "preview_every": 2},
}
"""What a test's run saves on; everything else is the workflow as it is."""

EDIT = """(smaller) => {
    for (const node of window.app.graph.nodes)
        for (const [name, value] of Object.entries(smaller[node.type] ?? {})) {
            const widget = node.widgets.find((each) => each.name === name)
            if (!widget) throw new Error(`${node.type} has no widget ${name}`)
            widget.value = value
        }
}"""
UNKNOWN = """() => window.app.graph.nodes
    .filter((node) => node.has_errors || !(node.type in window.LiteGraph.registered_node_types))
    .map((node) => node.type)"""
PROMPT = "() => window.app.graphToPrompt().then((prompt) => prompt.output)"


def open_template(page, name):
    """Load a template as a user does: Templates, this pack, its card."""
    page.get_by_role("button", name="Templates").first.click()
    dialog = page.get_by_role("dialog").first
    dialog.get_by_text(PACK_NAME, exact=True).first.click()
    dialog.get_by_test_id(f"template-workflow-{name}").click()
    expected = len(json.loads((PACK / "workflows" / f"{name}.json").read_text())["nodes"])
    page.wait_for_function(f"window.app.graph.nodes.length === {expected}")
    dialog.wait_for(state="hidden")


def keep_screenshot(page, name):
    page.keyboard.press(".")  # fit the view
    page.wait_for_timeout(1000)
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png")


def test_templates_list_the_workflows(page):
    page.get_by_role("button", name="Templates").first.click()
    dialog = page.get_by_role("dialog").first
    dialog.get_by_text(PACK_NAME, exact=True).first.click()
    for name in WORKFLOWS:
        dialog.get_by_test_id(f"template-workflow-{name}").wait_for()


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_loads_whole_and_means_what_its_file_says(page, server, name):
    open_template(page, name)
    page.wait_for_timeout(1000)
    keep_screenshot(page, name)
    assert page.evaluate(UNKNOWN) == []
    assert page.get_by_text("missing", exact=False).count() == 0
    assert page.console.ours() == []
    workflow = json.loads((PACK / "workflows" / f"{name}.json").read_text())
    ours = to_api(workflow, server.get("/object_info"))
    assert page.evaluate(PROMPT) == ours


@pytest.mark.parametrize(
    ("name", "count", "texts"),
    [
        ("nsync_quickstart", 7, ["pictures", "Saved loras/", "Report: "]),
        ("supcon_gan", 3, ["pictures", "Saved tiny_encoders", "Saved tiny_gan"]),
    ],
)
def test_run_draws_the_previews_and_tells_what_came_of_it(page, server, name, count, texts):
    before = set(server.get("/history"))
    open_template(page, name)
    page.evaluate(EDIT, SMALLER)
    page.get_by_test_id("queue-button").click()
    outcome = wait_for_the_new_prompt(server, before)
    assert outcome.ok, f"{outcome.node_type}: {outcome.error}"
    previews = page.evaluate(
        "() => window.app.graph.nodes.filter((n) => n.type === 'PreviewImage').map((n) => n.id)"
    )
    assert len(previews) == count
    page.wait_for_function(
        "(ids) => ids.every((id) => window.app.nodeOutputs[id]?.images?.length"
        " && window.app.graph.getNodeById(id).imgs?.every((i) => i.complete && i.naturalWidth))",
        arg=previews,
        timeout=30_000,
    )
    keep_screenshot(page, f"{name}_after_run")
    for text in texts:
        page.get_by_text(text).first.wait_for()
    assert page.console.ours() == []


def wait_for_the_new_prompt(server, before, seconds=600):
    """How the prompt that the page queued ended."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        server.check_alive()
        for number in set(server.get("/history")) - before:
            outcome = server.outcome(number)
            if outcome is not None:
                return outcome
        time.sleep(0.5)
    raise AssertionError(f"the page's prompt did not end in {seconds} s\n{server.tail()}")
