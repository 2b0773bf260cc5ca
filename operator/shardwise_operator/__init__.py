"""The Shardwise operator: observe, decide, apply."""
