"""Every file that a compression leaves, byte for byte, from 1, 2, 3 and 4 processes."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from methods import STATIC, STEPS
from processes import WIDTHS
from small import trained

pytestmark = pytest.mark.timeout(3600)
HERE = Path(__file__).parent
SIZES = (1, 2, 3, 4)
FILES = {"model.safetensors", "graph.json.gz", "model.onnx"}


@pytest.fixture(scope="module")
def hashes(tmp_path_factory):
    """By size and method, what each member made."""
    folder = tmp_path_factory.mktemp("groups")
    for kind, width in WIDTHS.items():
        task = trained(convolution=kind == "convolution", width=width)
        torch.save(task.model.state_dict(), folder / f"{kind}.pt")
    places = (HERE, HERE.parent / "engine")
    former = filter(None, [os.environ.get("PYTHONPATH")])
    environ = os.environ | {"PYTHONPATH": os.pathsep.join([*map(str, places), *former])}
    # Two processes: nothing may follow from the order of a set, which differs between them.
    with contextlib.ExitStack() as stack:
        running = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-W", "ignore", HERE / "processes.py", folder, *sizes],
                    env=environ | {"PYTHONHASHSEED": seed},
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
            for seed, sizes in (("1", ("1", "4")), ("2", ("2", "3")))
        ]
        for process in running:
            stack.callback(process.kill)
        for process in running:
            _, errors = process.communicate(timeout=900)
            assert process.returncode == 0, errors
    return {size: json.loads((folder / f"{size}.json").read_text()) for size in SIZES}


@pytest.mark.parametrize("method", STEPS | STATIC)
def test_the_files_are_the_same_on_any_number_of_workers(hashes, method):
    (expected,) = hashes[1][method]
    assert expected.keys() == FILES
    for size in SIZES:
        members = hashes[size][method]
        assert members[-1] == expected
        assert {member["model.safetensors"] for member in members} == {
            expected["model.safetensors"]
        }


def test_other_methods_give_other_weights(hashes):
    """Dynamic apart: its weights are those of int8; its inputs are rounded, in the other files."""
    found = {method: members[0] for method, members in hashes[1].items()}
    dynamic, int8 = found.pop("dynamic"), found["int8"]
    assert dynamic["model.safetensors"] == int8["model.safetensors"]
    assert dynamic["model.onnx"] != int8["model.onnx"]
    assert len({files["model.safetensors"] for files in found.values()}) == len(found)
