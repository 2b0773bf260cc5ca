"""`run` and `submit` tell parameters that the entrypoint does not take, before anything starts."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import yaml
from cli_api import JOBS
from click.testing import CliRunner
from samples import manifest

from shardwise.cli.main import main
from shardwise.cli.source import source_of

CODE = "raise SystemExit('imported')\ndef task(width, depth=2): ...\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with a module, a package and a namespace package of that code."""
    monkeypatch.chdir(tmp_path)
    for name in ("mine.py", "pack/__init__.py", "pack/inner.py", "space/deep/leaf.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(CODE)
    return tmp_path


def written(folder, entrypoint="mine:task", parameters=None, **more):
    found = manifest()
    found["spec"]["trainer"] |= {"entrypoint": entrypoint, "parameters": parameters or {}, **more}
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(found))
    return str(path)


def run(path, *arguments):
    return CliRunner().invoke(main, ["run", path, *arguments], prog_name="shardwise")


@pytest.mark.parametrize("module", ["mine", "pack", "pack.inner", "space.deep.leaf"])
def test_the_source_of_a_module_in_the_folder(folder, module):
    assert source_of(module, folder) == CODE


@pytest.mark.parametrize(
    "module", ["absent", "mine.more", "pack.absent", "sys", "space", "space.x"]
)
def test_modules_without_source(folder, module):
    assert not source_of(module, folder)


def test_text_that_is_no_utf_8_is_no_source(folder):
    (folder / "latin.py").write_bytes(b"x = '\xe4'\n")
    assert source_of("latin", folder) is None


def test_an_installed_module_is_read_and_not_imported(tmp_path):
    code = (
        "import json, pathlib, sys\n"
        "from shardwise.cli.source import source_of\n"
        "text = source_of('sklearn.datasets._base', pathlib.Path('.'))\n"
        "print(json.dumps(['def load_digits(' in text, sorted(sys.modules)]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, timeout=60, check=True, cwd=tmp_path,
    )  # fmt: skip
    found, loaded = json.loads(done.stdout)
    assert found
    assert "sklearn" not in loaded


def test_run_refuses_what_the_entrypoint_does_not_take(folder):
    done = run(written(folder, parameters={"widht": 3}))
    assert done.exit_code == 2
    assert "'widht' is no parameter of mine:task; did you mean 'width'?" in done.stderr
    assert "spec.trainer.parameters.width: is missing, and mine:task needs it" in done.stderr
    assert not (folder / "out").exists()


def test_the_folder_comes_before_what_is_installed(folder):
    (folder / "yaml.py").write_text(CODE)
    done = run(written(folder, "yaml:task"))
    assert "width: is missing, and yaml:task needs it" in done.stderr


def test_submit_refuses_it_before_anything_is_sent(folder, api, call):
    done = call("submit", written(folder, "pack.inner:task", {"width": 1, "x": 2}))
    assert (done.exit_code, done.stdout) == (2, "")
    assert "1 mistake:" in done.stderr
    assert "spec.trainer.parameters.x: 'x' is no parameter of pack.inner:task" in done.stderr
    assert api.calls == []
    assert call("submit", written(folder, parameters={"width": 1})).exit_code == 0


def test_submit_refuses_a_sweep_over_what_there_is_not(folder, api, call):
    found = manifest()
    found["spec"]["tasks"] = {"sweep": {"parameters": [{"name": "rate", "values": [1]}]}}
    (folder / "job.yaml").write_text(yaml.safe_dump(found))
    done = call("submit", "job.yaml")
    assert done.exit_code == 2
    assert "spec.tasks.sweep.parameters[0].name: 'rate' is no parameter of" in done.stderr
    assert api.calls == []


def test_submit_only_warns_where_an_image_may_have_other_code(folder, api, call):
    done = call("submit", written(folder, image="registry.example/mine:1"))
    assert done.exit_code == 0
    assert "Warning: spec.trainer.parameters.width: is missing" in done.stderr
    assert "(as the code on this machine has it)" in done.stderr


def test_submit_reads_the_code_of_the_config_map(folder, api, call):
    """That of this machine does not count: the workers get the ConfigMap's."""
    path = written(folder, codeFrom={"configMap": "my-code"}, parameters={"height": 1})
    api.put("configmaps", {
        "metadata": {"name": "my-code", "namespace": "default"},
        "data": {"mine.py": "def task(height): ..."},
    })  # fmt: skip
    assert call("submit", path).exit_code == 0
    path = written(folder, codeFrom={"configMap": "my-code"}, parameters={"width": 1})
    done = call("submit", path, "--name", "again")
    assert done.exit_code == 2
    assert (
        "'width' is no parameter of mine:task; remove it; the function takes height" in done.stderr
    )
    assert len(api.sent("PATCH")) == 1


def test_submit_says_which_part_cannot_be_changed(folder, api, call):
    path = folder / "job.yaml"
    found = manifest()
    found["spec"]["tasks"] = {"list": [{"name": "a"}]}
    api.put(JOBS, {**found, "metadata": {"name": "digits", "namespace": "default"}})
    found["spec"]["tasks"] = {"list": [{"name": "a"}, {"name": "b"}]}
    path.write_text(yaml.safe_dump(found))
    done = call("submit", str(path))
    assert done.exit_code == 2
    assert "spec.tasks: cannot be changed once the job is there (list [" in done.stderr
