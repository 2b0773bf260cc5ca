"""The operator's process: everything wired together, until a signal or a fatal error ends it.

It stands by until it holds the Lease, and does nothing else meanwhile but tell how it is.

Exit codes: 0 after SIGTERM or SIGINT, 1 when a part that must run for ever has ended, 2 for
settings that cannot be used, 3 when the Lease was lost: at once, with nothing carried to its end.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import kopf
from kubernetes.aio.config import ConfigException

from shardwise_operator import handlers, health, logs, names
from shardwise_operator.access import Access
from shardwise_operator.apply import Applier
from shardwise_operator.certificate import Certificate, ensure_certificate, service_names
from shardwise_operator.controller import Controller
from shardwise_operator.coordination import Coordination
from shardwise_operator.endpoint import announce, endpoint_slice
from shardwise_operator.events import EventRecorder
from shardwise_operator.guarded import Feed
from shardwise_operator.jobs import JobStore, Key
from shardwise_operator.kube import KubeCluster
from shardwise_operator.leader import EXIT_LOST, Alarm, Candidate, LeaseLost
from shardwise_operator.metrics import Metrics, Sources, serving
from shardwise_operator.port import ApiError
from shardwise_operator.queue import WorkQueue
from shardwise_operator.render import RenderFacts
from shardwise_operator.settings import Settings, SettingsError
from shardwise_operator.sites import Site
from shardwise_operator.watch import PodInformer, PodInformers
from shardwise_operator.writes import TokenBucket

log = logging.getLogger("shardwise_operator")

START_PAUSE_SECONDS = 2.0
STOP_SECONDS = 10.0
T = TypeVar("T")


class Operator:
    """All parts of one operator process."""

    def __init__(
        self,
        settings: Settings,
        cluster: KubeCluster,
        metrics: Metrics,
        candidate: Candidate | None,
    ) -> None:
        self.settings = settings
        self.cluster = cluster
        self.candidate = candidate
        self.metrics = metrics
        self.jobs = JobStore()
        self.queue: WorkQueue[Key] = WorkQueue()
        self.lag = health.LoopLag()
        self.missing = {"the API server", "the pod watch", "the coordinator", "the job watch"}
        if candidate:
            self.missing.add("the coordinator's address")
        self.informers = PodInformers(
            {
                namespace: PodInformer(cluster, namespace, self._pod_changed)
                for namespace in settings.namespaces or ("",)
            }
        )
        self.feed = Feed(metrics.api_call, len(settings.namespaces) or 1)
        self.coordination = Coordination(
            cluster,
            self.informers,
            self.queue.add,
            grace_seconds=settings.grace_seconds,
            exchange=settings.exchange,
            report_seconds=settings.report_seconds,
            unix=cluster.clock.timestamp,
        )
        self.recorder = EventRecorder(
            cluster, metrics.event, instance=settings.pod_name, now=cluster.clock.now
        )
        self._certificate: Certificate | None = None
        self._listening_since: float | None = None
        self._leads_since: float | None = None
        self._server_minor = 0
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
            now=cluster.clock.now,
            server_minor=lambda: self._server_minor,
        )
        metrics.observe(
            Sources(
                jobs=lambda: self.jobs,
                queue_depth=lambda: len(self.queue),
                queue_oldest_age=lambda: self.queue.oldest_age,
                watch_age=self._contact_age,
                loop_lag=lambda: self.lag.seconds,
                report=self.coordination.report,
                leads=lambda: self._leads_since is not None,
            )
        )

    async def run(self, stop: asyncio.Event) -> int:
        """Runs until told to stop, or until a part ends that must not."""
        probes = Site(
            health.probes(
                watch_age=self._contact_age,
                loop_lag=lambda: self.lag.seconds,
                unready=self._unready,
            )
        )
        access = Access(self.cluster, time.monotonic).status
        metrics = Site(
            serving.application(
                self.metrics.exposition,
                access if self.settings.metrics_authentication else None,
                time.monotonic,
            )
        )
        await probes.start(self.settings.health_port)
        stopped = asyncio.create_task(stop.wait(), name="stop")
        lag = asyncio.create_task(self.lag.run(), name="loop lag")
        try:
            if not await _first(self._serve_metrics(metrics), stopped):
                return 0
            if self.candidate and not await self._elected(self.candidate, stopped):
                return 0
            self._leads_since = time.monotonic()
            return await self._work(stop, stopped)
        finally:
            await _cancel({stopped, lag})
            await metrics.stop()
            await probes.stop()
            await self.cluster.close()

    async def _serve_metrics(self, site: Site) -> None:
        """Those that stand by are scraped as well."""
        tls = None
        if self.settings.metrics_tls:
            certificate = await self._ensure_certificate()
            tls = certificate.server_context()
        await site.start(self.settings.metrics_port, tls)

    async def _ensure_certificate(self) -> Certificate:
        settings = self.settings
        hosts = (*service_names(settings.coordinator_host), "localhost")
        return await _until_it_works(
            lambda: ensure_certificate(
                self.cluster, settings.operator_namespace, hosts, self.cluster.clock.now()
            ),
            "the coordinator's certificate",
        )

    async def _elected(self, candidate: Candidate, stopped: asyncio.Task[Any]) -> bool:
        """Waits for its turn; false where the stop comes first."""
        acquired = asyncio.create_task(candidate.acquire(), name="the lease")
        await asyncio.wait({acquired, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if stopped.done():
            await _cancel({acquired})
            await candidate.release()  # It may have come in the same moment.
            return False
        await acquired
        return True

    async def _work(self, stop: asyncio.Event, stopped: asyncio.Task[Any]) -> int:
        tasks: set[asyncio.Task[Any]] = {
            asyncio.create_task(coroutine, name=name)
            for name, coroutine in (
                ("pod watch", self.informers.run()),
                ("events", self.recorder.run()),
                ("start and work", self._start_and_work(stop)),
            )
        }
        # Held for as long as anything acts, the end included.
        lease = asyncio.create_task(self._hold(), name="the lease")
        try:
            done, _ = await asyncio.wait(
                {stopped, lease, *tasks}, return_when=asyncio.FIRST_COMPLETED
            )
            failed = [task for task in done if task is not stopped and not stop.is_set()]
            for task in failed:
                error = None if task.cancelled() else task.exception()
                log.error("%s has ended: %r", task.get_name(), error, exc_info=error)
            return 1 if failed else 0
        finally:
            # First: kopf cancels whatever runs when it ends, workers' connections too, and each of
            # those would be a lost worker to a coordinator that still serves the others.
            await self.coordination.stop()
            ended = await _cancel(tasks)
            await _cancel({lease})
            if self.candidate and ended:
                await self.candidate.release()

    async def _hold(self) -> None:
        if self.candidate is None:
            await asyncio.Event().wait()
            return
        try:
            await self.candidate.hold()
        except LeaseLost as lost:
            log.error("the lease is lost: %s", lost)
            logging.shutdown()
            # Not an orderly end: that would still write statuses and speak to workers.
            os._exit(EXIT_LOST)

    async def _start_and_work(self, stop: asyncio.Event) -> None:
        settings = self.settings
        self._certificate = await self._ensure_certificate()
        # With scanning off, kopf looks for the CRD once: it must be there by then.
        first = settings.namespaces[0] if settings.namespaces else ""
        await _until_it_works(
            lambda: self.cluster.list_page(names.PLURAL, first, limit=1),
            "the list of OptimizationJobs (is the CRD installed?)",
        )
        self._server_minor = await self._version()
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
            if self.candidate:
                group.create_task(self._announce(port))
            group.create_task(self._jobs_synced())
            group.create_task(self._kopf(stop))

    async def _version(self) -> int:
        try:
            return (await self.cluster.version())[1]
        except ApiError as error:
            log.info("the API server does not tell its version: %s", error)
            return 0

    async def _announce(self, port: int) -> None:
        settings = self.settings
        service = settings.coordinator_host.partition(".")[0]
        body = endpoint_slice(
            settings.operator_namespace, service, settings.pod_name, settings.pod_ip, port
        )
        await announce(
            self.cluster, body, lambda: self.missing.discard("the coordinator's address")
        )

    async def _jobs_synced(self) -> None:
        await self.feed.synced.wait()
        self.missing.discard("the job watch")

    async def _kopf(self, stop: asyncio.Event) -> None:
        existing = asyncio.all_tasks()
        tasks = await kopf.spawn_tasks(
            registry=handlers.registry(self.jobs, self.queue.add, self.feed),
            settings=handlers.settings(),
            standalone=True,
            clusterwide=not self.settings.namespaces,
            namespaces=self.settings.namespaces,
            stop_flag=asyncio.Event(),  # It is cancelled, once the coordinator has stopped.
        )
        # kopf takes the signals for itself; the stop is ours to order.
        _on_signals(stop)
        await kopf.run_tasks(tasks, ignored=existing)
        if not stop.is_set():
            raise RuntimeError("kopf has ended")

    def _pod_changed(self, namespace: str, job: str) -> None:
        if self.jobs.get((namespace, job)) is not None:
            self.queue.add((namespace, job))

    def _contact_age(self) -> float:
        """Seconds since the API server was last heard of, by whatever listens to it now."""
        if self._leads_since is None:
            return self.candidate.age if self.candidate else 0.0
        # What it watches now it has not watched while it stood by.
        # Jobs are not watched before there is a CRD for them.
        age = max(self.informers.age, self.feed.age if self.feed.synced.is_set() else 0.0)
        return min(age, time.monotonic() - self._leads_since)

    def _unready(self) -> tuple[str, ...]:
        """What is missing for its part; one that stands by is ready to take over."""
        if self._leads_since is None and self.candidate:
            return () if self.candidate.holder else ("waiting for the lease",)
        return tuple(f"waiting for {part}" for part in sorted(self.missing))

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
            metrics_from=self.settings.metrics_from if self.settings.network_policies else None,
        )


async def _until_it_works(call: Callable[[], Awaitable[T]], what: str) -> T:
    """The API server may be down, or our role not bound yet, when the pod starts."""
    while True:
        try:
            return await call()
        except ApiError as error:
            log.warning("%s: %s; trying again", what, error)
            await asyncio.sleep(START_PAUSE_SECONDS)


async def _first(call: Coroutine[Any, Any, None], stopped: asyncio.Task[Any]) -> bool:
    """Carries the call through; false where the stop comes first."""
    task = asyncio.create_task(call)
    await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
    if not task.done():
        await _cancel({task})
        return False
    await task
    return True


async def _cancel(tasks: set[asyncio.Task[Any]]) -> bool:
    """Whether all have ended in time."""
    for task in tasks:
        task.cancel()
    _, pending = await asyncio.wait(tasks, timeout=STOP_SECONDS)
    return not pending


def _on_signals(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)


async def run(settings: Settings) -> int:
    stop = asyncio.Event()
    _on_signals(stop)
    metrics = Metrics()
    cluster = await KubeCluster.connect(metrics.api_call)
    return await Operator(settings, cluster, metrics, _candidate(settings, cluster)).run(stop)


def _candidate(settings: Settings, cluster: KubeCluster) -> Candidate | None:
    if not settings.pod_name:
        return None
    alarm = Alarm()
    return Candidate(
        cluster,
        settings.operator_namespace,
        settings.lease,
        f"{settings.pod_name}_{settings.pod_uid}",
        settings.terms,
        renewed=alarm.arm,
        released=alarm.disarm,
    )


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
