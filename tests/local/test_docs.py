"""The documentation against what there is: links, names, and the commands a reader would type.

A comment on the line before a fenced block says what is done with it:

    <!-- run -->          bash runs it, in a folder with this repository's manifests and .venv
    <!-- shows -->        its lines are in the output of the page's runs so far; … is anything
    <!-- file: NAME -->   it is written into that folder
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from shardwise.api import conditions, exitcodes, metrics
from shardwise.api.schema import structural
from shardwise.api.types import KIND
from shardwise.api.validation import validate
from shardwise.cli.main import COMMANDS, main

ROOT = Path(__file__).resolve().parents[2]
BLOCK_SECONDS = 600
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    ROOT / "charts" / "shardwise" / "README.md",
]
READING_ORDER = (
    "docs/first-job.md",
    "docs/your-own-model.md",
    "docs/faults.md",
    "docs/tasks.md",
)
"""Pages with commands that are run. Later ones use what earlier ones have made."""
SHELL = ("sh", "console", "")
FOLDERS = "tests|docs|charts|manifests|trainer|operator|scripts|requirements"


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    marker: str
    text: str


def blocks(page: Path) -> Iterator[Block]:
    before, lines, opened = "", None, ""
    for line in page.read_text().splitlines():
        if line.startswith("```") and lines is None:
            lines, opened = [], line[3:].strip()
        elif line.startswith("```"):
            found = re.fullmatch(r"<!-- (.+) -->", before)
            yield Block(opened, found[1] if found else "", "\n".join(lines or []))
            before, lines = "", None
        elif lines is None:
            before = line
        else:
            lines.append(line)
    assert lines is None, f"{page}: a fenced block does not end"


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def spans(page: Path) -> list[str]:
    """What stands in backquotes."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose(page))]


def commands(page: Path) -> str:
    """All that a reader may type, one command a line."""
    shell = [block.text for block in blocks(page) if block.language in SHELL]
    return re.sub(r"\\\n\s*", " ", "\n".join([*spans(page), *shell]))


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def every_page() -> Any:
    return pytest.mark.parametrize(
        "page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix()
    )


