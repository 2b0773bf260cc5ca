"""The operator: whether it leads, keeps up with its queue, and is heard by the API server."""

from __future__ import annotations

from shardwise_operator.dashboards.board import OPERATOR, Annotation, Board, Row
from shardwise_operator.dashboards.panels import (
    Panel,
    Query,
    graph,
    heatmap,
    quantiles,
    stat,
    thresholds,
)

SELF = "and on (instance) shardwise_build_info"
NO_ERROR = "No error"


def _now() -> tuple[Panel, ...]:
    return (
        stat(
            "Leaders",
            "How many processes lead: 1. With 0, no group changes until one does; jobs train on.",
            Query(expr="sum(shardwise_leader)"),
            steps=thresholds((None, "red"), (1, "green"), (2, "red")),
        ),
        stat(
            "Version",
            "Of every operator process.",
            Query(expr="max by (version) (shardwise_build_info)", legend="{{version}}"),
            text_mode="name",
        ),
        stat(
            "Up for",
            "Since the youngest process began. Young again and again: it is restarted; see its "
            "previous log.",
            Query(expr=f"time() - max(process_start_time_seconds {SELF})"),
            unit="dtdurations",
        ),
        stat(
            "Queue",
            "Jobs that wait to be reconciled.",
            Query(expr="max(shardwise_queue_depth)"),
            steps=thresholds((None, "green"), (100, "yellow"), (1000, "red")),
            spark=True,
        ),
        stat(
            "Longest wait",
            "Of a job in that queue. A minute of it: reconciles are slow, or fail.",
            Query(expr="max(shardwise_queue_oldest_age_seconds)"),
            unit="s",
            steps=thresholds((None, "green"), (10, "yellow"), (60, "red")),
            spark=True,
        ),
        stat(
            "Watch age",
            "Time since the API server was last heard of. At 300 s the process is restarted.",
            Query(expr="max(shardwise_watch_age_seconds)"),
            unit="s",
            steps=thresholds((None, "green"), (120, "yellow"), (300, "red")),
            spark=True,
        ),
        stat(
            "Loop lag",
            "Longest delay of the event loop in the last minute. Above 0.5 s workers are noticed "
            "late; give the operator more CPU.",
            Query(expr="max(shardwise_loop_lag_seconds)"),
            unit="s",
            steps=thresholds((None, "green"), (0.5, "yellow"), (5, "red")),
            spark=True,
        ),
        stat(
            "Jobs",
            "All that it knows of.",
            Query(expr="sum(shardwise_jobs)"),
        ),
    )


def _work() -> tuple[Panel, ...]:
    return (
        graph(
            "Reconciles",
            "How many a second, and how many of them failed. Failed ones are tried again after a "
            "growing pause; the log has their errors.",
            Query(
                expr="sum(rate(shardwise_reconcile_duration_seconds_count[$__rate_interval]))",
                legend="all",
            ),
            Query(
                expr="sum(rate(shardwise_reconcile_errors_total[$__rate_interval]))",
                legend="failed",
            ),
            unit="ops",
            width=8,
        ),
        graph(
            "Time of a reconcile",
            "The middle and the slow end. Slow ones wait for the API server, mostly for a pod to "
            "be created.",
            *quantiles("shardwise_reconcile_duration_seconds_bucket"),
            unit="s",
            width=8,
            empty_means="No reconcile in this time",
        ),
        heatmap(
            "Reconciles by time",
            "How many took how long. Two bands are usual: with and without a write.",
            Query(
                expr="sum by (le) "
                "(increase(shardwise_reconcile_duration_seconds_bucket[$__rate_interval]))",
                legend="{{le}}",
                heatmap=True,
            ),
            unit="short",
            axis_unit="s",
            width=8,
        ),
        graph(
            "Depth of the queue",
            "Jobs that wait. A depth that falls again is a burst; one that stays is a backlog.",
            Query(expr="max(shardwise_queue_depth)", legend="jobs"),
            unit="short",
            width=12,
        ),
        graph(
            "Delays",
            "The longest wait in the queue, the age of the watch and the lag of the loop.",
            Query(expr="max(shardwise_queue_oldest_age_seconds)", legend="longest wait"),
            Query(expr="max(shardwise_watch_age_seconds)", legend="watch age"),
            Query(expr="max(shardwise_loop_lag_seconds)", legend="loop lag"),
            unit="s",
            width=12,
        ),
    )


def _api() -> tuple[Panel, ...]:
    return (
        graph(
            "API calls by verb",
            "Calls of the Kubernetes API.",
            Query(
                expr="sum by (verb) (rate(shardwise_api_requests_total[$__rate_interval]))",
                legend="{{verb}}",
            ),
            unit="reqps",
            width=8,
            stacked=True,
        ),
        graph(
            "API calls that failed",
            "By status code; 0 is no answer, 403 a right that is missing, 409 a conflict that is "
            "tried again, 429 too many calls.",
            Query(
                expr="sum by (verb, code) (rate(shardwise_api_requests_total"
                '{code!~"2..", code!="404"}[$__rate_interval]))',
                legend="{{verb}} {{code}}",
            ),
            unit="reqps",
            width=8,
            empty_means=NO_ERROR,
        ),
        graph(
            "Status writes and events",
            "Writes that were sent, put off, or not needed; and events. Many that are put off "
            "mean that the bucket for status writes is empty: progress shows later.",
            Query(
                expr="sum by (outcome) (rate(shardwise_status_writes_total[$__rate_interval]))",
                legend="status: {{outcome}}",
            ),
            Query(
                expr="sum by (outcome) (rate(shardwise_events_total[$__rate_interval]))",
                legend="events: {{outcome}}",
            ),
            unit="ops",
            width=8,
        ),
    )


def _process() -> tuple[Panel, ...]:
    return (
        graph(
            "CPU",
            "Cores in use. One is the most: the operator has one event loop.",
            Query(
                expr=f"rate(process_cpu_seconds_total[$__rate_interval]) {SELF}",
                legend="{{instance}}",
            ),
            unit="short",
            width=6,
        ),
        graph(
            "Memory",
            "Resident memory: about 30 KiB for each worker that is connected.",
            Query(expr=f"process_resident_memory_bytes {SELF}", legend="{{instance}}"),
            unit="bytes",
            width=6,
        ),
        graph(
            "Open files",
            "A connection each: one for each worker.",
            Query(expr=f"process_open_fds {SELF}", legend="{{instance}}"),
            Query(expr=f"process_max_fds {SELF}", legend="limit of {{instance}}"),
            unit="short",
            width=6,
            logarithmic=True,
            minimum=None,
        ),
        graph(
            "Scrapes of the operator",
            "How long Prometheus takes to scrape it; about 0.15 s for 1,000 jobs.",
            Query(expr=f"scrape_duration_seconds {SELF}", legend="{{instance}}"),
            unit="s",
            width=6,
        ),
    )


def board() -> Board:
    return Board(
        uid=OPERATOR,
        description="The operator: leadership, queue, reconciles, calls of the API server.",
        annotations=(
            Annotation(
                name="Starts",
                expr=f"changes(process_start_time_seconds[1m]) > 0 {SELF}",
                colour="purple",
                title="The operator began anew",
                text="{{instance}}",
            ),
        ),
        rows=(
            Row(title="Now", panels=_now()),
            Row(title="Work", panels=_work()),
            Row(title="The API server", panels=_api()),
            Row(title="The process", panels=_process()),
        ),
    )
