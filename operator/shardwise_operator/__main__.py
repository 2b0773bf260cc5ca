"""The operator's process: everything wired together, until a signal or a fatal error ends it.

Exit codes: 0 after SIGTERM or SIGINT, 1 when a part that must run for ever has ended, 2 for
settings that cannot be used.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import kopf
from kubernetes.aio.config import ConfigException

from shardwise_operator import handlers, health, logs, names
from shardwise_operator.apply import Applier
from shardwise_operator.certificate import Certificate, ensure_certificate, service_names
from shardwise_operator.controller import Controller
from shardwise_operator.coordination import Coordination
from shardwise_operator.events import EventRecorder
from shardwise_operator.jobs import JobStore, Key
from shardwise_operator.kube import KubeCluster
from shardwise_operator.metrics import Metrics, Sources
from shardwise_operator.port import ApiError
from shardwise_operator.queue import WorkQueue
from shardwise_operator.render import RenderFacts
from shardwise_operator.settings import Settings, SettingsError
from shardwise_operator.watch import PodInformer, PodInformers
from shardwise_operator.writes import TokenBucket

log = logging.getLogger("shardwise_operator")

START_PAUSE_SECONDS = 2.0
KOPF_STOP_SECONDS = 10.0
T = TypeVar("T")


class Operator:
    """All parts of one operator process."""

    def __init__(self, settings: Settings, cluster: KubeCluster, metrics: Metrics) -> None:
        self.settings = settings
        self.cluster = cluster
        self.metrics = metrics
        self.jobs = JobStore()
        self.queue: WorkQueue[Key] = WorkQueue()
        self.lag = health.LoopLag()
        self.missing = {"the API server", "the pod watch", "the coordinator", "the job watch"}
        self.informers = PodInformers(
            {
                namespace: PodInformer(cluster, namespace, self._pod_changed)
                for namespace in settings.namespaces or ("",)
            }
        )
        self.coordination = Coordination(
            cluster,
            self.informers,
            self.queue.add,
            grace_seconds=settings.grace_seconds,
            report_seconds=settings.report_seconds,
        )
        self.recorder = EventRecorder(cluster, metrics.event)
        self._certificate: Certificate | None = None
        self._listening_since: float | None = None
        self.controller = Controller(
            cluster=cluster,
            jobs=self.jobs,
            pods=self.informers,
            reports=self.coordination,
            applier=Applier(
                cluster, self.coordination, self.recorder, self._facts, settings.parallel_creates
            ),
            bucket=TokenBucket(settings.status_writes_per_second, time.monotonic),
            metrics=metrics,
            monotonic=time.monotonic,
            settled=self._settled,
        )
        metrics.observe(
            Sources(
                jobs=lambda: self.jobs,
                queue_depth=lambda: len(self.queue),
                watch_age=lambda: self.informers.age,
                loop_lag=lambda: self.lag.seconds,
            )
        )

    async def run(self, stop: asyncio.Event) -> int:
        """Runs until told to stop, or until a part ends that must not."""
        runner = await health.serve(
            health.application(
                watch_age=lambda: self.informers.age,
                loop_lag=lambda: self.lag.seconds,
                unready=lambda: tuple(f"waiting for {part}" for part in sorted(self.missing)),
                exposition=self.metrics.exposition,
            ),
            self.settings.http_port,
        )
        stopped = asyncio.create_task(stop.wait(), name="stop")
        tasks = {
            asyncio.create_task(coroutine, name=name)
            for name, coroutine in (
                ("loop lag", self.lag.run()),
                ("pod watch", self.informers.run()),
                ("events", self.recorder.run()),
                ("start and work", self._start_and_work(stop)),
            )
        }
        try:
            done, _ = await asyncio.wait({stopped, *tasks}, return_when=asyncio.FIRST_COMPLETED)
            failed = [task for task in done if task is not stopped and not stop.is_set()]
            for task in failed:
                error = None if task.cancelled() else task.exception()
                log.error("%s has ended: %r", task.get_name(), error, exc_info=error)
            return 1 if failed else 0
        finally:
            await _cancel({stopped, *tasks})
            await self.coordination.stop()
            await runner.cleanup()
            await self.cluster.close()

    async def _start_and_work(self, stop: asyncio.Event) -> None:
        settings = self.settings
        hosts = (*service_names(settings.coordinator_host), "localhost")
        self._certificate = await _until_it_works(
            lambda: ensure_certificate(
                self.cluster, settings.operator_namespace, hosts, datetime.now(UTC)
            ),
            "the coordinator's certificate",
        )
        # With scanning off, kopf looks for the CRD once: it must be there by then.
        first = settings.namespaces[0] if settings.namespaces else ""
        await _until_it_works(
            lambda: self.cluster.list_page(names.PLURAL, first, limit=1),
            "the list of OptimizationJobs (is the CRD installed?)",
        )
        self.missing.discard("the API server")
        await self.informers.synced()
        self.missing.discard("the pod watch")
        port = await self.coordination.start(
            settings.coordinator_port, self._certificate.server_context()
        )
        self._listening_since = time.monotonic()
        self.missing.discard("the coordinator")
        log.info("started", extra={"coordinatorPort": port, "namespaces": settings.namespaces})
        async with asyncio.TaskGroup() as group:
            for _ in range(settings.workers):
                group.create_task(self.queue.work(self.controller.reconcile))
            group.create_task(self._kopf(stop))

    async def _kopf(self, stop: asyncio.Event) -> None:
        ready = asyncio.Event()
        existing = asyncio.all_tasks()
        tasks = await kopf.spawn_tasks(
            registry=handlers.registry(self.jobs, self.queue.add),
            settings=handlers.settings(),
            standalone=True,
            clusterwide=not self.settings.namespaces,
            namespaces=self.settings.namespaces,
            stop_flag=stop,
            ready_flag=ready,
        )
        # kopf takes the signals for itself; the stop is ours to order.
        _on_signals(stop)
        self.missing.discard("the job watch")
        await kopf.run_tasks(tasks, ignored=existing)
        if not stop.is_set():
            raise RuntimeError("kopf has ended")

    def _pod_changed(self, namespace: str, job: str) -> None:
        if self.jobs.get((namespace, job)) is not None:
            self.queue.add((namespace, job))

    def _settled(self) -> bool:
        since = self._listening_since
        return since is not None and time.monotonic() - since >= self.settings.grace_seconds

    def _facts(self) -> RenderFacts:
        assert self._certificate is not None, "pods are made after the certificate"
        return RenderFacts(
            image=self.settings.trainer_image,
            pull_policy=self.settings.trainer_pull_policy,
            coordinator_address=self.settings.coordinator_address,
            coordinator_name=self.settings.coordinator_host,
            certificate=self._certificate.certificate,
        )


async def _until_it_works(call: Callable[[], Awaitable[T]], what: str) -> T:
    """The API server may be down, or our role not bound yet, when the pod starts."""
    while True:
        try:
            return await call()
        except ApiError as error:
            log.warning("%s: %s; trying again", what, error)
            await asyncio.sleep(START_PAUSE_SECONDS)


async def _cancel(tasks: set[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks, timeout=KOPF_STOP_SECONDS)


def _on_signals(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)


async def run(settings: Settings) -> int:
    stop = asyncio.Event()
    _on_signals(stop)
    metrics = Metrics()
    cluster = await KubeCluster.connect(metrics.api_call)
    return await Operator(settings, cluster, metrics).run(stop)


def main() -> int:
    try:
        settings = Settings.from_environment(os.environ)
    except SettingsError as error:
        print(f"shardwise-operator: {error}", file=sys.stderr)
        return 2
    logs.configure(settings.log_level)
    try:
        return asyncio.run(run(settings))
    except ConfigException as error:
        log.error("no way to the API server: %s", error)
        return 2


if __name__ == "__main__":
    sys.exit(main())
