"The demo's page, used as a visitor does, in a browser without a window."

import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import suppress

import pytest
from house import ROOT, free_port, page_blocks

httpx2 = pytest.importorskip("httpx2")
pytest.importorskip("fastapi", reason="fastapi is not installed (pip install 'ramer[serve]')")
playwright = pytest.importorskip("playwright.sync_api")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")

from ramer.data.datasets import load_dataset
from ramer.data.folders import Corpus, write_folder
from ramer.evaluation.protocol import Protocol
from ramer.methods.registry import configure, make_method


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    "A saved method, clips of a few speakers, and a file of features."
    home = tmp_path_factory.mktemp("demo")
    protocol = Protocol(load_dataset("gaussian"))
    method = make_method(configure("gaussian", "ramer-gated", epochs=3, gate_steps=60))
    method.fit(protocol.train[:300], protocol.dev[:80]).save(home / "model")
    shown = protocol.dev[80:120]
    speakers = [f"speaker-{i % 4}" for i in range(len(shown))]
    named = type(shown)(shown.ids, shown.features, shown.labels, shown.classes, speakers)
    write_folder(Corpus(named), home / "clips")
    (home / "mine.json").write_text(json.dumps({"a": shown.features["a"][0].tolist()}))
    return home


@pytest.fixture(scope="module")
def address(folder):
    port = free_port()
    (shown,) = page_blocks("docs/demo.md", "sh")
    command = [sys.executable, "-m", *shown.split(), "--port", str(port)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    shown = subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.DEVNULL)
    at = f"http://127.0.0.1:{port}"
    for _ in range(600):
        with suppress(httpx2.TransportError):
            httpx2.get(f"{at}/healthz")
            break
        assert shown.poll() is None
        time.sleep(0.1)
    yield at
    shown.terminate()
    shown.wait()


@pytest.fixture
def page(address):
    "The page in a browser that may ask this machine alone; what it asked of others is kept."
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1100, "height": 900})
        page.outside, page.problems = [], []

        def ask(route):
            if route.request.url.startswith(address):
                return route.continue_()
            page.outside.append(route.request.url)
            return route.abort()

        page.route("**/*", ask)
        page.on("pageerror", lambda error: page.problems.append(str(error)))
        page.goto(address)
        page.wait_for_selector("#probabilities tr")
        yield page
        assert not page.outside and not page.problems
        browser.close()


def until(page, text, place="#said"):
    "Wait until the answer that is read out, or a problem, has a text."
    playwright.expect(page.locator(place)).to_contain_text(text)


def test_a_switched_off_modality_moves_the_answer(page):
    until(page, "from a+v+l")
    before = page.inner_text("#probabilities")
    page.uncheck("input[value=v]")
    until(page, "from a+l")
    assert page.inner_text("#probabilities") != before
    assert page.locator("#neighbours tr").count() == 5
    for name in "al":
        page.uncheck(f"input[value={name}]")
    until(page, "leave one modality on", "#problem")


def test_a_speaker_is_enrolled_and_forgotten(page, folder):
    until(page, "0 of this speaker")
    page.click("#enrol")
    until(page, "309 clips are stored, 9 of this speaker")
    page.click("#enrol")
    until(page, "all are enrolled", "#problem")
    page.click("#forget")
    until(page, "300 clips are stored, 0 of this speaker")


def test_a_file_of_ones_own_is_answered(page, folder):
    page.set_input_files("#file", folder / "mine.json")
    until(page, "from a.")
    assert page.input_value("#clip") == "mine"
    assert page.is_disabled("input[value=l]")


def test_a_keyboard_is_enough(page):
    page.select_option("#clip", index=5)  # a file of another test may be the first
    until(page, "from a+v+l")
    page.focus("#clip")
    first = page.text_content("#said")
    page.keyboard.press("ArrowDown")
    playwright.expect(page.locator("#said")).not_to_have_text(first)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.value") == "a"
    page.keyboard.press("Space")
    until(page, "from v+l")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "enrol"


def test_what_is_read_aloud_has_names_and_roles(page):
    for role, name in (("combobox", "Clip"), ("button", "Forget the speaker"), ("status", None)):
        found = page.get_by_role(role, name=name) if name else page.get_by_role(role)
        assert found.count() == 1, (role, name)
    assert page.get_by_role("checkbox").count() == 3
    assert page.get_by_label("A file of your own").count() == 1
    assert page.locator("html[lang=en]").count() == 1
    assert page.get_by_role("rowheader").count() == 6
