"""All jobs: which ones train, which ones wait, and where their time goes."""

from __future__ import annotations

from shardwise.api import metrics as declared
from shardwise_operator.dashboards import figures, recoveries
from shardwise_operator.dashboards.board import (
    FLEET,
    Board,
    Row,
    job_link,
    row_job_link,
    variable,
)
from shardwise_operator.dashboards.panels import (
    Panel,
    Query,
    bars,
    coloured,
    graph,
    stat,
    table,
    thresholds,
)

IN = 'namespace=~"$namespace"'
ANY_IS_BAD = thresholds((None, "green"), (1, "red"))
ANY_IS_ODD = thresholds((None, "green"), (1, "yellow"))


def _now() -> tuple[Panel, ...]:
    return (
        stat(
            "Running",
            "Jobs that train now.",
            Query(expr=f'sum(shardwise_jobs{{{IN}, state="Running"}})'),
            steps=thresholds((None, "green")),
        ),
        stat(
            "Waiting",
            "Jobs that have no workers yet, or not enough. The table below says which; "
            "`shardwise explain JOB` says why.",
            Query(
                expr=f'sum(shardwise_jobs{{{IN}, state=~"Pending|Starting|Waiting|Recovering"}})'
            ),
            steps=ANY_IS_ODD,
        ),
        stat(
            "Failed",
            "Jobs that ended without a result and are still there.",
            Query(expr=f'sum(shardwise_jobs{{{IN}, state=~"Failed|Invalid"}})'),
            steps=ANY_IS_BAD,
        ),
        stat(
            "Workers that train",
            "Over all jobs.",
            Query(expr=f'sum(shardwise_job_workers{{{IN}, state="training"}})'),
        ),
        stat(
            "Workers missing",
            "Asked for and neither training nor standing by. More than a minute of it: look for "
            "pods that are Pending, and at the nodes' free memory.",
            Query(expr=f'sum(shardwise_job_workers{{{IN}, state="missing"}})'),
            steps=ANY_IS_ODD,
        ),
        stat(
            "Goodput",
            "Productive part of the jobs' time, over the whole life of the jobs that are there. "
            "Below 0.95, see what the rest went into in the graph on goodput.",
            Query(expr=figures.goodput(IN)),
            unit="percentunit",
            decimals=1,
            steps=figures.GOODPUT,
        ),
        stat(
            "Recoveries",
            "Workers that were lost in the chosen time while their jobs trained on.",
            Query(expr=f"sum(increase(shardwise_job_recoveries_total{{{IN}}}[$__range]))"),
            decimals=0,
            steps=ANY_IS_ODD,
        ),
        stat(
            "Operator",
            "The version that leads. Nothing here: no operator leads, and jobs train on without "
            "one until their group changes.",
            Query(
                expr="max by (version) (shardwise_build_info and on (instance) "
                "(shardwise_leader == 1))",
                legend="{{version}}",
            ),
            text_mode="name",
            steps=thresholds((None, "green")),
        ),
    )


def _jobs() -> Panel:
    by = "by (namespace, job_name)"
    return table(
        "Jobs",
        "One line a job; a click on its name opens its dashboard. ETA is at the current rate. "
        "At risk is the work that would be done again if all workers died now.",
        *(
            Query(expr=expr, instant=True, table=True)
            for expr in (
                f"max by (namespace, job_name, state) (shardwise_job_state{{{IN}}} == 1)",
                f"max {by} (shardwise_job_progress_ratio{{{IN}}})",
                f"max {by} (shardwise_job_eta_seconds{{{IN}}})",
                f'max {by} (shardwise_job_workers{{{IN}, state="training"}})',
                f"max {by} (shardwise_job_loss{{{IN}}})",
                figures.goodput_by("namespace, job_name", IN),
                f"sum {by} (shardwise_job_recoveries_total{{{IN}}})",
                _at_risk(),
            )
        ),
        columns=(
            ("", {}),
            (
                "Progress",
                {
                    "unit": "percentunit",
                    "min": 0,
                    "max": 1,
                    "custom_cellOptions": {"type": "gauge", "mode": "basic"},
                },
            ),
            ("ETA", {"unit": "dtdurations"}),
            ("Workers", {"unit": "none"}),
            ("Loss", {"decimals": 4}),
            ("Goodput", {"unit": "percentunit", "decimals": 1, "thresholds": figures.GOODPUT}),
            ("Recoveries", {"unit": "none"}),
            ("At risk", {"unit": "s", "decimals": 0}),
        ),
        renamed={"job_name": "Job", "namespace": "Namespace", "state": "State"},
        links={"Job": row_job_link()},
    )


