"""A real Prometheus scrapes the operator and the workers by the chart's own monitors, while a job
loses three workers: every panel of every dashboard has data, and shows what happened.

SHARDWISE_PICTURES=FOLDER keeps the pictures that are drawn of them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import slow
import yaml
from jobs import KIND, assert_succeeded, example, job, wait_ended
from kubectl import Kubectl
from operators import on_rig
from progress import say
from releases import CHART, NAME, PLAIN_METRICS
from volumes import claim

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "observability"))

from boards import annotations, boards, filled, in_row, questions  # noqa: E402
from debian import program  # noqa: E402
from draw import Picture  # noqa: E402
from monitors import scrape_config, targets  # noqa: E402
from server import Prometheus, until  # noqa: E402
from terminal import picture, show  # noqa: E402

WORKERS, KILLS, STRAGGLER = 4, 3, 2
STEPS_APART, STEPS_A_CHECKPOINT = 10, 5
"""Between kills there is time for scrapes, and for a checkpoint."""
OTHERS, OTHER_ROWS = ("tasks-digits", "compress-digits"), ("Tasks", "Compression")
"""Examples that follow, for the rows of the job's dashboard that need another kind of job."""
INTERVAL, STEP, RATE = "2s", 2.0, "20s"
LOOK_SECONDS = 2.0
END_SECONDS = 600.0
DRAW_SECONDS = 30.0
WATCH_SECONDS = 900.0
RULES = CHART / "rules" / "alerts.yaml"
CODE = f"""
import os
import time

import slow_digits


def task():
    import dataclasses

    plain = slow_digits.task()

    def loss(model, batch):
        if os.environ["SHARDWISE_INDEX"] == "{STRAGGLER}" and not slow_digits.HURRY.exists():
            time.sleep(0.1)
        return plain.loss(model, batch)

    return dataclasses.replace(plain, loss=loss)
"""


class Discovery:
    """Writes what there is to scrape into a file, again and again."""

    def __init__(self, release: Kubectl, file: Path) -> None:
        self._release, self._file = release, file
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="discovery")

    def __enter__(self) -> Discovery:
        self._look()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join(60)

    def _run(self) -> None:
        while not self._over.wait(LOOK_SECONDS):
            self._look()

    def _look(self) -> None:
        kinds = "pods,services,endpoints"
        done = self._release.run("get", kinds, "--all-namespaces", "--output=json", check=False)
        if done.returncode == 0:  # else it looks again
            found = targets(json.loads(done.stdout)["items"])
            aside = self._file.with_suffix(".new")
            aside.write_text(json.dumps(found))
            aside.rename(self._file)


def scraping(release: Kubectl, file: Path) -> list[dict[str, Any]]:
    """The chart's monitors as scrape configurations."""
    flags = ("serviceMonitor", "podMonitor")
    settings = [flag for each in flags for flag in ("--set", f"{each}.enabled=true")]
    settings += [flag for each in PLAIN_METRICS for flag in ("--set", each)]
    rendered = yaml.safe_load_all(release.helm("template", NAME, str(CHART), *settings))
    monitors = [each for each in rendered if each and each["kind"].endswith("Monitor")]
    assert len(monitors) == len(flags)
    return [scrape_config(monitor, file, interval=INTERVAL) for monitor in monitors]


