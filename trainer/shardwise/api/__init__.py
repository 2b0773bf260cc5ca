"""The OptimizationJob API: types, validation, names. Imports pydantic and nothing else."""
