"""A fake API server, a kubeconfig that names it, and a runner of the command line."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

sys.path.insert(0, str(Path(__file__).parent))

from cli_api import Api, Server

from shardwise.cli.main import main

JOIN_SECONDS = 10.0


@pytest.fixture
def api() -> Iterator[Api]:
    """An empty API server that KUBECONFIG names (see `kubeconfig`)."""
    yield Api()


@pytest.fixture
def server(api: Api) -> Iterator[Server]:
    server = Server(api)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    api.stop()
    server.shutdown()
    thread.join(JOIN_SECONDS)
    server.server_close()
    # Followers' threads end with the server's streams; a leftover would hold a socket.
    for thread in threading.enumerate():
        if thread.name.startswith("follow-"):
            thread.join(JOIN_SECONDS)


@pytest.fixture
def kubeconfig(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "fake", "cluster": {"server": server.url}}],
        "users": [{"name": "me", "user": {"token": "secret"}}],
        "contexts": [
            {"name": "test", "context": {"cluster": "fake", "user": "me"}},
            {"name": "team", "context": {"cluster": "fake", "user": "me", "namespace": "team"}},
        ],
    }
    file = tmp_path / "kubeconfig"
    file.write_text(yaml.safe_dump(content))
    monkeypatch.setenv("KUBECONFIG", str(file))
    return file


@pytest.fixture
def call(kubeconfig: Path) -> Callable[..., Result]:
    """Calls the command line in this process; with `input` as standard input."""

    def run(*arguments: str, input: str | None = None) -> Result:
        return CliRunner().invoke(main, list(arguments), input=input, prog_name="shardwise")

    return run


@pytest.fixture
def beside(call: Callable[..., Result]) -> Iterator[Callable[..., Future[Result]]]:
    """Calls a command in another thread: it follows while the test changes the cluster."""
    with ThreadPoolExecutor(1) as pool:
        yield lambda *arguments: pool.submit(call, *arguments)