@dataclass
class Seen:
    """What is known of the job, once it is at its end all of it."""

    prometheus: Prometheus
    namespace: Kubectl
    start: float
    end: float = 0.0
    status: dict[str, Any] = field(default_factory=dict)
    empty: dict[str, list[str]] = field(default_factory=dict)
    """By dashboard, the panels that had no data while the job trained."""
    watched: str = ""
    """What `shardwise watch` drew after the last kill."""

    def variables(self, board: str, job: str = "digits") -> dict[str, str]:
        """The dashboard's variables for a job."""
        anywhere = board == "shardwise-fleet"
        return {
            "namespace": ".+" if anywhere else self.namespace.namespace,
            "job": job,
            "worker": ".+",
            "__rate_interval": RATE,
            "__range": f"{self.end - self.start:.0f}s",
        }

    def over_time(self, expr: str) -> list[dict[str, Any]]:
        return self.prometheus.query_range(expr, self.start, self.end, STEP)

    def told(self, name: str, label: str) -> dict[str, float]:
        """The job's values of a metric now, by one of its labels."""
        here = f'{name}{{namespace="{self.namespace.namespace}", job_name="digits"}}'
        found = self.prometheus.query(here)
        return {each["metric"][label]: float(each["value"][1]) for each in found}


@pytest.fixture(scope="module")
def place(release: Kubectl) -> Iterator[Kubectl]:
    on_rig(release)
    name = f"prometheus-{int(time.time())}"
    release.run("create", "namespace", name)
    yield release.within(name)
    release.run("delete", "namespace", name, "--wait=false")


@contextmanager
def starved(release: Kubectl) -> Iterator[None]:
    """Another job, in a namespace that takes no pods: it waits, and the API server refuses."""
    namespace = release.within(f"starved-{int(time.time())}")
    release.run("create", "namespace", namespace.namespace)
    try:
        hard = {"hard": {"pods": "0"}}
        quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}}
        namespace.apply({**quota, "spec": hard})
        namespace.apply(job("starved"))
        yield
    finally:
        release.run("delete", "namespace", namespace.namespace, "--wait=false")


def begin(namespace: Kubectl) -> None:
    content = {"slow_digits.py": slow.CODE, "uneven_digits.py": CODE}
    code = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "code"}}
    namespace.apply({**code, "data": content})
    manifest = slow.plain_job("digits", workers=WORKERS)
    manifest["spec"]["trainer"] |= {
        "entrypoint": "uneven_digits:task",
        "codeFrom": {"configMap": "code"},
    }
    manifest["spec"]["workers"] |= {
        "min": 1,
        "detectionMilliseconds": slow.DETECTION_MILLISECONDS,
    }
    volume = {"persistentVolumeClaim": {"claimName": "kept"}}
    manifest["spec"]["checkpoint"] = {"everySteps": STEPS_A_CHECKPOINT, "volume": volume}
    namespace.apply(manifest)


@pytest.fixture(scope="module")
def seen(
    release: Kubectl, place: Kubectl, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Seen]:
    folder = tmp_path_factory.mktemp("prometheus")
    file = folder / "targets.json"
    start = time.time()
    with (
        claim(place, "kept", folder / "kept"),
        Discovery(release, file),
        Prometheus(folder, scraping(release, file), INTERVAL, [RULES]) as prometheus,
        starved(release),
    ):
        begin(place)
        slow.trains_on(place, "digits", WORKERS, {}, "all train")
        with ThreadPoolExecutor(1) as pool:
            watched = pool.submit(watch, place)
            for number in range(KILLS):
                slow.gets_on(place, "digits", STEPS_APART)
                slow.kill_trainer(slow.worker(place, "digits", (0, 1, 3)[number]))
                counts = {"Killed": number + 1, "Joined": number + 1}
                slow.trains_on(place, "digits", WORKERS, counts, f"kill {number + 1}")
            frame = watched.result(WATCH_SECONDS)
        check_exporters(prometheus)
        seen = Seen(prometheus, place, start, time.time(), watched=frame)
        pictures = Path(os.environ.get("SHARDWISE_PICTURES") or folder / "pictures")
        draw(seen, pictures)
        picture(frame, "shardwise watch digits").savefig(pictures / "watch.png")
        slow.hurry(place, "digits")
        found = wait_ended(place, "digits", END_SECONDS)
        assert_succeeded(found)
        steps = str(found["status"]["progress"]["step"])
        until(
            "a scrape after the end",
            lambda: [s for s in prometheus.query("shardwise_job_step") if s["value"][1] == steps],
            60,
        )
        seen.status = found["status"]
        for name in OTHERS:
            place.apply(example(name))
        for name in OTHERS:
            assert_succeeded(wait_ended(place, name, END_SECONDS))
        last = (
            f'shardwise_job_tasks{{job_name="{OTHERS[0]}", state="Succeeded"}} > 0',
            # A few, so that a graph's points fall among them.
            f'count_over_time(shardwise_job_model_bytes{{job_name="{OTHERS[1]}"}}[1m]) > 2',
        )
        until("scrapes after their end", lambda: all(map(prometheus.query, last)), 60)
        seen.end = time.time()
        draw_rows(seen, pictures)
        yield seen


