"""Why a task does not train, in words with numbers."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def coming_back(awaited: Sequence[str], generation: int, seconds: float) -> str:
    """A group may still be running, and is waited for."""
    if not awaited:
        return f"this coordinator is new: for {seconds:g} s it waits for workers that train already"
    return (
        f"waits up to {seconds:g} s for {_names(awaited)} of generation {generation} to come back "
        "to this coordinator"
    )


def too_few(ready: int, loading: int, needed: int, workers: int, gather_seconds: float) -> str:
    """Not enough workers are there, or more may come."""
    there = f"{ready} of {workers} workers {'is' if ready == 1 else 'are'} ready"
    loads = f", {loading} more {'loads' if loading == 1 else 'load'} the task" if loading else ""
    if ready < needed:
        return f"{there}, at least {needed} are needed{loads}"
    return f"{there}{loads}; starts once no more have come for {gather_seconds:g} s"


def forming(missing: Collection[str], generation: int) -> str:
    """Members have yet to ack."""
    return f"generation {generation} waits for {_names(sorted(missing))}"


def trying_again(attempts: int, last: str, seconds: float) -> str:
    """The exchange broke, and a pause is made."""
    if not attempts:
        return f"the exchange broke ({last})"
    return (
        f"the exchange broke {attempts + 1} times in a row without a step done, the last time by "
        f"{last}; tries again every {seconds:g} s"
    )


def draining(reason: str, leaving: int) -> str:
    """Everybody leaves or has left."""
    if leaving:
        return f"{reason}: {leaving} workers write a checkpoint and leave"
    return reason


def _names(workers: Sequence[str]) -> str:
    shown = ", ".join(workers[:4])
    return shown if len(workers) <= 4 else f"{shown} and {len(workers) - 4} more"
