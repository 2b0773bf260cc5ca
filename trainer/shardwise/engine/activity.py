"""What the training thread tells of itself while it works: one call, `beat`, at each point."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

Activity = Literal["loading", "waiting", "computing", "exchanging", "finishing"]
"""What begins with a beat. The engine's own are "computing" and "exchanging".

"loading" is whatever happens once and may take far longer than what usually lies between two
beats: a task, libraries, the solving of a layer.
"""

Beat = Callable[[Activity], None]
"""Called before each shard, before each wait of an exchange, and when computing goes on after it.

It may raise `Interrupted`, which ends the call under way as a broken group does.
"""


def silent(activity: Activity) -> None:
    """The beat of a training that nobody watches."""
    del activity
