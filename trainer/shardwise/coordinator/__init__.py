"""The coordinator: numbers the generations of each task's group and gathers its progress."""
