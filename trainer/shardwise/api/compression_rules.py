"""Rules across the fields of spec.compression.

They are read off its JSON form, so that the trainer, which has no other, holds to the same ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from shardwise.api.rule import COMPRESSION, Rule, where
from shardwise.api.types import OptimizationJob

FIELD: Final = "spec.compression.steps"
KINDS: Final = ("prune", "quantize", "distill")

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRule:
    """Something that must hold within each step.

    Attributes:
        expression: CEL, with the step as `self`.
        message: what a step must be like, after "must ".
        problem: what is wrong with a step, with the values; "" where nothing is.
    """

    expression: str
    message: str
    remedy: str
    problem: Callable[[Json], str]


def kinds(step: Json) -> list[str]:
    """Those of KINDS that the step has."""
    return [kind for kind in KINDS if step.get(kind) is not None]


def _kinds(step: Json) -> str:
    found = kinds(step)
    return "" if len(found) == 1 else f"has {' and '.join(found) or 'none of them'}"


def _length(step: Json) -> str:
    tune = step.get("fineTune")
    given = [] if tune is None else [name for name in ("epochs", "steps") if tune.get(name)]
    if tune is None or len(given) == 1:
        return ""
    return f"has {'both' if given else 'neither'} of fineTune.epochs and fineTune.steps"


def _distilled(step: Json) -> str:
    missing = step.get("distill") is not None and step.get("fineTune") is None
    return "distills, and has no fineTune" if missing else ""


def _scheduled(step: Json) -> str:
    prune = step.get("prune") or {}
    missing = prune.get("schedule") is not None and step.get("fineTune") is None
    return "has prune.schedule, and no fineTune" if missing else ""


def _little_by_little(step: Json) -> str:
    prune = step.get("prune") or {}
    method, pattern = prune.get("method", "Magnitude"), prune.get("pattern", "Unstructured")
    if prune.get("schedule") is None or (method != "OBS" and pattern == "Unstructured"):
        return ""
    return f"has prune.schedule with method {method} and pattern {pattern}"


def _channels(step: Json) -> str:
    prune = step.get("prune") or {}
    method = prune.get("method", "Magnitude")
    if prune.get("pattern") != "Channels" or method == "Magnitude":
        return ""
    return f"has prune.pattern Channels with method {method}"


def _layers(step: Json) -> str:
    prune = step.get("prune") or {}
    pattern = prune.get("pattern", "Unstructured")
    if not prune.get("layers") or pattern == "Unstructured":
        return ""
    return f"has prune.layers with pattern {pattern}"


def _half(step: Json) -> str:
    prune = step.get("prune") or {}
    sparsity = prune.get("sparsity", "0.5")
    if prune.get("pattern") != "TwoOfFour" or sparsity == "0.5":
        return ""
    return f"has prune.pattern TwoOfFour with sparsity {sparsity}"


def _integers(step: Json) -> str:
    found = step.get("quantize") or {}
    activations = found.get("activations", "None")
    told = [f"bits {found['bits']}"] if found.get("bits", 8) != 8 else []
    told += [f"groupSize {found['groupSize']}"] if found.get("groupSize") is not None else []
    told += ["method GPTQ"] if found.get("method") == "GPTQ" else []
    if activations == "None" or not told:
        return ""
    return f"has quantize.activations {activations} with {' and '.join(told)}"


def _whole(step: Json) -> str:
    found = step.get("quantize") or {}
    if found.get("activations") != "Static" or not found.get("ignore"):
        return ""
    return f"has quantize.activations Static with ignore {', '.join(found['ignore'])}"


def _teacher(step: Json) -> str:
    teacher = (step.get("distill") or {}).get("teacher") or {}
    if teacher.get("parameters") is None or teacher.get("file") or teacher.get("entrypoint"):
        return ""
    return "has distill.teacher.parameters, and neither file nor entrypoint"


STEP_RULES: Final = (
    StepRule(
        expression="[has(self.prune), has(self.quantize), has(self.distill)]"
        ".exists_one(given, given)",
        message="have exactly one of prune, quantize and distill",
        remedy="make a step of each",
        problem=_kinds,
    ),
    StepRule(
        expression="!has(self.fineTune) || has(self.fineTune.epochs) != has(self.fineTune.steps)",
        message="have either fineTune.epochs or fineTune.steps, where it has fineTune",
        remedy="give one of them",
        problem=_length,
    ),
    StepRule(
        expression="!has(self.distill) || has(self.fineTune)",
        message="have fineTune where it has distill",
        remedy="say for how many epochs or steps to distill",
        problem=_distilled,
    ),
    StepRule(
        expression="!has(self.prune) || !has(self.prune.schedule) || has(self.fineTune)",
        message="have fineTune where it has prune.schedule",
        remedy="add fineTune: a schedule prunes while it trains",
        problem=_scheduled,
    ),
    StepRule(
        expression=where(
            "self.prune.method != 'OBS' && self.prune.pattern == 'Unstructured'",
            "self.prune",
            "self.prune.schedule",
            "self.prune.method",
            "self.prune.pattern",
        ),
        message="prune Unstructured by Magnitude, Taylor or Fisher where it has prune.schedule",
        remedy="take the schedule out: the others prune at once",
        problem=_little_by_little,
    ),
    StepRule(
        expression=where(
            "self.prune.pattern != 'Channels' || self.prune.method == 'Magnitude'",
            "self.prune",
            "self.prune.method",
            "self.prune.pattern",
        ),
        message="have prune.method Magnitude where prune.pattern is Channels",
        remedy="write method: Magnitude: the others cannot choose channels",
        problem=_channels,
    ),
    StepRule(
        expression=where(
            "self.prune.pattern == 'Unstructured' || size(self.prune.layers) == 0",
            "self.prune",
            "self.prune.pattern",
            "self.prune.layers",
        ),
        message="have prune.layers only where prune.pattern is Unstructured",
        remedy="remove layers, or name those to leave alone in ignore",
        problem=_layers,
    ),
    StepRule(
        expression=where(
            "self.prune.pattern != 'TwoOfFour' || self.prune.sparsity == '0.5'",
            "self.prune",
            "self.prune.pattern",
            "self.prune.sparsity",
        ),
        message="have no prune.sparsity where prune.pattern is TwoOfFour",
        remedy="remove sparsity: two of four is a half",
        problem=_half,
    ),
    StepRule(
        expression=where(
            "self.quantize.activations == 'None' || (self.quantize.bits == 8"
            " && !has(self.quantize.groupSize) && self.quantize.method == 'Nearest')",
            "self.quantize",
            "self.quantize.activations",
            "self.quantize.bits",
            "self.quantize.method",
        ),
        message="have 8 bits, method Nearest and no groupSize where it has quantize.activations",
        remedy="write bits: 8 without groupSize and method, or activations: None",
        problem=_integers,
    ),
    StepRule(
        expression=where(
            "self.quantize.activations != 'Static' || size(self.quantize.ignore) == 0",
            "self.quantize",
            "self.quantize.activations",
            "self.quantize.ignore",
        ),
        message="have no quantize.ignore where quantize.activations is Static",
        remedy="remove ignore, or write activations: Dynamic",
        problem=_whole,
    ),
    StepRule(
        expression="!has(self.distill) || !has(self.distill.teacher)"
        " || !has(self.distill.teacher.parameters)"
        " || has(self.distill.teacher.file) || has(self.distill.teacher.entrypoint)",
        message="have distill.teacher.file or distill.teacher.entrypoint where it has"
        " distill.teacher.parameters",
        remedy="name the file of its trained weights: the job's own entrypoint gives initial ones",
        problem=_teacher,
    ),
)


def _last(spec: Json) -> str:
    for number, step in enumerate(spec["steps"][:-1]):
        if step.get("quantize") is not None:
            return f"{_name(number, step)} has quantize, and is not the last step"
    return ""


def _name(number: int, step: Json) -> str:
    return f"steps[{number}]" + (f" ({step['name']})" if step.get("name") else "")


def _problem_of(rule: StepRule) -> Callable[[Json], str]:
    def problem(spec: Json) -> str:
        for number, step in enumerate(spec["steps"]):
            if found := rule.problem(step):
                return f"{_name(number, step)} {found}"
        return ""

    return problem


def _rule(at: str, expression: str, here: str, remedy: str, problem: Callable[[Json], str]) -> Rule:
    def of(job: OptimizationJob) -> str:
        compression = job.spec.compression
        return "" if compression is None else problem(compression.to_json())

    def value(job: OptimizationJob) -> object:
        compression = job.spec.compression
        return None if compression is None else compression.to_json()["steps"]

    return Rule(
        at=at,
        field=FIELD,
        expression=expression,
        message=f"{at if at.endswith('[]') else FIELD} {here}",
        here=here,
        remedy=remedy,
        holds=lambda job: not of(job),
        value=value,
        problem=of,
    )


_TABLE: Final = (
    *(
        (f"{FIELD}[]", r.expression, f"must {r.message}", r.remedy, _problem_of(r))
        for r in STEP_RULES
    ),
    (
        COMPRESSION,
        "!self.steps.exists(s, has(s.quantize))"
        " || (self.steps.exists_one(s, has(s.quantize))"
        " && has(self.steps[size(self.steps) - 1].quantize))",
        "must have quantize last",
        "move it to the end: later steps would change the quantized weights",
        _last,
    ),
)

COMPRESSION_RULES: Final = tuple(_rule(*entry) for entry in _TABLE)


def problems(spec: Json) -> Iterator[str]:
    """What is wrong with spec.compression in its JSON form: field, problem and remedy."""
    for *_, remedy, problem in _TABLE:
        if found := problem(spec):
            yield f"{FIELD}: {found}; {remedy}"
