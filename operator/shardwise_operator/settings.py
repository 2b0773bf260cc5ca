"""What the operator is told from outside: one frozen record, read once from the environment.

The chart sets these variables. Nothing else in the operator reads the environment.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from shardwise.coordinator.protocol import PROTECTIONS, Protection
from shardwise_operator.leader import Terms

CERTIFICATE_SECRET = "shardwise-coordinator-tls"


class SettingsError(ValueError):
    """A variable holds what cannot be used; names the variable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The operator's settings, each from the variable SHARDWISE_<NAME>."""

    namespaces: tuple[str, ...] = ()
    """Namespaces to serve; empty means all."""
    operator_namespace: str = "shardwise-system"
    """Where the operator runs; the coordinator's Secret lives here, and the replicas' Lease."""
    pod_name: str = ""
    """Its own pod. Without it, as on a developer's machine, it is taken to be the only operator:
    it asks for no Lease, and leaves the coordinator's Service alone."""
    pod_uid: str = ""
    pod_ip: str = ""
    lease: str = "shardwise"
    """The Lease that the replicas of this operator have in common."""
    lease_duration_seconds: float = Terms.duration_seconds
    lease_renew_seconds: float = Terms.renew_seconds
    lease_retry_seconds: float = Terms.retry_seconds
    trainer_image: str = "shardwise-trainer:latest"
    """The workers' image where a job names none."""
    trainer_pull_policy: str = "IfNotPresent"
    exchange: Protection = "authenticated"
    """How the connections between a job's workers are protected, from their next group on."""
    network_policies: bool = False
    """Each job gets a NetworkPolicy of its own."""
    metrics_from: tuple[Mapping[str, Any], ...] = ()
    """NetworkPolicyPeers that may read the workers' metrics; a JSON list."""
    coordinator_service: str = ""
    """The name that workers reach the coordinator by."""
    coordinator_port: int = 7070
    health_port: int = 8081
    metrics_port: int = 8080
    metrics_tls: bool = False
    """Metrics are served over TLS, with the coordinator's certificate."""
    metrics_authentication: bool = False
    """Only who may `get` the path /metrics by the cluster's RBAC is told the metrics."""
    log_level: str = "INFO"
    workers: int = 8
    """Reconciles at once."""
    parallel_creates: int = 32
    """Pods created at once for one job."""
    status_writes_per_second: float = 20.0
    """Global limit for writes that tell nothing but progress."""
    grace_seconds: float = 10.0
    """How long the workers of a running group may take to come back to a restarted coordinator."""
    report_seconds: float = 2.0
    """How often a group reports its progress."""

    @property
    def coordinator_host(self) -> str:
        return self.coordinator_service or f"shardwise-coordinator.{self.operator_namespace}.svc"

    @property
    def coordinator_address(self) -> str:
        return f"{self.coordinator_host}:{self.coordinator_port}"

    @property
    def terms(self) -> Terms:
        return Terms(
            duration_seconds=self.lease_duration_seconds,
            renew_seconds=self.lease_renew_seconds,
            retry_seconds=self.lease_retry_seconds,
        )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Reads the variables; what is absent or empty keeps its default.

        Raises:
            SettingsError: a number is not a number, a port is out of range, or the lease's times do
                not fit together.
        """
        values: dict[str, Any] = {}
        for name, convert in _CONVERTERS.items():
            text = environment.get(f"SHARDWISE_{name.upper()}", "").strip()
            if not text:
                continue
            try:
                values[name] = convert(text)
            except ValueError as error:
                raise SettingsError(f"SHARDWISE_{name.upper()}={text!r}: {error}") from error
        settings = cls(**values)
        try:
            settings.terms  # noqa: B018 - made for its checks
        except ValueError as error:
            raise SettingsError(f"SHARDWISE_LEASE_*_SECONDS: {error}") from error
        return settings


def _namespaces(text: str) -> tuple[str, ...]:
    return tuple(sorted({name.strip() for name in text.split(",") if name.strip()}))


def _switch(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError("true or false")
    return text.lower() == "true"


def _protection(text: str) -> Protection:
    for protection in PROTECTIONS:
        if text == protection:
            return protection
    raise ValueError(f"one of {', '.join(PROTECTIONS)}")


def _peers(text: str) -> tuple[Mapping[str, Any], ...]:
    found = json.loads(text)
    if not isinstance(found, list) or not all(isinstance(peer, dict) for peer in found):
        raise ValueError("a JSON list of NetworkPolicyPeers")
    return tuple(found)


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise ValueError("a port is between 0 and 65535")
    return port


def _positive(text: str) -> float:
    number = float(text)
    if not number > 0:
        raise ValueError("must be more than 0")
    return number


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError("must be at least 1")
    return number


def _level(text: str) -> str:
    if text.upper() not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        raise ValueError("one of DEBUG, INFO, WARNING, ERROR")
    return text.upper()


_CONVERTERS: Mapping[str, Callable[[str], Any]] = {
    "namespaces": _namespaces,
    "operator_namespace": str,
    "pod_name": str,
    "pod_uid": str,
    "pod_ip": str,
    "lease": str,
    "lease_duration_seconds": _positive,
    "lease_renew_seconds": _positive,
    "lease_retry_seconds": _positive,
    "trainer_image": str,
    "trainer_pull_policy": str,
    "exchange": _protection,
    "network_policies": _switch,
    "metrics_from": _peers,
    "coordinator_service": str,
    "coordinator_port": _port,
    "health_port": _port,
    "metrics_port": _port,
    "metrics_tls": _switch,
    "metrics_authentication": _switch,
    "log_level": _level,
    "workers": _count,
    "parallel_creates": _count,
    "status_writes_per_second": _positive,
    "grace_seconds": _positive,
    "report_seconds": _positive,
}
