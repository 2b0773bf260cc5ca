"""What cannot be done: a message that names the field or the layer, and the model kept."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from small import copied, finished, make_task, pipeline, trained
from torch import nn

from shardwise import Tensors
from shardwise.compression.errors import AccuracyDropped, CompressionError
from shardwise.compression.job import begin
from shardwise.compression.reduction import Samples
from shardwise.compression.settings import Compression
from shardwise.compression.sources import load_weights

TUNE = {"steps": 2}


@pytest.fixture(scope="module")
def task():
    return trained()


def refused(task, *steps, **options):
    """The error of a pipeline, which leaves the task's own model as it was."""
    before = {name: tensor.clone() for name, tensor in task.model.state_dict().items()}
    with pytest.raises(CompressionError) as error:
        finished(pipeline(task, {"steps": list(steps), **options}))
    after = task.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    return str(error.value)


def test_the_guard_fails_with_the_numbers(task):
    guard = {"maxAccuracyDrop": "0.05"}
    with pytest.raises(AccuracyDropped) as error:
        finished(pipeline(task, {"steps": [{"prune": {"sparsity": "0.98"}}], "guard": guard}))
    message = str(error.value)
    assert "step step-0 brought accuracy from 0." in message
    assert "maxAccuracyDrop 0.05" in message
    assert "onGuard: KeepPrevious" in message


def test_the_guard_keeps_the_model_before(task):
    steps = [{"prune": {"sparsity": "0.2"}}, {"prune": {"sparsity": "0.98"}}, {"quantize": {}}]
    guard = {"maxAccuracyDrop": "0.05", "onGuard": "KeepPrevious"}
    machine = finished(pipeline(task, {"steps": steps, "guard": guard}))
    kept = finished(pipeline(task, {"steps": steps[:1]}))
    assert machine.undone == "step-1"
    assert [row.step for row in machine.rows] == ["trained", "step-0", "step-1"]
    assert "taken back" in machine.rows[-1].note
    for name, tensor in kept.subject.model.state_dict().items():
        assert torch.equal(machine.subject.model.state_dict()[name], tensor)


def test_what_cannot_be_quantized_is_told():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.memory = nn.GRU(4, 8, batch_first=True)
            self.head = nn.Linear(8, 4)

        def forward(self, x):
            return self.head(self.memory(x.view(-1, 4, 4))[1][0])

    task = make_task(model=Recurrent())
    row = finished(pipeline(task, {"steps": [{"quantize": {"bits": 4}}]})).rows[-1]
    assert "in floating point: memory.weight_ih_l0 and 1 more (288 weights)" in row.note
    without = make_task(model=nn.Sequential(nn.Flatten(), nn.LayerNorm(16)))
    message = refused(without, {"quantize": {}})
    assert message.startswith("quantize: the model has no weight to compress: no Linear")


def test_a_larger_artifact_says_so(task):
    step = {"distill": {"student": {"parameters": {"width": 64}}}, "fineTune": TUNE}
    assert "larger than before" in finished(pipeline(task, {"steps": [step]})).rows[-1].note


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([{"prune": {"ignore": ["nowhere"]}}], "prune.ignore: the model has no weight"),
        ([{"prune": {"layers": [{"name": "7", "sparsity": "0.1"}]}}], "prune.layers: '7' names 0"),
        (
            [{"distill": {"features": {"student": "9", "teacher": "0"}}, "fineTune": TUNE}],
            "features.student: the student has no layer '9'",
        ),
        (
            [{"distill": {"features": {"student": "0", "teacher": "4"}}, "fineTune": TUNE}],
            r"student's layer gives shape \(1, 24\), and the teacher's \(1, 4\)",
        ),
        ([{"prune": {"pattern": "Channels", "ignore": ["0", "2"]}}], "nothing could be removed"),
    ],
)
def test_steps_that_do_not_fit_the_model(task, steps, message):
    with pytest.raises(CompressionError, match=message):
        pipeline(task, {"steps": steps}).check()
    with pytest.raises(CompressionError, match=message):
        finished(pipeline(task, {"steps": steps}))


def test_a_step_is_checked_on_the_model_that_the_ones_before_it_make():
    task = make_task(convolution=True, width=8)
    student = {"distill": {"student": {"parameters": {"width": 8}}}, "fineTune": TUNE}
    last = {"quantize": {"ignore": ["8"]}}
    pipeline(task, {"steps": [last]}).check()
    machine = pipeline(task, {"steps": [student, last]})
    with pytest.raises(CompressionError, match=r"quantize.ignore: .* layer '8'.* it has 0.weight"):
        machine.check()
    assert machine.position == 0
    assert machine.subject.edits == []


