"""Statistics that several tasks of a pool need, computed once: Hessians, ranges, histograms,
scores, a teacher's outputs.

A statistic is named by a hash of all that it follows from, so whoever finds it has exactly what
would have been computed. It stays in the memory of the workers that computed it, and goes into
the folder that the tasks share, where the others find it.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from shardwise.regular import UnsafeFileError, read_regular

log = logging.getLogger("shardwise.compression")

MEMORY_BYTES = 512 * 2**20
_VALUE = "value"
LARGEST = 1 << 36
"""Bytes of one statistic's file."""


class Store:
    """The statistics that one worker process knows, over its tasks.

    Args:
        memory_bytes: how much is kept in memory; what was used longest ago goes first.
    """

    def __init__(self, memory_bytes: int = MEMORY_BYTES) -> None:
        self._memory_bytes = memory_bytes
        self._known: OrderedDict[str, Tensor] = OrderedDict()
        self.computed = 0
        """How many statistics were computed here for want of a known one."""
        self.recalled = 0

    def get(self, key: str, folder: Path | None) -> Tensor | None:
        """A statistic, out of memory or of the folder; None: it is not known."""
        found = self._known.get(key)
        if found is None and folder is not None:
            found = _read(folder / f"{key}.safetensors")
            if found is not None:
                self._remember(key, found)
        elif found is not None:
            self._known.move_to_end(key)
        return found

    def put(self, key: str, value: Tensor, folder: Path | None) -> None:
        """Keep a statistic, in the folder as well where there is one.

        A folder that cannot be written to costs the others the computing, and nothing else.
        """
        self._remember(key, value.clone())
        if folder is None:
            return
        aside = folder / f".{key}.{os.getpid()}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            aside.write_bytes(save({_VALUE: value.contiguous()}))
            aside.replace(folder / f"{key}.safetensors")
        except OSError as error:
            log.warning("a statistic was not written for other workers: %s", error)

    def _remember(self, key: str, value: Tensor) -> None:
        self._known[key] = value
        self._known.move_to_end(key)
        while sum(each.nbytes for each in self._known.values()) > self._memory_bytes:
            self._known.popitem(last=False)


@dataclass(frozen=True)
class Shared:
    """The store as one job sees it.

    Attributes:
        data: what the samples follow from: a text, equal for tasks with the same data.
        folder: what the tasks share; None: each worker has its memory alone.
    """

    store: Store
    data: str
    folder: Path | None = None

    def memo(self, kind: str, models: tuple[nn.Module, ...], detail: str) -> Memo:
        """The place of one statistic.

        Args:
            models: whose parameters and buffers it follows from, all of them.
            detail: whatever else it follows from.
        """
        hasher = hashlib.sha256(f"{kind}\0{self.data}\0{detail}\0".encode())
        for model in models:
            for name, tensor in model.state_dict().items():
                hasher.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
                raw = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
                hasher.update(raw.numpy().tobytes())
        return Memo(self, hasher.hexdigest())


@dataclass(frozen=True)
class Memo:
    """Where one statistic is kept, if it is known."""

    shared: Shared
    key: str

    def recall(self, agreed: Callable[[bool], bool]) -> Tensor | None:
        """The statistic where all members of the group know it; None: compute it together.

        Args:
            agreed: whether all members say yes, given this one's word; an exchange.
        """
        found = self.shared.store.get(self.key, self.shared.folder)
        if not agreed(found is not None) or found is None:
            self.shared.store.computed += 1
            return None
        self.shared.store.recalled += 1
        return found.clone()

    def keep(self, value: Tensor, *, write: bool) -> None:
        """Keep what was computed; one member of the group writes it for others."""
        self.shared.store.put(self.key, value, self.shared.folder if write else None)


def _read(path: Path) -> Tensor | None:
    try:
        return load(read_regular(path, LARGEST))[_VALUE]
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError, KeyError, UnsafeFileError) as error:
        log.warning("%s cannot be read (%s); it is computed anew", path, error)
        return None
