"""Templates and volumes that are wrong are refused by field, before any pod is made."""

from __future__ import annotations

import pytest
from controller_rig import KEY, Rig
from operator_world import manifest

from shardwise_operator.decide.template import template_errors
from shardwise_operator.port import ApiError
from shardwise_operator.render import merged_pod_spec
from shardwise_operator.render.origin import in_the_job
from shardwise_operator.schema import MINOR

T = "spec.template.spec"


def trainer(**container):
    return {"containers": [{"name": "trainer", **container}]}


WRONG = [
    ({"nodeSelectr": {"gpu": "yes"}}, f"{T}.nodeSelectr: there is no such field", "nodeSelector?"),
    (trainer(resource={"limits": {"memory": "1Gi"}}), f"{T}.containers[0].resource", "resources?"),
    (trainer(env=["oops", {"name": "X"}]), f"{T}.containers[0].env[0]: 'oops' is not", "a mapping"),
    (trainer(env=[None]), f"{T}.containers[0].env[0]: is empty", "remove it"),
    (trainer(env=[{"name": "X", "value": 1}]), f"{T}.containers[0].env[0].value: 1", '"1"'),
    (trainer(env=[{"value": "x"}]), f"{T}.containers[0].env[0].name: is missing", "add it"),
    (trainer(env=[{"name": "X"}, {"name": "X"}]), f"{T}.containers[0].env[1].name", "twice"),
    ({"containers": {"trainer": {}}}, f"{T}.containers: ", "a list"),
    ({"containers": [[]]}, f"{T}.containers[0]: [] is not a mapping", "a mapping"),
    ({"tolerations": [{"key": 5}]}, f"{T}.tolerations[0].key: 5 is not a string", '"5"'),
    ({"hostNetwork": "yes"}, f"{T}.hostNetwork: 'yes' is not true or false", "true or false"),
    ({"priority": 2**63}, f"{T}.priority: {2**63} does not fit", "smaller"),
    ({"priority": 1.5}, f"{T}.priority: 1.5 is not an integer", "an integer"),
    (
        trainer(resources={"limits": {"memory": "1Gx"}}),
        f"{T}.containers[0].resources.limits.memory: '1Gx' is no quantity",
        "2Gi",
    ),
    ({"restartPolicy": "Always"}, f"{T}.restartPolicy: 'Always' would not be heeded", "remove"),
    ({"hostname": "me"}, f"{T}.hostname: 'me' would not be heeded", "remove it"),
    ({"subdomain": "x"}, f"{T}.subdomain: 'x' would not be heeded", "remove it"),
    ({"volumes": [{"name": "v"}]}, f"{T}.volumes[0]: has 0 volume sources", "exactly one"),
    (
        {"volumes": [{"name": "v", "emptyDir": {}, "secret": {}}]},
        f"{T}.volumes[0]: has 2 volume sources (emptyDir, secret)",
        "exactly one",
    ),
    (
        {"volumes": [{"name": "v", "pvc": {}}]},
        f"{T}.volumes[0].pvc: there is no such field",
        "persistentVolumeClaim?",
    ),
    (
        {"affinity": {"nodeAffinity": {"required": {}}}},
        f"{T}.affinity.nodeAffinity.required",
        "requiredDuringSchedulingIgnoredDuringExecution",
    ),
    (
        trainer(env=[{"name": "SHARDWISE_GRACE_SECONDS", "value": "1"}]),
        f"{T}.containers[0].env[0]",
        "terminationGracePeriodSeconds",
    ),
]


@pytest.mark.parametrize(("spec", "said", "remedy"), WRONG, ids=[case[1] for case in WRONG])
async def test_a_wrong_template_is_not_accepted_and_mended_it_is(spec, said, remedy):
    rig = Rig()
    await rig.add(template={"spec": spec})
    await rig.reconcile()
    (accepted,) = [c for c in rig.status["conditions"] if c["type"] == "Accepted"]
    assert accepted["status"] == "False"
    assert said in accepted["message"]
    assert remedy in accepted["message"]
    assert rig.made("pods") == rig.made("services") == []
    rig.jobs.put(await rig.cluster.patch("optimizationjobs", *KEY, {"spec": {"template": None}}))
    await rig.reconcile()
    assert rig.status["state"] == "Pending"
    assert len(rig.made("pods")) == 4


@pytest.mark.parametrize("part", ["output", "checkpoint"])
@pytest.mark.parametrize(
    ("volume", "said"),
    [
        ({"pvc": {"claimName": "x"}}, "unknown volume source pvc; did you mean persistentVolume"),
        ({"persistentVolumeClaim": "x"}, "persistentVolumeClaim: 'x' is not a mapping"),
        ({"persistentVolumeClaim": {"claim": "x"}}, "did you mean claimName?"),
        ({"emptyDir": None}, "volume.emptyDir: is empty; write emptyDir: {...}"),
        ({"projected": {"sources": ["x"]}}, "volume.projected.sources[0]: 'x' is not a mapping"),
        ({"name": "x"}, "volume"),
    ],
)
async def test_a_wrong_volume_is_not_accepted(part, volume, said):
    rig = Rig()
    await rig.add(**{part: {"volume": volume, **({"everySteps": 5} if part != "output" else {})}})
    await rig.reconcile()
    assert rig.status["state"] == "Invalid"
    assert f"spec.{part}.volume" in rig.status["message"]
    assert said in rig.status["message"]
    assert rig.made("pods") == []


