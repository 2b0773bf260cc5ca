"""The operator's metrics: what is declared is told, from reports and statuses, for as long as jobs
live."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from operator_world import manifest
from prometheus_client.parser import text_string_to_metric_families

from shardwise.api import metrics as declared
from shardwise.coordinator import TaskReport
from shardwise.coordinator.report import CheckpointState, Loss, Progress, TaskRow, TasksReport
from shardwise_operator.metrics import Metrics, Sources

CREATED = 1_700_000_000.0
STATUS = {
    "state": "Running",
    "progress": {"step": 5, "totalSteps": 20, "loss": "0.5", "samplesPerSecond": "100"},
    "workers": {"ready": 4, "desired": 4, "min": 2, "generation": 3},
}
REPORT = TaskReport(
    state="training",
    generation=4,
    connected=("digits-0", "digits-1", "digits-2"),
    workers=4,
    progress=Progress(
        step=10,
        total_steps=20,
        epoch=1,
        loss=0.25,
        samples_per_second=64.0,
        eta_seconds=5.0,
        at=CREATED + 30.0,
        metrics={},
    ),
    failure=None,
    result=None,
    members=("digits-0", "digits-1"),
    standbys=("digits-2",),
    recoveries={"Killed": 2, "Joined": 1},
    losses=(
        Loss(worker="digits-3", index=3, cause="Killed", at=CREATED + 9, step=4, seconds=0.3),
        Loss(worker="digits-4", index=4, cause="Killed", at=CREATED + 12, step=6),
    ),
    seconds={"productive": 9.0, "recovery": 1.0},
    checkpoint=CheckpointState(step=8, at=CREATED + 20, bytes=4096, seconds=0.5),
)


OBJECTIVES = [
    {"metric": "accuracy", "direction": "Maximize"},
    {"metric": "bytes", "direction": "Minimize"},
]
TASKS = {"list": [{"name": "one"}], "objectives": OBJECTIVES}
POOL = replace(
    REPORT,
    tasks=TasksReport(
        total=10,
        pending=3,
        running=2,
        succeeded=4,
        failed=1,
        stopped=0,
        best=TaskRow(name="one", state="Succeeded", metrics={"accuracy": 0.75, "bytes": 9.0}),
        utilization=0.875,
    ),
)


class Fleet:
    """Some jobs, their reports, and the exporter that tells of them."""

    def __init__(self) -> None:
        self.jobs: list[dict] = []
        self.reports: dict[str, TaskReport] = {}
        self.metrics = Metrics()
        self.metrics.observe(
            Sources(
                jobs=lambda: self.jobs,
                queue_depth=lambda: 3,
                watch_age=lambda: 1.5,
                loop_lag=lambda: 0.0,
                report=self.reports.get,
                queue_oldest_age=lambda: 0.25,
                leads=lambda: True,
            )
        )

    def add(self, name="digits", status=None, report=None, **spec) -> dict:
        job = manifest()
        job["metadata"] |= {
            "name": name,
            "uid": f"uid-{name}",
            "creationTimestamp": "2023-11-14T22:13:20Z",  # CREATED
        }
        job["spec"] |= spec
        job["status"] = STATUS if status is None else status
        self.jobs.append(job)
        if report is not None:
            self.reports[f"uid-{name}"] = report
        return job

    def scrape(self) -> dict[tuple, float]:
        """Values by name and labels other than the job's own."""
        return {
            (
                sample.name,
                *(v for k, v in sorted(sample.labels.items()) if k not in (*declared.JOB, "le")),
                *((sample.labels["le"],) if "le" in sample.labels else ()),
            ): sample.value
            for family in text_string_to_metric_families(self.metrics.exposition().decode())
            for sample in family.samples
        }


@pytest.fixture
def fleet() -> Fleet:
    return Fleet()


