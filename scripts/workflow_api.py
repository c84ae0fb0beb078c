"""From the page's workflow format (UI, litegraph 0.4) to the prompt that POST /prompt takes.

The page does this itself when Run is pressed; a browser test holds this module to the page's own
answer. Subgraphs, reroutes, muted and bypassed nodes do not occur in our workflows: refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Json = dict[str, Any]

WIDGET_TYPES = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "COLOR")
NOTES = ("Note", "MarkdownNote")
CONTROL = "control_after_generate"


def inputs_of(info: Json) -> Iterator[tuple[str, Any, Json]]:
    """(name, type, options) of a node's inputs in the order of its schema, hidden ones left out."""
    for group in ("required", "optional"):
        for name, spec in info["input"].get(group, {}).items():
            yield name, spec[0], spec[1] if len(spec) > 1 else {}


def is_widget(kind: Any, options: Json) -> bool:
    """Whether the page draws a widget for such an input."""
    return (isinstance(kind, list) or kind in WIDGET_TYPES) and not options.get("forceInput")


def widget_slots(info: Json) -> list[str]:
    """What each place of `widgets_values` is for; a seed is followed by its control widget."""
    slots = []
    for name, kind, options in inputs_of(info):
        if is_widget(kind, options):
            slots.append(name)
            if kind == "INT" and options.get(CONTROL, name in ("seed", "noise_seed")):
                slots.append(CONTROL)
    return slots


def to_api(workflow: Json, object_info: Json) -> Json:
    """The prompt for a workflow.

    Raises:
        ValueError: a node is unknown, not plain, or its widgets disagree with its schema.
    """
    links = {link[0]: (str(link[1]), link[2]) for link in workflow["links"]}
    nodes = [node for node in workflow["nodes"] if node["type"] not in NOTES]
    return {str(node["id"]): _node(node, links, object_info) for node in nodes}


def _node(node: Json, links: dict[int, tuple[str, int]], object_info: Json) -> Json:
    name = f"{node['type']} ({node['id']})"
    if node["type"] not in object_info or node.get("mode", 0) != 0:
        raise ValueError(f"{name}: expected a node that the host knows, neither muted nor bypassed")
    slots = widget_slots(object_info[node["type"]])
    values = node.get("widgets_values", [])
    if len(slots) != len(values):
        raise ValueError(f"{name}: expected {len(slots)} widget values {slots}; got {len(values)}")
    inputs = {slot: value for slot, value in zip(slots, values, strict=True) if slot != CONTROL}
    for socket in node.get("inputs", []):
        if socket.get("link") is not None:
            inputs[socket["name"]] = list(links[socket["link"]])
    title = node.get("title", object_info[node["type"]].get("display_name", node["type"]))
    return {"inputs": inputs, "class_type": node["type"], "_meta": {"title": title}}
