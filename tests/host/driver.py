"""Run one function of a test module inside the host's process; started by `in_host`.

Arguments: ComfyUI's folder, a base directory, the pack's folder, a job file (JSON: module file,
function name, arguments) and the file that takes the JSON of what the function returned.
"""

import asyncio
import importlib
import json
import os
import runpy
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any


class _Recorder:
    """The three attributes of the page's server that the host's executor asks for."""

    def __init__(self) -> None:
        self.client_id = "test"
        self.last_node_id = None
        self.last_prompt_id = None
        self.messages: list[tuple[str, Any]] = []

    def send_sync(self, event: str, data: Any, sid: str | None = None) -> None:
        self.messages.append((event, data))

    def send_progress_text(self, text: str, node_id: str, sid: str | None = None) -> None:
        self.messages.append(("progress_text", {"text": text, "node": node_id}))


class Host:
    """What a function run by `in_host` gets as its first argument."""

    def __init__(self, base: Path, pack_folder: Path) -> None:
        import folder_paths
        import nodes

        folder_paths.add_model_folder_path("loras", str(base / "output" / "loras"))
        self.base = base
        self.pack_folder = pack_folder
        self.module_name = str(pack_folder).replace(".", "_x_")
        asyncio.run(self._load(nodes))
        self.nodes: dict[str, type] = nodes.NODE_CLASS_MAPPINGS

    def module(self, name: str) -> ModuleType:
        """A module of the pack as the host imported it: `host.module("nsync.rules")`."""
        return importlib.import_module(f"{self.module_name}.{name}")

    def object_info(self) -> dict[str, Any]:
        """What GET /object_info answers for the core's nodes and the pack's."""
        return {name: _node_info(name, node) for name, node in self.nodes.items()}

    def validate(self, prompt: dict[str, Any]) -> tuple[bool, str, list[str]]:
        """The host's own validation: (fine, every reason as text, ids of the output nodes)."""
        import execution

        ok, error, outputs, reasons = asyncio.run(execution.validate_prompt("test", prompt, None))
        return ok, json.dumps([error, reasons]) if error or reasons else "", outputs

    def run(self, prompt: dict[str, Any]) -> SimpleNamespace:
        """Run an API-format prompt to its end: `.ok`, `.error`, `.outputs`, `.messages`."""
        import execution
        from server import PromptServer

        ok, reasons, outputs = self.validate(prompt)
        if not ok:
            return SimpleNamespace(ok=False, error=reasons, outputs={}, messages=[])
        server = PromptServer.instance = _Recorder()  # nodes send texts and pictures there
        executor = execution.PromptExecutor(
            server, execution.CacheType.CLASSIC, {"lru": 0, "ram": 0.0, "ram_inactive": 0.0}
        )
        executor.execute(prompt, "test", {}, outputs)
        messages = [*executor.status_messages, *server.messages]
        errors = [
            f"{data['exception_type']}: {data['exception_message']}"
            for event, data in executor.status_messages
            if event == "execution_error"
        ]
        shown = executor.history_result["outputs"] if executor.success else {}
        return SimpleNamespace(
            ok=executor.success,
            error=errors[0] if errors else "",
            outputs=shown,
            messages=messages,
            executor=executor,
        )

    async def _load(self, nodes: ModuleType) -> None:
        await nodes.init_builtin_extra_nodes()
        assert await nodes.load_custom_node(str(self.pack_folder)), "the pack did not load"


def _node_info(name: str, node: type) -> dict[str, Any]:
    from comfy_api.internal import _ComfyNodeInternal

    if issubclass(node, _ComfyNodeInternal):
        return node.GET_NODE_INFO_V1()
    inputs = node.INPUT_TYPES()
    return {
        "name": name,
        "input": inputs,
        "input_order": {kind: list(fields) for kind, fields in inputs.items()},
        "output": list(getattr(node, "RETURN_TYPES", ())),
        "output_name": list(getattr(node, "RETURN_NAMES", getattr(node, "RETURN_TYPES", ()))),
        "output_node": getattr(node, "OUTPUT_NODE", False),
    }


def main() -> None:
    comfy, base, pack, job_file, result_file = sys.argv[1:]
    sys.argv = ["main.py", "--cpu", "--base-directory", base, "--disable-api-nodes"]
    sys.path[0] = comfy  # instead of the folder of this file
    sys.path += [str(Path(pack).resolve() / "scripts"), str(Path(__file__).parent)]
    import comfy.options

    comfy.options.enable_args_parsing()
    import torch
    import utils.extra_config  # noqa: F401 - as main.py does, before comfy/utils.py can hide it

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 0)) or torch.get_num_threads())
    job = json.loads(Path(job_file).read_text())
    host = Host(Path(base), Path(pack))
    function = runpy.run_path(job["module"])[job["function"]]
    Path(result_file).write_text(json.dumps(function(host, **job["arguments"])))


if __name__ == "__main__":
    main()
