"""Write the page's workflow format (litegraph 0.4) from a few lines of Python.

Widgets and sockets are put in the order of the host's own object_info, so that a workflow cannot
disagree with the schemas it was made from.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

from comfy_host import PACK_NAME
from workflow_api import CONTROL, inputs_of, is_widget, widget_slots

Json = dict[str, Any]

NAMESPACE = uuid.UUID("6f1c2f0e-4a57-4d0e-9c53-5a2b7c2e9d11")
HEADER, SLOT, WIDGET = 36, 20, 26
"""Heights in pixels of a node's parts, for sizes that hold what the page draws."""


@dataclass(frozen=True)
class Node:
    """A node that was put down; `node["model"]` is one of its outputs, in whatever case."""

    id: int
    outputs: tuple[str, ...]

    def __getitem__(self, output: str) -> Link:
        return Link(self.id, [name.lower() for name in self.outputs].index(output.lower()))


@dataclass(frozen=True)
class Link:
    """An output that an input can be connected to."""

    node: int
    slot: int


class Graph:
    """A workflow in the making.

    Args:
        name: what its (stable) UUID is derived from.
        object_info: GET /object_info of the host.
        versions: version of the pack and of the host, written into the nodes' properties.
    """

    def __init__(self, name: str, object_info: Json, versions: tuple[str, str]) -> None:
        self.id = str(uuid.uuid5(NAMESPACE, name))
        self.info = object_info
        self.versions = versions
        self.nodes: list[Json] = []
        self.links: list[list[Any]] = []
        self.groups: list[Json] = []

    def node(
        self,
        kind: str,
        at: tuple[int, int],
        *,
        size: tuple[int, int] | None = None,
        title: str = "",
        models: list[Json] | None = None,
        **values: Any,
    ) -> Node:
        """Put a node down at a place; `values` are its widgets, or `Link`s to other nodes.

        Raises:
            ValueError: the host has no such input.
        """
        info = self.info[kind]
        unknown = set(values) - {name for name, *_ in inputs_of(info)}
        if unknown:
            raise ValueError(f"{kind}: no such inputs: {', '.join(sorted(unknown))}")
        number = len(self.nodes) + 1
        inputs = self._inputs(number, info, values)
        widgets = self._widgets(info, values)
        height = HEADER + SLOT * max(len(info["output"]), len(inputs))
        node = {
            "id": number,
            "type": kind,
            "pos": list(at),
            "size": list(size or (320, height + WIDGET * len(widgets))),
            "flags": {},
            "order": number - 1,
            "mode": 0,
            "inputs": inputs,
            "outputs": [
                {"name": name, "type": kind_, "links": []}
                for name, kind_ in zip(info["output_name"], info["output"], strict=True)
            ],
            "properties": self._properties(kind, models),
            "widgets_values": widgets,
        }
        self.nodes.append({**node, "title": title} if title else node)
        return Node(number, tuple(info["output_name"]))

    def note(self, text: str, at: tuple[int, int], size: tuple[int, int]) -> None:
        """Put down an explanation in Markdown."""
        self.nodes.append(
            {
                "id": len(self.nodes) + 1,
                "type": "MarkdownNote",
                "pos": list(at),
                "size": list(size),
                "flags": {},
                "order": len(self.nodes),
                "mode": 0,
                "inputs": [],
                "outputs": [],
                "properties": {},
                "widgets_values": [text],
                "color": "#432",
                "bgcolor": "#653",
            }
        )

    def group(self, title: str, box: tuple[int, int, int, int], color: str) -> None:
        """Draw a titled frame: x, y, width, height."""
        number = len(self.groups) + 1
        frame = {"id": number, "title": title, "bounding": list(box), "color": color}
        self.groups.append({**frame, "font_size": 24, "flags": {}})

    def json(self) -> Json:
        """The workflow as the page saves it."""
        return {
            "id": self.id,
            "revision": 0,
            "last_node_id": len(self.nodes),
            "last_link_id": len(self.links),
            "nodes": self.nodes,
            "links": self.links,
            "groups": self.groups,
            "config": {},
            "extra": {"ds": {"scale": 0.5, "offset": [80, 160]}},
            "version": 0.4,
        }

    def _inputs(self, number: int, info: Json, values: Json) -> list[Json]:
        """The sockets; the page makes those of the widgets itself, unless they are connected."""
        inputs: list[Json] = []
        for name, kind, options in inputs_of(info):
            value, widget = values.get(name), is_widget(kind, options)
            if widget and not isinstance(value, Link):
                continue
            entry: Json = {"name": name, "type": kind, "link": None}
            entry |= {"widget": {"name": name}} if widget else {}
            if isinstance(value, Link):
                entry["link"] = self._connect(value, number, len(inputs), kind)
            inputs.append(entry)
        return inputs

    def _connect(self, link: Link, number: int, slot: int, kind: str) -> int:
        self.links.append([len(self.links) + 1, link.node, link.slot, number, slot, kind])
        self.nodes[link.node - 1]["outputs"][link.slot]["links"].append(len(self.links))
        return len(self.links)

    def _widgets(self, info: Json, values: Json) -> list[Any]:
        """Values by position: given, else the schema's default."""
        defaults = {name: _default(kind, options) for name, kind, options in inputs_of(info)}
        given = {name: value for name, value in values.items() if not isinstance(value, Link)}
        filled = {**defaults, CONTROL: "fixed", **given}
        return [filled[slot] for slot in widget_slots(info)]

    def _properties(self, kind: str, models: list[Json] | None) -> Json:
        ours = kind.startswith("NSYNC_")
        pack = (PACK_NAME, self.versions[0]) if ours else ("comfy-core", self.versions[1])
        properties: Json = {"cnr_id": pack[0], "ver": pack[1], "Node name for S&R": kind}
        return {**properties, "models": models} if models else properties


def _default(kind: Any, options: Json) -> Any:
    if "default" in options:
        return options["default"]
    choices = kind if isinstance(kind, list) else options.get("options", [])
    return choices[0] if choices else {"STRING": "", "BOOLEAN": False}.get(str(kind))
