"""Seconds by kind."""

from __future__ import annotations

from shardwise.worker.ledger import Ledger


def test_every_second_goes_somewhere_once() -> None:
    now = [10.0]
    ledger = Ledger(lambda: now[0])
    now[0] += 2.0
    assert ledger.spend("waiting") == 2.0
    now[0] += 3.0
    ledger.spend("productive")
    now[0] += 1.0
    ledger.spend("productive")
    assert ledger.take() == {"waiting": 2.0, "productive": 4.0}
    assert ledger.take() == {}


def test_what_another_has_told_is_forgotten() -> None:
    now = [0.0]
    ledger = Ledger(lambda: now[0])
    now[0] = 5.0
    ledger.spend("productive")
    ledger.forget()
    now[0] = 6.0
    ledger.spend("recovery")
    assert ledger.take() == {"recovery": 1.0}
