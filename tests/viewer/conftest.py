"""Phantoms with marked directions, and a real browser that is spoken to over plain HTTP."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
)
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"


class Browser:
    """A session of headless Chromium, by the W3C WebDriver protocol."""

    def __init__(self, port: int, chromium: str, profile: Path) -> None:
        self._address = f"http://127.0.0.1:{port}"
        self._session = ""
        options = {"binary": chromium, "args": [*_FLAGS, f"--user-data-dir={profile}"]}
        capabilities = {"browserName": "chrome", "goog:chromeOptions": options}
        value = self._ask("POST", "/session", {"capabilities": {"alwaysMatch": capabilities}})
        self._session = f"/session/{value['sessionId']}"

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        data = json.dumps(body or {}).encode() if method == "POST" else None
        request = Request(self._address + self._session + path, data, method=method)
        with urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def open(self, page: Path, width: int = 1280, height: int = 800, phone: bool = False) -> None:
        """Loads a page and waits until it is drawn."""
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone}
        self._command("Emulation.setDeviceMetricsOverride", screen)
        self._command("Emulation.setTouchEmulationEnabled", {"enabled": phone})
        self._ask("POST", "/url", {"url": page.as_uri()})
        self.wait("return document.body.dataset.ready === 'yes'")

    def _command(self, name: str, parameters: dict[str, Any]) -> Any:
        body = {"cmd": name, "params": parameters}
        return self._ask("POST", "/goog/cdp/execute", body)

    def run(self, script: str, *arguments: Any) -> Any:
        """The value of a script in the page."""
        body = {"script": script, "args": list(arguments)}
        return self._ask("POST", "/execute/sync", body)

    def wait(self, script: str, seconds: float = 30) -> None:
        """Waits until a script gives true."""
        end = time.monotonic() + seconds
        while not self.run(script):
            if time.monotonic() > end:
                message = self.run("return document.body.innerText.slice(0, 400)")
                raise AssertionError(f"never true: {script}; the page says: {message}")
            time.sleep(0.05)

    def settle(self) -> None:
        """Waits until what was asked for is drawn."""
        script = "const done = arguments[0]; requestAnimationFrame(() => setTimeout(done, 30));"
        self._ask("POST", "/execute/async", {"script": script, "args": []})

    def _element(self, selector: str) -> dict[str, str]:
        body = {"using": "css selector", "value": selector}
        return {_ELEMENT: self._ask("POST", "/element", body)[_ELEMENT]}

    def click(self, selector: str) -> None:
        """A click as a person does it: what covers the element gets it."""
        self._ask("POST", f"/element/{self._element(selector)[_ELEMENT]}/click", {})
        self.settle()

    def keys(self, selector: str, text: str) -> None:
        """Keys typed into an element."""
        path = f"/element/{self._element(selector)[_ELEMENT]}/value"
        self._ask("POST", path, {"text": text})
        self.settle()

    def wheel(self, selector: str, down: int) -> None:
        """A turn of the wheel over the middle of an element (CSS pixels down)."""
        turn = {"type": "scroll", "x": 0, "y": 0, "deltaX": 0, "deltaY": down, "duration": 0}
        turn["origin"] = self._element(selector)
        self._actions({"type": "wheel", "id": "wheel", "actions": [turn]})

    def drag(
        self,
        selector: str,
        start: tuple[int, int],
        by: tuple[int, int],
        kind: str = "mouse",
        button: int = 0,
    ) -> None:
        """A drag from a place relative to the middle of an element; by (0, 0) it is a click."""
        moves: list[dict[str, Any]] = [
            {
                "type": "pointerMove",
                "x": start[0],
                "y": start[1],
                "origin": self._element(selector),
                "duration": 0,
            },
            {"type": "pointerDown", "button": button},
        ]
        if by != (0, 0):
            step = {"type": "pointerMove", "origin": "pointer", "duration": 50}
            moves.append({**step, "x": by[0], "y": by[1]})
        moves.append({"type": "pointerUp", "button": button})
        pointer = {"type": "pointer", "id": kind, "parameters": {"pointerType": kind}}
        self._actions({**pointer, "actions": moves})

    def _actions(self, source: dict[str, Any]) -> None:
        self._ask("POST", "/actions", {"actions": [source]})
        self._ask("DELETE", "/actions")
        self.settle()

    def log(self) -> list[dict[str, Any]]:
        """What the browser complained of since it was asked last."""
        return self._ask("POST", "/se/log", {"type": "browser"})

    def screenshot(self) -> bytes:
        """A PNG of the window."""
        return b64decode(self._ask("GET", "/screenshot"))

    def close(self) -> None:
        """Ends the session."""
        self._ask("DELETE", "")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Headless Chromium; skips where there is none."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("no chromium with chromedriver")
    port = _free_port()
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([driver, f"--port={port}"], **quiet)  # type: ignore[call-overload]
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        session = Browser(port, chromium, tmp_path_factory.mktemp("profile"))
        yield session
        session.close()
    finally:
        process.terminate()
        process.wait(timeout=10)


@pytest.fixture(scope="session")
def make_image() -> Callable[..., sitk.Image]:
    """An image from an array (z, y, x)."""

    def image(
        array: np.ndarray,
        spacing: tuple[float, float, float] = (2.0, 2.0, 3.0),
        direction: tuple[float, ...] = (1, 0, 0, 0, 1, 0, 0, 0, 1),
        origin: tuple[float, float, float] = (-30.0, 12.0, -400.0),
    ) -> sitk.Image:
        made = sitk.GetImageFromArray(array)
        made.SetSpacing(spacing)
        made.SetDirection(direction)
        made.SetOrigin(origin)
        return made

    return image
