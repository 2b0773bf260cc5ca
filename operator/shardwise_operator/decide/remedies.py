"""What helps against what the API server, the scheduler or a kubelet says of a pod. Pure.

Their words are not an interface. One that is not known here is passed on as it is, with the general
remedy of its kind; nothing but the remedy depends on them.
"""

from __future__ import annotations

import re

_REMEDIES: tuple[tuple[str, str], ...] = (
    # Creation.
    (
        r"(?i)service ?account.{0,300}not found",
        "create it (kubectl create serviceaccount), or correct serviceAccountName in spec.template",
    ),
    (
        r"no PriorityClass with name",
        "create it (kubectl create priorityclass), or correct priorityClassName in spec.template",
    ),
    (
        r'RuntimeClass.{0,120}not found|RuntimeClass "[^"]*" not found',
        "create it, or correct runtimeClassName in spec.template",
    ),
    (
        r"(?:maximum|minimum) (?:cpu|memory|ephemeral-storage|\S+) usage per (?:Container|Pod)"
        r"|limit to request ratio per (?:Container|Pod)",
        "the namespace's LimitRange does not take the requests (100m CPU and 512Mi memory where "
        "spec.template says nothing): set resources of the container trainer in spec.template "
        "within it, or change the LimitRange",
    ),
    (
        r"ValidatingAdmissionPolicy",
        "change spec.template so that this policy takes the pod, or have whoever keeps it "
        "except the job's pods",
    ),
    (
        r"failed calling webhook",
        "the webhook does not answer: mend or remove it",
    ),
    (
        r"admission webhook .* denied the request",
        "change spec.template so that this webhook takes the pod, or have whoever keeps it "
        "except the job's pods",
    ),
    (
        r"violates PodSecurity",
        "take out of spec.template what the message names, or label the namespace for it",
    ),
    (
        r"exceeded quota|failed quota",
        "raise the namespace's quota, or ask for less in spec.template",
    ),
    # Scheduling.
    (
        r'persistentvolumeclaim "[^"]*" not found',
        "create the claim, or correct its name in spec.output, spec.checkpoint or spec.template",
    ),
    (
        r"unbound immediate PersistentVolumeClaims",
        "the claim waits for a volume: see kubectl describe pvc; its storage class may be missing",
    ),
    (
        r"volume node affinity conflict",
        "the volume is in another zone, or on another node, than the nodes with room: take a "
        "storage class with volumeBindingMode WaitForFirstConsumer, or nodes of its zone",
    ),
    # Mounts.
    (
        r'(?i)(?:secret|configmap) "[^"]*" not found',
        "create it, or correct the volume in spec.template; the pod then starts by itself",
    ),
    (
        r"references non-existent (?:secret|config) key",
        "add the key, or correct the volume in spec.template; the pod then starts by itself",
    ),
    (
        r"Multi-Attach|already (?:used|exclusively attached)",
        "the volume is attached to another node: take one that many nodes may mount "
        "(ReadWriteMany), or keep the workers on one node",
    ),
)
_COMPILED = tuple((re.compile(pattern), remedy) for pattern, remedy in _REMEDIES)
LOOKED_AT = 2000
"""Characters: the words of others may be long."""


def remedy_for(message: str, general: str) -> str:
    """What to do about a message; the general remedy where its words are not known."""
    looked_at = message[:LOOKED_AT]
    for pattern, remedy in _COMPILED:
        if pattern.search(looked_at):
            return remedy
    return general
