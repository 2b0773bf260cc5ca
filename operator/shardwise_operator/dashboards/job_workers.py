"""A job's workers: what each was doing, who holds the others up, and what it uses.

All but the numbers of workers and recoveries comes from the workers' own metrics.
"""

from __future__ import annotations

from shardwise.api import metrics as declared
from shardwise_operator.dashboards import recoveries
from shardwise_operator.dashboards.panels import (
    Panel,
    Query,
    coloured,
    graph,
    heatmap,
    quantiles,
    timeline,
)

IN = 'namespace="$namespace", job_name="$job"'
BY_WORKER = f'{IN}, worker=~"$worker"'
STEPS_A_SECOND = (
    f"sum by (worker) (rate(shardwise_worker_step_seconds_count{{{BY_WORKER}}}[$__rate_interval]))"
)
NO_WORKER_METRICS = "No worker runs, or their pods are not scraped (podMonitor.enabled)"


def over_time() -> tuple[Panel, ...]:
    colours = ("light-blue", "blue", "yellow", "green", "dark-green")
    phases = " + ".join(
        f'{place} * max by (worker) (shardwise_worker_phase{{{BY_WORKER}, phase="{phase}"}})'
        for place, phase in enumerate(declared.PHASES, 1)
    )
    return (
        timeline(
            "Workers over time",
            "What each worker was doing. A gap is a worker whose pod was gone; ready is one that "
            "waits for a place in the group. The marks are recoveries and changes of size.",
            Query(expr=phases, legend="worker {{worker}}"),
            names=declared.PHASES,
            colours=colours,
            empty_means=NO_WORKER_METRICS,
        ),
        graph(
            "Workers by state",
            "Training, standing by, and missing of those asked for. Missing for long: the pods "
            "are Pending, or wait for their image; `shardwise explain` says which.",
            Query(expr=f"sum by (state) (shardwise_job_workers{{{IN}}})", legend="{{state}}"),
            unit="short",
            width=8,
            stacked=True,
            overrides=coloured(declared.WORKER_STATES),
            empty_means="The job has ended",
        ),
        recoveries.by_cause(f"shardwise_job_recoveries_total{{{IN}}}"),
        recoveries.how_long(
            IN,
            "Recoveries so far by the time from noticing the loss to training on. Most should be "
            "below a second.",
        ),
    )


def stragglers() -> tuple[Panel, ...]:
    own = _seconds('kind=~"computing|data"')
    return (
        heatmap(
            "Stragglers: own time a step by worker",
            "Time that each worker spends on its own part of a step, without its waiting for the "
            "others. A row that stays darker than the rest holds all of them up: look at that "
            "pod's node and its CPU below.",
            Query(expr=f"{own} / ({STEPS_A_SECOND} > 0)", legend="{{worker}}"),
            unit="s",
            empty_means=NO_WORKER_METRICS,
        ),
        graph(
            "Time of a step by worker",
            "All workers take equally long for a step, since each waits for the others: lines "
            "that part point at workers that compute without a group.",
            Query(
                expr="sum by (worker) (rate(shardwise_worker_step_seconds_sum"
                f"{{{BY_WORKER}}}[$__rate_interval])) / ({STEPS_A_SECOND} > 0)",
                legend="worker {{worker}}",
            ),
            unit="s",
            width=6,
            empty_means=NO_WORKER_METRICS,
        ),
        graph(
            "Time of a step, all workers",
            "The middle and the slow end. A slow end far above the middle: evaluations, "
            "checkpoints, or a node that is shared.",
            *quantiles(f"shardwise_worker_step_seconds_bucket{{{BY_WORKER}}}"),
            unit="s",
            width=6,
            empty_means=NO_WORKER_METRICS,
        ),
        graph(
            "What steps consist of",
            "Seconds per second of all workers. Much exchanging: a slow network, or a straggler; "
            "much data: the data come too slowly.",
            Query(
                expr="sum by (kind) (rate(shardwise_worker_seconds_total"
                f"{{{BY_WORKER}}}[$__rate_interval]))",
                legend="{{kind}}",
            ),
            unit="short",
            width=8,
            stacked=True,
            overrides=coloured(declared.STEP_KINDS),
            empty_means=NO_WORKER_METRICS,
        ),
        graph(
            "Part of the time in exchanges, by worker",
            "The straggler is the lowest line: the others wait for it here, it waits for nobody.",
            Query(expr=_part("exchanging"), legend="worker {{worker}}"),
            unit="percentunit",
            width=8,
            maximum=1,
            empty_means=NO_WORKER_METRICS,
        ),
        graph(
            "Part of the time waiting for data, by worker",
            "Above a tenth: the data set is read too slowly; cache it, or ask for more CPU.",
            Query(expr=_part("data"), legend="worker {{worker}}"),
            unit="percentunit",
            width=8,
            maximum=1,
            empty_means=NO_WORKER_METRICS,
        ),
    )


def _seconds(*matchers: str) -> str:
    """Seconds per second of each worker, of the kinds that match."""
    selector = ", ".join((BY_WORKER, *matchers))
    return f"sum by (worker) (rate(shardwise_worker_seconds_total{{{selector}}}[$__rate_interval]))"


def _part(kind: str) -> str:
    """The part of each worker's time that goes into this kind."""
    chosen = _seconds(f'kind="{kind}"')
    return f"{chosen} / ({_seconds()} > 0)"


def resources() -> tuple[Panel, ...]:
    return (
        graph(
            "CPU by worker",
            "Cores in use. A straggler with less than the others is throttled, or its node is "
            "busy with something else.",
            Query(
                expr="sum by (worker) "
                f"(rate(process_cpu_seconds_total{{{BY_WORKER}}}[$__rate_interval]))",
                legend="worker {{worker}}",
            ),
            unit="short",
            empty_means=NO_WORKER_METRICS,
        ),
        graph(
            "Memory by worker",
            "Resident memory. A line that climbs towards the pod's limit ends in OOMKilled; ask "
            "for more in spec.template.",
            Query(
                expr=f"max by (worker) (process_resident_memory_bytes{{{BY_WORKER}}})",
                legend="worker {{worker}}",
            ),
            unit="bytes",
            empty_means=NO_WORKER_METRICS,
        ),
    )
