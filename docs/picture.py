"""The picture of a report in the README: `python docs/picture.py` fits the shipped data and writes docs/report.png.

Needs Chromium or Chrome on the PATH and the extra `test`.
"""

import io
import os
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from geneae.cli.main import main

ROOT = Path(__file__).parents[1]
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
WIDTH = 1040  # CSS pixels; the table of results fills it
SHARPER = 1.5  # pixels of the picture in each of them
COLOURS = 96  # as many as text, lines and shades need


def take_picture(report: Path, browser: str) -> Image.Image:
    """The answer and the first table of a report, and below them its first figure."""
    with sync_playwright() as playwright:
        window = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox", "--disable-gpu"])
        page = window.new_page(viewport={"width": WIDTH, "height": 4000}, device_scale_factor=SHARPER)
        page.goto(report.as_uri())
        parts = [_cut(page, "header", "#results .scroll"), _cut(page, "figure", "figure")]
        window.close()
    whole = Image.new("RGB", (parts[0].width, sum(part.height for part in parts)), "white")
    for number, part in enumerate(parts):
        whole.paste(part, (0, sum(above.height for above in parts[:number])))
    return whole


def _cut(page: Page, first: str, last: str) -> Image.Image:
    """The page from the first element of one kind to the end of the first one of another."""
    boxes = [page.locator(name).first.bounding_box() for name in (first, last)]
    assert boxes[0] is not None
    assert boxes[1] is not None
    margin = 12
    top, bottom = boxes[0]["y"] - margin, boxes[1]["y"] + boxes[1]["height"] + margin
    shot = page.screenshot(clip={"x": 0, "y": top, "width": WIDTH, "height": bottom - top})
    return Image.open(io.BytesIO(shot)).convert("RGB")


if __name__ == "__main__":
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        sys.exit(f"a browser is needed; found none of {', '.join(NAMES)} on the PATH. Debian: apt-get install chromium")
    os.chdir(ROOT)  # the report names the data as the command does
    with TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        main(["fit", "data/immune_559.h5ad", "--loss", "cosine", "-o", str(run), "--quiet"], standalone_mode=False)
        picture = take_picture(run / "report.html", found)
    path = Path("docs", "report.png")
    picture.quantize(COLOURS).save(path, optimize=True)
    print(f"Written to {path}: {picture.width} x {picture.height}, {path.stat().st_size / 1000:.0f} kB")
