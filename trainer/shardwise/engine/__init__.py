"""The shard engine: flat buffers, the fixed tree, optimizers and the training loop."""
