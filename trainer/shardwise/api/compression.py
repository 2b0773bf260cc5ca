"""`spec.compression` of an OptimizationJob: what is done to the model after it is trained.

Imported by `spec`; holds no rule across fields. Fractions are strings, as everywhere in the spec:
their bytes are the same for every reader.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field, StringConstraints

from shardwise.api.base import (
    INT32,
    INT64,
    SAFE_INTEGER,
    Count64,
    Name,
    Sha256,
    SpecModel,
    StatusModel,
    Text,
    Word,
    distinct,
)
from shardwise.api.parameters import ENTRYPOINT_PATTERN, ParameterName, ParameterValue

FRACTION_BELOW_ONE_PATTERN: Final = r"^0(\.[0-9]{1,9})?$"
FRACTION_PATTERN: Final = r"^(0(\.[0-9]{1,9})?|1(\.0{1,9})?)$"
POSITIVE_PATTERN: Final = r"^([1-9][0-9]{0,8}(\.[0-9]{1,9})?|0\.[0-9]{0,8}[1-9][0-9]{0,8})$"
STEP_NAME_PATTERN: Final = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"

MAX_STEPS = 16
MAX_LAYERS = 256
MAX_ARTIFACTS = 32

FractionBelowOne = Annotated[
    str, StringConstraints(max_length=11, pattern=FRACTION_BELOW_ONE_PATTERN)
]
Fraction = Annotated[str, StringConstraints(max_length=11, pattern=FRACTION_PATTERN)]
Positive = Annotated[str, StringConstraints(max_length=20, pattern=POSITIVE_PATTERN)]
LayerName = Annotated[str, StringConstraints(min_length=1, max_length=253)]
File = Annotated[str, StringConstraints(min_length=1, max_length=1024)]
Arguments = Annotated[dict[ParameterName, ParameterValue] | None, Field(max_length=64)]
Names = Annotated[
    list[LayerName],
    Field(
        max_length=MAX_LAYERS, json_schema_extra={"x-kubernetes-list-type": "set", "default": []}
    ),
    distinct(),
]
BY_NAME = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}


class CompressionSource(SpecModel):
    """A trained model from a file."""

    file: File
    """file is where all workers see a `weights.safetensors` that another job wrote, or a
    `model.safetensors` of another compression."""


class FineTune(SpecModel):
    """Training after a step, on the job's own data and with its optimizer."""

    epochs: Annotated[int | None, Field(ge=1, le=1_000_000, json_schema_extra=INT32)] = None
    """epochs is how many times the data are gone through. Give either epochs or steps."""

    steps: Annotated[int | None, Field(ge=1, le=1_000_000_000, json_schema_extra=INT64)] = None
    """steps is the number of updates of the weights. Give either epochs or steps."""

    learning_rate: Positive | None = None
    """learningRate is the optimizer's rate, in quotes. When it is absent, it is the one that the
    task gives."""

    batch_size: Annotated[int | None, Field(ge=1, le=1_048_576, json_schema_extra=INT32)] = None
    """batchSize is the number of samples of a step. When it is absent, it is the trainer's."""


class LayerSparsity(SpecModel):
    """How much of one layer goes."""

    name: LayerName
    """name is the layer's, or its weight's, as the model's named_parameters() tells it."""

    sparsity: FractionBelowOne
    """sparsity is the part of its weights that goes, in quotes."""


class PruneSchedule(SpecModel):
    """Pruning little by little (Zhu and Gupta 2017)."""

    every_steps: Annotated[int, Field(ge=1, le=1_000_000_000, json_schema_extra=INT64)]
    """everySteps is the number of training steps between two prunings."""

    until: Fraction = "0.5"
    """until is the part of the fine-tuning after which the last weights go, in quotes."""


