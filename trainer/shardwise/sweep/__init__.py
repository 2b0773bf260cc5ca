"""Sweeps: which tasks a job has, in which order, and which of them are the best. Pure: no I/O, no
clock; Optuna is imported by `optuna_sampler` alone, where a sweep asks for it."""

from __future__ import annotations

from shardwise.sweep.ranking import best, pareto
from shardwise.sweep.record import RecordError
from shardwise.sweep.schedule import AbandonedError, Schedule, State, Stretch

__all__ = ["AbandonedError", "RecordError", "Schedule", "State", "Stretch", "best", "pareto"]
