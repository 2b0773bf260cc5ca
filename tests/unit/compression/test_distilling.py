"""Who the teacher is: the job's own model, a file's, or what an entrypoint returns."""

from __future__ import annotations

import pytest
from safetensors.torch import save_file
from small import copied, finished, make_task, trained

from shardwise.compression.job import begin

TRAINER = {
    "entrypoint": "job:own",
    "parameters": {"width": 6},
    "batchSize": 32,
    "shards": 4,
    "steps": 1,
}
TUNE = {"steps": 60, "learningRate": "0.1"}


@pytest.fixture(scope="module")
def teacher():
    return trained()


def distilled(known, /, **wanted):
    """The accuracy of a student that never sees a label, and what was loaded."""
    asked = []

    def load(entrypoint, parameters, seed):
        asked.append((entrypoint, dict(parameters), seed))
        if entrypoint == "other:teacher":
            return copied(known)  # it has loaded its weights by itself
        return make_task(**parameters)

    step = {"name": "d", "distill": {"alpha": "1", **wanted}, "fineTune": TUNE}
    untrained = make_task(width=6)
    machine = begin(untrained, {"steps": [step]}, TRAINER, load=load)
    machine.check()
    return finished(machine).rows[-1].metrics["accuracy"], asked


def test_an_entrypoint_that_loads_its_own_weights(teacher):
    accuracy, asked = distilled(teacher, teacher={"entrypoint": "other:teacher"})
    assert accuracy > 0.6
    # Another entrypoint's parameters are its own; the job's are not laid under them.
    assert set(map(str, asked)) == {str(("other:teacher", {}, 0))}


def test_a_file(teacher, tmp_path):
    file = tmp_path / "weights.safetensors"
    save_file(dict(teacher.model.state_dict()), file)
    wanted = {"parameters": {"width": 24}, "file": str(file)}
    accuracy, asked = distilled(teacher, teacher=wanted)
    assert accuracy > 0.6
    assert set(map(str, asked)) == {str(("job:own", {"width": 24}, 0))}


def test_the_jobs_own_model_teaches_nothing_new_where_it_is_the_student():
    accuracy, asked = distilled(None)
    assert accuracy < 0.6
    assert asked == []


def test_a_student_starts_from_its_own_weights(teacher):
    student = {"parameters": {"width": 16}}
    wanted = {"entrypoint": "other:teacher"}
    accuracy, asked = distilled(teacher, teacher=wanted, student=student)
    assert accuracy > 0.6
    assert ("job:own", {"width": 16}, 0) in asked
