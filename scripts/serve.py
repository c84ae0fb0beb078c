"""`make serve`: the demo's ComfyUI with its page at http://127.0.0.1:8188, until Ctrl-C."""

from __future__ import annotations

import sys
import time

from comfy_host import PACK, ComfyServer, HostFailed
from demo import options, terminated_like_interrupted
from provision import SetupFailed, prepare

PORT = 8188


def main() -> None:
    """Start, say where the page is, wait."""
    installation = prepare()
    log = PACK / ".cache" / "serve" / "comfyui.log"
    server = ComfyServer(installation, log, port=PORT, options=options(installation))
    with terminated_like_interrupted(), server:
        print(f"ComfyUI runs at {server.url}; its log: {log}")
        print("Open the page, choose Templates, nsync-style, nsync_quickstart, and press Run.")
        print("Ctrl-C stops it.", flush=True)
        while True:
            time.sleep(1)
            server.check_alive()


if __name__ == "__main__":
    try:
        main()
    except (SetupFailed, HostFailed) as failure:
        sys.exit(f"[serve] {failure}")
    except KeyboardInterrupt:
        sys.exit("\n[serve] stopped")
