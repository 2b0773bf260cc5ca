"""The program as a whole: names, help, start-up, completion, exit codes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cli_api import JOBS
from click.testing import CliRunner
from samples import job

import shardwise
from shardwise.api import types
from shardwise.cli import exitcodes, names
from shardwise.cli.main import COMMANDS, main, program_name

ROOT = Path(__file__).resolve().parents[3]
HEAVY = {
    *("kubernetes", "pydantic", "pydantic_core", "torch", "rich", "numpy", "matplotlib", "yaml"),
    *("asyncio", "ssl", "urllib3", "requests", "http.client", "concurrent.futures"),
}


@pytest.mark.parametrize(
    "arguments",
    [["--version"], ["--help"], ["get", "--help"], ["watch", "--help"], ["completion", "bash"]],
)
def test_nothing_heavy_is_imported_to_start(arguments):
    code = (
        "import sys, json, atexit\n"
        "atexit.register(lambda: print(json.dumps(sorted(sys.modules)), file=sys.stderr))\n"
        f"sys.argv = ['shardwise', *{arguments!r}]\n"
        "from shardwise.cli.main import main\n"
        "main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout
    assert HEAVY.isdisjoint(json.loads(done.stderr))


def test_completing_a_command_imports_nothing_heavy():
    code = (
        "import sys, json\n"
        "from shardwise.cli.completion import kubectl\n"
        "kubectl(['ge']); kubectl(['get', '--na'])\n"
        "print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[:2] == ["get\tList jobs.", ":4"]
    assert HEAVY.isdisjoint(json.loads(done.stderr))


@pytest.mark.parametrize(
    ("invoked", "name"),
    [
        ("/usr/bin/shardwise", "shardwise"),
        ("/usr/bin/kubectl-shardwise", "kubectl shardwise"),
        ("C:\\bin\\kubectl-shardwise", "shardwise"),
        ("main.py", "shardwise"),
    ],
)
def test_the_program_goes_by_the_name_it_was_called(invoked, name, monkeypatch, capsys):
    assert program_name(invoked) == name
    monkeypatch.setattr(sys, "argv", [invoked, "get", "--help"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"Usage: {name} get [OPTIONS]")


def test_the_version(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["kubectl-shardwise", "--version"])
    with pytest.raises(SystemExit):
        main()
    assert capsys.readouterr().out == f"kubectl shardwise {shardwise.__version__}\n"


def run(*arguments, **environment):
    return CliRunner().invoke(main, list(arguments), prog_name="shardwise", env=environment)


def test_every_command_has_help_that_begins_with_what_it_does():
    listed = run("--help").stdout
    for name, (_, line) in COMMANDS.items():
        assert line in listed
        done = run(name, "--help")
        assert done.exit_code == 0, done.output
        assert done.stdout.startswith(f"Usage: shardwise {name} ")
        assert done.stdout.splitlines()[2].strip()


def test_an_unknown_command_is_2_and_names_a_like_one():
    done = run("lgos")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "Did you mean 'logs'?" in done.stderr
    assert run("frobnicate").exit_code == 2


def test_an_interrupt_is_130(monkeypatch):
    from shardwise.cli import plot

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(plot, "read", interrupted)
    assert run("plot", "x").exit_code == 130


@pytest.mark.parametrize("value", ["soon", "0", "-5s", "inf"])
def test_times_that_are_none(value):
    done = run("watch", "x", f"--timeout={value}")
    assert done.exit_code == 2
    assert "--timeout" in done.stderr


@pytest.mark.parametrize(
    ("value", "seconds"), [("90", 90), ("5m", 300), ("2h", 7200), ("1.5s", 1.5)]
)
def test_times(value, seconds):
    from shardwise.cli.options import DURATION

    assert DURATION.convert(value, None, None) == seconds


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_name_the_program(shell):
    done = run("completion", shell)
    assert done.exit_code == 0
    assert f"_SHARDWISE_COMPLETE={shell}_complete" in done.stdout


def test_the_bash_script_completes(tmp_path):
    """Through a real bash, with a program that answers as ours does."""
    program = tmp_path / "shardwise"
    program.write_text(f"#!{sys.executable}\nfrom shardwise.cli.main import main\nmain()\n")
    program.chmod(0o755)
    script = run("completion", "bash").stdout
    ask = (
        "COMP_WORDS=(shardwise su); COMP_CWORD=1; _shardwise_completion shardwise\n"
        'echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", f"{script}\n{ask}"],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.split() == ["submit", "suspend"]


def test_names_of_jobs_are_completed(api, kubeconfig, capsys):
    from shardwise.cli.completion import kubectl

    for name in ("digits", "digits-2", "other"):
        api.put(JOBS, job(name))
    kubectl(["describe", "dig"])
    assert capsys.readouterr().out == "digits\ndigits-2\n:4\n"
    kubectl(["describe", "-n", "team", ""])
    assert capsys.readouterr().out == ":4\n"


def test_completion_is_silent_without_a_cluster(kubeconfig, capsys):
    from shardwise.cli.completion import kubectl

    kubeconfig.write_text("not: a kubeconfig")
    kubectl(["describe", ""])
    assert capsys.readouterr().out == ":4\n"


def test_names_are_those_of_the_api():
    assert (names.GROUP, names.VERSION, names.PLURAL) == (types.GROUP, types.VERSION, types.PLURAL)
    assert (names.KIND, names.SINGULAR) == (types.KIND, types.SINGULAR)
    assert (names.API_VERSION, names.MANAGER) == (types.API_VERSION, types.MANAGER)


def test_labels_and_the_container_are_those_of_the_operator():
    from shardwise_operator import names as theirs

    assert (names.JOB_NAME, names.JOB_UID) == (theirs.JOB_NAME, theirs.JOB_UID)
    assert (names.INDEX, names.CONTAINER) == (theirs.INDEX, theirs.CONTAINER)


def test_the_exit_codes_are_documented():
    text = (ROOT / "docs" / "cli.md").read_text()
    table = {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}
    codes = {value for name, value in vars(exitcodes).items() if name.isupper()}
    assert table == codes


def test_every_command_is_documented():
    text = (ROOT / "docs" / "cli.md").read_text()
    assert [name for name in COMMANDS if f"### {name}" not in text] == []


def test_only_one_module_imports_the_client():
    users = [
        path.name
        for path in (ROOT / "trainer" / "shardwise" / "cli").rglob("*.py")
        if re.search(r"^\s*(import|from) kubernetes\b", path.read_text(), re.MULTILINE)
    ]
    assert sorted(users) == ["cluster.py", "credentials.py"]