@pytest.mark.parametrize(
    "spec",
    [
        trainer(resources={"limits": {"cpu": 2, "memory": "1Gi"}, "requests": {"cpu": 0.5}}),
        trainer(resources={"limits": {"cpu": "1e3", "memory": "12e6", "x/y": "500m", "z": "1.5"}}),
        {"restartPolicy": "Never", "nodeSelector": {"a": "b"}, "tolerations": None},
        {"volumes": [{"name": "output", "persistentVolumeClaim": {"claimName": "x"}}]},
        {"volumes": [{"name": "d", "emptyDir": {"sizeLimit": 1000}}]},
        trainer(livenessProbe={"httpGet": {"port": "http", "path": "/"}, "periodSeconds": 5}),
        {"initContainers": [{"name": "i", "image": "x", "restartPolicy": "Always"}]},
    ],
)
def test_what_is_right_is_let_through(spec):
    assert template_errors(manifest(template={"spec": spec})) == []


def test_fields_of_a_newer_server_are_left_to_it():
    newer = manifest(template={"spec": {"fieldOfTomorrow": 1}})
    assert template_errors(newer, MINOR)
    assert not template_errors(newer, MINOR + 1)


async def test_the_server_has_the_last_word_before_anything_is_made():
    rig = Rig()
    await rig.add(template={"spec": {"containers": [{"name": "s"}, {"name": "trainer"}]}})
    said = 'Pod "digits-0" is invalid: spec.containers[1].image: Required value'
    rig.cluster.refuse["dry run", "pods"] = ApiError(422, "Invalid", said)
    after = await rig.reconcile()
    assert (rig.status["state"], rig.status["reason"]) == ("Invalid", "InvalidSpec")
    assert "spec.template.spec.containers[0].image: Required value" in rig.status["message"]
    assert rig.made("pods") == rig.made("services") == []
    assert 0 < after <= 10
    rig.cluster.refuse.clear()
    rig.time = 11.0
    await rig.reconcile()
    assert len(rig.made("pods")) == 4
    tried = rig.cluster.calls.count(("dry run", "pods", "digits-0"))
    assert tried == 2


@pytest.mark.parametrize(
    "answer",
    [
        ApiError(403, "Forbidden", "exceeded quota"),
        ApiError(400, "BadRequest", "admission webhook x does not support dry run"),
        ApiError(500, "InternalError", "x"),
    ],
)
async def test_what_the_dry_run_says_besides_is_left_to_the_making(answer):
    rig = Rig()
    await rig.add()
    rig.cluster.refuse["dry run", "pods"] = answer
    await rig.reconcile()
    assert len(rig.made("pods")) == 4


async def test_a_started_job_whose_template_is_broken_goes_on_and_makes_no_pod_of_it():
    rig = Rig()
    await rig.add()
    await rig.reconcile()
    wrong = {"spec": {"containers": [{"name": "trainer", "env": ["oops"]}]}}
    rig.jobs.put(await rig.cluster.patch("optimizationjobs", *KEY, {"spec": {"template": wrong}}))
    del rig.cluster.objects["pods", "default", "digits-2"]
    await rig.reconcile()
    assert len(rig.made("pods")) == 3
    assert rig.status["reason"] == "InvalidSpec"
    assert "env[0]" in rig.status["message"]
    rig.jobs.put(await rig.cluster.patch("optimizationjobs", *KEY, {"spec": {"template": None}}))
    await rig.reconcile()
    assert len(rig.made("pods")) == 4


def test_another_source_takes_the_place_of_a_volumes_source():
    ours = {"volumes": [{"name": "output", "emptyDir": {}}]}
    theirs = {"volumes": [{"name": "output", "secret": {"secretName": "x"}}]}
    assert merged_pod_spec(ours, theirs) == theirs


def test_the_servers_words_name_the_jobs_fields():
    pod = {"spec": {"volumes": [{"name": "output"}, {"name": "tmp"}, {"name": "mine"}]}}
    job = {"spec": {"template": {"spec": {"volumes": [{"name": "mine"}]}}}}
    said = "spec.volumes[0].x: a, spec.volumes[2].y: b, spec.nodeName: c, spec.volumes[1].z"
    assert in_the_job(said, pod, job) == (
        "spec.output.volume.x: a, spec.template.spec.volumes[0].y: b, "
        "spec.template.spec.nodeName: c, spec.template.spec.volumes[name: tmp].z"
    )
