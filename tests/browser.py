"""A headless Chromium for tests and pictures of the exported page, driven by selenium.

Debian's packages are chromium and chromium-driver; selenium is in the extra `browser`. Without them
the tests skip and say why; with CHARRNN_BROWSER=required, as in CI, they fail.
"""

import json
import os
import shutil
import time
from base64 import b64decode
from contextlib import contextmanager

import pytest

FLAGS = (
    "--headless=new",
    "--no-sandbox",  # CI runs as root
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
)


def missing(reason):
    """Skip the test, or fail it where a browser is required."""
    if os.environ.get("CHARRNN_BROWSER") == "required":
        pytest.fail(reason)
    pytest.skip(reason)


class Browser:
    """A window with a page, and what the page asked for and said on its console."""

    def __init__(self, driver):
        self.driver = driver

    def show(self, width=1280, height=900, *, dark=False):
        """Give the window a size, a phone's if it is narrow, and a colour scheme."""
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})

    def open(self, page):
        """Open a page from the disk and wait until it has written its first text."""
        self.driver.get("about:blank")
        self.logs()
        self.driver.get(page.as_uri())
        self.wait()

    def run(self, code, *arguments):
        """Return what the body of a function returns in the page; `arguments` in it are these."""
        return self.driver.execute_script(code, *arguments)

    def wait(self, seconds=60):
        """Wait until the page has nothing left to write or read."""
        end = time.monotonic() + seconds
        while self.run("return document.getElementById('characters').ariaBusy !== 'false'"):
            assert time.monotonic() < end, "the page is still busy"
            time.sleep(0.02)

    def picture(self):
        """Return what the window shows, as WebP."""
        options = {"format": "webp", "quality": 85}
        return b64decode(self.driver.execute_cdp_cmd("Page.captureScreenshot", options)["data"])

    def text(self, name):
        """Return the text of the element with this id."""
        return str(self.run("return document.getElementById(arguments[0]).textContent", name))

    def set(self, **values):
        """Set the values of the elements with these ids, as a user does."""
        self.run(
            """for (const [id, value] of Object.entries(arguments[0])) {
              document.getElementById(id).value = value;
              document.getElementById(id).dispatchEvent(new Event('input', { bubbles: true }));
            }""",
            values,
        )

    def click(self, selector):
        """Click the first element that a CSS selector finds."""
        self.driver.find_element("css selector", selector).click()

    def press(self, selector, *keys):
        """Focus an element and press keys, by their names in WebDriver."""
        from selenium.webdriver.common.keys import Keys

        element = self.driver.find_element("css selector", selector)
        element.send_keys(*(getattr(Keys, key, key) for key in keys))

    def write(self, **values):
        """Set values, press Write, and return what was written, the prime included."""
        self.set(**values)
        self.click("#start")
        self.wait()
        return self.written()

    def written(self):
        """Return the characters of the text that is shown."""
        return str(self.run("return steps.map(({ char }) => char).join('')"))

    def logs(self):
        """Return the addresses asked for and the messages on the console since the last call."""
        events = [
            json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")
        ]
        asked = [
            event["params"]["request"]["url"]
            for event in events
            if event["method"] == "Network.requestWillBeSent"
        ]
        return asked, [entry["message"] for entry in self.driver.get_log("browser")]


@contextmanager
def chromium():
    """Yield a browser; skip the test if there is none."""
    try:
        from selenium import webdriver
    except ImportError:
        missing("selenium is not installed: pip install '.[browser]'")
    binary, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    if binary is None or chromedriver is None:
        missing("there is no chromium with its chromedriver here")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(chromedriver)
    driver = webdriver.Chrome(options=options, service=service)
    try:
        yield Browser(driver)
    finally:
        driver.quit()
