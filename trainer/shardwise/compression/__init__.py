"""Compression of a trained model over shards: pruning, quantization, distillation.

Every statistic is a sum, a count, a least or a greatest value over fixed micro-batches, so the
bytes of what comes out do not depend on the number of workers.
"""
