"""How often a job's status is written, whatever its workers say."""

from __future__ import annotations

from shardwise_operator.writes import NEWS, LastWrite, TokenBucket, postponed

OLD = {"message": "before"}


def written(seconds: float, every: float, patch: dict[str, object]) -> int:
    """How many of the writes that are asked for are sent, one asked for each `every` seconds."""
    now, sent, due = 0.0, 0, 0.0
    last, bucket = LastWrite(), TokenBucket(1000, lambda: now)
    while now < seconds:
        if now >= due:
            wait = postponed(patch, OLD, last, bucket, now)
            due = now + wait
            if wait == 0:
                sent += 1
                last.at = now
        now += every
    return sent


def test_news_is_written_at_once_but_a_flood_of_it_is_not():
    rate, burst = NEWS
    flood = written(100.0, 0.01, {"conditions": [{"type": "Checkpointed", "message": "no room"}]})
    assert burst <= flood <= burst + rate * 100 + 1
    assert written(600.0, 2.0, {"message": "now"}) == 300


def test_jobs_do_not_wait_for_each_others_news():
    bucket = TokenBucket(1000, lambda: 0.0)
    one, other = LastWrite(), LastWrite()
    for _ in range(50):
        postponed({"message": "x"}, OLD, one, bucket, 0.0)
    assert postponed({"message": "x"}, OLD, one, bucket, 0.0) > 0
    assert postponed({"message": "x"}, OLD, other, bucket, 0.0) == 0
