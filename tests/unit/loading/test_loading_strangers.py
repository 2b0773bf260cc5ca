"""`shardwise.load` of folders that somebody else has filled: no code of theirs is run, nothing
grows beyond its bounds, and every refusal names the file."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import random
import resource
import socket
import struct

import pytest
import torch
from safetensors.torch import save
from small import make_task
from torch import nn

import shardwise
from shardwise import SGD, Task, Tensors
from shardwise.compression.deployment import deploy
from shardwise.compression.errors import CompressionError
from shardwise.compression.graphs import to_graph
from shardwise.compression.subject import Subject
from shardwise.loading import UnsafeFileError, read_tensors
from shardwise.loading.folder import LARGEST_GRAPH

GRAPH, WEIGHTS, CONSTANTS = "graph.json.gz", "model.safetensors", "constants.safetensors"


def written(folder, task):
    deployed = deploy(Subject(task=task))
    packed = deployed.packed()
    for name, data in (to_graph(deployed, packed) | {WEIGHTS: packed}).items():
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture
def folder(tmp_path):
    return written(tmp_path, make_task(width=8))


def described(folder):
    return json.loads(gzip.decompress((folder / GRAPH).read_bytes()))


def describe(folder, content):
    (folder / GRAPH).write_bytes(gzip.compress(json.dumps(content).encode()))


def sealed(folder, name, data):
    """A file of the attacker's, with a hash in the graph that fits."""
    (folder / name).write_bytes(data)
    content = described(folder)
    content["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    describe(folder, content)


class Evil:
    def __init__(self, proof):
        self.proof = proof

    def __reduce__(self):
        return os.mkdir, (str(self.proof),)


def test_a_pickle_is_never_opened(folder, tmp_path):
    proof = tmp_path / "code-was-run"
    buffer = io.BytesIO()
    torch.save(Evil(proof), buffer)
    for name in (GRAPH, WEIGHTS):
        kept = (folder / name).read_bytes()
        for data in (buffer.getvalue(), gzip.compress(buffer.getvalue())):
            (folder / name).write_bytes(data)
            with pytest.raises(UnsafeFileError, match=name):
                shardwise.load(folder)
        (folder / name).write_bytes(kept)
    sealed(folder, WEIGHTS, buffer.getvalue())
    with pytest.raises(UnsafeFileError, match="no model"):
        shardwise.load(folder)
    assert not proof.exists()


def test_a_graph_of_an_earlier_version_is_refused_unread(folder):
    (folder / GRAPH).rename(folder / "graph.pt2.gz")
    with pytest.raises(UnsafeFileError, match=r"pt2\.gz: .* can hold code.*run the job again"):
        shardwise.load(folder)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("torch", "aten.save.default"),
        ("torch", "aten.from_file.default"),
        ("torch", "aten.set_.source_Storage"),
        ("torch", "aten.resize_.default"),
        ("torch", "aten._sparse_csr_tensor_unsafe.default"),
        ("torch", "prims.convert_element_type.default"),
        ("torch", "hub.load"),
        ("torch", "aten.linear.__class__"),
        ("torch", "aten.linear.default.__globals__"),
        ("torch", "aten.no_such_thing.default"),
        ("torch", "__class__.mro.default"),
        ("python", "attrgetter"),
        ("python", "methodcaller"),
        ("python", "eval"),
        ("os", "system"),
    ],
)
def test_operators_that_a_graph_may_not_name(folder, kind, name):
    content = described(folder)
    content["nodes"].append([kind, name, [], {}])
    describe(folder, content)
    with pytest.raises(UnsafeFileError, match=GRAPH):
        shardwise.load(folder)


def test_a_small_file_does_not_unpack_to_a_large_one(folder):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (folder / GRAPH).write_bytes(gzip.compress(bytes(20 * LARGEST_GRAPH), 9))
    with pytest.raises(UnsafeFileError, match="unpacks to more than"):
        shardwise.load(folder)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 4 * LARGEST_GRAPH / 1024


