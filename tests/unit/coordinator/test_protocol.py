"""The wire format: every message survives it, and no line can do more than raise ProtocolError."""

from __future__ import annotations

import json
import math
from typing import Annotated, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shardwise.coordinator.codec import SAFE_INTEGER, AtMost, from_json
from shardwise.coordinator.protocol import (
    MAX_LINE,
    Ack,
    Activity,
    Bye,
    CheckpointReport,
    Failed,
    Fault,
    Finished,
    Generation,
    Go,
    Hello,
    KeyValue,
    Leave,
    Member,
    Message,
    Phase,
    Probe,
    ProtocolError,
    Pulse,
    Ready,
    Refusal,
    StepReport,
    Stop,
    Suspect,
    Welcome,
    decode,
    encode,
)
from shardwise.coordinator.report import Assignment

counts = st.integers(0, 2**31 - 1)
seconds = st.floats(0.0, 1e9)
integers = st.integers(-SAFE_INTEGER, SAFE_INTEGER)
texts = st.text(max_size=30).filter(lambda text: text.isascii() or text.isprintable())
values = st.recursive(
    st.none() | st.booleans() | integers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
objects = st.dictionaries(texts, values, max_size=3)
floats = st.floats(allow_nan=False)
members = st.builds(Member, worker=texts, index=counts, step=st.none() | counts)
assignments = st.builds(
    Assignment,
    task=texts,
    name=texts,
    workers=counts,
    trainer=objects,
    output=st.none() | objects,
    generation_floor=counts,
    report_seconds=floats,
    min_workers=counts,
    gather_seconds=floats,
    checkpoint=st.none() | objects,
    recoveries=st.dictionaries(texts, counts, max_size=3),
    seconds=st.dictionaries(texts, floats, max_size=3),
    lost_steps=counts,
    reached_step=counts,
)
member_lists = st.lists(members, max_size=4).map(tuple)
phases = st.sampled_from(get_args(Phase))

# Drawing is slow on a machine that has other things to do.
patiently = settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)


def messages() -> st.SearchStrategy[Message]:
    return st.one_of(
        st.builds(
            Hello,
            token=texts,
            worker=texts,
            index=counts,
            fingerprint=st.dictionaries(texts, texts | counts | floats),
            generation=counts,
            phase=phases,
            step=counts,
            members=st.lists(texts, max_size=3).map(tuple),
        ),
        st.builds(Ready, fingerprint=st.dictionaries(texts, texts | counts | floats)),
        st.builds(Ack, generation=counts, step=counts, digest=texts),
        st.builds(KeyValue, generation=counts, key=texts, value=st.binary(max_size=30)),
        st.builds(Fault, generation=counts, message=texts, peer=st.none() | texts),
        st.builds(Suspect, generation=counts, step=counts, waited_seconds=seconds),
        st.builds(
            Pulse,
            nonce=counts,
            generation=counts,
            step=counts,
            phase=phases,
            activity=st.sampled_from(get_args(Activity)),
            age_seconds=seconds,
            usual_seconds=seconds,
        ),
        st.just(Leave()),
        st.builds(CheckpointReport, step=counts, bytes=counts, seconds=seconds, error=texts),
        st.builds(Probe, nonce=counts),
        st.builds(
            StepReport,
            generation=counts,
            step=counts,
            total_steps=counts,
            epoch=counts,
            loss=floats,
            samples_per_second=seconds,
            metrics=st.dictionaries(texts, floats, max_size=3),
            seconds=st.dictionaries(texts, seconds, max_size=3),
        ),
        st.builds(Finished, result=st.none() | objects),
        st.builds(Failed, reason=texts, message=texts, detail=texts),
        st.builds(Welcome, assignment=assignments),
        st.builds(Refusal, reason=texts, message=texts),
        st.builds(Generation, generation=counts, members=member_lists, soft=st.booleans()),
        st.builds(
            Go,
            generation=counts,
            members=member_lists,
            steps=st.lists(counts, max_size=4).map(tuple),
        ),
        st.builds(Stop, reason=texts, message=texts),
        st.just(Bye()),
    )


@patiently
@given(messages())
def test_every_message_survives_the_wire(message: Message) -> None:
    line = encode(message)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert decode(line) == message


