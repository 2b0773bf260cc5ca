"""What must hold among the members of a group for their bits to be equal.

Pure comparisons, with the messages that tell a user which worker differs, in what, and what to do.
"""

from __future__ import annotations

from collections.abc import Mapping

from shardwise.coordinator.protocol import Ack, Scalar


def fingerprint_difference(
    worker: str, fingerprint: Mapping[str, Scalar], other: str, expected: Mapping[str, Scalar]
) -> str | None:
    """How a worker's fingerprint differs from another's, in one line; None if it does not."""
    differing = [
        f"{key} is {_shown(fingerprint, key)} on {worker} but {_shown(expected, key)} on {other}"
        for key in sorted({*fingerprint, *expected})
        if fingerprint.get(key) != expected.get(key)
    ]
    if not differing:
        return None
    if len(differing) == 1 and fingerprint.get("gradient") != expected.get("gradient"):
        return (
            f"{worker} and {other} compute different gradients of the first shard: the entrypoint "
            "is not deterministic, it must build the same model and data from the same seed in "
            "every process; or the machines' CPUs differ"
        )
    return (
        f"{'; '.join(differing)}: workers of one job need the same image and the same kind of "
        "machine, or their results would differ in the last bits"
    )


def digest_difference(acks: Mapping[str, Ack]) -> str | None:
    """How two members' states differ although they are at one step; None if none do."""
    seen: dict[int, tuple[str, str]] = {}
    for worker, ack in acks.items():
        other, digest = seen.setdefault(ack.step, (worker, ack.digest))
        if digest != ack.digest:
            return (
                f"workers {other} and {worker} hold different parameters at step {ack.step} "
                f"({digest[:12]} and {ack.digest[:12]}): the entrypoint is not deterministic; "
                "it must build the same model from the same seed in every process"
            )
    return None


def _shown(fingerprint: Mapping[str, Scalar], key: str) -> str:
    return str(fingerprint.get(key, "unset"))[:100]