def watch(namespace: Kubectl) -> str:
    """What `shardwise watch` draws once it has seen all the recoveries."""
    return show(
        [sys.executable, "-m", "shardwise.cli.main", "watch", "digits", "-n", namespace.namespace],
        rf"recoveries +{KILLS} .*(↻ digits-\d Killed.*){{{KILLS}}}",
        environment=namespace.environment(),
        seconds=WATCH_SECONDS,
    )


def times(seen: Seen) -> tuple[float, float, float]:
    return ((seen.start // STEP + 1) * STEP, seen.end // STEP * STEP, STEP)


def draw_rows(seen: Seen, folder: Path) -> None:
    """Draws the rows of the job's dashboard that need another kind of job, each with its job."""
    board = boards()["shardwise-job"]
    for row, job_name in zip(OTHER_ROWS, OTHERS, strict=True):
        chosen = [each for each in board["panels"] if each["title"] in in_row(board, row)]
        top = min(each["gridPos"]["y"] for each in chosen)
        moved = [{**p, "gridPos": {**p["gridPos"], "y": p["gridPos"]["y"] - top}} for p in chosen]
        part = {**board, "title": f"{board['title']}: {row}, {job_name}", "panels": moved}
        fill = partial(filled, variables=seen.variables("shardwise-job", job_name))
        drawing = Picture(part, seen.prometheus, fill, times(seen)).draw()
        drawing.savefig(folder / f"{row.lower()}-row.png")


def draw(seen: Seen, folder: Path) -> None:
    """Draws the dashboards as they are now; again where a scrape has just failed."""
    folder.mkdir(parents=True, exist_ok=True)
    for uid, board in boards().items():

        def whole(uid: str = uid, board: dict[str, Any] = board) -> bool:
            seen.end = time.time()
            fill = partial(filled, variables=seen.variables(uid))
            drawing = Picture(board, seen.prometheus, fill, times(seen))
            path = folder / f"{uid.removeprefix('shardwise-')}-dashboard.png"
            drawing.draw().savefig(path)
            seen.empty[uid] = sorted({*drawing.empty} - of_others())
            return not seen.empty[uid]

        with suppress(TimeoutError):  # what was empty is the failure of a test of its own
            until("a picture with all its panels", whole, DRAW_SECONDS)
    say(f"drawn: {folder}")


def of_others() -> set[str]:
    """The panels that need another kind of job."""
    job = boards()["shardwise-job"]
    return set().union(*(in_row(job, row) for row in OTHER_ROWS))


def check_exporters(prometheus: Prometheus) -> None:
    """`promtool check metrics` has nothing to say of the operator's metrics, nor of a worker's."""
    up = {each["metric"]["instance"]: each["metric"] for each in prometheus.query("up == 1")}
    workers = [address for address, metric in up.items() if metric.get("worker")]
    others = [address for address in up if address not in workers]
    assert len(workers) >= WORKERS
    assert len(others) >= 1
    for address in (workers[0], others[0]):
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
            done = subprocess.run(
                [str(program("promtool")), "check", "metrics"],
                input=answer.read(),
                capture_output=True,
                timeout=60,
                check=False,
            )
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout + done.stderr == b""


@pytest.mark.parametrize("question", questions(), ids=str)
def test_every_panel_had_data(seen: Seen, question: Any) -> None:
    board = boards()[question.board]
    job = "digits"
    for row, other in zip(OTHER_ROWS, OTHERS, strict=True):
        if question.board == "shardwise-job" and question.panel in in_row(board, row):
            job = other
    found = seen.over_time(question.filled(seen.variables(question.board, job)))
    numbers = [value for each in found for _, value in each["values"]]
    assert any(number not in ("NaN", "+Inf") for number in numbers)


def test_the_graphs_are_marked(seen: Seen) -> None:
    marks = {
        found.panel: seen.over_time(found.filled(seen.variables(found.board)))
        for found in annotations()
        if found.board == "shardwise-job"
    }
    assert {each["metric"]["cause"] for each in marks["Recoveries"]} == {"Killed"}
    assert "Joined" in {each["metric"]["cause"] for each in marks["Scaling"]}


def test_the_recoveries_are_those_of_the_status(seen: Seen) -> None:
    counted = seen.told("shardwise_job_recoveries_total", "cause")
    counted |= seen.told("shardwise_job_resizes_total", "cause")
    told = {part["cause"]: part["count"] for part in seen.status["recoveriesByCause"]}
    assert {cause: count for cause, count in counted.items() if count} == told
    assert told["Killed"] == seen.status["recoveries"] == KILLS
    (took,) = seen.told("shardwise_job_recovery_seconds_count", "job_name").values()
    assert took == KILLS


def test_the_goodput_is_the_statuss(seen: Seen) -> None:
    seconds = seen.told("shardwise_job_seconds_total", "kind")
    told = {part["kind"]: float(part["seconds"]) for part in seen.status["goodputSeconds"]}
    for kind, spent in told.items():
        assert seconds[kind] == pytest.approx(spent, rel=0.02, abs=0.5), kind
    assert seconds["productive"] > 0
    assert seconds["recovery"] > 0
    ratio = seconds["productive"] / sum(seconds.values())
    assert ratio == pytest.approx(float(seen.status["goodput"]), abs=0.02)
    say(f"goodput {ratio:.3f}: {seconds}")


def test_the_straggler_shows(seen: Seen) -> None:
    (heat,) = (found for found in questions() if found.panel.startswith("Stragglers"))
    means = {}
    for series in seen.over_time(heat.filled(seen.variables(heat.board))):
        values = [float(value) for _, value in series["values"] if value != "NaN"]
        means[series["metric"]["worker"]] = sum(values) / len(values)
    say(f"own time of a step by worker: {means}")
    assert max(means, key=lambda worker: means[worker]) == str(STRAGGLER)


def test_no_panel_was_empty_while_it_trained(seen: Seen) -> None:
    assert seen.empty == {uid: [] for uid in boards()}


def test_watch_showed_the_recoveries_as_they_happened(seen: Seen) -> None:
    for words in ("digits", "Running", "loss", "workers", "goodput", "checkpoint"):
        assert words in seen.watched
    assert seen.watched.count("went on after") == KILLS


def test_the_alerts_are_evaluated(seen: Seen) -> None:
    rules = seen.prometheus.rules()
    assert {rule["health"] for rule in rules} == {"ok"}
    assert {r["state"] for r in rules if r["name"] == "ShardwiseOperatorDown"} == {"inactive"}


def test_its_series_end_with_the_job(seen: Seen) -> None:
    here = f'namespace="{seen.namespace.namespace}", job_name="digits"'
    expr = f'count({{__name__=~"shardwise_(job|worker)_.+", {here}}})'
    assert seen.prometheus.query(expr)
    seen.namespace.run("delete", KIND, "digits", "--timeout=60s")
    until("the end of its series", lambda: not seen.prometheus.query(expr), 60)