def test_a_report_counts_more_than_the_status(fleet):
    fleet.add(report=REPORT, checkpoint={"everySteps": 4})
    told = fleet.scrape()
    batch = fleet.jobs[0]["spec"]["trainer"]["batchSize"]
    expected = {
        ("state", "Running"): 1,
        ("created_timestamp_seconds",): CREATED,
        ("progress_ratio",): 0.5,
        ("step",): 10,
        ("target_steps",): 20,
        ("loss",): 0.25,
        ("samples_total",): 10 * batch,
        ("step_seconds",): batch / 64.0,
        ("eta_seconds",): 5,
        ("last_step_timestamp_seconds",): CREATED + 30,
        ("generation",): 4,
        ("workers", "training"): 2,
        ("workers", "standby"): 1,
        ("workers", "missing"): 1,
        ("workers_desired",): 4,
        ("workers_min",): 2,
        ("checkpoint_step",): 8,
        ("checkpoint_timestamp_seconds",): CREATED + 20,
        ("checkpoint_bytes",): 4096,
        ("checkpoint_write_seconds",): 0.5,
        ("checkpoint_failed",): 0,
        ("checkpoint_interval_seconds",): 4 * batch / 64.0,
        ("seconds_total", "productive"): 9,
        ("seconds_total", "recovery"): 1,
        ("seconds_total", "waiting"): 0,
    }
    for (name, *label), value in expected.items():
        assert told[f"shardwise_job_{name}", *label] == value, name
    assert told["shardwise_job_recoveries_total", "Killed"] == 2
    assert told["shardwise_job_recoveries_total", "Hung"] == 0
    assert told["shardwise_job_resizes_total", "Joined"] == 1


def test_what_has_no_report_is_told_from_its_status(fleet):
    status = STATUS | {
        "state": "Succeeded",
        "recoveriesByCause": [{"cause": "Hung", "count": 3}],
        "goodputSeconds": [{"kind": "productive", "seconds": "12.5"}],
        "restarts": {"total": 2},
        "lostSteps": 7,
        "checkpoint": {
            "step": 4,
            "time": "2023-11-14T22:13:21Z",
            "bytes": 9,
            "error": "no space",
        },
    }
    fleet.add(status=status, checkpoint={"everySeconds": 60})
    told = fleet.scrape()
    assert told["shardwise_job_recoveries_total", "Hung"] == 3
    assert told["shardwise_job_seconds_total", "productive"] == 12.5
    assert told["shardwise_job_restarts_total",] == 2
    assert told["shardwise_job_lost_steps_total",] == 7
    assert told["shardwise_job_checkpoint_timestamp_seconds",] == CREATED + 1
    assert told["shardwise_job_checkpoint_failed",] == 1
    assert told["shardwise_job_checkpoint_interval_seconds",] == 60
    # It has ended: nobody is missing.
    assert not any(name == "shardwise_job_workers" for name, *_ in told)


COMPRESSION = {
    "rows": [
        {
            "name": "trained",
            "metric": "accuracy 0.9119",
            "bytes": 202984,
            "parameters": 50282,
            "nonzeros": 50282,
            "macs": 3869824,
            "latencyMilliseconds": "4.860",
        },
        {"name": "int8", "metric": "accuracy 0.9110", "bytes": 52704},
    ]
}


def test_the_models_of_a_compression(fleet):
    fleet.add(status=STATUS | {"state": "Succeeded", "compression": COMPRESSION})
    told = fleet.scrape()
    expected = {
        ("bytes", "trained"): 202984,
        ("bytes", "int8"): 52704,
        ("parameters", "trained"): 50282,
        ("nonzero_parameters", "trained"): 50282,
        ("macs", "trained"): 3869824,
        ("latency_seconds", "trained"): 0.00486,
        ("metric", "accuracy", "trained"): 0.9119,
        ("metric", "accuracy", "int8"): 0.9110,
    }
    found = {key: value for key, value in told.items() if key[0].startswith("shardwise_job_model")}
    assert found == pytest.approx(
        {(f"shardwise_job_model_{name}", *label): v for (name, *label), v in expected.items()}
    )