class Prune(SpecModel):
    """Take weights away."""

    method: Literal["Magnitude", "Taylor", "Fisher", "OBS"] = "Magnitude"
    """method is what a weight is worth: its `Magnitude`; the first-order change of the loss
    (`Taylor`); the empirical `Fisher` information; or `OBS`, which also changes the weights that
    stay so that they make up for those that go (SparseGPT)."""

    pattern: Literal["Unstructured", "TwoOfFour", "Channels"] = "Unstructured"
    """pattern is which weights go together: none (`Unstructured`), two of every four neighbours
    (`TwoOfFour`), or whole `Channels`, which makes a smaller dense model."""

    scope: Literal["Global", "Uniform"] = "Global"
    """scope is whether the part is one of all weights together or of each layer's. OBS takes it
    of each layer's."""

    sparsity: FractionBelowOne = "0.5"
    """sparsity is the part that goes, from 0 to below 1, in quotes."""

    layers: Annotated[
        list[LayerSparsity],
        Field(max_length=MAX_LAYERS, json_schema_extra=BY_NAME | {"default": []}),
        distinct("name"),
    ] = Field(default_factory=list)
    """layers are those with a sparsity of their own."""

    ignore: Names = Field(default_factory=list)
    """ignore names layers that keep all of their weights."""

    schedule: PruneSchedule | None = None
    """schedule prunes little by little during the fine-tuning. When it is absent, everything goes
    at once."""


class Quantize(SpecModel):
    """Keep weights in few bits. With fineTune, the training sees the rounding (QAT)."""

    method: Literal["Nearest", "GPTQ"] = "Nearest"
    """method is how weights are rounded: each to its nearest level, or one after the other so
    that later ones make up for the error of earlier ones (`GPTQ`)."""

    bits: Annotated[int, Field(ge=2, le=8, json_schema_extra=INT32)] = 8
    """bits is the width of a weight."""

    group_size: Annotated[int | None, Field(ge=8, le=65536, json_schema_extra=INT32)] = None
    """groupSize is how many neighbouring inputs of an output share a scale. When it is absent,
    all of them do."""

    activations: Literal["None", "Static", "Dynamic"] = "None"
    """activations is how what flows between layers is quantized to 8 bits: not at all, by ranges
    that calibration finds (`Static`), or by each row's own range (`Dynamic`)."""

    ignore: Names = Field(default_factory=list)
    """ignore names layers that stay as they are."""


class DistillTeacher(SpecModel):
    """The model to learn from."""

    entrypoint: Annotated[
        str | None,
        StringConstraints(max_length=256, pattern=ENTRYPOINT_PATTERN),
    ] = None
    """entrypoint is the function that returns the teacher's Task. When it is absent, it is the
    job's own."""

    parameters: Arguments = None
    """parameters are the arguments of the entrypoint, by name."""

    file: File | None = None
    """file is where all workers see the teacher's `weights.safetensors`. When it is absent, the
    teacher is the model that this job trained."""


class DistillStudent(SpecModel):
    """The model that learns."""

    entrypoint: Annotated[
        str | None,
        StringConstraints(max_length=256, pattern=ENTRYPOINT_PATTERN),
    ] = None
    """entrypoint is the function that returns the student's Task. When it is absent, it is the
    job's own."""

    parameters: Arguments = None
    """parameters are the arguments of the entrypoint, by name."""


class DistillFeatures(SpecModel):
    """Layers whose outputs the student learns as well."""

    student: LayerName
    """student is the layer of the student."""

    teacher: LayerName
    """teacher is the layer of the teacher; its output has the same shape."""

    weight: Positive = "1"
    """weight is what their mean squared difference is multiplied by, in quotes."""


class Distill(SpecModel):
    """Train a student on a teacher's outputs (Hinton, Vinyals and Dean 2015)."""

    teacher: DistillTeacher | None = None
    """teacher is the model to learn from. When it is absent, it is the one that this job
    trained."""

    student: DistillStudent | None = None
    """student is the model that learns, from its initial weights. When it is absent, the model
    under compression goes on learning."""

    temperature: Positive = "4"
    """temperature softens the outputs of both, in quotes."""

    alpha: Fraction = "0.9"
    """alpha is the part of the teacher's outputs in the loss; the rest is the task's own. In
    quotes."""

    samples: Annotated[int | None, Field(ge=1, le=SAFE_INTEGER, json_schema_extra=INT64)] = None
    """samples is how many training samples are used. When it is absent, all are."""

    teacher_outputs: Literal["Once", "EveryStep"] = "Once"
    """teacherOutputs is when the teacher computes: `Once` for all samples, or at `EveryStep`,
    which takes no memory and sees augmented samples as they are."""

    features: DistillFeatures | None = None
    """features names layers whose outputs the student learns as well."""


