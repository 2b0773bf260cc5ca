"""A hundred manifests as people mistype them, and what must be said of each.

Used by the unit tests, with a model of the API server, and by the cluster tests with a real one.
"""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass
from typing import Any, Final

from shardwise.api.types import API_VERSION, KIND

ABSENT: Final = "<absent>"
STEPS: Final = [
    {"name": "half", "prune": {"sparsity": "0.5"}, "fineTune": {"epochs": 1}},
    {"name": "int8", "quantize": {"bits": 8}},
]
PLAIN: Final[dict[str, Any]] = {
    "apiVersion": API_VERSION,
    "kind": KIND,
    "metadata": {"name": "digits"},
    "spec": {
        "trainer": {
            "entrypoint": "shardwise.examples.digits:task",
            "parameters": {"hidden": 128, "learningRate": "0.05"},
            "epochs": 20,
            "batchSize": 256,
            "shards": 8,
        },
        "workers": {"replicas": 4, "min": 1, "max": 8},
    },
}
SWEEP: Final = {
    "parameters": [
        {"name": "hidden", "values": [64, 128]},
        {"name": "rate", "range": {"type": "Float", "min": "0.001", "max": "0.1", "points": 3}},
    ]
}


def _with(**spec: Any) -> dict[str, Any]:
    manifest = copy.deepcopy(PLAIN)
    manifest["spec"].update(copy.deepcopy(spec))
    return manifest


BASES: Final = {
    "plain": PLAIN,
    "kept": _with(checkpoint={"everySteps": 100, "url": "s3://bucket/jobs"}),
    "compressed": _with(compression={"steps": STEPS}),
    "swept": _with(tasks={"sweep": SWEEP}),
    "listed": _with(
        tasks={"list": [{"name": "a"}, {"name": "b", "compression": {"steps": STEPS}}]}
    ),
}


@dataclass(frozen=True, slots=True)
class Bad:
    """One mistake.

    Attributes:
        changes: of the base's fields, by path: `spec.tasks.list[0].name`.
        field: what every answer must name.
        both: words of the server's and of the operator's answer.
        python: words of the operator's (and the command line's) answer.
        late: the server takes it, and the operator tells of it in a condition.
    """

    name: str
    changes: dict[str, Any]
    field: str
    both: str = ""
    python: str = ""
    base: str = "plain"
    late: bool = False

    @property
    def manifest(self) -> dict[str, Any]:
        manifest = copy.deepcopy(BASES[self.base])
        for path, value in self.changes.items():
            _set(manifest, path, value)
        return manifest


def _set(node: Any, path: str, value: Any) -> None:
    *parents, last = [
        int(part) if part.isdigit() else part for part in re.findall(r"[^.\[\]]+", path)
    ]
    for name in parents:
        node = node[name] if isinstance(name, int) else node.setdefault(name, {})
    if value == ABSENT:
        del node[last]
    else:
        node[last] = value


def _one(field: str, value: Any, both: str = "", python: str = "", **more: Any) -> Bad:
    return Bad(f"{field}={value!r:.40}", {field: value}, field, both, python, **more)


TRAINER, WORKERS, TASKS, SWEPT = "spec.trainer", "spec.workers", "spec.tasks", "spec.tasks.sweep"
STEP, LISTED = "spec.compression.steps", "spec.tasks.list[1].compression.steps"
WHERE = "write module:function, for example my_package.train:task"
QUOTED = "write it in quotes"
ARGUMENT = "use at most 63 letters, digits and underscores"
LABEL = "letters, digits, dashes, dots and underscores"
FRACTION = "is not a fraction from 0 to below 1"