def test_each_recovery_is_counted_once(fleet):
    fleet.add(report=REPORT)
    for _ in range(3):
        told = fleet.scrape()
        assert told["shardwise_job_recovery_seconds_count",] == 1
    assert told["shardwise_job_recovery_seconds_bucket", "0.25"] == 0
    assert told["shardwise_job_recovery_seconds_bucket", "0.5"] == 1
    done = replace(REPORT.losses[1], seconds=70.0)
    fleet.reports["uid-digits"] = replace(REPORT, losses=(REPORT.losses[0], done))
    told = fleet.scrape()
    assert told["shardwise_job_recovery_seconds_count",] == 2
    assert told["shardwise_job_recovery_seconds_sum",] == pytest.approx(70.3)
    assert told["shardwise_job_recovery_seconds_bucket", "60.0"] == 1
    assert told["shardwise_job_recovery_seconds_bucket", "+Inf"] == 2


def test_the_first_step_is_dated_by_the_report_that_brought_it(fleet):
    waiting = replace(REPORT, state="waiting", progress=None)
    job = fleet.add(status={"state": "Starting"}, report=waiting)
    first = ("shardwise_job_time_to_first_step_seconds",)
    assert first not in fleet.scrape()
    fleet.metrics.reported(job, replace(REPORT, progress=replace(REPORT.progress, step=1)))
    late = replace(REPORT.progress, step=9, at=CREATED + 500)
    fleet.reports["uid-digits"] = replace(REPORT, progress=late)
    assert fleet.scrape()[first] == 30.0


def test_an_operator_that_was_away_then_does_not_guess_the_first_step(fleet):
    fleet.add(report=REPORT)  # the status says that five steps were done before
    assert ("shardwise_job_time_to_first_step_seconds",) not in fleet.scrape()


def test_a_job_that_stands_still_keeps_the_time_of_its_last_step(fleet):
    fleet.add(report=REPORT)
    fleet.scrape()
    again = replace(REPORT.progress, at=CREATED + 900)
    fleet.reports["uid-digits"] = replace(REPORT, progress=again)
    assert fleet.scrape()["shardwise_job_last_step_timestamp_seconds",] == CREATED + 30


def test_a_jobs_series_vanish_with_it(fleet):
    fleet.add(report=REPORT)
    fleet.add("other")
    assert "digits" in fleet.metrics.exposition().decode()
    del fleet.jobs[0]
    text = fleet.metrics.exposition().decode()
    assert "digits" not in text
    assert "other" in text
    fleet.jobs.clear()
    assert "shardwise_job" not in fleet.metrics.exposition().decode()


def test_jobs_are_counted_by_namespace_and_state(fleet):
    fleet.add()
    fleet.add("other", status={})
    told = fleet.scrape()
    assert told["shardwise_jobs", "Running"] == 1
    assert told["shardwise_jobs", "Pending"] == 1
    assert told["shardwise_jobs", "Failed"] == 0


def test_a_diverged_loss_is_told_as_it_is(fleet):
    fleet.add(report=replace(REPORT, progress=replace(REPORT.progress, loss=math.nan)))
    assert math.isnan(fleet.scrape()["shardwise_job_loss",])


def test_what_the_rest_of_the_operator_counts(fleet):
    fleet.metrics.api_call("get", "200")
    fleet.metrics.status_write("sent")
    fleet.metrics.event("dropped")
    with fleet.metrics.reconcile_time():
        pass
    with pytest.raises(RuntimeError), fleet.metrics.reconcile_time():
        raise RuntimeError("the API server is away")
    told = fleet.scrape()
    assert told["shardwise_api_requests_total", "200", "get"] == 1
    assert told["shardwise_status_writes_total", "sent"] == 1
    assert told["shardwise_events_total", "dropped"] == 1
    assert told["shardwise_reconcile_duration_seconds_count",] == 2
    assert told["shardwise_reconcile_errors_total",] == 1
    assert told["shardwise_queue_depth",] == 3
    assert told["shardwise_queue_oldest_age_seconds",] == 0.25
    assert told["shardwise_watch_age_seconds",] == 1.5
    assert told["shardwise_leader",] == 1


