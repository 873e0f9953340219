"""A headless Chromium that tests drive with real keys and clicks, through its debugging protocol."""

import base64
import json
import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_KEYS = {
    "Tab": 9, "Enter": 13, "Escape": 27, " ": 32, "PageUp": 33, "PageDown": 34, "End": 35, "Home": 36,
    "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Backspace": 8,
}  # fmt: skip


def chromium():
    """The program, or skip the test."""
    pytest.importorskip("websocket", reason="needs websocket-client, which comes with Jupyter")
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip("needs Chromium")
    return program


@contextmanager
def browser(program, *, width=1280, height=900):
    """A page of a new Chromium, which ends with the block."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        process = subprocess.Popen(
            [
                program, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars",
                "--disable-dev-shm-usage", "--remote-debugging-port=0", "--remote-allow-origins=*",
                f"--user-data-dir={folder}", f"--window-size={width},{height}", "about:blank",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            port_file = Path(folder, "DevToolsActivePort")
            until(lambda: port_file.is_file() and port_file.read_text().strip(), "Chromium", seconds=30)
            page = Page(int(port_file.read_text().split()[0]))
            page.size(width, height)
            yield page
        finally:
            process.terminate()
            process.wait(20)


def until(ready, what, *, seconds=20.0):
    """What `ready` gives, once that is true."""
    end = time.monotonic() + seconds
    while not (value := ready()):
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not come within {seconds} s")
        time.sleep(0.05)
    return value


class Page:
    """One tab."""

    def __init__(self, port):
        import urllib.request

        import websocket

        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json") as answer:
            tabs = json.load(answer)
        address = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
        self._socket = websocket.create_connection(address, timeout=60, suppress_origin=True)
        self._number = 0
        self.requests, self.problems = [], []
        for domain in ("Page", "Runtime", "Network"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setFocusEmulationEnabled", enabled=True)  # as if the window were in front

    def call(self, method, **params):
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv())
            if message.get("id") == self._number:
                assert "error" not in message, message["error"]
                return message["result"]
            self._note(message)

    def _note(self, event):
        if event.get("method") == "Network.requestWillBeSent":
            self.requests.append(event["params"]["request"]["url"])
        elif event.get("method") == "Runtime.exceptionThrown":
            details = event["params"]["exceptionDetails"]
            self.problems.append(details.get("exception", {}).get("description", details["text"]))

    def js(self, expression):
        """The value of an expression, of a promise its result."""
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, expression, *, seconds=20.0):
        """Wait until an expression is true."""
        until(lambda: self.js(f"Boolean({expression})"), expression, seconds=seconds)

    def go(self, address):
        self.call("Page.navigate", url=address)
        self.until("document.readyState === 'complete'", seconds=60)

    def size(self, width, height):
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )

    def dark(self, is_dark, *, reduced_motion=True):
        """What the system wishes."""
        wishes = {"prefers-color-scheme": "dark" if is_dark else "light"}
        wishes |= {"prefers-reduced-motion": "reduce"} if reduced_motion else {}
        self.call("Emulation.setEmulatedMedia", features=[{"name": k, "value": v} for k, v in wishes.items()])

    def key(self, key, *, shift=False, times=1):
        """A key, pressed and let go."""
        code = _KEYS.get(key, ord(key[0].upper()))
        text = "\r" if key == "Enter" else key if len(key) == 1 else ""
        given = {"key": key, "code": key if len(key) > 1 else "", "windowsVirtualKeyCode": code}
        given["modifiers"] = 8 if shift else 0
        for _ in range(times):
            self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **given)
            self.call("Input.dispatchKeyEvent", type="keyUp", **given)

    def type(self, text):
        for letter in text:
            self.key(letter)

    def click(self, selector):
        """A click in the middle of an element."""
        place = self.js(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); "
            "e.scrollIntoView({block: 'center'}); const r = e.getBoundingClientRect(); "
            "return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1)

    def picture(self, path, selector):
        """A PNG of one element, whole."""
        box = self.js(
            f"(() => {{ const r = document.querySelector({json.dumps(selector)}).getBoundingClientRect(); "
            "return {x: r.x + scrollX, y: r.y + scrollY, width: r.width, height: r.height}; })()"
        )
        shot = self.call(
            "Page.captureScreenshot", format="png", clip={**box, "scale": 1}, captureBeyondViewport=True
        )
        Path(path).write_bytes(base64.b64decode(shot["data"]))