BAD: Final = (
    # Names of the object.
    _one("metadata.name", "x" * 53, "choose a shorter name"),
    _one("metadata.name", "4workers", "rename the job"),
    _one("metadata.name", "my.job", "rename the job"),
    # The trainer: entrypoint, image, code.
    _one(f"{TRAINER}.entrypoint", "digits", WHERE),
    _one(f"{TRAINER}.entrypoint", "train.py", WHERE),
    _one(f"{TRAINER}.entrypoint", "./train.py:main", WHERE),
    _one(f"{TRAINER}.entrypoint", "a:b:c", WHERE),
    _one(f"{TRAINER}.entrypoint", "my-package.train:task", WHERE),
    _one(f"{TRAINER}.entrypoint", "zähler:aufgabe", WHERE),
    _one(f"{TRAINER}.entrypoint", "", WHERE),
    _one(f"{TRAINER}.entrypoint", "a" * 300 + ":b", python=WHERE),
    _one(f"{TRAINER}.entrypoint", 5, python=WHERE),
    _one(f"{TRAINER}.entrypoint", ABSENT, python=WHERE),
    _one(f"{TRAINER}.image", "my image", "without spaces"),
    _one(f"{TRAINER}.image", "", "without spaces"),
    _one(f"{TRAINER}.codeFrom", {"configMap": "My_Code"}, "the name of a ConfigMap"),
    _one(f"{TRAINER}.codeFrom", {"configmap": "code"}, python="did you mean 'configMap'?"),
    _one(f"{TRAINER}.codeFrom", "code", python="is a string, not a mapping"),
    # Arguments.
    _one(f"{TRAINER}.parameters.rate", 0.05, python='in quotes: rate: "0.05"'),
    _one(f"{TRAINER}.parameters.bias", True, python="or as 0 or 1"),
    _one(f"{TRAINER}.parameters.sizes", [64, 64], python="give each part a parameter of its own"),
    _one(f"{TRAINER}.parameters.size", {"hidden": 1}, python="is not an integer or a string"),
    _one(f"{TRAINER}.parameters.big", 2**60, QUOTED),
    _one(f"{TRAINER}.parameters.big", 10**30, python=QUOTED),
    _one(f"{TRAINER}.parameters.text", "x" * 1025, python="put long texts into the code"),
    _one(f"{TRAINER}.parameters", {"learning-rate": "0.1"}, ARGUMENT),
    _one(f"{TRAINER}.parameters", {"1st": 1}, ARGUMENT),
    _one(f"{TRAINER}.parameters", {"größe": 1}, ARGUMENT),
    _one(f"{TRAINER}.parameters", {"x" * 64: 1}, ARGUMENT, python=""),
    _one(f"{TRAINER}.parameters", ["rate=0.1"], python="is a list, not a mapping"),
    _one(f"{TRAINER}.parameters", {f"p{n}": n for n in range(65)}, python="give at most 64"),
    # Numbers of the trainer.
    _one(f"{TRAINER}.shards", 0, "give 1 or more"),
    _one(f"{TRAINER}.shards", -8, "give 1 or more"),
    _one(f"{TRAINER}.shards", "8", python="write it without quotes: 8"),
    _one(f"{TRAINER}.shards", "eight", python="give an integer"),
    _one(f"{TRAINER}.shards", 2.5, python="is a fraction, not an integer"),
    _one(f"{TRAINER}.shards", True, python="is a boolean, not an integer"),
    _one(f"{TRAINER}.shards", ABSENT, python="is missing; add shards"),
    _one(f"{TRAINER}.shards", 512, "lower shards or raise batchSize"),
    _one(f"{TRAINER}.shards", 2**31, "give 1024 or less"),
    _one(f"{TRAINER}.batchSize", 10**7, "give 1048576 or less"),
    _one(f"{TRAINER}.batchSize", "256MB", python="give an integer"),
    _one(f"{TRAINER}.seed", -1, "give 0 or more"),
    _one(f"{TRAINER}.seed", 2**53, "give 9007199254740991 or less"),
    _one(f"{TRAINER}.epochs", 0, "give 1 or more"),
    _one(f"{TRAINER}.epochs", ABSENT, "add spec.trainer.epochs or spec.trainer.steps"),
    Bad(
        "epochs and steps",
        {f"{TRAINER}.steps": 100},
        f"{TRAINER}.epochs",
        "remove spec.trainer.epochs or spec.trainer.steps",
    ),
    _one(f"{TRAINER}.threads", 128, "give 64 or less"),
    _one(f"{TRAINER}.partition", "None", python="write 'none' or 'parameters'"),
    _one(f"{TRAINER}.shard", 8, python="did you mean 'shards'?"),
    _one(f"{TRAINER}.batch_size", 8, python="did you mean 'batchSize'?"),
    _one(f"{TRAINER}.replicas", 8, python="move it to spec.workers.replicas"),
    # Workers.
    _one(f"{WORKERS}.replicas", 9, "lower replicas or raise shards"),
    _one(f"{WORKERS}.replicas", 0, "give 1 or more"),
    _one(f"{WORKERS}.min", 5, "lower min or raise replicas"),
    _one(f"{WORKERS}.max", 9, "lower max or raise shards"),
    Bad("max below replicas", {f"{WORKERS}.max": 3}, f"{WORKERS}.replicas", "raise max"),
    _one(f"{WORKERS}.standby", 1021, "lower standby"),
    _one(f"{WORKERS}.detectionMilliseconds", 50, "give 100 or more"),
    _one(f"{WORKERS}.detectionMilliseconds", "500ms", python="give an integer"),
    _one("spec.workers", 4, python="is an integer, not a mapping"),
    # Output, checkpoint, policies.
    _one("spec.output", {}, python="exactly one volume source"),
    _one("spec.output.volume", {"a": {}, "b": {}}, python="exactly one volume source"),
    _one("spec.output.volume", {}, python="exactly one volume source", late=True),
    _one("spec.output.volume", "results", python="is a string, not a mapping"),
    Bad("no interval", {"spec.checkpoint": {"url": "s3://b"}}, "spec.checkpoint.everySteps",
        "for example everySeconds: 300"),
    Bad("no place", {"spec.checkpoint": {"everySteps": 5}}, "spec.checkpoint.volume",
        "add volume or url"),
    Bad("two intervals", {"spec.checkpoint.everySeconds": 5}, "spec.checkpoint.everySteps",
        "remove spec.checkpoint.everySteps or", base="kept"),
    Bad("two places", {"spec.checkpoint.volume": {"emptyDir": {}}}, "spec.checkpoint.volume",
        "remove spec.checkpoint.volume or", base="kept"),
    _one("spec.checkpoint.url", "/data/checkpoints", "write it with its scheme", base="kept"),
    _one("spec.checkpoint.url", "s3:/bucket", "write it with its scheme", base="kept"),
    _one("spec.checkpoint.keep", 0, "give 1 or more", base="kept"),
    _one("spec.checkpoint.everySteps", "5m", python="give an integer", base="kept"),
    _one("spec.activeDeadlineSeconds", "1h", python="give an integer"),
    _one("spec.startupDeadlineSeconds", -5, "give 1 or more"),
    _one("spec.stallTimeoutSeconds", 5, "give 10 or more"),
    _one("spec.ttlSecondsAfterFinished", 10**9, "give 31536000 or less"),
    _one("spec.suspend", "yes", python="give a boolean"),
    _one("spec.suspend", 1, python="is an integer, not a boolean"),
    _one("spec.managedBy", "kueue", "a name with a domain"),
    _one("spec.restartPolicy", "Never", python="is a string, not a mapping"),
    _one("spec.restartPolicy.maxRestarts", 101, "give 100 or less"),
    _one("spec.cleanPodPolicy", "all", python="'None', 'Running' or 'All'"),
    _one("spec.gpus", 4, python="remove it; the fields here"),
    _one("spec.template.metadata.labels", {"team": 7}, python='in quotes: "7"'),
    _one("spec.template.metadata.labels", {"team": "a b"}, LABEL),
    _one("spec.template.metadata.labels", {"my team": "a"}, LABEL),
    _one("spec.template.spec", [], python="is a list, not a mapping"),
    _one("spec.template.containers", [], python="remove it; the fields here"),
    _one("sepc", {}, python="did you mean 'spec'?"),
    _one("spec", ABSENT, python="is missing"),
    # Compression.
    _one(STEP, [], "give at least 1", base="compressed"),
    _one(f"{STEP}[0].name", "Half_1", "rename it", base="compressed"),
    _one(f"{STEP}[0].prune.sparsity", "50%", FRACTION, base="compressed"),
    _one(f"{STEP}[0].prune.sparsity", 0.5, python="a string", base="compressed"),
    _one(f"{STEP}[0].prune.sparsity", "1", FRACTION, base="compressed"),
    _one(f"{STEP}[0].prune.sparsity", "nan", FRACTION, base="compressed"),
    _one(f"{STEP}[0].prune.sparsity", "1e-1", FRACTION, base="compressed"),
    _one(f"{STEP}[0].prune.method", "magnitude", python="'Magnitude', 'Taylor'", base="compressed"),
    _one(f"{STEP}[1].quantize.bits", 16, "give 8 or less", base="compressed"),
    _one(f"{STEP}[0].fineTune.learningRate", "1e400", "is not a positive number",
         base="compressed"),
    _one(f"{STEP}[0].fineTune.learningRate", "-0.1", "is not a positive number", base="compressed"),
    Bad("two kinds", {f"{STEP}[0].quantize": {}}, STEP, "make a step of each", base="compressed"),
    Bad("quantize first", {f"{STEP}[0]": {"name": "q", "quantize": {}}}, STEP,
        "move it to the end", base="compressed"),
    Bad("neither length", {f"{STEP}[0].fineTune": {}}, STEP, "give one of them", base="compressed"),
    Bad("one name twice", {f"{STEP}[1].name": "half"}, STEP, base="compressed", python="half"),
    # Tasks: lists.
    Bad("list and sweep", {SWEPT: SWEEP}, f"{TASKS}.list",
        "remove spec.tasks.list or spec.tasks.sweep", base="listed"),
    Bad("neither list nor sweep", {TASKS: {}}, f"{TASKS}.list", "or a sweep"),
    _one(f"{TASKS}.list[0].name", "A 1", "rename it", base="listed"),
    Bad("one task twice", {f"{TASKS}.list[1].name": "a"}, f"{TASKS}.list[1]", base="listed",
        python="give each task its own name"),
    _one(f"{TASKS}.list[0].parameters.rate", 0.1, python=QUOTED, base="listed"),
    _one(f"{TASKS}.workersPerTask", 9, "lower workersPerTask", base="listed"),
    _one(f"{TASKS}.workersPerTask", "auto", "write Auto, or an integer from 1", base="listed"),
    Bad("more tasks than maxTasks", {f"{TASKS}.maxTasks": 1}, f"{TASKS}.list",
        "remove maxTasks, or raise it", base="listed"),
    Bad("a task's step of two kinds", {f"{LISTED}[0].quantize": {}}, LISTED, "make a step of each",
        base="listed"),
    Bad("a task's channels", {f"{LISTED}[0].prune": {"pattern": "Channels", "method": "OBS"}},
        LISTED, "the others cannot choose channels", base="listed"),
    _one(f"{LISTED}[0].prune.sparsity", "2", FRACTION, base="listed"),
    _one(f"{LISTED}[0].prune.layers", [{"name": "0", "sparsity": "0,5"}], python=FRACTION,
         base="listed", late=True),
    # Tasks: sweeps.
    _one(f"{SWEPT}.algorithm", "grid", python="'Grid', 'Random'", base="swept"),
    Bad("how many", {f"{SWEPT}.algorithm": "Random"}, f"{TASKS}.maxTasks", "maxTasks: 50",
        base="swept"),
    Bad("no objective", {f"{SWEPT}.algorithm": "TPE", f"{TASKS}.maxTasks": 9},
        f"{TASKS}.objectives", "direction: Maximize", base="swept"),
    Bad("no objectives", {f"{SWEPT}.algorithm": "NSGA2", f"{TASKS}.maxTasks": 9},
        f"{TASKS}.objectives", "direction: Maximize", base="swept"),
    Bad("both choices", {f"{SWEPT}.parameters[0].range": {"type": "Int", "min": 1, "max": 2}},
        f"{SWEPT}.parameters", "exactly one of values and range", base="swept"),
    _one(f"{SWEPT}.parameters[1].range.min", "1e400", "below 1e100", base="swept"),
    _one(f"{SWEPT}.parameters[1].range.min", "NaN", "below 1e100", base="swept"),
    _one(f"{SWEPT}.parameters[1].range.min", "-Infinity", "below 1e100", base="swept"),
    _one(f"{SWEPT}.parameters[1].range.min", 0.001, python="in quotes", base="swept"),
    _one(f"{SWEPT}.parameters[1].range.min", "0.5", python="exchange them", base="swept",
         late=True),
    _one(f"{SWEPT}.parameters[1].range.points", 1, "give 2 or more", base="swept"),
    _one(f"{SWEPT}.parameters[0].values", [], "give at least 1", base="swept"),
    _one(f"{SWEPT}.parameters[0].field", "trainer.batch", "leave it out", base="swept"),
    Bad("a rung at the end", {f"{SWEPT}.earlyStopping": {"rungs": [20]},
        f"{TASKS}.objectives": [{"metric": "accuracy", "direction": "Maximize"}]},
        f"{SWEPT}.earlyStopping.rungs", "lower the rungs", base="swept"),
)  # fmt: skip

UNCLEAR: Final = ("should match", "should be at least", "should have at least", "anyOf",
                  "evaluating rule", "cost budget")  # fmt: skip
BOUND: Final = re.compile(r"^(.*) in body should be (?:greater|less) than or equal to")


def unclear(causes: list[str]) -> list[str]:
    """Of a server's causes, `field: text` each, those that do not say in words what to do.

    A bound alone is no words, unless the server has not come to the rules: until what it names
    first is mended, the field, its value and the bound must do.
    """
    found = []
    unfinished = any("some validation rules were not checked" in cause for cause in causes)
    for cause in causes:
        field, _, text = cause.partition(": ")
        bound = BOUND.search(text.rpartition(": ")[2])
        said = [other for other in causes if other.startswith(f"{field}: ") and "; give" in other]
        if (bound and not said and not unfinished) or any(words in text for words in UNCLEAR):
            found.append(cause)
    return found