def test_steps_that_do_not_go_together(task):
    with pytest.raises(CompressionError, match=r"steps\[0\] \(step-0\) has none of them; make a"):
        pipeline(task, {"steps": [{}]})


def test_sparsity_one_is_refused_without_a_manifest_too():
    with pytest.raises(CompressionError, match=r"prune.sparsity: 1 is not in \[0, 1\)"):
        Compression.from_spec({"steps": [{"prune": {"sparsity": "1.0"}}]})


def test_a_teacher_whose_outputs_do_not_fit(task):
    other = make_task(model=nn.Linear(16, 7))
    step = {"name": "d", "distill": {"student": {}}, "fineTune": TUNE}
    trainer = {"entrypoint": "a:b", "batchSize": 32, "shards": 4, "steps": 1}
    machine = begin(copied(task), {"steps": [step]}, trainer, load=lambda *_: other)
    with pytest.raises(CompressionError, match=r"have shape \(1, 4\) .* student's \(1, 7\)"):
        machine.check()


def test_a_guard_without_samples_or_metric(task):
    guard = {"maxAccuracyDrop": "0.1"}
    with pytest.raises(CompressionError, match="guard: the task has no evaluation samples"):
        pipeline(make_task(evaluation=None), {"steps": [{"quantize": {}}], "guard": guard})
    wanted = guard | {"metric": "beauty"}
    message = refused(task, {"quantize": {}}, guard=wanted)
    assert "guard.metric: 'beauty' is none" in message
    assert "accuracy, loss" in message


def test_a_model_that_torch_export_refuses():
    class Stubborn(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(16, 4)

        def forward(self, x):
            if float(x.sum()) > 0:
                return self.layer(x)
            return self.layer(-x)

    stubborn, step = make_task(model=Stubborn()), {"quantize": {"activations": "Static"}}
    assert refused(stubborn, step).startswith("torch.export refuses the model")
    with pytest.raises(CompressionError, match=r"torch\.export refuses the model"):
        pipeline(stubborn, {"steps": [step]}).check()


def test_layers_that_cannot_be_solved_for():
    grouped = nn.Sequential(
        nn.Unflatten(1, (4, 4)), nn.Conv1d(4, 4, 3, groups=2), nn.Flatten(), nn.Linear(8, 4)
    )
    for step in ({"quantize": {"method": "GPTQ"}}, {"prune": {"method": "OBS"}}):
        message = refused(make_task(model=grouped), step)
        assert message.startswith("layer 1.weight: a convolution in 2 groups cannot be solved for")
    refused_before = pipeline(make_task(model=grouped), {"steps": [step]})
    with pytest.raises(CompressionError, match=r"layer 1\.weight: a convolution in 2 groups"):
        refused_before.check()
    pipeline(
        make_task(model=grouped), {"steps": [{"prune": {"method": "OBS", "ignore": ["1"]}}]}
    ).check()

    class Idle(nn.Sequential):
        def forward(self, x):
            return self[0](x)

    idle = Idle(nn.Linear(16, 4), nn.Linear(4, 4))
    message = refused(make_task(model=idle), {"prune": {"method": "OBS"}})
    assert message.startswith("layer 1.weight: no calibration sample flows through it")


def test_calibration_samples_that_are_not_finite(task):
    x, y = task.train.tensors
    bad = copied(task)
    object.__setattr__(bad, "train", Tensors(torch.full_like(x, torch.inf), y))
    message = refused(bad, {"quantize": {"method": "GPTQ"}})
    assert "layer 0.weight: the Hessian of its inputs cannot be inverted" in message
    message = refused(bad, {"quantize": {"activations": "Static"}})
    assert "is not finite" in message


def test_calibration_needs_samples(task):
    with pytest.raises(
        CompressionError, match=r"spec\.compression\.calibration\.samples: there are"
    ):
        Samples(dataset=task.train, indices=torch.zeros(0).long(), batch_size=8, shards=4)
    x, y = task.train.tensors
    with pytest.raises(ValueError, match="train has no samples"):
        make_task(train=Tensors(x[:0], y[:0]))


def test_weights_of_another_model(task, tmp_path):
    file = tmp_path / "weights.safetensors"
    save_file({"0.weight": torch.zeros(24, 16)}, file)
    with pytest.raises(CompressionError, match=r"source.file: .* lacks '0.bias'"):
        load_weights(make_task().model, str(file), "spec.compression.source.file")
    with pytest.raises(CompressionError, match=r"cannot read .*nothing"):
        load_weights(make_task().model, str(tmp_path / "nothing"), "spec.compression.source.file")
    save_file(dict(task.model.state_dict()), file)
    other = make_task()
    load_weights(other.model, str(file), "")
    assert all(
        torch.equal(tensor, other.model.state_dict()[name])
        for name, tensor in task.model.state_dict().items()
    )
