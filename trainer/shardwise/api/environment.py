"""Names that the operator writes into a worker's environment and the worker reads from it."""

from __future__ import annotations

COORDINATOR = "SHARDWISE_COORDINATOR"
"""host:port of the coordinator."""
COORDINATOR_CA = "SHARDWISE_COORDINATOR_CA"
"""PEM text of the certificate that the worker pins; absent means plain TCP (local mode)."""
COORDINATOR_NAME = "SHARDWISE_COORDINATOR_NAME"
"""The name that the certificate must carry."""
TOKEN_FILE = "SHARDWISE_TOKEN_FILE"
"""Path of the token that the worker shows; read anew for each connection, because it rotates."""
WORKER = "SHARDWISE_WORKER"
"""This worker's unique name (its pod's name)."""
INDEX = "SHARDWISE_INDEX"
"""This worker's slot, from 0; members of a group are ranked by it."""
JOB = "SHARDWISE_JOB"
"""namespace/name, for logs."""
OUTPUT = "SHARDWISE_OUTPUT"
"""Directory that gets the weights and result.json."""
CHECKPOINT = "SHARDWISE_CHECKPOINT"
"""Directory or URL that gets the checkpoints; absent means none. How often and how many is in
the Assignment."""
ADDRESS = "SHARDWISE_ADDRESS"
"""The IP address that this worker's peers reach it at."""
METRICS_PORT = "SHARDWISE_METRICS_PORT"
"""Port on ADDRESS that the worker's metrics can be had from; absent means none. Where a launcher
has several workers, each adds its index."""
TERMINATION_LOG = "SHARDWISE_TERMINATION_LOG"
"""File that gets the outcome as JSON (Kubernetes' termination message); absent means none."""

TOKEN_AUDIENCE = "shardwise-coordinator"
TOKEN_DIRECTORY = "/var/run/secrets/shardwise"
CODE_DIRECTORY = "/code"
OUTPUT_DIRECTORY = "/output"
CHECKPOINT_DIRECTORY = "/checkpoint"
METRICS_PORT_NUMBER = 9400
"""The port in a pod."""
TERMINATION_MESSAGE_BYTES = 4000
"""Kubernetes keeps 4,096 bytes of a termination message."""

FAULTS = "SHARDWISE_FAULTS"
"""Faults to strike on purpose, as KIND:INDEX@STEP with commas; for tests and demonstrations."""
FAULT_MARKERS = "SHARDWISE_FAULT_MARKERS"
"""Directory that remembers which faults have struck, over a worker's lives."""
GRACE_SECONDS = "SHARDWISE_GRACE_SECONDS"
"""How long a worker that was asked to leave may take: less than its pod's grace period."""
WATCHDOG_SECONDS = "SHARDWISE_WATCHDOG_SECONDS"
"""How long a worker process may give no sign of life before it is ended and begun anew."""
