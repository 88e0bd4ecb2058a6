"""The exported page of the model that ships: python tests/benchmarks/page.py

Its size, the time to open it, the characters that it writes in a second, and the longest time
between two frames meanwhile, in headless Chromium. To see it on one core, put taskset -c 0 before.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from browser import chromium

from charrnn.checkpoint.model import SHIPPED, load
from charrnn.export.page import page

RUNS, LENGTH = 5, 3000
FRAMES = """window.gaps = [];
(function frame(before) {
  requestAnimationFrame((now) => { gaps.push(now - before); frame(now); });
})(performance.now());"""
OPENED = "return performance.getEntriesByType('navigation')[0].loadEventEnd"


def main() -> None:
    """Print the four of them, medians of some runs."""
    model = load(SHIPPED)
    opened, speeds, gaps = [], [], []
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        path = Path(folder) / "page.html"
        path.write_text(page(model, title=SHIPPED.stem), encoding="utf-8")
        size, weights = path.stat().st_size, 2 * model.parameters.flat.size
        for _ in range(RUNS):
            browser.open(path)
            opened.append(browser.run(OPENED))
            browser.run(FRAMES)
            browser.write(length=LENGTH)
            speed = browser.text("status").rpartition(", ")[2].split()[0]
            speeds.append(int(speed.replace(",", "")))
            gaps.append(browser.run("return Math.max(...gaps)"))
    print(f"{size:,} bytes, {size / weights:.3f} times the weights in half precision")
    print(f"opens in {statistics.median(opened):.0f} ms")
    print(f"{statistics.median(speeds):,.0f} characters a second, slowest {min(speeds):,}")
    print(f"longest frame {statistics.median(gaps):.0f} ms")


if __name__ == "__main__":
    main()
