"A service over HTTP, a process of its own: answers, refusals, and what a kill leaves."

import json
import os
import random
import shutil
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile

import httpx2
import numpy as np
import pandas as pd
import pytest
from house import ROOT, as_sent, free_port, page_blocks
from hypothesis import HealthCheck, settings
from numpy.testing import assert_allclose
from typer.testing import CliRunner

pytest.importorskip("fastapi", reason="fastapi is not installed (pip install 'ramer[serve]')")
schemathesis = pytest.importorskip("schemathesis")
openapi_checks = pytest.importorskip("schemathesis.specs.openapi.checks")

from ramer.cli import app
from ramer.data.datasets import load_dataset
from ramer.data.worlds import WORLDS, sample
from ramer.evaluation.protocol import Protocol
from ramer.methods.registry import configure, load_method, make_method
from ramer.models import answers

TOKEN, KILLS = "a-token", 20
HEADERS = {"Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def clips():
    protocol = Protocol(load_dataset("gaussian"))
    return protocol.train[:200], protocol.dev[:60], protocol.dev[60:]


@pytest.fixture
def model(clips, tmp_path):
    "The folder of a fitted method."
    method = make_method(configure("gaussian", "ramer", epochs=1)).fit(*clips[:2])
    method.save(tmp_path / "model")
    return tmp_path / "model"


def wait_for(address, is_running=lambda: True):
    "Return once a service answers."
    for _ in range(600):
        with suppress(httpx2.TransportError):
            return httpx2.get(f"{address}/healthz")
        assert is_running(), "it has ended"
        time.sleep(0.1)
    raise TimeoutError("it does not answer")


class Service:
    "A process that serves a folder, and what it answers."

    def __init__(self, folder, *options, token=TOKEN):
        port = free_port()
        self.address = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "ramer", "serve", str(folder), "--port", str(port)]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "RAMER_TOKEN": token}
        self.log = TemporaryFile()
        self.client = httpx2.Client(base_url=self.address, timeout=60)
        self.process = subprocess.Popen(
            [*command, *options], env=environment, stdout=self.log, stderr=self.log
        )

    def ask(self, path, body=None):
        "(status, text) of an answer. body: bytes, or what JSON can hold."
        if body is None:
            answer = self.client.get(path)
        else:
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            answer = self.client.post(path, content=content, headers=HEADERS)
        return answer.status_code, answer.text


@contextmanager
def serving(folder, *options, token=TOKEN):
    service = Service(folder, "--requests", "1000000", *options, token=token)
    try:
        wait_for(service.address, lambda: service.process.poll() is None)
        yield service
    finally:
        service.process.kill()
        service.process.wait()


def spoiled(body, draw):
    "A request's bytes after one of many mistakes."
    text = json.dumps(body)
    cut = draw.randrange(1, len(text))
    place = draw.randrange(len(text))
    other = json.loads(text)
    clip = draw.choice(other["clips"])
    change = draw.choice(
        [
            lambda: clip.pop("id"),
            lambda: clip.update(id=7),
            lambda: clip.update(features=draw.choice([None, [], {}, {"a": "text"}, {"b": [1]}])),
            lambda: clip["features"].update(a=[1.0] * draw.randrange(1000, 2000)),
            lambda: clip["features"].update(l=[[1.0], [1.0, 2.0]]),
            lambda: clip["features"].update(v=[float("nan")]),
            lambda: clip["features"].update(v=[1e300]),
            lambda: clip.update(extra=1),
            lambda: other.update(given=draw.choice(["zz", "", 3, ["a"]])),
            lambda: other.update(clips=other["clips"] * 2),
        ]
    )
    change()
    return draw.choice(
        [
            text[:cut].encode(),
            draw.randbytes(cut % 200 + 1),
            (text[:place] + draw.choice('{[}]",\\') + text[place + 1 :] + "}").encode(),
            b"[" * draw.randrange(1, 5000),
            json.dumps(draw.choice([None, 1, "clips", [], {}, {"clips": "all"}])).encode(),
            *[json.dumps(other).encode()] * 4,
        ]
    )


