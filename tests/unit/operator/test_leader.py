"""The election: never two at once, whatever the network does, and always one once it works."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from lease_world import (
    Link,
    Replica,
    Server,
    VirtualLoop,
    faults,
    no_two_at_once,
    repair,
    virtually,
)

from shardwise_operator.leader import EXIT_LOST, Terms
from shardwise_operator.settings import Settings, SettingsError

TERMS = Terms()


def replicas(loop: VirtualLoop, count: int = 2, server: Server | None = None) -> list[Replica]:
    server = server or Server()
    made = [Replica(name=f"pod-{i}_uid-{i}", link=Link(server, loop)) for i in range(count)]
    for replica in made:
        replica.start()
    return made


def leaders(among: list[Replica]) -> list[str]:
    return [replica.name for replica in among if replica.leads]


def sole(among: list[Replica]) -> tuple[Replica, Replica]:
    """The one that leads, and another."""
    (name,) = leaders(among)
    return (
        next(replica for replica in among if replica.name == name),
        next(replica for replica in among if replica.name != name),
    )


def test_of_two_that_create_it_at_once_one_leads():
    async def main(loop):
        both = replicas(loop)
        await asyncio.sleep(60)
        leader, other = sole(both)
        lease = leader.link.server.lease
        assert lease["spec"]["holderIdentity"] == leader.name
        assert lease["spec"]["leaseDurationSeconds"] == 15
        assert lease["spec"]["leaseTransitions"] == 0
        assert other.candidate.holder == leader.name
        # One renewal a retry, and a look of the other's.
        assert leader.link.calls <= 60 / TERMS.retry_seconds + 3

    virtually(main)


def test_a_leader_that_is_killed_is_followed_when_its_lease_runs_out():
    async def main(loop):
        both = replicas(loop)
        await asyncio.sleep(30)
        leader, other = sole(both)
        leader.kill()
        killed = loop.time()
        await asyncio.sleep(TERMS.duration_seconds + TERMS.retry_seconds + 1)
        assert leaders(both) == [other.name]
        assert other.since - killed >= TERMS.duration_seconds - TERMS.retry_seconds - 1
        assert leader.link.server.lease["spec"]["leaseTransitions"] == 1

    virtually(main)


def test_a_leader_that_stops_hands_over_within_one_try():
    async def main(loop):
        both = replicas(loop)
        await asyncio.sleep(30)
        leader, other = sole(both)
        await leader.stop()
        stopped = loop.time()
        await asyncio.sleep(TERMS.retry_seconds + 0.1)
        assert leaders(both) == [other.name]
        assert other.since - stopped <= TERMS.retry_seconds + 0.1
        assert other.since >= leader.acted[-1][1]

    virtually(main)


def test_a_container_restarted_in_its_pod_leads_again_without_waiting():
    async def main(loop):
        both = replicas(loop)
        await asyncio.sleep(30)
        leader, _ = sole(both)
        leader.kill()
        leader.start()
        await asyncio.sleep(0.1)
        assert leaders(both) == [leader.name]

    virtually(main)


@pytest.mark.parametrize("fault", ["down", "mute"])
def test_a_leader_that_is_cut_off_ends_before_another_begins(fault):
    async def main(loop):
        both = replicas(loop)
        await asyncio.sleep(30)
        leader, other = sole(both)
        setattr(leader.link, fault, True)
        cut = loop.time()
        await asyncio.sleep(60)
        assert leaders(both) == [other.name]
        assert leader.lost == ["not renewed for 10 s"]
        ended = leader.acted[-1][1]
        assert ended - cut <= TERMS.renew_seconds
        assert ended < other.since
        setattr(leader.link, fault, False)
        await asyncio.sleep(60)
        assert leaders(both) == [other.name]

    virtually(main)


def test_a_short_outage_changes_nothing():
    async def main(loop):
        both = replicas(loop)
        await asyncio.sleep(30)
        leader, _ = sole(both)
        for replica in both:
            replica.link.down = True
        await asyncio.sleep(TERMS.renew_seconds / 2 - 1)
        repair(both)
        await asyncio.sleep(60)
        assert leaders(both) == [leader.name]
        assert not leader.lost

    virtually(main)


def test_after_a_long_outage_one_leads_again():
    async def main(loop):
        both = replicas(loop)
        await asyncio.sleep(30)
        for replica in both:
            replica.link.down = True
        await asyncio.sleep(600)
        assert not leaders(both)
        repair(both)
        await asyncio.sleep(TERMS.duration_seconds + 2 * TERMS.retry_seconds + 5)
        assert len(leaders(both)) == 1

    virtually(main)


@pytest.mark.parametrize("wrong", [timedelta(days=-20_000), timedelta(days=20_000)])
def test_wall_clocks_do_not_matter(wrong):
    async def main(loop):
        server = Server()
        first = Replica(name="first", link=Link(server, loop), wall=wrong)
        second = Replica(name="second", link=Link(server, loop))
        first.start()
        await asyncio.sleep(1)
        second.start()
        await asyncio.sleep(120)
        assert leaders([first, second]) == ["first"]
        first.kill()
        await asyncio.sleep(TERMS.duration_seconds + TERMS.retry_seconds + 1)
        assert leaders([first, second]) == ["second"]

    virtually(main)


def test_the_holders_own_duration_is_waited_for():
    async def main(loop):
        server = Server()
        patient = Terms(duration_seconds=60, renew_seconds=50)
        first = Replica(name="first", link=Link(server, loop), terms=patient)
        first.start()
        await asyncio.sleep(1)
        second = Replica(name="second", link=Link(server, loop))
        second.start()
        first.link.down = True
        await asyncio.sleep(45)
        assert leaders([first, second]) == ["first"]
        await asyncio.sleep(30)
        assert leaders([first, second]) == ["second"]
        assert first.acted[-1][1] < second.since

    virtually(main)


def test_whoever_finds_another_in_the_lease_ends_at_once():
    async def main(loop):
        (only,) = replicas(loop, count=1)
        await asyncio.sleep(30)
        only.link.server.touch(holderIdentity="a person")
        await asyncio.sleep(TERMS.retry_seconds + 0.1)
        assert only.lost == ["it is held by a person"]

    virtually(main)


def test_a_deleted_lease_is_a_lost_one_and_is_made_anew():
    async def main(loop):
        (only,) = replicas(loop, count=1)
        await asyncio.sleep(30)
        only.link.server.lease = None
        await asyncio.sleep(TERMS.retry_seconds + 0.1)
        assert only.lost == ["it is held by nobody"]
        await asyncio.sleep(5)
        assert leaders([only]) == [only.name]

    virtually(main)


def test_a_change_by_somebody_else_that_leaves_the_holder_is_taken_in():
    async def main(loop):
        (only,) = replicas(loop, count=1)
        await asyncio.sleep(30)
        only.link.server.touch(note="seen")
        await asyncio.sleep(30)
        assert leaders([only]) == [only.name]
        assert not only.lost

    virtually(main)


@pytest.mark.parametrize("spec", [{}, {"holderIdentity": None}, {"holderIdentity": ""}])
def test_a_lease_of_nobody_is_taken_at_once(spec):
    async def main(loop):
        server = Server()
        server.create({"metadata": {"name": "shardwise"}, "spec": spec})
        (only,) = replicas(loop, count=1, server=server)
        await asyncio.sleep(0.1)
        assert leaders([only]) == [only.name]

    virtually(main)


@examples(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_never_two_at_once_and_always_one_in_the_end(seed):
    rng = random.Random(seed)

    async def main(loop):
        server = Server()
        all_ = [
            Replica(
                name=f"pod-{i}",
                link=Link(server, loop),
                rate=rng.uniform(0.9, 1.1),
                wall=timedelta(seconds=rng.uniform(-1e6, 1e6)),
            )
            for i in range(3)
        ]
        for replica in all_:
            replica.start()
        for _ in range(25):
            await asyncio.sleep(rng.expovariate(1 / 8))
            faults(rng, all_)
        repair(all_)
        await asyncio.sleep(60)  # Answers that were late, and one more lease.
        assert len(leaders(all_)) == 1
        for replica in all_:
            replica.kill()
        no_two_at_once(all_)

    virtually(main)


@pytest.mark.parametrize(
    ("times", "tells"),
    [
        ({"duration_seconds": 10.0}, "durationSeconds"),
        ({"retry_seconds": 5.0}, "retrySeconds"),
        ({"renew_seconds": float("nan")}, "durationSeconds"),
    ],
)
def test_times_that_do_not_fit_are_refused_by_name(times, tells):
    with pytest.raises(ValueError, match=tells):
        Terms(**times)


def test_settings_of_the_lease_that_do_not_fit_are_named():
    with pytest.raises(SettingsError, match=r"SHARDWISE_LEASE_\*_SECONDS: .*renewSeconds"):
        Settings.from_environment({"SHARDWISE_LEASE_RENEW_SECONDS": "15"})
    given = {"SHARDWISE_LEASE_DURATION_SECONDS": "4", "SHARDWISE_LEASE_RENEW_SECONDS": "3"}
    settings = Settings.from_environment({**given, "SHARDWISE_LEASE_RETRY_SECONDS": "0.5"})
    assert settings.terms == Terms(duration_seconds=4, renew_seconds=3, retry_seconds=0.5)


ALARM = "import signal, time; from shardwise_operator.leader import Alarm; alarm = Alarm(); "


def test_a_process_that_hangs_is_ended_by_the_kernel():
    done = subprocess.run(
        [sys.executable, "-c", f"{ALARM} alarm.arm(60); alarm.arm(0.01); time.sleep(60)"],
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == EXIT_LOST
    assert b"not renewed in time" in done.stderr


def test_a_process_that_gave_its_lease_back_is_not():
    left = "print(signal.getitimer(signal.ITIMER_REAL))"
    done = subprocess.run(
        [sys.executable, "-c", f"{ALARM} alarm.arm(60); alarm.disarm(); {left}"],
        capture_output=True,
        timeout=30,
        check=True,
    )
    assert done.stdout.decode().strip() == "(0.0, 0.0)"