class CompressionStep(SpecModel):
    """One step: exactly one of prune, quantize and distill."""

    name: Annotated[str, StringConstraints(max_length=63, pattern=STEP_NAME_PATTERN)]
    """name is what the step is called in the table of results."""

    prune: Prune | None = None
    """prune takes weights away."""

    quantize: Quantize | None = None
    """quantize keeps weights in few bits. It comes last."""

    distill: Distill | None = None
    """distill trains a student on a teacher's outputs. It needs fineTune."""

    fine_tune: FineTune | None = None
    """fineTune trains the model after the step, or during it. What is pruned stays pruned."""


class Calibration(SpecModel):
    """The samples that statistics are taken of."""

    samples: Annotated[int, Field(ge=1, le=SAFE_INTEGER, json_schema_extra=INT64)] = 1024
    """samples is how many training samples are drawn, by the trainer's seed."""

    batch_size: Annotated[int, Field(ge=1, le=1_048_576, json_schema_extra=INT32)] = 64
    """batchSize is the number of samples of one forward pass. Results depend on it, and not on
    the number of workers."""


class Guard(SpecModel):
    """How much accuracy all steps together may cost."""

    metric: Annotated[str, StringConstraints(min_length=1, max_length=63)] = "accuracy"
    """metric is the task's metric that is watched; more of it is better."""

    max_accuracy_drop: Fraction
    """maxAccuracyDrop is how far the metric may fall below the trained model's, in quotes."""

    on_guard: Literal["Fail", "KeepPrevious"] = "Fail"
    """onGuard is what happens when it falls further: the job fails, or the model before the step
    is kept and the steps after it are left out."""


class Compression(SpecModel):
    """Steps on the trained model, one after the other. Their result follows from the spec and the
    data alone; the number of workers changes only how long they take."""

    steps: Annotated[
        list[CompressionStep],
        Field(min_length=1, max_length=MAX_STEPS, json_schema_extra=BY_NAME),
        distinct("name"),
    ]
    """steps are done in order."""

    source: CompressionSource | None = None
    """source is the trained model. When it is absent, the job trains it first."""

    calibration: Calibration = Field(default_factory=Calibration, json_schema_extra={"default": {}})
    """calibration is what statistics are taken of."""

    guard: Guard | None = None
    """guard is how much accuracy the steps may cost. When it is absent, there is no limit."""


class Artifact(StatusModel):
    """A file that a compression wrote."""

    name: Name
    """name is the file's."""

    path: Text | None = None
    """path is where it is on the output volume."""

    bytes: Count64 | None = None
    """bytes is its size."""

    sha256: Sha256 | None = None
    """sha256 is its hash: the same for any number of workers."""


class CompressionRow(StatusModel):
    """A line of the table: the trained model, then the model after each step."""

    name: Name
    """name is the step's; `trained` before the first."""

    metric: Word | None = None
    """metric is the guard's figure, or the accuracy."""

    bytes: Count64 | None = None
    """bytes is the size of the packed weights."""

    parameters: Count64 | None = None
    """parameters is the number of weights."""

    nonzeros: Count64 | None = None
    """nonzeros is how many of them are not zero."""

    macs: Count64 | None = None
    """macs is the number of multiply-accumulates for one sample."""

    latency_milliseconds: Word | None = None
    """latencyMilliseconds is the median time of a forward pass of 64 samples in ONNX Runtime."""

    note: Text | None = None
    """note says what is to be known of it, for example that the step was taken back."""


class CompressionStatus(StatusModel):
    """The table of a compression."""

    rows: Annotated[
        tuple[CompressionRow, ...] | None,
        Field(max_length=MAX_STEPS + 1, json_schema_extra=BY_NAME),
    ] = None
    """rows are the trained model and the model after each step. Where they are many, those in the
    middle may be missing; `result.json` has them all."""

    undone: Word | None = None
    """undone is the step that the guard took back; absent where it took none back."""
