"""A real kernel for tests, spoken to as a front end does."""

from __future__ import annotations

import os
import queue
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

ANSI = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(slots=True)
class Reply:
    """What one cell did: reply status, streams, displays (newest content of each), result and error."""

    status: str
    stdout: str = ""
    stderr: str = ""
    displays: list[dict[str, Any]] = field(default_factory=list)
    result: dict[str, Any] | None = None
    error: list[str] = field(default_factory=list)
    seconds: float = 0.0


class Kernel:
    """One kernel in one folder, with a state folder of its own."""

    def __init__(self, folder: Path, state: Path) -> None:
        self._manager = KernelManager(kernel_name="python3")
        env = {**os.environ, "BKNB_ROOT": str(state), "JPY_SESSION_NAME": str(folder / "open.ipynb")}
        self._manager.start_kernel(cwd=str(folder), env=env)
        self.client: BlockingKernelClient = self._manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)

    @property
    def pid(self) -> int:
        """Of the kernel's process."""
        return int(self._manager.provisioner.process.pid)

    def run(
        self, code: str, *, timeout: float = 60, on_output: Callable[[dict[str, Any]], None] | None = None, cell: str = ""
    ) -> Reply:
        """Run a cell and wait for its end; `on_output` sees each message as it comes, `cell` is its id, as JupyterLab says it."""
        begun = time.monotonic()
        asked = {"code": code, "silent": False, "store_history": True, "allow_stdin": False}
        message = self.client.session.msg("execute_request", asked, metadata={"cellId": cell} if cell else {})
        self.client.shell_channel.send(message)
        wanted = message["header"]["msg_id"]
        found = Reply("")
        shown: dict[str, dict[str, Any]] = {}
        while True:
            message = self.client.get_iopub_msg(timeout=timeout)
            if message["parent_header"].get("msg_id") != wanted:
                continue
            content = message["content"]
            if on_output is not None:
                on_output(message)
            match message["msg_type"]:
                case "stream":
                    setattr(found, content["name"], getattr(found, content["name"]) + content["text"])
                case "display_data":
                    entry = dict(content["data"])
                    shown[content.get("transient", {}).get("display_id", str(len(shown)))] = entry
                    found.displays.append(entry)
                case "update_display_data":
                    entry = shown[content["transient"]["display_id"]]
                    entry.clear()
                    entry.update(content["data"])
                case "execute_result":
                    found.result = content["data"]
                case "error":
                    found.error = [ANSI.sub("", line) for line in content["traceback"]]
                case "status" if content["execution_state"] == "idle":
                    break
        while True:
            reply = self.client.get_shell_msg(timeout=timeout)
            if reply["parent_header"].get("msg_id") == wanted:
                break
        found.status = reply["content"]["status"]
        found.seconds = time.monotonic() - begun
        return found

    def interrupt(self) -> None:
        """The stop button."""
        self._manager.interrupt_kernel()

    def restart(self) -> None:
        """A new process in the place of the old one."""
        self._manager.restart_kernel(now=True)
        self.client.wait_for_ready(timeout=60)

    def complete(self, code: str) -> list[str]:
        """What Tab offers at the end of some code."""
        wanted = self.client.complete(code, len(code))
        return list(self._answer(wanted)["matches"])

    def inspect(self, code: str) -> str:
        """What Shift-Tab shows."""
        wanted = self.client.inspect(code, len(code))
        return ANSI.sub("", self._answer(wanted)["data"].get("text/plain", ""))

    def close(self) -> None:
        """End it."""
        self.client.stop_channels()
        self._manager.shutdown_kernel(now=True)

    def _answer(self, wanted: str) -> dict[str, Any]:
        while True:
            try:
                message = self.client.get_shell_msg(timeout=30)
            except queue.Empty:
                raise AssertionError("the kernel does not answer") from None
            if message["parent_header"].get("msg_id") == wanted:
                content: dict[str, Any] = message["content"]
                return content
