"""One job: how far it is, what it learns, who trains, and what every lost second went into."""

from __future__ import annotations

from shardwise.api import metrics as declared
from shardwise_operator.dashboards import figures, job_workers
from shardwise_operator.dashboards.board import JOB, Annotation, Board, Row, variable
from shardwise_operator.dashboards.job_workers import IN
from shardwise_operator.dashboards.panels import (
    Panel,
    Query,
    bars,
    by_name,
    coloured,
    graph,
    stat,
    table,
    thresholds,
)

NO_CHECKPOINT = "The job writes no checkpoints"
ONE_TASK = "The job is one task"
NO_BEST = "The job is one task, has no objectives, or none of its tasks has succeeded"


def _now() -> tuple[Panel, ...]:
    return (
        stat(
            "State",
            "The job's state as `kubectl get optjob` has it. Its message there says why.",
            Query(expr=f"shardwise_job_state{{{IN}}} == 1", legend="{{state}}"),
            text_mode="name",
            overrides=coloured(declared.STATES),
        ),
        stat(
            "Progress",
            "Part of the steps that is done.",
            Query(expr=f"shardwise_job_progress_ratio{{{IN}}}"),
            unit="percentunit",
            decimals=1,
            empty_means="No step yet",
        ),
        stat(
            "Ends in",
            "Time that the rest takes at the current rate, a median of the last reports.",
            Query(expr=f"shardwise_job_eta_seconds{{{IN}}}"),
            unit="dtdurations",
            empty_means="Not known yet, or at its end",
        ),
        stat(
            "Step",
            "Steps that are done, and steps that the job has.",
            Query(expr=f"shardwise_job_step{{{IN}}}", legend="done"),
            Query(expr=f"shardwise_job_target_steps{{{IN}}}", legend="of"),
            text_mode="value_and_name",
            empty_means="No step yet",
        ),
        stat(
            "Workers",
            "Workers that train, and workers that the job asks for. Fewer only cost time: the "
            "weights come out the same.",
            Query(expr=f'shardwise_job_workers{{{IN}, state="training"}}', legend="train"),
            Query(expr=f"shardwise_job_workers_desired{{{IN}}}", legend="asked for"),
            text_mode="value_and_name",
            empty_means="The job has ended",
        ),
        stat(
            "Goodput",
            "Productive part of the training's time so far. Below 0.95, see what the rest went "
            "into under Where the time goes.",
            Query(expr=figures.goodput(IN)),
            unit="percentunit",
            decimals=1,
            steps=figures.GOODPUT,
        ),
        stat(
            "Recoveries",
            "Workers that were lost while the job trained on. Where there are many, look at the "
            "causes below and at the nodes that the pods ran on.",
            Query(expr=f"sum(shardwise_job_recoveries_total{{{IN}}})"),
            steps=thresholds((None, "green"), (1, "yellow"), (20, "red")),
        ),
        stat(
            "Newest checkpoint",
            "How old it is. It is needed only if all workers die at once.",
            Query(expr=f"time() - shardwise_job_checkpoint_timestamp_seconds{{{IN}}}"),
            unit="s",
            decimals=0,
            empty_means=NO_CHECKPOINT,
        ),
    )


def _learning() -> tuple[Panel, ...]:
    return (
        graph(
            "Loss",
            "Loss of the last reported step, on a logarithmic axis. It does not depend on the "
            "number of workers: a jump at a recovery or a resize would be a bug.",
            Query(expr=f"shardwise_job_loss{{{IN}}}", legend="loss"),
            unit="short",
            minimum=None,
            logarithmic=True,
            empty_means="No step yet",
        ),
        graph(
            "Samples per second",
            "Of the whole group. It drops for a moment at a recovery, and for as long as workers "
            "are missing.",
            Query(expr=f"shardwise_job_samples_per_second{{{IN}}}", legend="samples/s"),
            unit="short",
            width=6,
            empty_means="No step yet",
        ),
        graph(
            "Progress over time",
            "A straight line is a steady job; a flat stretch is time in which no step was done.",
            Query(expr=f"shardwise_job_progress_ratio{{{IN}}}", legend="done"),
            unit="percentunit",
            width=6,
            maximum=1,
            empty_means="No step yet",
        ),
    )


def _goodput() -> tuple[Panel, ...]:
    return (
        graph(
            "Goodput by cause",
            "Where each second goes. All but productive is loss: recovery and rendezvous come "
            "with lost workers, retried is work done twice, checkpoint is training that stood "
            "still for one, waiting is too few workers. Waiting before the first step is told with "
            "it, as one peak.",
            Query(
                expr=f"sum by (kind) (rate(shardwise_job_seconds_total{{{IN}}}[$__rate_interval]))",
                legend="{{kind}}",
            ),
            unit="percentunit",
            width=16,
            stacked=True,
            overrides=coloured(declared.SECONDS_KINDS),
        ),
        bars(
            "Where the time went",
            "All of the training's time so far by kind.",
            Query(
                expr=f"sum by (kind) (shardwise_job_seconds_total{{{IN}}})",
                legend="{{kind}}",
                instant=True,
            ),
            unit="s",
            overrides=coloured(declared.SECONDS_KINDS),
        ),
    )


