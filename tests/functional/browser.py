# SPDX-License-Identifier: MIT
"""A headless Chromium, driven through chromedriver by the W3C's WebDriver protocol."""

import base64
import contextlib
import json
import os
import re
import subprocess
import urllib.error
import urllib.request

import pytest

from deadline import deadline, eventually
from programs import program

# None of them talks to the network on its own account; root needs the second.
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--disable-extensions", "--hide-scrollbars")
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
TAB, ENTER, SPACE = "\ue004", "\ue007", " "
SHIFT = "\ue008"


class Browser:
    """One window. The test is skipped where none can be had."""

    def __init__(self, directory):
        driver, binary = program("chromedriver"), program("chromium")
        env = {**os.environ, "HOME": str(directory), "TZ": "UTC", "LC_ALL": "C.UTF-8"}
        with open(os.path.join(directory, "chromedriver.log"), "wb") as log:
            self._driver = subprocess.Popen([driver, "--port=0"], env=env, stdin=subprocess.DEVNULL,
                                            stdout=subprocess.PIPE, stderr=log, text=True)
        self._session = None
        try:
            self._root = f"http://127.0.0.1:{self._read_port()}"
            self._begin(binary, directory)
        except BaseException:
            self.close()
            raise

    def close(self):
        with contextlib.suppress(OSError, AssertionError):
            if self._session:
                self._ask("DELETE", "")
        self._driver.terminate()
        self._driver.stdout.close()
        self._driver.wait(deadline(10))

    def open(self, url, width=1280, height=800, **media):
        """Load it in a window of that size; media: as look_as()."""
        self.resize(width, height)
        self.look_as(**media)
        self._post("/url", url=url)

    def resize(self, width, height):
        self.cdp("Emulation.setDeviceMetricsOverride", width=width, height=height,
                 deviceScaleFactor=2 if width < 600 else 1, mobile=width < 600)

    def look_as(self, scheme="light", motion="no-preference"):
        """What the user prefers: prefers-color-scheme and prefers-reduced-motion."""
        self.cdp("Emulation.setEmulatedMedia", features=[
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": motion}])

    def run(self, script, *args):
        """What the body of a function returns in the page."""
        return self._post("/execute/sync", script=script, args=args)

    def eventually(self, expression, seconds=10):
        """Wait until the expression is true in the page, and return its value."""
        try:
            return eventually(lambda: self.run(f"return {expression}"), seconds, expression)
        except AssertionError as err:
            raise AssertionError(f"{err}; the page says:\n{self.text()}") from None

    def text(self, selector="body"):
        """What can be read there."""
        return self.run("return document.querySelector(arguments[0]).innerText", selector)

    def click(self, selector):
        """As soon as nothing is in front of it: what is above may still grow."""
        found = self._post("/element", using="css selector", value=selector)

        def clicked():
            try:
                self._post(f"/element/{found[_ELEMENT]}/click")
            except AssertionError as err:
                if "element click intercepted" not in str(err):
                    raise
                return False
            return True
        eventually(clicked)

    def press(self, *keys):
        """Keys to whatever has the focus, one after the other; a pair is held down together."""
        actions = []
        for key in keys:
            actions += [{"type": "keyDown", "value": k} for k in key]
            actions += [{"type": "keyUp", "value": k} for k in reversed(key)]
        self._post("/actions", actions=[{"type": "key", "id": "keyboard", "actions": actions}])

    def console(self):
        """What the console was told by our pages since the last time."""
        return [entry for entry in self._post("/se/log", type="browser")
                if not entry["message"].startswith("chrome://")]

    def cdp(self, command, **params):
        """A command of the DevTools protocol."""
        return self._post("/goog/cdp/execute", cmd=command, params=params)

    def screenshot(self, path):
        with open(path, "wb") as f:
            f.write(base64.b64decode(self._ask("GET", "/screenshot")))

    def _read_port(self):
        for line in self._driver.stdout:
            if match := re.search(r"started successfully on port (\d+)", line):
                return int(match[1])
        pytest.skip("chromedriver does not start here")

    def _begin(self, binary, directory):
        options = {"binary": binary,
                   "args": [*FLAGS, f"--user-data-dir={os.path.join(directory, 'profile')}"]}
        wanted = {"browserName": "chrome", "goog:chromeOptions": options,
                  "goog:loggingPrefs": {"browser": "ALL"}}
        try:
            answer = self._ask("POST", "", {"capabilities": {"alwaysMatch": wanted}})
        except AssertionError as err:
            pytest.skip(f"chromium does not start here: {err}")
        self._session = answer["sessionId"]

    def _post(self, path, **body):
        return self._ask("POST", path, body)

    def _ask(self, method, path, body=None):
        where = f"{self._root}/session" + (f"/{self._session}" if self._session else "") + path
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(where, data, {"Content-Type": "application/json"}, method=method)
        # No proxy of the environment's: this is our own host.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=deadline(60)) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as err:
            value = json.load(err)["value"]
            raise AssertionError(f"{method} {path}: {value['error']}: {value['message']}") from None