@given(st.binary(max_size=200) | values.map(lambda value: json.dumps(value).encode()))
def test_arbitrary_lines_raise_nothing_else(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode(line)


@patiently
@given(messages(), st.data())
def test_a_message_with_a_spoilt_field_is_refused_or_well_typed(
    message: Message, data: st.DataObject
) -> None:
    body = json.loads(encode(message))
    key = data.draw(st.sampled_from(sorted(body)))
    body[key] = data.draw(values)
    try:
        read = decode(json.dumps(body).encode())
    except ProtocolError:
        return
    assert decode(encode(read)) == read


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"", "not a line of JSON"),
        (b"\xff", "not a line of JSON"),
        (b"[" * 100_000, "not a line of JSON"),
        (b"3", "not a number"),
        (b"{}", "unknown message type 'None'"),
        (b'{"type":"dance"}', "unknown message type 'dance'"),
        (b'{"type":"ack"}', "ack.generation is missing"),
        (b'{"type":"ack","generation":"1"}', "ack.generation is a string, not an integer"),
        (b'{"type":"ack","generation":true}', "ack.generation is a boolean, not an integer"),
        (b'{"type":"ack","generation":-1}', "ack.generation is negative or too large"),
        (b'{"type":"kv","generation":1,"key":"a","value":"a"}', "kv.value is not base64"),
        (b'{"type":"go","generation":1,"members":[3]}', "go.members[0] is a number, not an object"),
        (b'{"type":"finished","result":3}', "finished.result is a number, not an object"),
        (
            b'{"type":"hello","token":"","worker":"","index":0,"fingerprint":{},"phase":"asleep"}',
            "hello.phase is none of loading, ready, forming, training, finishing",
        ),
    ],
)
def test_what_is_wrong_is_said(line: bytes, problem: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        decode(line)
    assert problem in str(caught.value)


def test_the_wire_names_are_camel_case_with_parameters_left_alone() -> None:
    trainer = {"batchSize": 8, "parameters": {"learning_rate": "0.1"}}
    welcome = Welcome(assignment=Assignment(task="a/b", name="b", workers=2, trainer=trainer))
    body = json.loads(encode(welcome))
    assert body["type"] == "welcome"
    assert body["assignment"]["reportSeconds"] == 5.0
    assert body["assignment"]["trainer"] == trainer


def test_oversized_messages_are_refused_on_both_sides() -> None:
    fits = KeyValue(generation=1, key="k", value=bytes(700_000))
    assert decode(encode(fits)) == fits
    with pytest.raises(ProtocolError, match="a kv message of"):
        encode(KeyValue(generation=1, key="k", value=bytes(800_000)))
    with pytest.raises(ProtocolError, match="longer"):
        decode(b" " * (MAX_LINE + 1))


def test_a_diverged_loss_and_an_unknown_key_pass() -> None:
    report = StepReport(
        generation=1,
        step=1,
        total_steps=2,
        epoch=0,
        loss=math.nan,
        samples_per_second=math.inf,
        metrics={"accuracy": math.nan},
        seconds={},
    )
    read = decode(encode(report))
    assert isinstance(read, StepReport)
    assert math.isnan(read.loss)
    assert math.isnan(read.metrics["accuracy"])
    assert read.samples_per_second == 1e12
    assert decode(b'{"type":"bye","because":"later"}') == Bye()


def test_lone_surrogates_do_not_get_past_decoding() -> None:
    read = decode(encode(Failed(reason="UserCodeFailed", message="\udcff", detail="")))
    assert read == Failed(reason="UserCodeFailed", message="?", detail="")


def test_a_token_is_in_no_representation() -> None:
    hello = Hello(token="secret", worker="w", index=0, fingerprint={})
    assert "secret" not in repr(hello)
    assert "secret" not in f"{hello}"


def test_an_ack_is_what_it_was() -> None:
    assert encode(Ack(generation=3, step=7, digest="ab")) == (
        b'{"type":"ack","generation":3,"step":7,"digest":"ab"}\n'
    )


def line(kind: str, **fields: object) -> bytes:
    whole: dict[str, dict[str, object]] = {
        "hello": {"token": "t", "worker": "w", "index": 0, "fingerprint": {}},
        "progress": {
            "generation": 1,
            "step": 1,
            "totalSteps": 2,
            "epoch": 0,
            "loss": 1.0,
            "samplesPerSecond": 1.0,
            "metrics": {},
            "seconds": {},
        },
        "pulse": {
            "nonce": 1,
            "generation": 1,
            "step": 1,
            "phase": "training",
            "activity": "computing",
            "ageSeconds": 0.0,
            "usualSeconds": 0.0,
        },
        "checkpoint": {"step": 1, "bytes": 1, "seconds": 1.0},
        "ack": {"generation": 1, "step": 1, "digest": ""},
    }
    return json.dumps({"type": kind, **whole.get(kind, {}), **fields}).encode()


def nested(depth: int) -> object:
    value: object = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (line("hello", fingerprint=dict.fromkeys(map(str, range(65)), 0)), "hello.fingerprint"),
        (line("hello", fingerprint={"torch": "x" * 1025}), "hello.fingerprint.torch"),
        (line("hello", members=["w"] * 8193), "hello.members"),
        (line("hello", finished=[{"task": "t", "result": {}}] * 65), "hello.finished"),
        (line("hello", worker="w" * 254), "hello.worker"),
        (line("hello", index=2**31), "hello.index"),
        (line("hello", generation=2**62), "hello.generation"),
        (line("hello", step=10**400), "hello.step is too long or too large: more than 2**53"),
        (line("ack", generation=2**41), "ack.generation"),
        (line("progress", step=2**41), "progress.step"),
        (line("progress", epoch=2**60), "progress.epoch"),
        (line("progress", totalSteps=-1), "progress.totalSteps"),
        (line("checkpoint", bytes=2**53), "checkpoint.bytes"),
        (line("finished", result={"a": nested(900)}), "nested more than 8 deep"),
        (line("finished", result={"a": [0] * 20_001}), "more than 20000 values"),
        (line("finished", result="[" * 10), "finished.result is a string"),
        (line("fault", generation=1, message="m", peer="p" * 254), "fault.peer"),
    ],
)
def test_what_no_worker_of_ours_says_is_refused(text: bytes, problem: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        decode(text)
    assert problem in str(caught.value)
    assert len(str(caught.value)) < 200


def test_what_a_users_code_says_is_cut() -> None:
    metrics = {f"m{i}" + "x" * 100: float(i) for i in range(100)}
    read = decode(line("progress", metrics=metrics, seconds={"recovery": 1e308}, stage="s" * 9999))
    assert isinstance(read, StepReport)
    assert len(read.metrics) == 64
    assert max(map(len, read.metrics)) == 63
    assert (read.seconds, len(read.stage)) == ({"recovery": 1e9}, 2048)
    failed = decode(line("failed", reason="R", message="m" * 9999, detail="d" * 20_000 + "end"))
    assert isinstance(failed, Failed)
    assert (len(failed.message), len(failed.detail), failed.detail[-3:]) == (2048, 16_384, "end")
    finished = decode(
        line("finished", result={"path": "p" * 9999, "steps": 2**60, "at": [-(2**60)]})
    )
    assert isinstance(finished, Finished)
    assert finished.result == {"path": "p" * 4096, "steps": SAFE_INTEGER, "at": [-SAFE_INTEGER]}


@pytest.mark.parametrize("figure", ["NaN", "1e400", "-1e400", "-5"])
def test_times_are_finite(figure: str) -> None:
    read = decode(line("pulse", ageSeconds=0.5).replace(b"0.5", figure.encode()))
    assert isinstance(read, Pulse)
    assert read.age_seconds == (1e9 if figure == "1e400" else 0.0)


@pytest.mark.parametrize("entries", [b"90000", b"250000"])
def test_what_is_large_is_refused_before_it_is_looked_at(entries: bytes) -> None:
    """Of 90,000 entries none is turned into anything: the work is that of the JSON parser alone."""
    seen = 0

    class Spy(AtMost):
        def apply(self, hint: object, value: object, where: str) -> object:
            nonlocal seen
            seen += 1
            return super().apply(hint, value, where)

    names = Annotated[tuple[Annotated[str, Spy(5)], ...], Spy(64)]
    with pytest.raises(ProtocolError, match="too long"):
        from_json(names, ["w"] * int(entries), "names")
    assert seen == 1
