"""Opens a compressed model: needs torch, safetensors and NumPy, and none of the training code.

model = shardwise.load("out/compressed")      # the folder that a job wrote
logits = model(images)

Nothing of the folder is run: the weights are safetensors, the graph is a list of torch's operators
in JSON, and both are checked against their hashes and sizes before they are used.
"""

from __future__ import annotations

from shardwise.loading.folder import load
from shardwise.loading.packed import read_tensors, unpack_bits
from shardwise.regular import UnsafeFileError

__all__ = ["UnsafeFileError", "load", "read_tensors", "unpack_bits"]