def _at_risk() -> str:
    return f"max by (namespace, job_name) ({figures.work_at_risk(IN)})"


def _time() -> tuple[Panel, ...]:
    return (
        graph(
            "Jobs by state",
            "A growing band of Waiting or Pending means that jobs come faster than nodes become "
            "free.",
            Query(expr=f"sum by (state) (shardwise_jobs{{{IN}}}) > 0", legend="{{state}}"),
            unit="short",
            stacked=True,
            overrides=coloured(declared.STATES),
        ),
        graph(
            "Goodput by cause",
            "Where the time of all jobs goes, in seconds per second: one job that trains adds 1. "
            "All but productive is loss; the tallest of the other bands is what to work on.",
            Query(
                expr=f"sum by (kind) (rate(shardwise_job_seconds_total{{{IN}}}[$__rate_interval]))",
                legend="{{kind}}",
            ),
            unit="short",
            stacked=True,
            overrides=coloured(declared.SECONDS_KINDS),
        ),
    )


def _trouble() -> tuple[Panel, ...]:
    by = "by (namespace, job_name)"
    legend = "{{namespace}}/{{job_name}}"
    linked = ({"matcher": {"id": "byType", "options": "number"}, "properties": [_links()]},)
    return (
        bars(
            "Lowest goodput",
            "The ten jobs that lose most of their time. Open one to see to what.",
            Query(
                expr=f"bottomk(10, {figures.goodput_by('namespace, job_name', IN)})",
                legend=legend,
                instant=True,
            ),
            unit="percentunit",
            maximum=1,
            steps=figures.GOODPUT,
            overrides=linked,
        ),
        bars(
            "Most recoveries",
            "The ten jobs that lost the most workers in the chosen time. The same node in all of "
            "them: drain it.",
            Query(
                expr=f"topk(10, sum {by} "
                f"(increase(shardwise_job_recoveries_total{{{IN}}}[$__range])) > 0)",
                legend=legend,
                instant=True,
            ),
            unit="short",
            steps=thresholds((None, "yellow"), (10, "red")),
            overrides=linked,
            empty_means=recoveries.NONE,
        ),
        bars(
            "Most work at risk",
            "Work since the newest checkpoint, which is done again only if all workers of a job "
            "die at once.",
            Query(expr=f"topk(10, {_at_risk()} > 0)", legend=legend, instant=True),
            unit="s",
            overrides=linked,
            empty_means="No job writes checkpoints",
        ),
    )


def _links() -> dict[str, object]:
    return {"id": "links", "value": job_link()}


def _recovery() -> tuple[Panel, ...]:
    return (
        recoveries.by_cause(f"increase(shardwise_job_recoveries_total{{{IN}}}[$__rate_interval])"),
        recoveries.how_long(
            IN,
            "Recoveries of the jobs that are there, by the time from noticing the loss to training "
            "on. Most should be below a second; a band above means slow rendezvous or big models.",
        ),
        bars(
            "Time to first step",
            "From the creation of a job to its first step, the ten longest: pulling images, "
            "waiting for nodes, loading the task.",
            Query(
                expr=f"topk(10, shardwise_job_time_to_first_step_seconds{{{IN}}})",
                legend="{{namespace}}/{{job_name}}",
                instant=True,
            ),
            unit="s",
            empty_means="No job began while this operator was there",
        ),
    )


def board() -> Board:
    return Board(
        uid=FLEET,
        description="All OptimizationJobs: which train, which wait, and where the time goes.",
        since="now-6h",
        variables=(
            variable(
                "namespace",
                "Namespace",
                "label_values(shardwise_job_state, namespace)",
                several=True,
            ),
        ),
        rows=(
            Row(title="Now", panels=_now()),
            Row(title="Jobs", panels=(_jobs(),)),
            Row(title="Over time", panels=_time()),
            Row(title="Where to look first", panels=_trouble()),
            Row(title="Recoveries and starts", panels=_recovery()),
        ),
    )