@every_page()
def test_links_lead_somewhere(page: Path):
    lost = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if link.startswith(("https://", "http://")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            lost.append(link)
    assert not lost


@every_page()
def test_paths_modules_and_targets_exist(page: Path):
    text = commands(page)
    paths = re.findall(rf"(?<![\w/.-])(?:{FOLDERS})/[\w./*-]*", text)
    assert [path for path in paths if not list(ROOT.glob(path.rstrip("./")))] == []
    modules = re.findall(r"python -m (shardwise[\w.]*)", text)
    assert [name for name in modules if importlib.util.find_spec(name) is None] == []
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert set(re.findall(r"^(?:\$ )?make ([a-z]+)", text, flags=re.MULTILINE)) <= set(targets)


@every_page()
def test_commands_and_options_exist(page: Path):
    pattern = r"(?:^|[$&;(] *|bin/|kubectl )shardwise ([a-z]+)([^\n|;&#]*)"
    for name, arguments in re.findall(pattern, commands(page), flags=re.MULTILINE):
        assert name in COMMANDS, f"shardwise {name}"
        assert _options(arguments) <= _known(name), f"shardwise {name}{arguments}"


def test_the_command_lines_page_has_every_command_and_only_real_options():
    page = (ROOT / "docs" / "cli.md").read_text()
    sections = dict(re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", page, re.MULTILINE | re.DOTALL))
    assert sections.keys() == COMMANDS.keys()
    for name, text in sections.items():
        assert _options(" ".join(re.findall(r"`([^`]+)`", text))) <= _known(name), name


def _options(arguments: str) -> set[str]:
    found = re.findall(r"(?<=[\s/])--?[a-z][a-z-]*", f" {arguments}")
    return {option for option in found if option.startswith("--") or len(option) == 2}


@cache
def _known(name: str) -> set[str]:
    command = main.get_command(None, name)  # type: ignore[arg-type]
    assert command is not None
    given = {text for parameter in command.params for text in parameter.opts}
    return given | {"--help", "-h"}


@every_page()
def test_fields_of_jobs_exist(page: Path):
    schema = structural(cel=False)
    for path in re.findall(r"(?<![\w./-])(?:spec|status)(?:\.[a-zA-Z]+)+", page.read_text()):
        assert _has(schema, path.split(".")), path
    for block in blocks(page):
        if block.language != "yaml":
            continue
        for document in yaml.safe_load_all(block.text):
            assert isinstance(document, dict), "a block of YAML is a mapping"
            if document.get("kind") == KIND:
                validate(document)
            elif "kind" not in document:
                unknown = [path for path in _paths(document, ()) if not _has(schema, path)]
                assert not unknown


def _has(schema: Mapping[str, Any], path: list[str] | tuple[str, ...]) -> bool:
    """Whether the path is one of the schema's; below an open part, anything is."""
    for name in path:
        if schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema:
            return True
        schema = schema.get("items", schema)
        if name not in schema.get("properties", {}):
            return False
        schema = schema["properties"][name]
    return True


def _paths(node: Any, at: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if isinstance(node, dict):
        for name, value in node.items():
            if name != "...":
                yield (*at, name)
                yield from _paths(value, (*at, name))
    for item in node if isinstance(node, list) else ():
        yield from _paths(item, at)


@every_page()
def test_metrics_exist(page: Path):
    known = {name for family in metrics.FAMILIES for name in (family.name, *family.series)}
    found = set(re.findall(r"(?<![\w/])shardwise_[a-z_]+", page.read_text()))
    assert found - {"shardwise_operator"} <= known


@every_page()
def test_chart_values_and_variables_exist(page: Path):
    values = yaml.safe_load((ROOT / "charts" / "shardwise" / "values.yaml").read_text())
    text = commands(page)
    named = [
        assignment.partition("=")[0]
        for argument in re.findall(r"--set (\S+)", text)
        for assignment in argument.split(",")
    ]
    for span in spans(page):
        dotted = re.fullmatch(r"([a-z]\w+)(?:\.[a-zA-Z]+)+", span)
        if (
            dotted
            and isinstance(values.get(dotted[1]), dict)
            and not span.endswith((".md", ".org"))
        ):
            named.append(span)
    assert [path for path in named if not _is_value(values, path)] == []
    assert set(re.findall(r"\bSHARDWISE_[A-Z_]+", page.read_text())) <= _variables()


def _is_value(values: Any, path: str) -> bool:
    for name in path.split("."):
        if values == {}:  # open
            return True
        if not isinstance(values, dict) or name not in values:
            return False
        values = values[name]
    return True


@cache
def _variables() -> set[str]:
    """Environment variables that some code or manifest names."""
    sources = [
        path
        for folder in ("trainer", "operator", "manifests", "tests")
        for kind in ("*.py", "*.yaml")
        for path in (ROOT / folder).rglob(kind)
        if path != Path(__file__)
    ]
    return {name for path in sources for name in re.findall(r"SHARDWISE_[A-Z_]+", path.read_text())}


def test_every_reason_and_exit_code_is_explained():
    text = (ROOT / "docs" / "troubleshooting.md").read_text()
    reasons, codes = text.split("\n## By reason\n")[1].split("\n## Exit codes of workers\n")
    listed = re.findall(r"^\| `([A-Z]\w+)` \|", reasons, flags=re.MULTILINE)
    assert sorted(listed) == sorted(conditions.REASONS)
    told = {int(code) for code in re.findall(r"^\| (\d+) \|", codes, flags=re.MULTILINE)}
    assert {value for value in vars(exitcodes).values() if isinstance(value, int)} <= told


def test_the_index_has_every_page():
    index = ROOT / "docs" / "README.md"
    linked = {
        (index.parent / link.partition("#")[0]).resolve()
        for link in re.findall(r"\]\(([^)\s]+)\)", index.read_text())
    }
    runbooks = ROOT / "docs" / "runbooks"
    pages = {p for p in PAGES if p.is_relative_to(ROOT / "docs") and p.parent != runbooks}
    assert pages - {index} <= linked
    assert runbooks / "README.md" in linked


def test_what_is_run_is_on_the_pages_that_are_read():
    marked = {
        page.relative_to(ROOT).as_posix()
        for page in PAGES
        if any(block.marker for block in blocks(page))
    }
    assert marked == set(READING_ORDER)


@pytest.mark.timeout(1800)
def test_a_reader_can_run_the_commands(tmp_path: Path):
    (tmp_path / "manifests").symlink_to(ROOT / "manifests")
    (tmp_path / ".venv").symlink_to(sys.prefix)
    for page in READING_ORDER:
        output = ""
        for block in blocks(ROOT / page):
            if block.marker == "run":
                output += _run(block.text, tmp_path, page)
            elif block.marker == "shows":
                _assert_shows(output, block.text, page)
            elif name := block.marker.removeprefix("file: "):
                (tmp_path / name).write_text(block.text + "\n")


def _run(text: str, folder: Path, page: str) -> str:
    # timeout ends all that the block has started, not bash alone.
    limited = ["timeout", "--kill-after=10", str(BLOCK_SECONDS)]
    done = subprocess.run(
        [*limited, "bash", "-euo", "pipefail", "-c", text],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=BLOCK_SECONDS + 60,
        check=False,
    )
    assert done.returncode == 0, f"{page}:\n{text}\nended with {done.returncode}:\n{done.stdout}"
    return done.stdout


def _assert_shows(output: str, text: str, page: str) -> None:
    for line in text.splitlines():
        pattern = ".*".join(map(re.escape, line.split("…")))
        assert re.search(f"^{pattern}$", output, re.MULTILINE), f"{page}: no {line!r} in\n{output}"