def _tasks() -> tuple[Panel, ...]:
    return (
        graph(
            "Tasks by state",
            "A steady pool turns pending into succeeded at a steady rate. Failed ones fail alone: "
            "`kubectl describe` names the first, and tasks.csv has the reason of each.",
            Query(expr=f"sum by (state) (shardwise_job_tasks{{{IN}}})", legend="{{state}}"),
            unit="short",
            width=10,
            stacked=True,
            overrides=coloured(declared.TASK_STATES),
            empty_means=ONE_TASK,
        ),
        graph(
            "Best objective",
            "First objective of the best task so far. Where it has been flat for long, more tasks "
            "of this sweep are unlikely to help.",
            Query(expr=f"shardwise_job_best_objective{{{IN}}}", legend="{{metric}}"),
            unit="short",
            width=8,
            minimum=None,
            empty_means=NO_BEST,
        ),
        graph(
            "Pool utilization",
            "Part of the workers' time so far that went into tasks. Below 0.9: tasks are short "
            "for their start, workersPerTask is too large, or too few tasks are under way "
            "(parallelism).",
            Query(expr=f"shardwise_job_pool_utilization_ratio{{{IN}}}", legend="at tasks"),
            unit="percentunit",
            width=6,
            maximum=1,
            empty_means=ONE_TASK,
        ),
    )


def _checkpoints() -> tuple[Panel, ...]:
    return (
        graph(
            "Work at risk",
            "Work since the newest checkpoint: lost only if all workers die at once. It should "
            "stay below the interval that the job asks for.",
            Query(expr=figures.work_at_risk(IN), legend="at risk"),
            Query(expr=f"shardwise_job_checkpoint_interval_seconds{{{IN}}}", legend="asked for"),
            unit="s",
            empty_means=NO_CHECKPOINT,
            overrides=(
                by_name(
                    "asked for",
                    custom_lineStyle={"fill": "dash", "dash": [8, 8]},
                    color={"mode": "fixed", "fixedColor": "text"},
                ),
            ),
        ),
        graph(
            "Writing a checkpoint",
            "How long the newest one took. Training goes on meanwhile; what it stood still for is "
            "under Goodput by cause.",
            Query(expr=f"shardwise_job_checkpoint_write_seconds{{{IN}}}", legend="write"),
            unit="s",
            width=4,
            empty_means=NO_CHECKPOINT,
        ),
        graph(
            "Size of a checkpoint",
            "Of the newest one, over all workers.",
            Query(expr=f"shardwise_job_checkpoint_bytes{{{IN}}}", legend="size"),
            unit="bytes",
            width=4,
            empty_means=NO_CHECKPOINT,
        ),
        stat(
            "Last attempt",
            "Whether the last checkpoint could be written. Failed: `kubectl describe` has the "
            "error; mostly the volume is full or read-only.",
            Query(expr=f"max(shardwise_job_checkpoint_failed{{{IN}}})"),
            width=2,
            unit="bool",
            steps=thresholds((None, "green"), (1, "red")),
            empty_means=NO_CHECKPOINT,
        ),
        stat(
            "Steps done again",
            "Steps that were lost because all workers died at once.",
            Query(expr=f"shardwise_job_lost_steps_total{{{IN}}}"),
            width=2,
            steps=thresholds((None, "green"), (1, "yellow")),
        ),
    )


def _compression() -> tuple[Panel, ...]:
    return (
        table(
            "Models",
            "The trained model and what each step of spec.compression made of it, as in "
            "`kubectl describe`. Latency is the median of a forward pass of 64 samples in ONNX "
            "Runtime, where the job ran.",
            *(
                Query(
                    expr=f"max by ({by}) (shardwise_job_model_{name}{{{IN}}})",
                    instant=True,
                    table=True,
                )
                for by, name in (
                    ("step, metric", "metric"),
                    ("step", "bytes"),
                    ("step", "parameters"),
                    ("step", "nonzero_parameters"),
                    ("step", "macs"),
                    ("step", "latency_seconds"),
                )
            ),
            columns=(
                ("Value", {"unit": "none", "decimals": 4}),
                ("Size", {"unit": "bytes"}),
                ("Parameters", {"unit": "short"}),
                ("Non-zeros", {"unit": "short"}),
                ("MACs", {"unit": "short"}),
                ("Latency", {"unit": "s"}),
            ),
            renamed={"step": "Step", "metric": "Metric"},
            links={},
            height=8,
            empty_means="The job compresses nothing, or has not ended yet",
        ),
    )


def board() -> Board:
    return Board(
        uid=JOB,
        description="One OptimizationJob: progress, learning, workers, goodput, stragglers.",
        variables=(
            variable("namespace", "Namespace", "label_values(shardwise_job_state, namespace)"),
            variable(
                "job",
                "Job",
                'label_values(shardwise_job_state{namespace="$namespace"}, job_name)',
            ),
            variable(
                "worker",
                "Worker",
                f"label_values(shardwise_worker_step{{{IN}}}, worker)",
                several=True,
            ),
        ),
        annotations=(
            Annotation(
                name="Recoveries",
                expr=f"sum by (cause) (increase(shardwise_job_recoveries_total{{{IN}}}[1m])) > 0",
                colour="red",
                title="A worker was lost",
                text="{{cause}}",
            ),
            Annotation(
                name="Scaling",
                expr=f"sum by (cause) (increase(shardwise_job_resizes_total{{{IN}}}[1m])) > 0",
                colour="blue",
                title="The group changed size",
                text="{{cause}}",
            ),
        ),
        rows=(
            Row(title="Now", panels=_now()),
            Row(title="Learning", panels=_learning()),
            Row(title="Workers", panels=job_workers.over_time()),
            Row(title="Tasks", panels=_tasks()),
            Row(title="Where the time goes", panels=_goodput()),
            Row(title="Stragglers", panels=job_workers.stragglers()),
            Row(title="Checkpoints", panels=_checkpoints()),
            Row(title="Compression", panels=_compression()),
            Row(title="Resources", panels=job_workers.resources()),
        ),
    )