def test_what_is_told_is_declared_and_the_other_way_round(fleet):
    """With one job that has everything, every family appears, with its labels and its text."""
    waiting = replace(REPORT, state="waiting", progress=None)
    job = fleet.add(
        status=STATUS | {"progress": {}, "compression": COMPRESSION},
        report=POOL,
        checkpoint={"everySteps": 4},
        tasks=TASKS,
    )
    fleet.metrics.reported(job, waiting)
    fleet.metrics.api_call("get", "200")
    fleet.metrics.status_write("sent")
    fleet.metrics.event("sent")
    text = fleet.metrics.exposition().decode()
    found = {family.name: family for family in text_string_to_metric_families(text)}
    expected = {
        family.name.removesuffix("_total"): family
        for family in declared.FAMILIES
        if family.source == "operator"
    }
    for name, family in expected.items():
        assert (found[name].type, found[name].documentation) == (family.kind, family.help)
        for sample in found[name].samples:
            assert sample.name in family.series
            assert sample.labels.keys() - {"le"} == set(family.labels)
            if family.values:
                assert sample.labels[family.labels[-1]] in family.values
    process = {name for name in found if name.startswith("process_")}
    assert found.keys() == expected.keys() | process
    assert {name.removesuffix("_total") for name in declared.PROCESS_SERIES} == process


def test_a_label_that_needs_escaping_is_escaped(fleet):
    fleet.add('odd"\\\nname')
    text = fleet.metrics.exposition().decode()
    assert 'job_name="odd\\"\\\\\\nname"' in text
    (family,) = (f for f in text_string_to_metric_families(text) if f.name == "shardwise_job_step")
    assert family.samples[0].labels["job_name"] == 'odd"\\\nname'


def test_a_pools_tasks_are_told_by_state(fleet):
    fleet.add(report=POOL, tasks=TASKS)
    told = fleet.scrape()
    states = {"Pending": 3, "Running": 2, "Succeeded": 4, "Failed": 1, "Stopped": 0}
    for state, count in states.items():
        assert told["shardwise_job_tasks", state] == count
    assert told["shardwise_job_pool_utilization_ratio",] == 0.875
    # By the first objective alone: of the others it may be the worst.
    best = {key: value for key, value in told.items() if key[0] == "shardwise_job_best_objective"}
    assert best == {("shardwise_job_best_objective", "accuracy"): 0.75}


def test_a_pool_without_a_report_is_told_from_its_status(fleet):
    tasks = {
        "pending": 0,
        "running": 0,
        "succeeded": 9,
        "failed": 1,
        "utilization": "0.950",
        "best": {"name": "one", "metrics": [{"name": "accuracy", "value": "0.8"}]},
    }
    fleet.add(status=STATUS | {"state": "Succeeded", "tasks": tasks}, tasks=TASKS)
    told = fleet.scrape()
    assert told["shardwise_job_tasks", "Succeeded"] == 9
    assert told["shardwise_job_tasks", "Stopped"] == 0
    assert told["shardwise_job_best_objective", "accuracy"] == 0.8
    assert told["shardwise_job_pool_utilization_ratio",] == 0.95


def test_a_pools_workers_train_while_one_group_forms(fleet):
    fleet.add(report=replace(POOL, state="forming"), tasks=TASKS)
    told = fleet.scrape()
    assert told["shardwise_job_workers", "training"] == 2
    assert told["shardwise_job_workers", "standby"] == 1


def test_a_job_of_one_task_has_no_series_of_tasks(fleet):
    fleet.add(report=REPORT)
    names = {name for name, *_ in fleet.scrape()}
    assert not names & {
        "shardwise_job_tasks",
        "shardwise_job_best_objective",
        "shardwise_job_pool_utilization_ratio",
    }


def test_samples_are_not_told_where_tasks_differ_in_their_batches(fleet):
    swept = [{"name": "batch", "field": "trainer.batchSize", "values": [32, 64]}]
    fleet.add(report=POOL, tasks={"sweep": {"parameters": swept}})
    assert ("shardwise_job_samples_total",) not in fleet.scrape()
