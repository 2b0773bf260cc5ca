"""The operator with many jobs: finished ones and running ones, on a real API server.

    python tests/benchmarks/fleet/run.py [--finished 500] [--running 500] [--workers 2]
        [--seconds 120] [--kills 0] [--starved 0] [--failed 0] [--pictures FOLDER]

The operator is the real one, in a process of its own; so are etcd and the API server. Nodes and
workers are simulated by one process (`workers.py`), which speaks the real protocol. Once all jobs
are where they belong, /metrics is scraped every five seconds, and status writes are counted, by the
operator itself and by the API server. Prints one line of JSON. With --pictures a real Prometheus
scrapes as well, and the fleet's and the operator's dashboards are drawn from what it has.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from control_plane import ROOT, ControlPlane, free_port
from prometheus_client.parser import text_string_to_metric_families
from workers import NAMESPACES

HERE = Path(__file__).resolve().parent
CRD = ROOT / "charts" / "shardwise" / "files" / "crd-without-cel.yaml"
JOBS = "/apis/shardwise.dev/v1alpha1/namespaces/{}/optimizationjobs"
MODELS = ("resnet", "bert", "digits", "vit", "unet", "gpt", "lora", "wav2vec", "yolo")
SETTLE_SECONDS = 1800.0
SCRAPE_EVERY_SECONDS = 5.0
REPORT_SECONDS = 2.0
BUCKET = 20.0
"""Status writes a second that tell nothing but progress: the operator's default."""


def job(place: int, kind: str, workers: int, *, endless: bool) -> dict[str, Any]:
    """A job of one kind: finished, running, starved or failed.

    Args:
        endless: running ones run for days, with equally many workers; else they differ.
    """
    rate = 20 + 5 * (place % 7)
    running = 10_000_000 if endless else 9_000 + 1_500 * (place % 11)
    workers += 0 if endless else place % 3
    steps = {"finished": 100, "failed": 400}.get(kind, running)
    fate = {"failed": "fails", "starved": "starves"}.get(kind, "runs")
    every = 400 if kind == "running" and place % 3 else 0
    spec: dict[str, Any] = {
        "trainer": {
            "entrypoint": "simulated:task",
            "parameters": {"rate": rate, "fate": fate, "every": every},
            "steps": steps,
            "batchSize": 256,
            "shards": 8,
        },
        "workers": {"replicas": 1 if kind == "finished" else workers},
    }
    if every:
        spec["checkpoint"] = {"everySteps": every, "url": "s3://bucket/jobs"}
    # Names in which no kind is, as users would give them.
    name = f"{MODELS[place % len(MODELS)]}-{place:03}"
    return {
        "apiVersion": "shardwise.dev/v1alpha1",
        "kind": "OptimizationJob",
        "metadata": {"name": name, "namespace": NAMESPACES[place % len(NAMESPACES)]},
        "spec": spec,
    }


class Operator:
    """The operator's process, and what it says of itself."""

    def __init__(self, plane: ControlPlane, folder: Path) -> None:
        self.port, self.health, self.coordinator = free_port(), free_port(), free_port()
        environ = {
            "KUBECONFIG": str(plane.kubeconfig),
            "SHARDWISE_METRICS_PORT": str(self.port),
            "SHARDWISE_HEALTH_PORT": str(self.health),
            "SHARDWISE_COORDINATOR_PORT": str(self.coordinator),
            "SHARDWISE_COORDINATOR_SERVICE": "localhost",
            "SHARDWISE_REPORT_SECONDS": str(REPORT_SECONDS),
            "SHARDWISE_STATUS_WRITES_PER_SECOND": str(BUCKET),
            "SHARDWISE_LOG_LEVEL": "WARNING",
        }
        with (folder / "operator.log").open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "shardwise_operator"],
                env={**os.environ, **environ},
                stdout=log,
                stderr=log,
            )
        self._log = folder / "operator.log"

    def __enter__(self) -> Operator:
        until("the operator is ready", lambda: self._page("readyz"), 120)
        return self

    def __exit__(self, *error: object) -> None:
        self._process.terminate()
        self._process.wait(60)

    def _page(self, name: str) -> bytes:
        if self._process.poll() is not None:
            raise RuntimeError(f"the operator has ended; see {self._log}")
        url = f"http://127.0.0.1:{self.port if name == 'metrics' else self.health}/{name}"
        try:
            with urllib.request.urlopen(url, timeout=60) as answer:
                content: bytes = answer.read()
                return content
        except OSError:
            return b""

    def scrape(self) -> tuple[str, float]:
        """The metrics, and the seconds that they took."""
        begin = time.perf_counter()
        content = self._page("metrics")
        return content.decode(), time.perf_counter() - begin

    @property
    def cpu_seconds(self) -> float:
        fields = self._stat()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def memory_mib(self) -> float:
        return int(self._stat()[21]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)

    def _stat(self) -> list[str]:
        text = Path(f"/proc/{self._process.pid}/stat").read_text()
        return text.rpartition(")")[2].split()