def test_a_thousand_malformed_bodies_are_refused_and_change_nothing(model, clips):
    draw = random.Random(0)
    body = {"clips": as_sent(clips[2][:3]), "given": "al"}
    with serving(model) as service:
        before = service.ask("/predict", body)
        for _ in range(1000):
            path = draw.choice(["/predict", "/explain", "/enrol", "/forget", "/nothing"])
            status, said = service.ask(path, spoiled(body, draw))
            assert 400 <= status < 500, (path, status, said)
            assert "detail" in json.loads(said) and len(said) < 2000
            assert str(model.parent) not in said and "Traceback" not in said
        assert before[0] == 200 and service.ask("/predict", body) == before
        assert json.loads(service.ask("/healthz")[1])["stored"] == 200
        assert service.process.poll() is None
        status, said = service.ask("/predict", b" " * 20_000_000)
        assert status == 413 and "expected" not in said


def sent_slowly(service, seconds):
    "The status of a request whose body never ends, and the seconds until it came."
    host, port = service.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=seconds) as line:
        head = f"POST /predict HTTP/1.1\r\nHost: {host}\r\nContent-Length: 100\r\n\r\n"
        line.sendall(head.encode() + b"{")
        start = time.monotonic()
        return int(line.recv(1000).split()[1]), time.monotonic() - start


def test_slow_frequent_and_unauthorised_clients_are_refused_and_others_are_not(model, clips):
    body = {"clips": as_sent(clips[2][:1])}
    with serving(model, "--seconds", "2", "--requests", "6") as service:
        status, seconds = sent_slowly(service, 60)
        assert status == 408 and 1 < seconds
        asked = [service.client.post("/predict", json=body) for _ in range(7)]
        assert [answer.status_code for answer in asked][:5] == [200] * 5
        refused = asked[-1]
        assert refused.status_code == 429 and int(refused.headers["Retry-After"]) > 0
        assert [service.ask("/healthz")[0] for _ in range(10)] == [200] * 10
        assert 'ramer_requests_total{path="other",status="429"}' in service.ask("/metrics")[1]


def test_the_store_is_changed_for_who_has_the_token_alone(model, clips):
    body = {"clips": as_sent(clips[2][:1], label="happy", group="one")}
    with serving(model) as service:
        for given in ({}, {"Authorization": "Bearer a-toke"}, {"Authorization": "Basic a-token"}):
            assert service.client.post("/enrol", json=body, headers=given).status_code == 401
        assert service.ask("/enrol", body)[0] == 200
    with serving(model, token="") as service:
        assert json.loads(service.ask("/healthz")[1])["stored"] == 201
        assert service.ask("/enrol", body)[0] == service.ask("/forget", body)[0] == 404
        assert "/enrol" not in json.loads(service.ask("/openapi.json")[1])["paths"]


def test_the_examples_of_its_description_can_be_sent_as_they_stand(model):
    with serving(model) as service:
        described = json.loads(service.ask("/openapi.json")[1])["paths"]
        for path in ("/predict", "/explain", "/enrol", "/forget"):
            shown = described[path]["post"]["requestBody"]["content"]["application/json"]
            status, said = service.ask(path, shown["examples"]["as it stands"]["value"])
            assert status == 200, (path, said)


def test_it_answers_as_the_library_does(model, clips):
    with serving(model) as service:
        status, said = service.ask("/predict", {"clips": as_sent(clips[2][:40]), "given": "av"})
    assert status == 200
    table = pd.DataFrame([each["probabilities"] for each in json.loads(said)["answers"]])
    expected = answers(load_method(model), clips[2][:40], "av")
    assert_allclose(table, expected[table.columns], atol=1e-6)