HUGE = 1 << 30
PACKED = {"w.kept": torch.zeros(1, dtype=torch.uint8), "w.values": torch.zeros(0)}
LEVELS = {
    "w.levels": torch.zeros(1, dtype=torch.uint8),
    "w.scale": torch.ones(1, 1),
    "w.zero": torch.zeros(1, 1),
}


@pytest.mark.parametrize(
    ("tensors", "entry"),
    [
        (PACKED, {"shape": [HUGE, 8]}),
        (PACKED, {"shape": [HUGE, HUGE, HUGE]}),
        (PACKED, {"shape": [-1, -8]}),
        (PACKED, {"shape": []}),
        (PACKED, {"shape": [1.5]}),
        (PACKED, {}),
        (LEVELS, {"shape": [1, HUGE], "bits": 4, "group": HUGE}),
        (LEVELS, {"shape": [1, 2], "bits": 4, "group": 0}),
        (LEVELS, {"shape": [1, 2], "bits": 0, "group": 1}),
        (LEVELS, {"shape": [1, 2], "bits": 99, "group": 1}),
        (LEVELS, {"shape": [2, 1], "bits": 4, "group": 1}),
        ({}, {"shape": [1]}),
    ],
)
def test_shapes_that_a_weights_file_only_claims(tmp_path, tensors, entry):
    file = tmp_path / WEIGHTS
    file.write_bytes(save(dict(tensors), {"shardwise": json.dumps({"weights": {"w": entry}})}))
    with pytest.raises(UnsafeFileError, match=WEIGHTS):
        read_tensors(file)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00" * 7,
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 100_000) + b"[" * 100_000,
        struct.pack("<Q", 2) + b"[]",
        save({}, {"shardwise": "[" * 50_000}),
        save({}, {"shardwise": '{"tied": {"a": "b"}}'}),
        save({}, {"shardwise": "[1]"}),
    ],
)
def test_weights_that_are_no_weights(tmp_path, data):
    file = tmp_path / WEIGHTS
    file.write_bytes(data)
    with pytest.raises(UnsafeFileError, match=f"{WEIGHTS}.*job"):
        read_tensors(file)


def pipe(path, _):
    os.mkfifo(path)


def link(path, elsewhere):
    path.symlink_to(elsewhere)


def folder_instead(path, _):
    path.mkdir()


def listener(path, _):
    with socket.socket(socket.AF_UNIX) as made:
        here = os.getcwd()  # noqa: PTH109 - paths of sockets are short
        os.chdir(path.parent)
        made.bind(path.name)
        os.chdir(here)


def device(path, _):
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("name", [GRAPH, WEIGHTS, "result.json"])
@pytest.mark.parametrize("make", [pipe, link, folder_instead, listener, device])
def test_what_is_no_regular_file(folder, tmp_path_factory, name, make):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "file"
    elsewhere.write_bytes((folder / name).read_bytes() if (folder / name).exists() else b"{}")
    (folder / name).unlink(missing_ok=True)
    make(folder / name, elsewhere)
    with pytest.raises(UnsafeFileError, match=f"{name}: is no regular file"):
        shardwise.load(folder)


def test_a_changed_byte_is_noticed(folder):
    data = bytearray((folder / WEIGHTS).read_bytes())
    data[-1] ^= 1
    (folder / WEIGHTS).write_bytes(data)
    with pytest.raises(UnsafeFileError, match=f"{WEIGHTS}: does not match the hash"):
        shardwise.load(folder)


@pytest.mark.parametrize("cut", [1, 100])
def test_a_cut_file_is_noticed(folder, cut):
    for name in (WEIGHTS, GRAPH):
        kept = (folder / name).read_bytes()
        (folder / name).write_bytes(kept[:-cut])
        with pytest.raises(UnsafeFileError, match=name):
            shardwise.load(folder)
        (folder / name).write_bytes(kept)