def values(text: str, name: str, label: str = "") -> dict[str, float]:
    """The values of a metric, summed by a label."""
    found: Counter[str] = Counter()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name:
                found[sample.labels.get(label, "")] += sample.value
    return dict(found)


def until(what: str, done: Callable[[], Any], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.5)


def status_patches(plane: ControlPlane) -> float:
    """Writes of jobs' statuses, as the API server counts them."""
    mine = ('verb="PATCH"', 'resource="optimizationjobs"', 'subresource="status"')
    return sum(
        float(line.rpartition(" ")[2])
        for line in plane.text("/metrics").splitlines()
        if line.startswith("apiserver_request_total{") and all(each in line for each in mine)
    )


def measure(plane: ControlPlane, operator: Operator, seconds: float) -> dict[str, Any]:
    """What the operator costs, and how it answers, while nothing happens but training."""
    before, _ = operator.scrape()
    began, cpu, patches = time.monotonic(), operator.cpu_seconds, status_patches(plane)
    took, size = [], 0
    while time.monotonic() < began + seconds:
        text, spent = operator.scrape()
        took.append(spent)
        size = len(text)
        time.sleep(SCRAPE_EVERY_SECONDS)
    after, _ = operator.scrape()
    wall = time.monotonic() - began

    def grown(name: str, label: str = "") -> dict[str, float]:
        old = values(before, name, label)
        new = values(after, name, label)
        return {key: round((new[key] - old.get(key, 0)) / wall, 2) for key in new}

    return {
        "measuredSeconds": round(wall, 1),
        "states": values(after, "shardwise_jobs", "state"),
        "scrapes": len(took),
        "scrapeSecondsMedian": round(statistics.median(took), 3),
        "scrapeSecondsMost": round(max(took), 3),
        "scrapeBytes": size,
        "series": sum(1 for line in after.splitlines() if line and not line.startswith("#")),
        "statusWritesPerSecond": grown("shardwise_status_writes_total", "outcome"),
        "statusWritesPerSecondByTheServer": round((status_patches(plane) - patches) / wall, 2),
        "bucketPerSecond": BUCKET,
        "reconcilesPerSecond": grown("shardwise_reconcile_duration_seconds_count").get(""),
        "reconcileErrors": values(after, "shardwise_reconcile_errors_total").get(""),
        "queueDepth": values(after, "shardwise_queue_depth").get(""),
        "loopLagSeconds": values(after, "shardwise_loop_lag_seconds").get(""),
        "operatorCores": round((operator.cpu_seconds - cpu) / wall, 3),
        "operatorMiB": round(operator.memory_mib, 1),
    }


def states(plane: ControlPlane) -> Counter[str]:
    found: Counter[str] = Counter()
    for namespace in NAMESPACES:
        for item in plane.get(JOBS.format(namespace))["items"]:
            found[(item.get("status") or {}).get("state", "")] += 1
    return found


def install(plane: ControlPlane) -> None:
    plane.create(
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", yaml.safe_load(CRD.read_text())
    )
    for name in (*NAMESPACES, "shardwise-system"):
        meta = {"metadata": {"name": name}}
        plane.create("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", **meta})
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
        plane.create(f"/api/v1/namespaces/{name}/serviceaccounts", account)
    until("the resource is served", lambda: served(plane), 60)


