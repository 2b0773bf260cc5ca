"""What a real API server answers to manifests that are wrong: it names the field, in words.

Needs an API server alone: no node, no operator. With `KUBECONFIG` set, that one is used; the CRD
is taken as it is there, or put there and taken away again.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from api_server import RULES, refusals
from bad_manifests import BAD, Bad, unclear
from fuzz_manifests import SEEDS, fuzzed
from kubectl import Kubectl, wait_until
from kubernetes import client, config

from shardwise.api.types import GROUP, PLURAL, VERSION
from shardwise.api.validation import InvalidJob, validate

ROOT = Path(__file__).resolve().parents[2]
CRD = f"{PLURAL}.{GROUP}"
SECONDS = 60
pytestmark = pytest.mark.every_version


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest) -> Iterator[Kubectl]:
    """A client of an API server that has the CRD."""
    given = os.environ.get("KUBECONFIG")
    kubectl = Kubectl(Path(given)) if given else request.getfixturevalue("cluster")
    found = kubectl.get("customresourcedefinition", CRD)
    if found is None:
        kubectl.run("apply", "-k", str(ROOT / "manifests" / "crd"))
        kubectl.run("wait", "--for=condition=Established", f"crd/{CRD}", "--timeout=60s")
    wait_until("the kind is served", lambda: served(kubectl), seconds=SECONDS)
    rules = (kubectl.get("customresourcedefinition", CRD) or {})["spec"]["versions"][0]
    if RULES not in json.dumps(rules):
        pytest.skip("this API server has no CEL: the operator answers, see test_bad_manifests")
    yield kubectl
    if found is None:
        kubectl.run("delete", f"crd/{CRD}", "--wait=true")


def served(kubectl: Kubectl) -> bool:
    return not kubectl.run("get", CRD, check=False).returncode


@pytest.fixture(scope="module")
def jobs(server: Kubectl) -> client.CustomObjectsApi:
    api = config.new_client_from_config(str(server.kubeconfig))
    return client.CustomObjectsApi(api)


def answer(jobs: client.CustomObjectsApi, manifest: dict[str, Any]) -> list[str]:
    """`field: text` for each cause of the refusal; empty where the server takes the job. Nothing
    is created."""
    try:
        jobs.create_namespaced_custom_object(
            GROUP, VERSION, "default", PLURAL, manifest,
            dry_run="All", field_validation="Strict", _request_timeout=SECONDS,
        )  # fmt: skip
    except client.ApiException as error:
        assert error.status in (400, 422), error
        status = json.loads(error.body)
        causes = (status.get("details") or {}).get("causes") or ()
        found = [f"{cause.get('field', '')}: {cause['message']}" for cause in causes]
        # An entry of a mapping is `parameters.rate` to the schema and `parameters[rate]` to CEL.
        return [re.sub(r"\[([^\d\]][^\]]*)\]", r".\1", line) for line in found] or [
            status["message"]
        ]
    return []


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
def test_a_mistake_is_refused_in_words(jobs: client.CustomObjectsApi, bad: Bad) -> None:
    found = answer(jobs, bad.manifest)
    if bad.late:
        assert found == []  # The operator tells of it: tests/unit/api/test_bad_manifests.py.
        return
    assert any(bad.field in line and bad.both in line for line in found), found
    assert unclear(found) == []


def test_whatever_is_wrong_is_refused_in_words_or_explained(
    jobs: client.CustomObjectsApi,
) -> None:
    """Three hundred manifests: none silent, none unclear; and the tests' model of the server is
    right about each of them."""
    for seed in SEEDS:
        manifest = fuzzed(seed)
        found = answer(jobs, manifest)
        assert unclear(found) == [], seed
        assert all("spec" in line or "not checked" in line for line in found), (seed, found)
        assert bool(found) == bool(refusals(manifest)), (seed, found)
        if not found:
            try:
                validate(manifest)
            except InvalidJob as invalid:
                assert all(error.field and error.remedy for error in invalid.errors)


def test_every_example_is_taken(server: Kubectl) -> None:
    for path in sorted((ROOT / "manifests" / "examples").glob("*.yaml")):
        server.run("apply", "--dry-run=server", "-f", str(path))


def test_the_crd_without_rules_is_taken(server: Kubectl) -> None:
    server.run(
        "apply", "--server-side", "--force-conflicts", "--dry-run=server",
        "-k", str(ROOT / "manifests" / "crd-without-cel"),
    )  # fmt: skip


def test_the_rules_cost_less_than_half_of_what_a_server_allows(server: Kubectl) -> None:
    """A server reckons with the longest lists that the schema allows, and refuses a CRD whose rules
    could cost too much; the versions reckon a little differently."""

    def twice(node: Any) -> Any:
        if isinstance(node, list):
            return [twice(item) for item in node]
        if not isinstance(node, dict):
            return node
        rules = node.get(RULES)
        if isinstance(rules, list):
            node = {**node, RULES: rules + [{**rule, "rule": rule["rule"] + " "} for rule in rules]}
        return {key: twice(value) for key, value in node.items()}

    crd = yaml.safe_load((ROOT / "manifests" / "crd" / f"{PLURAL}.yaml").read_text())
    server.run(
        "apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", "-",
        input=json.dumps(twice(crd)),
    )  # fmt: skip


@pytest.fixture
def job(server: Kubectl) -> Iterator[dict[str, Any]]:
    manifest: dict[str, Any] = yaml.safe_load(
        (ROOT / "manifests" / "examples" / "elastic.yaml").read_text().rpartition("---")[2]
    )
    manifest["metadata"] = {"name": "refusals"}
    server.apply(manifest)
    yield manifest
    server.run("delete", CRD, "refusals", "--ignore-not-found")


def test_what_may_not_change_is_refused_with_the_remedy(
    server: Kubectl, job: dict[str, Any]
) -> None:
    job["spec"]["trainer"]["seed"] = 123
    done = server.apply(job, check=False)
    assert done.returncode
    assert "spec.trainer cannot be changed" in done.stderr
    assert "create a new job with another name" in done.stderr


def test_scale_sets_replicas_within_their_bounds(server: Kubectl, job: dict[str, Any]) -> None:
    server.run("scale", f"{CRD}/refusals", "--replicas=2")
    assert (server.get(CRD, "refusals") or {})["spec"]["workers"]["replicas"] == 2
    done = server.run("scale", f"{CRD}/refusals", "--replicas=1000", check=False)
    assert done.returncode
    assert "spec.workers.replicas" in done.stderr and "raise" in done.stderr


def test_two_field_managers_share_a_job(server: Kubectl, job: dict[str, Any]) -> None:
    """Another one may own what the first does not set, and is told whose field it would take."""
    head = {key: job[key] for key in ("apiVersion", "kind", "metadata")}

    def apply(manager: str, spec: dict[str, Any], *more: str) -> Any:
        return server.run(
            "apply", "--server-side", f"--field-manager={manager}", *more, "-f", "-",
            input=json.dumps({**head, "spec": spec}), check=False,
        )  # fmt: skip

    assert not apply("team", job["spec"], "--force-conflicts").returncode
    # Kueue sets suspend; a server with required fields wants them in no partial object.
    done = apply("queue", {"suspend": True})
    assert not done.returncode, done.stderr
    refused = apply("queue", {"suspend": True, "workers": {"replicas": 3}})
    assert refused.returncode and "conflict with" in refused.stderr
    assert ".spec.workers.replicas" in refused.stderr
    found = server.get(CRD, "refusals") or {}
    assert found["spec"]["suspend"] is True
    assert found["spec"]["trainer"]["shards"] == job["spec"]["trainer"]["shards"]


def test_a_job_from_before_a_rule_still_gets_its_status(
    server: Kubectl, job: dict[str, Any]
) -> None:
    """What is stored and would be refused now can be written to where it did not change. Tried on
    a copy of the CRD in a group of its own."""
    group = f"before.{GROUP}"
    name = f"{PLURAL}.{group}"
    head = {"apiVersion": f"{group}/{VERSION}", "kind": job["kind"]}
    wrong = {**job["spec"], "workers": {"replicas": 1, "min": 2}}

    def define(folder: str) -> None:
        text = (ROOT / "manifests" / folder / f"{PLURAL}.yaml").read_text()
        crd = yaml.safe_load(text)
        crd["metadata"] = {"name": name}
        crd["spec"]["group"] = group
        for key in ("shortNames", "categories"):
            del crd["spec"]["names"][key]
        server.run("apply", "--server-side", "-f", "-", input=json.dumps(crd))

    def refused(called: str) -> bool:
        manifest = {**head, "metadata": {"name": called}, "spec": wrong}
        return bool(server.apply(manifest, check=False).returncode)

    try:
        define("crd-without-cel")
        wait_until("it is taken", lambda: not refused("old"), seconds=SECONDS)
        define("crd")
        wait_until("the like of it is refused", lambda: refused("new"), seconds=SECONDS)
        status = json.dumps({"status": {"message": "written all the same"}})
        server.run("patch", name, "old", "--subresource=status", "--type=merge", "-p", status)
        server.run("label", name, "old", "team=a")
        found = server.get(name, "old") or {}
        assert found["status"]["message"] == "written all the same"
        assert found["spec"]["workers"]["min"] == 2
    finally:
        server.run("delete", "crd", name, "--ignore-not-found", "--wait=true")


def test_explain_and_the_columns_say_what_there_is(server: Kubectl, job: dict[str, Any]) -> None:
    told = server.run("explain", f"{CRD}.spec.workers.replicas").stdout
    assert "replicas is the number of workers" in told
    assert "compression" in server.run("explain", f"{CRD}.spec.tasks.list").stdout
    header = server.run("get", CRD, "-o", "wide").stdout.splitlines()[0]
    assert header.split()[:2] == ["NAME", "STATE"]
    assert all(name in header for name in ("WORKERS", "GOODPUT", "RECOVERIES", "REASON", "TASKS"))
