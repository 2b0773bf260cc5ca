"""Settings from the environment; and which writes wait."""

from __future__ import annotations

import pytest

from shardwise_operator.observe import job_view, pod_view
from shardwise_operator.settings import Settings, SettingsError
from shardwise_operator.writes import LastWrite, TokenBucket, merge_patch


def test_the_exchange_is_one_of_three() -> None:
    settings = Settings.from_environment({"SHARDWISE_EXCHANGE": "encrypted"})
    assert settings.exchange == "encrypted"
    assert Settings().exchange == "authenticated"
    with pytest.raises(SettingsError, match="one of authenticated, sealed, encrypted"):
        Settings.from_environment({"SHARDWISE_EXCHANGE": "none"})


def test_defaults_serve_all_namespaces():
    settings = Settings.from_environment({"SHARDWISE_LOG_LEVEL": " "})
    assert settings == Settings()
    assert settings.coordinator_address == "shardwise-coordinator.shardwise-system.svc:7070"


def test_variables_are_read():
    settings = Settings.from_environment(
        {
            "SHARDWISE_NAMESPACES": "b, a,,b",
            "SHARDWISE_OPERATOR_NAMESPACE": "ops",
            "SHARDWISE_COORDINATOR_PORT": "9",
            "SHARDWISE_LOG_LEVEL": "debug",
        }
    )
    assert settings.namespaces == ("a", "b")
    assert settings.coordinator_address == "shardwise-coordinator.ops.svc:9"
    assert settings.log_level == "DEBUG"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("COORDINATOR_PORT", "x"),
        ("METRICS_PORT", "70000"),
        ("WORKERS", "0"),
        ("GRACE_SECONDS", "nan"),
        ("LOG_LEVEL", "loud"),
    ],
)
def test_what_cannot_be_used_is_named(name, value):
    with pytest.raises(SettingsError, match=f"SHARDWISE_{name}"):
        Settings.from_environment({f"SHARDWISE_{name}": value})


def test_the_bucket_gives_its_rate_and_says_how_long_to_wait():
    now = [0.0]
    bucket = TokenBucket(2, lambda: now[0])
    writes = [LastWrite() for _ in range(3)]
    assert [bucket.take(write) for write in writes] == [0, 0, 0.5]
    now[0] = 0.4
    assert bucket.take(writes[2]) == pytest.approx(0.1)
    now[0] = 0.5
    assert bucket.take(writes[2]) == 0
    now[0] = 9.0
    assert [bucket.take(LastWrite()) for _ in range(3)] == [0, 0, 0.5], "a second's worth is saved"


def test_each_that_waits_for_the_bucket_has_a_turn_of_its_own():
    now = [0.0]
    bucket = TokenBucket(20, lambda: now[0])
    writes = [LastWrite() for _ in range(500)]
    waits = [bucket.take(write) for write in writes]
    assert waits[:20] == [0.0] * 20
    assert waits[20:] == pytest.approx([place / 20 for place in range(1, 481)])
    for write, wait in zip(writes, waits, strict=True):
        now[0] = wait
        assert write.turn is None or bucket.take(write) == 0, "asked once again, and no more"


@pytest.mark.parametrize(
    ("old", "new", "patch"),
    [
        ({}, {}, {}),
        ({"a": 1}, {"a": 1}, {}),
        ({"a": 1, "b": 2}, {"a": 3}, {"a": 3, "b": None}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1}}, {"a": {"c": None}}),
        ({"list": [1]}, {"list": [1, 2]}, {"list": [1, 2]}),
    ],
)
def test_merge_patches(old, new, patch):
    assert merge_patch(old, new) == patch


def test_incomplete_objects_are_read_forgivingly():
    assert job_view({}).status == {}
    assert pod_view({}) is None
    labels = {"shardwise.dev/index": "0"}
    assert pod_view({"metadata": {"labels": labels}}).phase == "Pending"
