"""Follow a queued prompt over the page's websocket, one line of news at a time.

Needs aiohttp, which ComfyUI brings along.
"""

from __future__ import annotations

import asyncio
import json
import struct
import time
import uuid
from typing import Any

import aiohttp
from comfy_host import ComfyServer, HostFailed, Outcome

SECONDS_BETWEEN_LINES = 5.0
TEXT_EVENT = 3
"""Number of the binary websocket messages that carry a node's progress text."""


class Narrator:
    """Prints stage, step and a node's own words (loss, time left), not too often."""

    def __init__(self, prompt: dict[str, Any]) -> None:
        self.titles = {number: node["_meta"]["title"] for number, node in prompt.items()}
        self.started = time.monotonic()
        self.seen: list[str] = []
        self.spoke = 0.0

    def stage(self, number: str) -> None:
        """A node begins."""
        if number in self.titles and number not in self.seen:
            self.seen.append(number)
            self._say(number, "")

    def step(self, number: str, text: str) -> None:
        """News of a running node."""
        if number in self.titles and time.monotonic() - self.spoke > SECONDS_BETWEEN_LINES:
            self._say(number, " ".join(text.split("\n")))

    def _say(self, number: str, text: str) -> None:
        self.spoke = time.monotonic()
        minutes, seconds = divmod(int(self.spoke - self.started), 60)
        place = f"{len(self.seen):2}/{len(self.titles)}"
        print(
            f"{minutes:3}:{seconds:02} [{place}] {self.titles[number]} {text}".rstrip(), flush=True
        )


def run(server: ComfyServer, prompt: dict[str, Any], extra: dict[str, Any]) -> Outcome:
    """Queue a prompt as the page does and narrate it to its end.

    Raises:
        PromptRefused: the host's validation found something.
        HostFailed: the server died.
    """
    return asyncio.run(_run(server, prompt, extra))


async def _run(server: ComfyServer, prompt: dict[str, Any], extra: dict[str, Any]) -> Outcome:
    client = uuid.uuid4().hex
    narrator = Narrator(prompt)
    url = f"{server.url}/ws?clientId={client}"
    async with aiohttp.ClientSession() as session, session.ws_connect(url, max_msg_size=0) as ws:
        number = server.queue(prompt, client, extra)
        while True:
            outcome = await asyncio.to_thread(server.outcome, number)
            if outcome is not None:
                return outcome
            server.check_alive()
            try:
                message = await ws.receive(timeout=2)
            except asyncio.TimeoutError:
                continue
            if message.type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR):
                raise HostFailed(f"ComfyUI closed the connection\n{server.tail()}")
            _tell(narrator, message)


def _tell(narrator: Narrator, message: aiohttp.WSMessage) -> None:
    if message.type is aiohttp.WSMsgType.BINARY:
        kind, length = struct.unpack(">II", message.data[:8])
        if kind == TEXT_EVENT:
            number = message.data[8 : 8 + length].decode()
            narrator.step(number, message.data[8 + length :].decode(errors="replace"))
        return
    event = json.loads(message.data)
    data = event.get("data", {})
    if event["type"] == "executing" and data.get("node"):
        narrator.stage(data["node"])
    elif event["type"] == "progress":
        narrator.step(str(data["node"]), f"{data['value']} of {data['max']}")
