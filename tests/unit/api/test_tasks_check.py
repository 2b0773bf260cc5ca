"""Bad tasks: each error names the field, what is wrong with its value, and the remedy."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tasks_job import LIST, floats, integers, job, sweep

from shardwise.api.tasks import Tasks
from shardwise.api.tasks_check import MAX_BYTES
from shardwise.api.tasks_ranges import grid_size
from shardwise.api.validation import InvalidJob, validate
from shardwise.sweep.space import Space

SWEPT = "spec.tasks.sweep.parameters"
ACCURACY = {"metric": "accuracy", "direction": "Maximize"}
SIZE = {"metric": "bytes", "direction": "Minimize"}
CHOICE = {"name": "hidden", "values": [32, 64]}


def stopping(*rungs, **more):
    """spec.tasks with early stopping over 16 tasks."""
    return sweep(
        integers(1, 16),
        tasks={"objectives": [ACCURACY]},
        earlyStopping={"rungs": list(rungs), **more},
    )


def conditional(parameter, values, *before):
    return sweep(
        *before, {"name": "late", "values": [1], "when": {"parameter": parameter, "values": values}}
    )


# tasks, field, what the rest of the message must say
BAD = {
    "neither": ({"maxRetries": 1}, "spec.tasks.list", ["missing", "sweep", "add list"]),
    "both": (sweep(CHOICE, tasks={"list": LIST}), "spec.tasks.list", ["given beside", "remove"]),
    "long list": ({"list": LIST, "maxTasks": 1}, "spec.tasks.list", ["2 entries", "maxTasks (1)"]),
    "no maxTasks": (
        sweep(CHOICE, algorithm="Random"),
        "spec.tasks.maxTasks",
        ["is missing, and Random goes on", "maxTasks: 50"],
    ),
    "TPE without": (
        sweep(CHOICE, algorithm="TPE", tasks={"maxTasks": 9}),
        "spec.tasks.objectives",
        ["has 0 entries, and TPE needs exactly one", "write objectives"],
    ),
    "TPE with two": (
        sweep(CHOICE, algorithm="TPE", tasks={"maxTasks": 9, "objectives": [ACCURACY, SIZE]}),
        "spec.tasks.objectives",
        ["has 2 entries, and TPE needs exactly one"],
    ),
    "NSGA2 without": (
        sweep(CHOICE, algorithm="NSGA2", tasks={"maxTasks": 9}),
        "spec.tasks.objectives",
        ["NSGA2 needs at least one"],
    ),
    "large group": (
        {"list": LIST, "workersPerTask": 5},
        "spec.tasks.workersPerTask",
        ["5 is more than spec.trainer.shards (4)", "raise shards"],
    ),
    "no values": (sweep({"name": "a"}), SWEPT, ["'a' has neither values nor a range"]),
    "values and range": (sweep(floats(0, 1, points=2) | {"values": [1]}), SWEPT, ["has both"]),
    "empty range": (
        sweep(floats(2, "0.5", points=3)),
        f"{SWEPT}[0].range.min",
        ["is 2, more than max (0.5), so the range is empty", "exchange"],
    ),
    "one number": (sweep(integers(3, "3")), f"{SWEPT}[0].range.min", ["is 3, and so is max"]),
    "log of zero": (
        sweep(floats(0, 1, scale="Log", points=3)),
        f"{SWEPT}[0].range.min",
        ["is 0, and the scale is Log", "give a positive min, or scale: Linear"],
    ),
    "log of less": (
        sweep(integers(-1, 5, scale="Log")),
        f"{SWEPT}[0].range.min",
        ["is -1, and the scale is Log"],
    ),
    "no integer": (sweep(integers("0.5", 3)), f"{SWEPT}[0].range.min", ["0.5", "type: Float"]),
    "large integer": (sweep(integers(1, "1e16")), f"{SWEPT}[0].range.max", ["beyond 2**53 - 1"]),
    "large float": (sweep(floats(1, "1e400")), f"{SWEPT}[0].range.max", ["below 1e100"]),
    "no points": (sweep(floats(0, 1)), f"{SWEPT}[0].range.points", ["is missing", "add points"]),
    "many points": (
        sweep(integers(1, 3, points=5)),
        f"{SWEPT}[0].range.points",
        ["is 5, and the range has only 3 integers", "at most 3"],
    ),
    "large grid": (
        sweep(integers(1, 200, "a"), integers(1, 200, "b")),
        SWEPT,
        ["a grid of 40000 tasks, more than spec.tasks.maxTasks (10000, which it is when", "Random"],
    ),
    "larger than asked for": (
        sweep(CHOICE, floats(0, 1, points=3), tasks={"maxTasks": 5}),
        SWEPT,
        ["a grid of 6 tasks, more than spec.tasks.maxTasks (5)", "raise maxTasks"],
    ),
    "many values": (
        sweep(
            integers(1, 5001),
            tasks={"objectives": [{"metric": m, "direction": "Maximize"} for m in "abcd"]},
        ),
        "spec.tasks.objectives",
        ["5001 tasks with 4 objectives have more than 20000 values", "at most 5000 tasks"],
    ),
    "same task": (
        {"list": [LIST[0], LIST[1], LIST[0]]},
        "spec.tasks.list[2].name",
        ["'theta-1' is that of spec.tasks.list[0] too", "its own name"],
    ),
    "same parameter": (
        sweep(CHOICE, CHOICE),
        f"{SWEPT}[1].name",
        [f"'hidden' is that of {SWEPT}[0] too"],
    ),
    "same value": (
        sweep({"name": "a", "values": [1, "1", 1]}),
        f"{SWEPT}[0].values[2]",
        [f"1 is that of {SWEPT}[0].values[0] too", "remove"],
    ),
    "same field": (
        sweep(*({"name": n, "field": "trainer.seed", "values": [1]} for n in "ab")),
        f"{SWEPT}[1].field",
        ["'trainer.seed' is that of"],
    ),
    "same metric": (
        {"list": LIST, "objectives": [ACCURACY, ACCURACY]},
        "spec.tasks.objectives[1].metric",
        ["'accuracy' is that of spec.tasks.objectives[0] too"],
    ),
    "unknown step": (
        sweep({"name": "bits", "field": "compression.int4.quantize.bits", "values": [4]}),
        f"{SWEPT}[0].field",
        ["'int4' is no step of spec.compression", "did you mean 'int8'?"],
    ),
    "unknown field": (
        sweep({"name": "bits", "field": "compression.int8.quantize.bit", "values": [4]}),
        f"{SWEPT}[0].field",
        ["'bit' is no field of quantize of the step 'int8'", "did you mean 'bits'?"],
    ),
    "absent part": (
        sweep({"name": "bits", "field": "compression.int8.prune.sparsity", "values": ["0.5"]}),
        f"{SWEPT}[0].field",
        ["the step 'int8' has no prune", "write one of 'quantize'"],
    ),
    "below a leaf": (
        sweep({"name": "bits", "field": "compression.int8.quantize.bits.x", "values": [4]}),
        f"{SWEPT}[0].field",
        ["'bits' of quantize of the step 'int8' has no fields", "end the path with bits"],
    ),
    "steps for epochs": (
        sweep({"name": "n", "field": "trainer.steps", "values": [4]}),
        f"{SWEPT}[0].field",
        ["the trainer counts epochs", "write trainer.epochs"],
    ),
    "fractions of an integer": (
        sweep(floats(1, 2, points=2) | {"field": "trainer.seed"}),
        f"{SWEPT}[0].field",
        ["'trainer.seed' is an integer", "write type: Int"],
    ),
    "value beyond the field's bound": (
        sweep({"name": "b", "field": "compression.int8.quantize.bits", "values": [8, 16]}),
        f"{SWEPT}[0].values[1]",
        [
            "16 makes spec.compression.steps[1].quantize.bits invalid: 16 is more than 8",
            "8 or less",
        ],
    ),
    "end beyond the field's bound": (
        sweep(integers(2, 16, "b") | {"field": "compression.int8.quantize.bits"}),
        f"{SWEPT}[0].range.max",
        ["16 makes spec.compression.steps[1].quantize.bits invalid: 16 is more than 8"],
    ),
    "fractions of a field of integers": (
        sweep(floats(2, 8, points=2) | {"field": "compression.int8.quantize.bits"}),
        f"{SWEPT}[0].range.min",
        ["'2' is a string, not an integer", "write type: Int"],
    ),
    "value that breaks a rule": (
        sweep({"name": "batch", "field": "trainer.batchSize", "values": [64, 2]}),
        f"{SWEPT}[0].values[1]",
        ["2 makes spec.trainer.shards invalid: 4 is more than spec.trainer.batchSize (2)"],
    ),
    "a part as a value": (
        sweep({"name": "b", "field": "compression.prune.fineTune.epochs", "values": ["1"]}),
        f"{SWEPT}[0].values[0]",
        ["'1' is a string, not an integer", "without quotes"],
    ),
    "condition on a later one": (
        sweep(
            {"name": "a", "values": [1], "when": {"parameter": "hidden", "values": [32]}}, CHOICE
        ),
        f"{SWEPT}[0].when.parameter",
        ["'hidden' comes after 'a'", "earlier in the list"],
    ),
    "condition on itself": (
        conditional("late", [1]),
        f"{SWEPT}[0].when.parameter",
        ["'late' is the parameter itself"],
    ),
    "condition on nothing": (
        conditional("hiden", [1], CHOICE),
        f"{SWEPT}[1].when.parameter",
        ["'hiden' is no parameter of the sweep", "did you mean 'hidden'?"],
    ),
    "condition on a range": (
        conditional("width", [1], integers(1, 2)),
        f"{SWEPT}[1].when.parameter",
        ["'width' has a range", "values instead"],
    ),
    "condition that never holds": (
        conditional("hidden", [32, "64"], CHOICE),
        f"{SWEPT}[1].when.values[1]",
        ["'64' is not one of the values of 'hidden'", "take one of 32, 64"],
    ),
    "unordered rungs": (
        stopping(5, 3),
        "spec.tasks.sweep.earlyStopping.rungs[1]",
        ["3 is not more than the rung before it (5)", "increasing"],
    ),
    "rung at the end": (
        stopping(3, 10),
        "spec.tasks.sweep.earlyStopping.rungs",
        ["has 10, and the training ends at spec.trainer.epochs (10)", "lower the rungs"],
    ),
    "rungs without an objective": (
        sweep(integers(1, 16), earlyStopping={"rungs": [3]}),
        "spec.tasks.objectives",
        ["has 0 entries, and earlyStopping needs exactly one"],
    ),
    "rungs of different lengths": (
        sweep(
            {"name": "n", "field": "trainer.epochs", "values": [5, 6, 7]},
            tasks={"objectives": [ACCURACY]},
            earlyStopping={"rungs": [3]},
        ),
        f"{SWEPT}[0].field",
        ["given beside earlyStopping", "remove this parameter"],
    ),
    "size in the middle": (
        sweep(integers(1, 16), tasks={"objectives": [SIZE]}, earlyStopping={"rungs": [3]}),
        "spec.tasks.objectives[0].metric",
        ["'bytes' is known only after the compression", "remove"],
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_one_is_told_with_field_value_and_remedy(case):
    tasks, field, fragments = BAD[case]
    with pytest.raises(InvalidJob) as caught:
        validate(job(tasks))
    (error,) = caught.value.errors
    assert error.field == field
    assert [part for part in fragments if part not in str(error)] == []
    assert str(error) == f"{field}: {error.problem}; {error.remedy}"
    assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("workers", "bound"),
    [
        ({"replicas": 2}, "spec.workers.replicas (2)"),
        ({"replicas": 1, "max": 2}, "spec.workers.max (2)"),
        ({}, "spec.workers.replicas (1)"),
    ],
)
def test_a_group_larger_than_the_pool_is_told_with_the_pools_size(workers, bound):
    manifest = job({"list": LIST, "workersPerTask": 3})
    manifest["spec"]["workers"] = workers
    with pytest.raises(InvalidJob) as caught:
        validate(manifest)
    (error,) = caught.value.errors
    assert str(error) == (
        f"spec.tasks.workersPerTask: 3 is more than {bound}, so no task could begin; "
        "lower workersPerTask or raise spec.workers.replicas (and max, where it is given)"
    )
    manifest["spec"]["workers"] = {"replicas": 1, "max": 3}
    validate(manifest)


GOOD = {
    "a grid": sweep(floats("1e-3", 1, scale="Log", points=3)),
    "every integer": sweep(integers(-5, "5")),
    "random over fractions without points": sweep(
        floats(0, 1), algorithm="Random", tasks={"maxTasks": 10_000}
    ),
    "a condition on a condition": sweep(
        CHOICE,
        {"name": "a", "values": [1, 2], "when": {"parameter": "hidden", "values": [32]}},
        {"name": "b", "values": ["x"], "when": {"parameter": "a", "values": [2]}},
    ),
    "early stopping": stopping(3, 9),
    "the size beside the accuracy": sweep(
        {"name": "bits", "field": "compression.int8.quantize.bits", "values": [8, 4]},
        algorithm="NSGA2",
        tasks={"objectives": [ACCURACY, SIZE], "maxTasks": 8},
    ),
    "fractions of the compression": sweep(
        floats("0", "0.9", points=10) | {"field": "compression.prune.prune.sparsity"}
    ),
    "an optional field that is not set": sweep(
        {"name": "g", "field": "compression.int8.quantize.groupSize", "values": [32, 64]}
    ),
    "the trainer's": sweep(integers(1, 5) | {"field": "trainer.seed"}),
    "the same number as text": sweep({"name": "a", "values": [1, "1"]}),
    "as large as may be": sweep(integers(1, 100, "a"), integers(1, 100, "b")),
    "a list": {"list": LIST, "maxTasks": 2, "workersPerTask": 4},
}


@pytest.mark.parametrize("case", GOOD)
def test_a_good_one_is_accepted(case):
    validate(job(GOOD[case]))


def test_rungs_are_steps_where_the_trainer_has_steps():
    manifest = job(stopping(3, 100), steps=101)
    del manifest["spec"]["trainer"]["epochs"]
    validate(manifest)
    manifest["spec"]["trainer"]["steps"] = 100
    with pytest.raises(InvalidJob, match=r"has 100, and the training ends at spec.trainer.steps"):
        validate(manifest)


@pytest.mark.parametrize(
    ("items", "said"),
    [
        (None, "the job has none"),
        ([LIST[1], {"name": "bare"}], "the task 'bare' has none"),
    ],
)
def test_a_figure_of_the_compression_needs_one(items, said):
    tasks = sweep(CHOICE) if items is None else {"list": items}
    manifest = job(tasks | {"objectives": [SIZE]})
    validate(manifest)
    del manifest["spec"]["compression"]
    with pytest.raises(InvalidJob) as caught:
        validate(manifest)
    assert f"'bytes' is a figure of the compression, and {said}" in str(caught.value)
    if items is not None:
        manifest["spec"]["tasks"]["list"] = [LIST[1]]
        validate(manifest)


def test_a_field_of_a_compression_that_is_absent():
    manifest = job()
    del manifest["spec"]["compression"]
    with pytest.raises(InvalidJob, match=r"which is absent; add spec\.compression"):
        validate(manifest)


def test_too_many_arguments_together():
    shared = {f"shared{n}": n for n in range(40)}
    own = {f"own{n}": n for n in range(40)}
    with pytest.raises(InvalidJob) as caught:
        validate(job({"list": [LIST[0], {"name": "b", "parameters": own}]}, parameters=shared))
    (error,) = caught.value.errors
    assert error.field == "spec.tasks.list[1].parameters"
    assert "make 80 arguments with those of spec.trainer, more than 64" in error.problem
    shared = {f"shared{n}": n for n in range(64)}
    with pytest.raises(InvalidJob, match="make 65 arguments with those of"):
        validate(job(sweep(CHOICE), parameters=shared))


def test_a_bad_value_is_told_once_though_it_is_in_many_combinations():
    bits = {"name": "b", "field": "compression.int8.quantize.bits", "values": [4, 9, 2, 1]}
    group = {"name": "g", "field": "compression.int8.quantize.groupSize", "values": [8, 16]}
    with pytest.raises(InvalidJob) as caught:
        validate(job(sweep(bits, group)))
    assert [error.field for error in caught.value.errors] == [
        f"{SWEPT}[0].values[1]",
        f"{SWEPT}[0].values[3]",
    ]


def test_a_compression_of_an_item_keeps_the_rules_of_every_compression():
    steps = [{"name": "q", "quantize": {}}, {"name": "p", "prune": {}}]
    with pytest.raises(InvalidJob) as caught:
        validate(job({"list": [LIST[0], {"name": "b", "compression": {"steps": steps}}]}))
    (error,) = caught.value.errors
    assert error.field == "spec.tasks.list[1].compression.steps"
    assert "steps[0] (q) has quantize, and is not the last step" in error.problem


def test_a_list_that_no_annotation_has_room_for():
    items = [{"name": f"t{n}", "parameters": {"text": "x" * 1000}} for n in range(200)]
    with pytest.raises(InvalidJob) as caught:
        validate(job({"list": items}))
    (error,) = caught.value.errors
    assert error.field == "spec.tasks"
    assert f"more than {MAX_BYTES}" in error.problem
    assert "sweep instead" in error.remedy


def test_all_errors_are_told_at_once():
    tasks = sweep(
        floats(0, 1, scale="Log", points=3),
        {"name": "b", "field": "compression.none.quantize.bits", "values": [1, 1]},
        tasks={"workersPerTask": 5},
    )
    with pytest.raises(InvalidJob) as caught:
        validate(job(tasks))
    assert [error.field for error in caught.value.errors] == [
        "spec.tasks.workersPerTask",
        f"{SWEPT}[0].range.min",
        f"{SWEPT}[1].values[1]",
        f"{SWEPT}[1].field",
    ]


def test_a_job_that_is_wrong_elsewhere_is_told_of_that_alone():
    manifest = job(sweep({"name": "s", "field": "trainer.seed", "values": [1, 2]}), shards=65)
    with pytest.raises(InvalidJob) as caught:
        validate(manifest)
    assert [error.field for error in caught.value.errors] == ["spec.trainer.shards"]


ranges = st.builds(
    lambda least, span, scale, points: {
        "type": "Int", "min": least, "max": least + span, "scale": scale,
        **({} if points is None else {"points": min(points, span + 1)}),
    },
    st.integers(1, 9), st.integers(1, 4), st.sampled_from(["Linear", "Log"]),
    st.none() | st.integers(2, 5),
)  # fmt: skip


@st.composite
def spaces(draw):
    """Parameters, some with conditions on earlier ones that have values."""
    found = []
    for index in range(draw(st.integers(1, 3))):
        parameter = {"name": f"p{index}"}
        if draw(st.booleans()):
            parameter["values"] = list(range(draw(st.integers(1, 3))))
        else:
            parameter["range"] = draw(ranges)
        earlier = [other for other in found if "values" in other]
        if earlier and draw(st.booleans()):
            other = draw(st.sampled_from(earlier))
            held = draw(st.sets(st.sampled_from(other["values"]), min_size=1))
            parameter["when"] = {"parameter": other["name"], "values": sorted(held)}
        found.append(parameter)
    return found


@settings(deadline=None)
@given(spaces())
def test_the_size_of_a_grid_is_what_the_sweep_goes_through(parameters):
    found = [tuple(task.items()) for task in Space(parameters).grid()]
    assert len(found) == len(set(found))
    sweep = Tasks.model_validate({"sweep": {"parameters": parameters}}).sweep
    assert grid_size(sweep) == len(found)
