"""ServiceMonitors and PodMonitors as scrape configurations, as a Prometheus Operator makes them.

So what the chart installs is what a plain Prometheus is tested with. Debian's Prometheus is built
without discovery in Kubernetes: `targets` writes what that would find into a file instead, with the
same labels. Knows the fields that the chart uses, and refuses others. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

FIELDS = {
    "ServiceMonitor": {"namespaceSelector", "selector", "endpoints"},
    "PodMonitor": {"namespaceSelector", "selector", "podMetricsEndpoints"},
}
LIMITS = {
    "sampleLimit": "sample_limit",
    "labelLimit": "label_limit",
    "labelNameLengthLimit": "label_name_length_limit",
    "labelValueLengthLimit": "label_value_length_limit",
}
ENDPOINT = {
    *("port", "path", "interval", "honorLabels", "relabelings", "metricRelabelings"),
    *("scheme", "tlsConfig", "bearerTokenFile"),
}
META = "__meta_kubernetes_"
Raw = Mapping[str, Any]
Found = dict[str, Any]


def scrape_config(
    monitor: Raw,
    targets: Path,
    *,
    interval: str | None = None,
    token: Path | None = None,
    authority: Path | None = None,
) -> Found:
    """The configuration for the one endpoint of a monitor.

    Args:
        targets: the file with what `targets` finds.
        interval: instead of the monitor's own.
        token: the file with the token of Prometheus' pod, where the monitor asks for it.
        authority: the file with the certificate that the monitor names by its Secret.

    Raises:
        ValueError: the monitor has a field that is not known here.
    """
    kind, spec = monitor["kind"], monitor["spec"]
    services = kind == "ServiceMonitor"
    (endpoint,) = spec["endpoints" if services else "podMetricsEndpoints"]
    unknown = (spec.keys() - FIELDS[kind] - LIMITS.keys()) | (endpoint.keys() - ENDPOINT)
    if unknown:
        raise ValueError(f"{kind}: {sorted(unknown)} cannot be translated; add it here")
    labels = f"{'service' if services else 'pod'}_label_"
    names = spec["namespaceSelector"].get("matchNames")
    port = "endpoint_port_name" if services else "pod_container_port_name"
    every = interval or endpoint["interval"]
    return {
        **{LIMITS[name]: value for name, value in spec.items() if name in LIMITS},
        **_credentials(endpoint, token, authority),
        "job_name": f"{kind}/{monitor['metadata']['name']}",
        "honor_labels": endpoint["honorLabels"],
        "metrics_path": endpoint["path"],
        "scrape_interval": every,
        "scrape_timeout": every,
        "file_sd_configs": [{"files": [str(targets)]}],
        "relabel_configs": [
            *([_keep("namespace", *names)] if names else []),
            *(
                _keep(labels + escaped(name), value)
                for name, value in spec["selector"]["matchLabels"].items()
            ),
            _keep(port, endpoint["port"]),
            {"source_labels": [f"{META}namespace"], "target_label": "namespace"},
            {"source_labels": [f"{META}pod_name"], "target_label": "pod"},
            *(
                {"source_labels": each["sourceLabels"], "target_label": each["targetLabel"]}
                for each in endpoint.get("relabelings", [])
            ),
        ],
        "metric_relabel_configs": list(endpoint.get("metricRelabelings", [])),
    }


def _credentials(endpoint: Raw, token: Path | None, authority: Path | None) -> Found:
    found: Found = {"scheme": endpoint.get("scheme", "http")}
    if "tlsConfig" in endpoint:
        if authority is None:
            raise ValueError("the monitor names a certificate: give `authority`")
        server = endpoint["tlsConfig"]["serverName"]
        found["tls_config"] = {"ca_file": str(authority), "server_name": server}
    if "bearerTokenFile" in endpoint:
        if token is None:
            raise ValueError("the monitor names a token: give `token`")
        found["authorization"] = {"credentials_file": str(token)}
    return found


def _keep(meta: str, *values: str) -> Found:
    regex = "|".join(map(re.escape, values))
    return {"action": "keep", "source_labels": [META + meta], "regex": regex}


def escaped(label: str) -> str:
    """A Kubernetes label's name as the end of a Prometheus label's."""
    return re.sub(r"\W", "_", label)


def targets(objects: Sequence[Raw]) -> list[Found]:
    """What discovery finds, in the form of a file of targets.

    Args:
        objects: Pods, Services and Endpoints, with their kinds.
    """
    services = {_key(each): each for each in objects if each["kind"] == "Service"}
    found: list[Found] = []
    for each in objects:
        if each["kind"] == "Pod":
            found += _of_pod(each)
        elif each["kind"] == "Endpoints" and _key(each) in services:
            found += _of_endpoints(each, services[_key(each)])
    return found


def _key(found: Raw) -> tuple[str, str]:
    return found["metadata"]["namespace"], found["metadata"]["name"]


def _labels(of: str, found: Raw) -> dict[str, str]:
    labels = found["metadata"].get("labels") or {}
    return {f"{META}{of}_label_{escaped(name)}": value for name, value in labels.items()}


def _of_pod(pod: Raw) -> Iterator[Found]:
    address = pod["status"].get("podIP")
    if not address or pod["status"].get("phase") in ("Succeeded", "Failed"):
        return
    for container in pod["spec"]["containers"]:
        for port in container.get("ports") or ():
            yield {
                "targets": [f"{address}:{port['containerPort']}"],
                "labels": {
                    f"{META}namespace": pod["metadata"]["namespace"],
                    f"{META}pod_name": pod["metadata"]["name"],
                    f"{META}pod_container_port_name": port.get("name", ""),
                    **_labels("pod", pod),
                },
            }


def _of_endpoints(endpoints: Raw, service: Raw) -> Iterator[Found]:
    for subset in endpoints.get("subsets") or ():
        for address in subset.get("addresses") or ():
            for port in subset.get("ports") or ():
                yield {
                    "targets": [f"{address['ip']}:{port['port']}"],
                    "labels": {
                        f"{META}namespace": endpoints["metadata"]["namespace"],
                        f"{META}pod_name": (address.get("targetRef") or {}).get("name", ""),
                        f"{META}endpoint_port_name": port.get("name", ""),
                        **_labels("service", service),
                    },
                }
