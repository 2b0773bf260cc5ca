"""What anybody can bring about does not fill the log."""

from __future__ import annotations

from shardwise.coordinator.seldom import LINES, Seldom


def test_some_lines_and_then_how_many_there_were() -> None:
    seldom = Seldom()
    lines = [seldom.line("refused", 0.0) for _ in range(1000)]
    told = [line for line in lines if line is not None]
    assert told == ["refused"] * int(LINES[1])
    assert seldom.line("refused", 10.0) == "refused (and 980 others that are not told)"
    assert seldom.line("refused", 10.0) == "refused"
