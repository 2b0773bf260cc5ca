"""What ends a compression: its messages name the field or the layer, the value and the remedy."""

from __future__ import annotations

from shardwise.engine.usercode import UserCodeError


class CompressionError(UserCodeError):
    """A step cannot be done on this model or with these data; the model before it is unchanged."""


class AccuracyDropped(CompressionError):  # noqa: N818 - an event
    """A step cost more accuracy than spec.compression.guard allows."""
