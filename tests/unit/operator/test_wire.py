"""What the API server sends is read, whatever its depth and size."""

from __future__ import annotations

import json

import pytest

from shardwise_operator import wire


def nested(depth: int, opening: str = '{"a":', closing: str = "}") -> str:
    return opening * depth + "1" + closing * depth


def depth_of(value: object) -> int:
    depth = 0
    while isinstance(value, dict | list) and value:
        value = next(iter(value.values())) if isinstance(value, dict) else value[0]
        depth += 1
    return depth


@pytest.mark.parametrize("depth", [1, wire.CUT_DEPTH, 199])
def test_what_a_parser_reads_is_left_whole(depth):
    assert wire.read(nested(depth).encode()) == json.loads(nested(depth))


@pytest.mark.parametrize("pair", [('{"a":', "}"), ("[", "]")])
@pytest.mark.parametrize("depth", [250, 3000, 10_000])
def test_what_is_deeper_is_cut_and_the_rest_is_there(depth, pair):
    rest = '"metadata":{"name":"x]}[{\\"","tail":[1,{"b":[]}]}'
    found = wire.read(f'{{"deep":{nested(depth, *pair)},{rest}}}'.encode())
    assert found["metadata"] == {"name": 'x]}[{"', "tail": [1, {"b": []}]}
    assert depth_of(found) == wire.CUT_DEPTH


def test_what_stands_beside_the_cut_part_is_kept():
    found = wire.read(("[" * 200 + "[1]" + ",2]" * 200).encode())
    for _ in range(wire.CUT_DEPTH - 1):
        assert found[1] == 2
        found = found[0]
    assert found == [None, 2]


def test_what_would_take_too_long_is_an_error_of_its_own():
    text = "[" * 300 + "[]," * wire.MAX_TOKENS + "1" + "]" * 300
    with pytest.raises(ValueError, match="too deeply"):
        wire.read(text.encode())


@pytest.mark.parametrize("text", ["", "{", '{"a":}', "nul", '"\\ud800"', "1" * 5000])
def test_what_is_no_json_is_a_value_error(text):
    with pytest.raises(ValueError, match=r"at line 1"):
        wire.read(text.encode())


class Stream:
    def __init__(self, *chunks: bytes) -> None:
        self.chunks = chunks

    async def iter_any(self):
        for chunk in self.chunks:
            yield chunk


async def test_lines_come_whole_however_they_are_cut():
    stream = Stream(b"on", b"e\ntwo\nth", b"ree", b"\n", b"four")
    assert [line async for line in wire.lines(stream)] == [b"one", b"two", b"three", b"four"]


async def test_a_line_without_end_costs_no_memory_and_not_the_next_line(monkeypatch):
    monkeypatch.setattr(wire, "MAX_LINE", 10)
    stream = Stream(b"a\n", b"12345678", b"12345678", b"12345678\nb", b"\n")
    assert [line async for line in wire.lines(stream)] == [b"a", b"", b"b"]


def test_a_list_whose_item_cannot_be_read_still_says_where_it_goes_on():
    items = '"items":[{"metadata":{"continue":"no"}}]'
    text = f'{{{items},"metadata":{{"continue":"abc","resourceVersion":"7"}}}}'
    assert wire.list_end(text.encode()) == {"continue": "abc", "resourceVersion": "7"}
    assert wire.list_end(b"{}") == {}
