"""Runs of the examples, each made once a session."""

from __future__ import annotations

import pytest
import yaml
from runs import EXAMPLES, Run, run


@pytest.fixture(scope="session")
def example(tmp_path_factory):
    """An example's run by name, number of workers, partition and, where it is cut short, steps;
    made on first use."""
    made: dict[tuple[str, int, str, int | None], Run] = {}

    def get(name: str, workers: int, partition: str = "none", steps: int | None = None) -> Run:
        key = (name, workers, partition, steps)
        if key not in made:
            folder = tmp_path_factory.mktemp(f"{name}-{workers}-{partition}")
            job = yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text())
            job["spec"]["trainer"]["partition"] = partition
            if steps is not None:
                job["spec"]["trainer"].pop("epochs", None)
                job["spec"]["trainer"]["steps"] = steps
            job["spec"]["workers"] |= {"max": 8}
            manifest = folder / f"{name}.yaml"
            manifest.write_text(yaml.safe_dump(job))
            made[key] = run(manifest, folder / "out", "--workers", str(workers))
            assert made[key].code == 0, made[key].stderr
        return made[key]

    return get