def test_the_hash_that_the_job_told_is_held(folder):
    told = hashlib.sha256((folder / GRAPH).read_bytes()).hexdigest()
    shardwise.load(folder, sha256=told)
    listed = {"artifacts": [{"name": GRAPH, "sha256": told}]}
    (folder / "result.json").write_text(json.dumps(listed))
    shardwise.load(folder)
    content = described(folder)
    content["constants"] = []
    describe(folder, content | {"note": "of somebody else"})
    with pytest.raises(UnsafeFileError, match=r"as result\.json tells"):
        shardwise.load(folder)
    (folder / "result.json").unlink()
    with pytest.raises(UnsafeFileError, match="as you gave"):
        shardwise.load(folder, sha256=told)


ODD = [None, True, -1, 0, 10**30, 1e308, "", "../../etc/passwd", [], {}, [[]], {"v": 0}, {"v": -1}]
ODD += [{"v": 10**9}, {"t": 3}, {"f": "x"}, {"s": [1]}, {"dtype": "load"}, {"o": []}, "__class__"]


def mutated(rng, value, rate):
    if rng.random() < rate:
        return rng.choice(ODD)
    if isinstance(value, dict):
        return {k: mutated(rng, v, rate) for k, v in value.items() if rng.random() > rate / 3}
    return [mutated(rng, v, rate) for v in value] if isinstance(value, list) else value


def test_graphs_changed_at_random_are_refused_in_words(folder):
    rng, good, loaded = random.Random(5), described(folder), 0
    for _ in range(400):
        describe(folder, mutated(rng, good, 0.02))
        try:
            shardwise.load(folder)
            loaded += 1
        except UnsafeFileError as error:
            assert str(folder) in str(error)
    assert loaded < 200
    for text in ("[" * 100_000, "null", "[]", "9" * 5000, "\x00", '{"format": 1}'):
        (folder / GRAPH).write_bytes(gzip.compress(text.encode()))
        with pytest.raises(UnsafeFileError, match=GRAPH):
            shardwise.load(folder)


class Odd(nn.Module):
    """With all that a graph can hold besides operators of one input and one output."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(10, 8)
        self.attend = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.scale = torch.tensor([2.0, 3.0])
        self.register_buffer("shift", torch.full((8,), 0.5), persistent=False)
        self.walk = nn.LSTM(8, 8, batch_first=True)

    def forward(self, x):
        with torch.autocast("cpu", enabled=False):
            h = self.embed(x) * self.scale[1]
        with torch.enable_grad():
            h = h + self.shift
        mask = torch.full((x.shape[1], x.shape[1]), float("-inf")).triu(1)
        h, (last, _) = self.walk(self.attend(h, mask))
        return {"logits": h, "more": (last, None, [x.shape[0]])}


def odd_task(model):
    x = torch.randint(0, 10, (8, 4))
    loss = lambda m, b: m(b[0])["logits"].sum((1, 2))  # noqa: E731
    return Task(model=model, train=Tensors(x), loss=loss, optimizer=SGD(learning_rate=0.1))


def test_constants_mappings_and_sizes_come_back(tmp_path):
    torch.manual_seed(0)
    model = Odd().eval()
    found = shardwise.load(written(tmp_path, odd_task(model)))
    assert (tmp_path / CONSTANTS).exists()
    x = torch.randint(0, 10, (5, 4))
    with torch.no_grad():
        ours, theirs = found(x), model(x)
    torch.testing.assert_close(ours["logits"], theirs["logits"])
    torch.testing.assert_close(ours["more"][0], theirs["more"][0])
    assert ours["more"][1:] == (None, [5])
    assert found.state_dict().keys() == model.state_dict().keys()
    with pytest.raises(TypeError, match="takes 1 arguments"):
        found()


def test_a_block_under_autocast_cannot_be_written(tmp_path):
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            with torch.autocast("cpu", torch.bfloat16):
                return {"logits": self.layer(x.float())[:, None]}

    with pytest.raises(CompressionError, match="autocast: that cannot be written as plain data"):
        written(tmp_path, odd_task(Half()))
