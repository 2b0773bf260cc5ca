"""Whose an object is: only the controller reference tells, by the job's uid.

Labels and names are anybody's to choose, in other namespaces and in the same one; what is not the
job's by its reference is neither believed nor deleted. An owner is always of the owned object's own
namespace, and the garbage collector removes what names one that is not there; until it has, a
reference may name a job of another namespace, which is why the namespace is compared too. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shardwise_operator import names

Raw = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """The job that an object's controller reference names."""

    namespace: str
    name: str
    uid: str


def owner_of(raw: Raw) -> Owner | None:
    """The job that controls the object; None where none does."""
    meta = raw.get("metadata") or {}
    for reference in meta.get("ownerReferences") or ():
        group = str(reference.get("apiVersion") or "").partition("/")[0]
        ours = (group, reference.get("kind")) == (names.GROUP, names.KIND)
        uid, name = str(reference.get("uid") or ""), str(reference.get("name") or "")
        if ours and reference.get("controller") is True and uid and name:
            return Owner(namespace=str(meta.get("namespace") or ""), name=name, uid=uid)
    return None


def is_of(raw: Raw, namespace: str, uid: str) -> bool:
    """Whether the object is controlled by the job of this uid in this namespace."""
    owner = owner_of(raw)
    return owner is not None and (owner.namespace, owner.uid) == (namespace, uid)


def worker_index(raw: Raw) -> int | None:
    """The index of a pod that the operator made for the job that controls it; None for any other.

    Everything that the operator gives to a pod must fit: a pod that somebody made, with a
    reference and labels copied, has at the least another name.
    """
    owner = owner_of(raw)
    meta = raw.get("metadata") or {}
    labels = meta.get("labels") or {}
    if owner is None or not meta.get("uid"):
        return None
    if (labels.get(names.JOB_NAME), labels.get(names.JOB_UID)) != (owner.name, owner.uid):
        return None
    index = name_index(meta.get("name"), owner.name)
    return index if index is not None and labels.get(names.INDEX) == str(index) else None


def name_index(name: object, job: str) -> int | None:
    """The index that a pod of this name would have in the job; None where none has the name."""
    digits = name.removeprefix(f"{job}-") if isinstance(name, str) else ""
    if not (digits.isascii() and digits.isdigit()):
        return None
    index = int(digits)
    return index if name == names.pod_name(job, index) else None


def leaves_by_itself(raw: Raw, job: str) -> bool:
    """Whether an object that is in the way is of an earlier job of this name, or on its way out."""
    owner = owner_of(raw)
    deleting = bool((raw.get("metadata") or {}).get("deletionTimestamp"))
    return deleting or (owner is not None and owner.name == job)


def in_the_way(kind: str, name: str, *, leaves: bool) -> str:
    """What to say of an object that has a name which the job needs."""
    if leaves:
        return f"{kind} {name} is left of an earlier job of this name, and goes by itself"
    return f"{kind} {name} exists and is not this job's: delete or rename it"
