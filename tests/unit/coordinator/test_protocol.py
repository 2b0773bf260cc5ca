"""The wire format: every message survives it, and no line can do more than raise ProtocolError."""

from __future__ import annotations

import json
import math
from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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

counts = st.integers(0, 2**63 - 1)
texts = st.text(max_size=30).filter(lambda text: text.isascii() or text.isprintable())
values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
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
        st.builds(Suspect, generation=counts, step=counts, waited_seconds=floats),
        st.builds(
            Pulse,
            nonce=counts,
            generation=counts,
            step=counts,
            phase=phases,
            activity=st.sampled_from(get_args(Activity)),
            age_seconds=floats,
            usual_seconds=floats,
        ),
        st.just(Leave()),
        st.builds(CheckpointReport, step=counts, bytes=counts, seconds=floats, error=texts),
        st.builds(Probe, nonce=counts),
        st.builds(
            StepReport,
            generation=counts,
            step=counts,
            total_steps=counts,
            epoch=counts,
            loss=floats,
            samples_per_second=floats,
            metrics=st.dictionaries(texts, floats, max_size=3),
            seconds=st.dictionaries(texts, floats, max_size=3),
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
        metrics={},
        seconds={},
    )
    read = decode(encode(report))
    assert isinstance(read, StepReport)
    assert math.isnan(read.loss)
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
