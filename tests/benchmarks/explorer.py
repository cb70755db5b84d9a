"""How soon the explorer answers, in a real browser: `python -m tests.benchmarks.explorer MODEL [--store STORE]`.

    vamoh demo && python -m tests.benchmarks.explorer models:/t2m-demo@champion --store demo/era5.zarr

The server is `vamoh explore` itself, the browser Debian's Chromium at 1280 x 900; both share the machine. Medians:

    first_map_s    from the page's address to the first map
    zoom_s         from a click on "Zoom in" to a map of the new window, a sketch
    settled_s      from the same click until the map is as fine as it becomes
    place_s        from a click on the map to the distribution there
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

CHROMIUM = "/usr/bin/chromium"
QUIET_S = 5.0  # a map that has not changed for so long is as fine as it becomes


def timed(act: Callable[[], None], changed: Callable[[], object]) -> tuple[float, float]:
    """Seconds from an act until what is shown changes, and until it changes no more."""
    before, begun = changed(), time.perf_counter()
    act()
    first = last = 0.0
    now = before
    while time.perf_counter() - begun < max(last + QUIET_S, 20.0 if not first else 0.0):
        found = changed()
        if found != now:
            now, last = found, time.perf_counter() - begun
            first = first or last
        time.sleep(0.02)
    return first, last


def look(page: Page, url: str) -> dict[str, float]:
    """One visit."""

    def window() -> str:
        return page.get_by_text("points of").inner_text()

    begun = time.perf_counter()
    page.goto(url)
    page.get_by_text("points of").wait_for()
    found = {"first_map_s": time.perf_counter() - begun}
    page.wait_for_timeout(4000)
    found["zoom_s"], found["settled_s"] = timed(page.get_by_role("button", name="Zoom in").click, window)
    box = page.locator(".swipe-container").bounding_box()
    assert box is not None

    def place() -> str:
        shown = page.get_by_role("status").filter(has_text="mean")
        return shown.inner_text() if shown.count() else ""

    across, down = box["x"] + 0.6 * box["width"], box["y"] + 0.4 * box["height"]
    found["place_s"], _ = timed(lambda: page.mouse.click(across, down), place)
    return found


def main() -> None:
    """Print a line a figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--store")
    parser.add_argument("--visits", type=int, default=3)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    command = [sys.executable, "-m", "infra.cli", "explore", given.model, "--port", "0", "--no-open"]
    server = subprocess.Popen(
        command + (["--store", given.store] if given.store else []), stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        address = re.search(r"http://\S+", server.stdout.readline())
        if address is None:
            raise SystemExit("the explorer did not start")
        visits = []
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            for _ in range(given.visits):
                page = browser.new_page(viewport={"width": 1280, "height": 900})
                visits.append(look(page, address.group()))
                page.close()
            browser.close()
    finally:
        server.terminate()
        server.wait()
    medians = {f"explorer.{key}": statistics.median(visit[key] for visit in visits) for key in visits[0]}
    for key, value in medians.items():
        print(f"{key:<24}{value:.2f}")
    if given.json:
        given.json.write_text(json.dumps(medians | {"visits": visits}, indent=2) + "\n")


if __name__ == "__main__":
    main()
