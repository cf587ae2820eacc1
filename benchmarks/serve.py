"""What an answer costs over HTTP, by the forward pass alone, and what memory does meanwhile.

Writes results/bench/serve.csv: ratios measured in one run, on the loopback address of one machine.
Service and clients are two programs. Run on a quiet machine of two cores:
`OMP_NUM_THREADS=1 .venv/bin/python benchmarks/serve.py`.
"""

import argparse
import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx2
import numpy as np
import pandas as pd
from kept import wall_seconds
from search import BENCH, file_path, held_bytes, on_one_thread, verdicts, write_table

from ramer.data.datasets import load_dataset
from ramer.evaluation.protocol import Protocol
from ramer.methods.registry import configure, make_method

COLUMNS = ("method", "what", "clips", "connections", "ratio", "of", "bound", "target")
MEMORY_TARGET = 1.05


def body_of(clips):
    "What is sent to be told the answer to some clips, each of which has all."
    rows = range(len(clips))
    features = [{m: x[row].tolist() for m, x in clips.features.items()} for row in rows]
    return {"clips": [{"id": str(row), "features": features[row]} for row in rows]}


def free_port():
    "A port of this machine that no program listens on."
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextmanager
def serving(folder):
    "(address, process) of a service of a saved method, while the block runs."
    port = free_port()
    command = [sys.executable, "-m", "ramer", "serve", str(folder), "--port", str(port)]
    options = ["--requests", "100000000"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([*command, *options], **quiet, env=os.environ)
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(address)
        yield address, process
    finally:
        process.kill()
        process.wait()


def wait_for(address):
    "Return once a service answers."
    while True:
        try:
            return httpx2.get(f"{address}/healthz")
        except httpx2.TransportError:
            time.sleep(0.1)


async def request_seconds(address, body, connections, count):
    "Wall seconds of each of so many requests, and of all together."
    left = iter(range(count))
    taken = []

    async def ask(client):
        for _ in left:
            start = time.perf_counter()
            answer = await client.post("/predict", json=body)
            taken.append(time.perf_counter() - start)
            assert answer.status_code == 200, answer.text

    async with httpx2.AsyncClient(base_url=address, timeout=60) as client:
        start = time.perf_counter()
        await asyncio.gather(*(ask(client) for _ in range(connections)))
        return np.array(taken), time.perf_counter() - start


def rows_of(name, folder, method, clips, count, minutes):
    "Rows of the table for one saved method."
    rows = []
    with serving(folder) as (address, process):
        for n, connections in ((1, 1), (1, 8), (1, 32), (64, 1)):
            alone = wall_seconds(partial(method.predict_proba, clips[:n]), 50)
            body = body_of(clips[:n])
            asyncio.run(request_seconds(address, body, connections, 50))
            taken, together = asyncio.run(request_seconds(address, body, connections, count))
            at, of = (n, connections), "a forward pass of the same clips"
            rows += [
                (name, "median of a request", *at, np.median(taken) / alone, of, "", None),
                (name, "99 % of requests", *at, np.quantile(taken, 0.99) / alone, of, "", None),
                (name, "requests a second", *at, count * alone / together, "passes", "", None),
            ]
        if minutes:
            rows.append(memory_row(name, address, process, body_of(clips[:1]), minutes))
    return rows


def memory_row(name, address, process, body, minutes):
    "The row of what the service holds after minutes of requests, by what it held at first."
    before, until = held_bytes("VmRSS", process.pid), time.monotonic() + 60 * minutes
    while time.monotonic() < until:
        asyncio.run(request_seconds(address, body, 8, 200))
    grown = held_bytes("VmRSS", process.pid) / before
    what = f"memory after {minutes:g} minutes of requests"
    return name, what, 1, 8, grown, "that before", "at most", MEMORY_TARGET


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1000)
    of_memory = "of requests, for memory; 0: what was measured of it before stays"
    parser.add_argument("--minutes", type=float, default=10, help=of_memory)
    parser.add_argument("--out", type=file_path, default=BENCH / "serve.csv")
    asked = parser.parse_args(arguments)
    on_one_thread()
    protocol = Protocol(load_dataset("gaussian"))
    rows = []
    with tempfile.TemporaryDirectory() as home:
        for name in ("zero", "ramer"):
            config = configure("gaussian", name, epochs=2)
            method = make_method(config).fit(protocol.train, protocol.dev)
            method.save(Path(home, name))
            given = method, protocol.dev.without_labels(), asked.requests, asked.minutes
            rows += rows_of(name, Path(home, name), *given)
    table = pd.DataFrame(rows, columns=COLUMNS).astype({"target": float})
    if not asked.minutes and asked.out.exists():
        before = pd.read_csv(asked.out).drop(columns="holds")
        of_memory = before[before.what.str.startswith("memory")]
        table = pd.concat([table, of_memory]).sort_values("method", kind="stable")
    write_table(table.assign(holds=verdicts(table)), asked.out)


if __name__ == "__main__":
    main()
