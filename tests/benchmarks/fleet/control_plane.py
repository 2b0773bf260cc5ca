"""A Kubernetes control plane of its own: etcd and an API server on free ports, and nothing else.

The API server is the one that the cluster tests' rig takes. No controllers, no nodes: whatever
runs here runs in the processes of the benchmark.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[3]
TOKEN = "benchmark"
READY_SECONDS = 120.0
CALL_SECONDS = 60.0
STOP_SECONDS = 20.0
BUILD_SECONDS = 1800.0


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


class ControlPlane:
    """Started on entry, ended on exit; its files are in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        self.url = ""
        self.kubeconfig = folder / "kubeconfig"
        self._tls = ssl._create_unverified_context()

    def __enter__(self) -> ControlPlane:
        store, peer, port = free_port(), free_port(), free_port()
        rig = ROOT / "tests" / "cluster" / "rig" / "servers.py"
        binaries = _call(sys.executable, str(rig), seconds=BUILD_SECONDS).strip()
        etcd = Path(binaries, "etcd")
        key, tokens = self._folder / "sa.key", self._folder / "tokens.csv"
        _call("openssl", "genrsa", "-out", str(key), "2048")
        tokens.write_text(f"{TOKEN},admin,admin,system:masters\n")
        self._start(
            "etcd",
            *(
                str(etcd) if etcd.exists() else "etcd",
                "--data-dir",
                str(self._folder / "etcd"),
                "--unsafe-no-fsync",
            ),
            f"--listen-client-urls=http://127.0.0.1:{store}",
            f"--advertise-client-urls=http://127.0.0.1:{store}",
            f"--listen-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-cluster=default=http://127.0.0.1:{peer}",
        )
        self._start(
            "apiserver",
            f"{binaries}/kube-apiserver",
            f"--etcd-servers=http://127.0.0.1:{store}",
            *("--bind-address=127.0.0.1", f"--secure-port={port}"),
            *("--service-cluster-ip-range=10.97.0.0/16", f"--cert-dir={self._folder / 'pki'}"),
            *("--authorization-mode=RBAC", f"--token-auth-file={tokens}"),
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
        )
        self.url = f"https://127.0.0.1:{port}"
        self.kubeconfig.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "benchmark",
                    "clusters": [
                        {
                            "name": "benchmark",
                            "cluster": {"server": self.url, "insecure-skip-tls-verify": True},
                        }
                    ],
                    "users": [{"name": "admin", "user": {"token": TOKEN}}],
                    "contexts": [
                        {"name": "benchmark", "context": {"cluster": "benchmark", "user": "admin"}}
                    ],
                }
            )
        )
        self._ready()
        return self

    def __exit__(self, *error: object) -> None:
        for process in reversed(self._processes):
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _start(self, name: str, *command: str) -> None:
        with (self._folder / f"{name}.log").open("w") as log:
            self._processes.append(
                subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ})
            )

    def _ready(self) -> None:
        end = time.monotonic() + READY_SECONDS
        while time.monotonic() < end:
            try:
                if self.text("/readyz") == "ok":
                    return
            except OSError:
                pass
            time.sleep(0.25)
        raise TimeoutError(f"the API server is not ready; see {self._folder}/apiserver.log")

    def text(self, path: str, body: object = None, method: str = "GET") -> str:
        """One call of the API.

        Raises:
            urllib.error.HTTPError: the answer's status says so.
        """
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{path}", data, method=method)
        request.add_header("Authorization", f"Bearer {TOKEN}")
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=CALL_SECONDS, context=self._tls) as answer:
            text: str = answer.read().decode()
            return text

    def create(self, path: str, body: Mapping[str, Any]) -> None:
        """Creates an object under a collection's path; one that is there stays as it is."""
        try:
            self.text(path, body, "POST")
        except urllib.error.HTTPError as error:
            if error.code != 409:
                raise

    def get(self, path: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.text(path))
        return found


def _call(*command: str, seconds: float = CALL_SECONDS) -> str:
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=seconds)
    return done.stdout
