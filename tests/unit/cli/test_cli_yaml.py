"""Manifests that no manifest should be: each is answered at once, with the place and the remedy."""

from __future__ import annotations

import io
import time

import pytest

from shardwise.cli.manifest import ManifestError, read_job, read_manifests
from shardwise.cli.yamltext import TextError, decoded, documents

HEAD = "apiVersion: shardwise.dev/v1alpha1\nkind: OptimizationJob\nmetadata: {name: bomb}\n"
SPEC = 'spec: {trainer: {entrypoint: "a:b", epochs: 1, batchSize: 8, shards: 4}}\n'
BOMB = HEAD + "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
for one, other in zip("abcdefg", "bcdefgh", strict=False):
    BOMB += f"{other}: &{other} [{', '.join([f'*{one}'] * 10)}]\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BOMB + SPEC, "more than 100000 values"),
        ("a: &a {b: *a}\n", r"line 1: the alias \*a refers to itself"),
        ("a: *nobody\n", "alias"),
        ("a: " + "[" * 100_000, "nested deeper than 64"),
        ("a: " + "{b: " * 5_000, "nested deeper than 64"),
        ("- " * 5_000, "nested deeper than 64"),
        ("a: [" + "x, " * 200_000 + "]", "more than 100000 values"),
        (HEAD + SPEC + "spec: {}\n", "line 5: the key 'spec' is given twice, first in line 4"),
        (HEAD + "spec:\n  workers: {replicas: 1, replicas: 2}\n", "the key 'replicas' is given"),
        ('{"a": 1,\n\t"a": 2}', "the key 'a' is given twice"),
        ("a:\n\tb: 1\n", "line 2, column 1: no YAML.*YAML takes no tabs"),
        ("a: [1\nb: 2\n", "line 2, column"),
        ("a: !!python/object/apply:os.system [x]\n", "the tag tag:yaml.org,2002:python.*leave"),
        ("a: !!binary aGk=\n", "the tag"),
        ("true: 1\n", "the key true is no text; put it in quotes"),
        ("spec: {5: a}\n", "spec: the key 5 is no text"),
        ("? [a, b]\n: 1\n", "a key must be a text"),
        ("a: .nan\n", "a: nan is no number that JSON has"),
        ("a: -.inf\n", "no number"),
        ("a: 1" + "0" * 5_000, "no YAML"),
        ("a: \x07\n", "holds the character #x0007"),
    ],
)
def test_refused_with_the_place(text, said):
    began = time.process_time()
    with pytest.raises(TextError, match=said):
        documents(text)
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"name: caf\xe9\n", "line 1: is not UTF-8: byte 0xe9; save the file as UTF-8"),
        (b"a" * (5 << 20), "has more than 4 MiB"),
    ],
)
def test_bytes_that_are_no_text(data, said):
    with pytest.raises(TextError, match=said):
        decoded(data)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings_that_editors_write(tmp_path, encoding):
    file = tmp_path / "job.yaml"
    file.write_text(HEAD + SPEC, encoding=encoding)
    assert read_job(file).metadata.name == "bomb"


def test_what_is_well_meant_stays(tmp_path):
    text = "a: &x {b: 1}\nc: {<<: *x, b: 2}\nd: 2026-01-01\ne: [*x, *x]\n---\n---\nf: 'g'\n"
    assert documents(text) == [
        {"a": {"b": 1}, "c": {"b": 2}, "d": "2026-01-01", "e": [{"b": 1}] * 2},
        None,
        {"f": "g"},
    ]
    assert documents('{\n\t"a": [1, {"b": null}]\n}') == [{"a": [1, {"b": None}]}]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty; it must hold one document of kind OptimizationJob"),
        ("# nothing\n---\n", "is empty"),
        ("just words\n", "holds no object"),
        ("kind: Pod\n", r"holds 0 documents.*\(it has Pod\)"),
        (f"{HEAD}{SPEC}---\n{HEAD}{SPEC}", "holds 2 documents.*put each into a file of its own"),
    ],
)
def test_files_without_one_job(tmp_path, text, said):
    file = tmp_path / "job.yaml"
    file.write_text(text)
    with pytest.raises(ManifestError, match=said):
        read_manifests(file)


def test_a_file_without_end():
    from pathlib import Path

    with pytest.raises(ManifestError, match="/dev/zero: has more than 4 MiB"):
        read_manifests(Path("/dev/zero"))


def test_standard_input_is_bounded_too(monkeypatch):
    from shardwise.cli.manifest import STANDARD_INPUT

    class Input:
        buffer = io.BytesIO(b"a" * (5 << 20))

    monkeypatch.setattr("sys.stdin", Input)
    with pytest.raises(ManifestError, match="has more than 4 MiB"):
        read_manifests(STANDARD_INPUT)