@pytest.mark.slow
def test_a_kill_while_clips_are_enrolled_loses_nothing_acknowledged(model, clips):
    draw = np.random.default_rng(0)
    acknowledged = set(load_method(model).store.ids)
    left = iter(as_sent(sample(WORLDS["gaussian"], 4000, seed=9), label="happy", group="me"))
    for _ in range(KILLS):
        with serving(model) as service:
            killer = threading.Timer(draw.uniform(0.2, 1), service.process.kill)
            killer.start()
            while True:
                clip = next(left)
                try:
                    status, said = service.ask("/enrol", {"clips": [clip]})
                except httpx2.TransportError:
                    break
                assert status == 200, said
                acknowledged.add(clip["id"])
            killer.join()
        assert acknowledged <= set(load_method(model).store.ids)
    assert len(acknowledged) > 200


@pytest.fixture(scope="module")
def described(clips, tmp_path_factory):
    "The description that a service gives of itself, and its address."
    folder = tmp_path_factory.mktemp("described") / "model"
    make_method(configure("gaussian", "ramer", epochs=1)).fit(*clips[:2]).save(folder)
    with serving(folder) as service:
        yield schemathesis.openapi.from_url(f"{service.address}/openapi.json")


SCHEMA = schemathesis.pytest.from_fixture("described")
CHECKS = (
    schemathesis.checks.not_a_server_error,
    openapi_checks.status_code_conformance,
    openapi_checks.response_schema_conformance,
)


@pytest.mark.slow
@SCHEMA.parametrize()
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck), database=None)
def test_what_it_answers_is_what_it_says_it_would(case):
    case.call_and_validate(checks=CHECKS, headers=HEADERS)


BLOCKS = page_blocks("docs/service.md", "sh")


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_the_how_to_runs_as_it_stands(model, clips):
    folder = model.parent
    sent = as_sent(clips[2][:2])
    enrolled = as_sent(clips[2][:2], label="happy", group="speaker-1")
    files = {"clips": {"clips": sent}, "why": {"clips": sent, "given": "a"}}
    for name, body in (files | {"enrolment": {"clips": enrolled}}).items():
        (folder / f"{name}.json").write_text(json.dumps(body))
    port = str(free_port())
    serve, *asked = [block.replace("8000", port) for block in BLOCKS]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    given = {"cwd": folder, "env": os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}}
    shell = ["bash", "-ec"]
    with TemporaryFile() as log:
        served = subprocess.Popen([*shell, f"exec env {serve}"], stdout=log, stderr=log, **given)
        try:
            wait_for(f"http://127.0.0.1:{port}")
            said = [
                subprocess.run([*shell, block], capture_output=True, **given) for block in asked
            ]
        finally:
            served.kill()
            served.wait()
    assert not any(done.returncode for done in said)
    health, answered, why, both = [done.stdout.decode() for done in said]
    assert json.loads(health)["stored"] == 200
    assert len(json.loads(answered)["answers"]) == 2
    assert len(json.loads(why)["reasons"]) == 10
    assert '"enrolled":2' in both and '"left":200' in both


def test_the_dockerfile_copies_what_is_there_and_starts_what_there_is():
    lines = (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    words = [line.split(maxsplit=1) for line in lines if line.strip()]
    known = "FROM ENV WORKDIR COPY RUN USER VOLUME EXPOSE HEALTHCHECK CMD"
    assert {word for word, _ in words} <= set(known.split())
    for word, rest in words:
        if word == "COPY":
            *sources, _ = rest.split()
            assert all((ROOT / source).exists() for source in sources), rest
    *_, (last, command) = words
    program, *arguments = json.loads(command)
    assert (last, program, arguments[0]) == ("CMD", "ramer", "serve")
    shown = CliRunner().invoke(app, ["serve", "--help"], env={"COLUMNS": "200"}).output
    assert all(option in shown for option in arguments if option.startswith("--"))