def served(plane: ControlPlane) -> bool:
    try:
        plane.get(JOBS.format(NAMESPACES[0]))
    except urllib.error.HTTPError:
        return False
    return True


@contextmanager
def workers(plane: ControlPlane, operator: Operator, kills: float) -> Iterator[None]:
    command = [sys.executable, str(HERE / "workers.py"), plane.url, str(operator.coordinator)]
    process = subprocess.Popen([*command, f"--report={REPORT_SECONDS}", f"--kills={kills}"])
    try:
        yield
    finally:
        process.terminate()
        process.wait(60)


def draw(operator: Operator, folder: Path, seconds: float) -> None:
    """Draws the dashboards after some time of scraping."""
    sys.path[:0] = [str(ROOT / "tests" / "observability"), str(ROOT / "tests" / "cluster" / "rig")]
    from boards import boards, filled
    from draw import Picture
    from server import Prometheus, target

    variables = {
        "namespace": ".+",
        "__rate_interval": "20s",
        "__range": f"{seconds:.0f}s",
    }
    with tempfile.TemporaryDirectory() as data:
        address = target(f"127.0.0.1:{operator.port}", "operator")
        with Prometheus(Path(data), [address], "2s") as prometheus:
            time.sleep(seconds)
            end = time.time() // 2 * 2
            folder.mkdir(parents=True, exist_ok=True)
            for name in ("fleet", "operator"):
                fill = partial(filled, variables=variables)
                board = boards()[f"shardwise-{name}"]
                picture = Picture(board, prometheus, fill, (end - seconds + 10, end, 2.0))
                picture.draw().savefig(folder / f"{name}-dashboard.png")
                print(f"{name}: no data for {picture.empty}", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for kind, default in (("finished", 500), ("running", 500), ("starved", 0), ("failed", 0)):
        parser.add_argument(f"--{kind}", type=int, default=default)
    parser.add_argument("--workers", type=int, default=2, help="of a running job")
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--kills", type=float, default=0.0, help="workers killed, per second")
    parser.add_argument("--pictures", type=Path)
    options = parser.parse_args()

    def say(text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(prefix="fleet-") as name, ExitStack() as stack:
        folder = Path(name)
        plane = stack.enter_context(ControlPlane(folder))
        install(plane)
        operator = stack.enter_context(Operator(plane, folder))
        stack.enter_context(workers(plane, operator, options.kills))
        kinds = ["finished"] * options.finished + ["failed"] * options.failed
        kinds += ["starved"] * options.starved + ["running"] * options.running
        begin = time.monotonic()
        wanted: Counter[str] = Counter()
        became = {"finished": "Succeeded", "failed": "Failed", "starved": "Waiting"}
        for place, kind in enumerate(kinds):
            if kind == "running" and kinds[place - 1] != kind:
                until("the others are", partial(_there, plane, dict(wanted)), SETTLE_SECONDS)
                say(f"ended: {dict(states(plane))}")
            manifest = job(place, kind, options.workers, endless=not options.pictures)
            plane.create(JOBS.format(manifest["metadata"]["namespace"]), manifest)
            wanted[became.get(kind, "Running")] += 1
        if options.pictures:
            draw(operator, options.pictures, options.seconds)
            return
        until("all are where they belong", lambda: _there(plane, wanted), SETTLE_SECONDS)
        say(f"settled: {dict(states(plane))}")
        settled = time.monotonic() - begin
        until("the queue is empty", lambda: _quiet(operator), 120)
        found = measure(plane, operator, options.seconds)
        load = [round(each, 1) for each in os.getloadavg()]
        print(json.dumps({"settledSeconds": round(settled), "load": load, **found}))


def _there(plane: ControlPlane, wanted: dict[str, int]) -> bool:
    found = states(plane)
    return all(found[state] >= count for state, count in wanted.items())


def _quiet(operator: Operator) -> bool:
    text, _ = operator.scrape()
    return values(text, "shardwise_queue_depth").get("", 1) < 5


if __name__ == "__main__":
    main()
