"""A picture of a report: `python -m reports.screenshot PAGE.html OUT.png [--dark] [--width 1200] [--height 1000]`."""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

CHROMIUM_ARGUMENTS = [
    "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--no-first-run", "--disable-quic",
]  # fmt: skip


def chromium() -> tuple[str, list[str]]:
    """Path and arguments of the browser to start.

    Raises:
        FileNotFoundError: there is no Chromium on the search path.
    """
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        raise FileNotFoundError("no Chromium on the search path; install one (Debian: apt-get install chromium)")
    # Chromium's own sandbox refuses to run as root, which is what a container usually is.
    return path, CHROMIUM_ARGUMENTS + (["--no-sandbox"] if os.geteuid() == 0 else [])


def screenshot(
    page: Path, out: Path, *, dark: bool = False, width: int = 1200, height: int | None = None, at: str = ""
) -> None:
    """Write a PNG (or, by the name of `out`, a PDF as it would be printed) of a page on disk.

    Args:
        page: the HTML file.
        out: where the picture goes.
        dark: as a reader sees it who prefers dark colours.
        width: of the window, in pixels.
        height: of the window; None takes the page in full length.
        at: a fragment to go to, such as the key of a claim.

    Raises:
        FileNotFoundError: there is no Chromium.
    """
    from playwright.sync_api import sync_playwright

    path, arguments = chromium()
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=arguments)
        try:
            view = browser.new_page(
                viewport={"width": width, "height": height or 1000},
                color_scheme="dark" if dark else "light",
                device_scale_factor=2 if width < 600 else 1,
            )
            view.goto(page.resolve().as_uri() + (f"#{at}" if at else ""))
            if out.suffix == ".pdf":
                view.pdf(path=out, format="A4")
            else:
                view.screenshot(path=out, full_page=height is None)
        finally:
            browser.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m reports.screenshot", description="A picture of a report.")
    parser.add_argument("page", type=Path)
    parser.add_argument("out", type=Path, help="a .png, or a .pdf as it would be printed")
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--width", type=int, default=1200)
    parser.add_argument("--height", type=int, help="of the window; without it, the whole page")
    parser.add_argument("--at", default="", metavar="FRAGMENT", help="a claim's key to go to")
    options = parser.parse_args()
    screenshot(options.page, options.out, dark=options.dark, width=options.width, height=options.height, at=options.at)


if __name__ == "__main__":
    main()
