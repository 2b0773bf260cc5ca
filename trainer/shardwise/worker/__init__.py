"""The worker process: control connection, rendezvous, process group, outcome."""
