"""Whether pods can be made of spec.template and of the volumes: told before any is made. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from shardwise.api import environment as env
from shardwise.api.errors import FieldError
from shardwise_operator import names
from shardwise_operator.render.merge import MERGE_KEYS, SOURCES
from shardwise_operator.schema import MINOR, did_you_mean, fields, problems

TEMPLATE = "spec.template.spec"
FORCED = {
    "restartPolicy": "the operator replaces workers itself",
    "hostname": "each worker has its pod's name",
    "subdomain": "it is the job's Service",
}
"""What no template may set, and why."""
OURS = frozenset({names.MANAGED_BY, names.APP_NAME, names.JOB_NAME, names.JOB_UID, names.INDEX})


def template_errors(manifest: Mapping[str, Any], server_minor: int = 0) -> list[FieldError]:
    """What is wrong with it, in the order of the manifest.

    Args:
        server_minor: the server's Kubernetes 1.x, 0 where it is not known. What a newer one than
            is known here makes of fields that are not, its answer tells.
    """
    unknown = server_minor <= MINOR
    spec = _mapping(manifest.get("spec"))
    found: list[FieldError] = []
    for part in ("output", "checkpoint"):
        volume = _mapping(spec.get(part)).get("volume")
        if volume is not None:
            found += _volume(volume, f"spec.{part}.volume", unknown)
    template = spec.get("template")
    if not isinstance(template, Mapping):
        return found
    found += _labels(template.get("metadata"))
    pod = template.get("spec")
    if pod is None:
        return found
    found += problems(pod, "V1PodSpec", TEMPLATE, unknown=unknown)
    if found or not isinstance(pod, Mapping):
        return found
    return [*_forced(pod), *_lists(pod, TEMPLATE), *_volumes(pod), *_environment(pod)]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _volume(volume: Any, at: str, unknown: bool) -> Iterator[FieldError]:
    known = fields("V1Volume")
    yield from _sources(volume, at, unknown)
    if isinstance(volume, Mapping):
        if "name" in volume:
            yield FieldError(f"{at}.name", volume["name"], "the operator names it", "remove it")
        given = {key: value for key, value in volume.items() if key in known}
        yield from problems(given, "V1Volume", at, unknown=unknown)
        for key, value in given.items():
            if value is None:
                yield FieldError(f"{at}.{key}", None, "is empty", f"write {key}: {{...}}")


def _sources(volume: Any, at: str, unknown: bool) -> Iterator[FieldError]:
    """Exactly one source, and one that there is."""
    if not isinstance(volume, Mapping):
        yield FieldError(at, volume, "is not a mapping", "give one volume source")
        return
    known = {name: kind for name, kind in fields("V1Volume").items() if name != "name"}
    for key in volume:
        if key not in known and key != "name" and unknown:
            remedy = did_you_mean(str(key), known)
            yield FieldError(f"{at}.{key}", volume[key], f"unknown volume source {key}", remedy)
    given = sorted(key for key in volume if key != "name")
    if len(given) != 1:
        problem = f"has {len(given)} volume sources" + (f" ({', '.join(given)})" if given else "")
        yield FieldError(at, None, problem, "give exactly one, for example emptyDir: {}")


def _volumes(pod: Mapping[str, Any]) -> Iterator[FieldError]:
    for place, volume in enumerate(pod.get("volumes") or ()):
        # One of ours may be changed without naming its source again.
        if len(volume) > 1 or volume.get("name") not in SOURCES:
            yield from _sources(volume, f"{TEMPLATE}.volumes[{place}]", unknown=False)


def _lists(value: Any, at: str) -> Iterator[FieldError]:
    """Lists that go by a key: each entry has it, and none twice."""
    if isinstance(value, list | tuple):
        for place, item in enumerate(value):
            yield from _lists(item, f"{at}[{place}]")
    if not isinstance(value, Mapping):
        return
    for name, items in value.items():
        key = MERGE_KEYS.get(name)
        seen: set[str] = set()
        for place, item in enumerate(items if key and isinstance(items, list | tuple) else ()):
            where = f"{at}.{name}[{place}].{key}"
            mark = item.get(key)
            if not mark:
                yield FieldError(where, None, "is missing", "add it")
            elif mark in seen:
                yield FieldError(where, mark, f"{mark!r} is there twice", "remove one")
            seen.add(str(mark))
        yield from _lists(items, f"{at}.{name}")


def _forced(pod: Mapping[str, Any]) -> Iterator[FieldError]:
    for name, why in FORCED.items():
        value = pod.get(name)
        if value is not None and (name, value) != ("restartPolicy", "Never"):
            yield FieldError(
                f"{TEMPLATE}.{name}", value, f"{value!r} would not be heeded: {why}", "remove it"
            )


def _labels(meta: Any) -> Iterator[FieldError]:
    labels = _mapping(_mapping(meta).get("labels"))
    for name in sorted(OURS & set(labels)):
        where = f"spec.template.metadata.labels.{name}"
        yield FieldError(where, labels[name], "is a label of the operator's own", "remove it")
    if names.ACCEPTED_TRAINER in _mapping(_mapping(meta).get("annotations")):
        where = f"spec.template.metadata.annotations.{names.ACCEPTED_TRAINER}"
        yield FieldError(where, None, "is an annotation of the operator's own", "remove it")


def _environment(pod: Mapping[str, Any]) -> Iterator[FieldError]:
    for place, container in enumerate(pod.get("containers") or ()):
        if container.get("name") != names.CONTAINER:
            continue
        for at, entry in enumerate(container.get("env") or ()):
            if entry.get("name") == env.GRACE_SECONDS:
                yield FieldError(
                    f"{TEMPLATE}.containers[{place}].env[{at}]",
                    entry.get("value"),
                    f"{env.GRACE_SECONDS} follows from terminationGracePeriodSeconds",
                    f"remove it, and set {TEMPLATE}.terminationGracePeriodSeconds",
                )
