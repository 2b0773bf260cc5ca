"""Local mode: the same manifest, coordinator and engine on this machine's processes."""
