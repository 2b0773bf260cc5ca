"""Statistics that several tasks need are computed once, and change nothing."""

from __future__ import annotations

import pytest
import torch
from small import PLAN, copied, digest, finished, load, pipeline, trained, validated
from threads import together
from torch import nn

from shardwise.compression.pipeline import Pipeline
from shardwise.compression.sharing import Shared, Store

CALIBRATION = {"samples": 100, "batchSize": 8}
SWEEPS = {
    "bits": [[{"quantize": {"method": "GPTQ", "bits": bits}}] for bits in (4, 3, 2)],
    "sparsity": [
        [{"prune": {"method": "OBS", "sparsity": sparsity}}] for sparsity in ("0.5", "0.7", "0.9")
    ],
    "scores": [[{"prune": {"method": "Fisher", "sparsity": each}}] for each in ("0.5", "0.8")],
    "temperature": [
        [
            {
                "distill": {
                    "student": {"parameters": {"width": 8}},
                    "temperature": temperature,
                    "teacherOutputs": "Once",
                },
                "fineTune": {"steps": 4, "learningRate": "0.05"},
            }
        ]
        for temperature in ("1", "4")
    ],
    "static": [
        [{"quantize": {"activations": "Static"}}],
        [{"quantize": {"activations": "Static"}}],
    ],
}


@pytest.fixture(scope="module")
def task():
    return trained()


def shared_pipeline(task, steps, shared):
    spec = validated({"calibration": CALIBRATION, "steps": steps})
    return Pipeline(task, spec, PLAN, load=load, shared=shared)


@pytest.mark.parametrize("name", SWEEPS)
def test_a_sweep_computes_its_statistics_once_and_its_files_are_the_same(task, name) -> None:
    store = Store()
    computed = []
    for steps in SWEEPS[name]:
        alone = digest(finished(pipeline(copied(task), {"steps": steps})))
        machine = shared_pipeline(copied(task), steps, Shared(store, "data"))
        assert digest(finished(machine)) == alone
        computed.append(store.computed)
    assert computed[0] > 0
    assert set(computed) == {computed[0]}, "only the first one computes"
    assert store.recalled == computed[0] * (len(computed) - 1)


def test_other_workers_find_them_in_the_folder(task, tmp_path) -> None:
    steps = SWEEPS["bits"][0]
    first, second = Store(), Store()
    one = digest(finished(shared_pipeline(copied(task), steps, Shared(first, "d", tmp_path))))
    other = digest(finished(shared_pipeline(copied(task), steps, Shared(second, "d", tmp_path))))
    assert one == other
    assert (second.computed, second.recalled) == (0, first.computed)
    assert not list(tmp_path.glob(".*")), "nothing half-written is left"


def test_other_data_or_another_model_is_another_statistic(task) -> None:
    store, steps = Store(), SWEEPS["bits"][0]
    finished(shared_pipeline(copied(task), steps, Shared(store, "these")))
    before = store.computed
    finished(shared_pipeline(copied(task), steps, Shared(store, "those")))
    assert store.computed == 2 * before
    changed = copied(task)
    with torch.no_grad():
        next(changed.model.parameters()).view(-1)[0] += 1.0
    finished(shared_pipeline(changed, steps, Shared(store, "these")))
    assert (store.computed, store.recalled) == (3 * before, 0)


@pytest.mark.filterwarnings("ignore")
def test_a_damaged_file_is_computed_anew(task, tmp_path) -> None:
    steps = SWEEPS["bits"][0]
    finished(shared_pipeline(copied(task), steps, Shared(Store(), "d", tmp_path)))
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:20])
    store = Store()
    alone = digest(finished(pipeline(copied(task), {"steps": steps})))
    found = digest(finished(shared_pipeline(copied(task), steps, Shared(store, "d", tmp_path))))
    assert found == alone
    assert (store.computed > 0, store.recalled) == (True, 0)


def test_members_that_do_not_all_know_compute_together(task) -> None:
    steps = SWEEPS["bits"][0]
    alone = digest(finished(pipeline(copied(task), {"steps": steps})))
    knowing = Store()
    finished(shared_pipeline(copied(task), steps, Shared(knowing, "d")))
    stores = [knowing, Store(), Store()]
    before = knowing.computed
    machines = [shared_pipeline(copied(task), steps, Shared(store, "d")) for store in stores]
    ended = together(3, lambda group: digest(finished(machines[group.rank], group)))
    assert set(ended) == {alone}
    assert [store.computed for store in stores] == [2 * before, before, before]
    machines = [shared_pipeline(copied(task), steps, Shared(store, "d")) for store in stores]
    ended = together(3, lambda group: digest(finished(machines[group.rank], group)))
    assert set(ended) == {alone}
    assert [store.recalled for store in stores] == [before] * 3


def test_memory_has_a_bound() -> None:
    store = Store(memory_bytes=100 * 8)
    for number in range(5):
        store.put(str(number), torch.full((40,), float(number), dtype=torch.float64), None)
    known = [number for number in range(5) if store.get(str(number), None) is not None]
    assert known == [3, 4]


def test_a_folder_that_cannot_be_written_costs_nothing_but_time(tmp_path) -> None:
    (tmp_path / "file").write_text("in the way")
    store = Store()
    store.put("key", torch.ones(3), tmp_path / "file")
    assert store.get("key", None) is not None


def test_the_key_follows_from_names_and_bits() -> None:
    shared = Shared(Store(), "data")
    torch.manual_seed(0)
    one, other = nn.Linear(2, 3), nn.Sequential(nn.Linear(2, 3))
    other[0].load_state_dict(one.state_dict())
    keys = {
        shared.memo("a", (one,), "").key,
        shared.memo("b", (one,), "").key,
        shared.memo("a", (one,), "x").key,
        shared.memo("a", (other,), "").key,
    }
    assert len(keys) == 4
