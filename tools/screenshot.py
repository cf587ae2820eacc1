"""Take the picture of the demo that README and docs show: a world, answered from text alone.

It needs Chromium, and `ramer[serve]` and playwright, as the tests of the demo do.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import expect, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "demo.png"
PORT = 8765
SIZE = {"width": 1000, "height": 760}
CLIP = 3  # not an easy one
COLORS = 64  # enough for a page of text and bars; the file is a quarter as large


def train(folder):
    from ramer.data.datasets import load_dataset
    from ramer.evaluation.protocol import Protocol
    from ramer.methods.registry import configure, make_method

    protocol = Protocol(load_dataset("gaussian"))
    method = make_method(configure("gaussian", "ramer-gated", epochs=20))
    method.fit(protocol.train, protocol.dev).save(folder)


def take(path):
    "Open the demo as a visitor does, switch off all but the text, and keep what is seen."
    with sync_playwright() as running:
        browser = running.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page(viewport=SIZE)
        page.goto(f"http://127.0.0.1:{PORT}")
        expect(page.locator("#said")).to_contain_text("from a+v+l")
        page.select_option("#clip", index=CLIP)
        for modality in "av":
            page.uncheck(f"input[value={modality}]")
        expect(page.locator("#said")).to_contain_text("from l.")
        page.screenshot(path=path)
        browser.close()


def main():
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        train(model)
        command = [sys.executable, "-m", "ramer", "demo", str(model), "gaussian"]
        shown = subprocess.Popen([*command, "--port", str(PORT)], stderr=subprocess.PIPE, text=True)
        try:
            shown.stderr.readline()  # it says that it is there
            take(Path(folder) / "demo.png")
        finally:
            shown.terminate()
        with Image.open(Path(folder) / "demo.png") as picture:
            picture.convert("P", palette=Image.Palette.ADAPTIVE, colors=COLORS).save(PICTURE)


if __name__ == "__main__":
    main()
