"""Phantoms with marked directions, and a real browser that is spoken to over plain HTTP."""

from __future__ import annotations

import gzip
import json
import shutil
import socket
import subprocess
import time
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
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

    def hover(self, selector: str, place: tuple[int, int]) -> None:
        """Moves the mouse to a place relative to the middle of an element."""
        move = {"type": "pointerMove", "x": place[0], "y": place[1], "duration": 0}
        move["origin"] = self._element(selector)
        self._actions({"type": "pointer", "id": "mouse", "actions": [move]})

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


@dataclass(frozen=True)
class Phantom:
    """A body in LPS with two marks, each in a corner of its own.

    Voxels are (x, y, z); the bright one lies left, in front and near the head, the rare one right,
    behind and near the feet.
    """

    image: sitk.Image
    score: sitk.Image
    body: sitk.Image
    bright: tuple[int, int, int]
    rare: tuple[int, int, int]

    def turned(self, code: str) -> Phantom:
        """The same with its axes stored in another order and direction."""
        images = (sitk.DICOMOrient(i, code) for i in (self.image, self.score, self.body))
        return Phantom(*images, self.bright, self.rare)


@pytest.fixture(scope="session")
def phantom() -> Phantom:
    """40 x 30 x 25 voxels of 2 x 2 x 3 mm, no two axes alike; the body is a box within."""
    generator = np.random.default_rng(5)
    hu = np.full((25, 30, 40), -1000, np.int16)
    body = np.zeros(hu.shape, np.uint8)
    body[2:23, 3:27, 4:36] = 1
    hu[body > 0] = 40
    score = generator.uniform(0, 4, hu.shape).astype(np.float32)
    bright, rare = (31, 6, 19), (9, 22, 5)
    for (x, y, z), array, value in ((bright, hu, 700), (rare, score, 30.0)):
        array[z - 1 : z + 2, y - 1 : y + 2, x - 1 : x + 2] = value
    images = [sitk.GetImageFromArray(array) for array in (hu, score, body)]
    for image in images:
        image.SetSpacing((2.0, 2.0, 3.0))
        image.SetOrigin((-30.0, 12.0, -400.0))
    return Phantom(*images, bright, rare)


class _Scripts(HTMLParser):
    """Elements of a page, and the text of its scripts, as a browser would see them."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[str | None, str]] = []
        self.text: dict[str, str] = {}
        self._open: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open = tag
        if tag == "script":
            self.scripts.append((dict(attrs).get("id"), ""))

    def handle_endtag(self, tag: str) -> None:
        self._open = None

    def handle_data(self, data: str) -> None:
        if self._open == "script":
            name, text = self.scripts[-1]
            self.scripts[-1] = (name, text + data)
        elif self._open:
            self.text[self._open] = self.text.get(self._open, "") + data


class Page:
    """A page, read by a parser of its own."""

    def __init__(self, path: Path) -> None:
        self.source = path.read_text(encoding="utf-8")
        parser = _Scripts()
        parser.feed(self.source)
        self.tags, self.text = parser.tags, parser.text
        self.data = {name: text for name, text in parser.scripts if name}
        self.scripts = [text for name, text in parser.scripts if not name]
        self.facts = json.loads(self.data["facts"]) if "facts" in self.data else {}

    def codes(self, name: str) -> np.ndarray:
        """A volume (z, y, x) as bytes, by the description in the page alone."""
        packed = gzip.decompress(b64decode(self.data[name]))
        flat = np.frombuffer(packed, np.uint8).astype(np.int64)
        values = flat.reshape(self.facts["size"][::-1])
        for axis in self.facts["differences"][name]:
            values = values.cumsum(axis=2 - axis)
        return values % 256

    def hu(self) -> np.ndarray:
        return np.asarray(self.facts["levels"])[self.codes("hu")]

    def score(self) -> np.ndarray:
        """Nats; NaN outside the body."""
        codes, low, high = self.codes("score"), self.facts["low"], self.facts["high"]
        return np.where(codes > 0, low + (codes - 1) * (high - low) / 254, np.nan)

    def step(self, hu: np.ndarray) -> np.ndarray:
        """Distance of the two levels around each value (HU)."""
        levels = np.asarray(self.facts["levels"])
        above = np.clip(np.searchsorted(levels, hu), 1, 255)
        return levels[above] - levels[above - 1]


@pytest.fixture(scope="session")
def read_page() -> type[Page]:
    """Reads a page without the code that wrote it."""
    return Page
