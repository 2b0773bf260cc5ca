"""The user's code at a reconcile: its ConfigMap, and what its entrypoint takes."""

from __future__ import annotations

from controller_rig import Rig


async def test_a_configmap_is_polled_for_and_its_content_is_hashed():
    rig = Rig()
    await rig.add(trainer={"codeFrom": {"configMap": "code"}})
    assert await rig.reconcile() == 5.0
    assert rig.status["reason"] == "ConfigMapMissing"
    await rig.cluster.create(
        "configmaps", "default", {"metadata": {"name": "code"}, "data": {"train.py": "x = 1"}}
    )
    await rig.reconcile()
    assert len(rig.status["code"]["sha256"]) == 64
    assert len(rig.made("pods")) == 4


async def test_what_an_example_does_not_take_is_refused_before_any_pod():
    rig = Rig()
    await rig.add(
        trainer={"entrypoint": "shardwise.examples.digits:task", "parameters": {"wdith": 3}}
    )
    assert await rig.reconcile() is None
    assert rig.made("pods") == []
    assert rig.status["state"] == "Invalid"
    assert "spec.trainer.parameters.wdith" in rig.status["message"]


async def test_code_that_is_corrected_is_accepted():
    rig = Rig()
    code = {"metadata": {"name": "mine"}, "data": {"train.py": "def task():\n    return None\n"}}
    await rig.cluster.create("configmaps", "default", code)
    trainer = {
        "entrypoint": "train:task",
        "codeFrom": {"configMap": "mine"},
        "parameters": {"hidden": 3},
    }
    await rig.add(trainer=trainer)
    assert await rig.reconcile() == 5.0
    assert rig.status["state"] == "Invalid"
    good = {"train.py": "def task(hidden):\n    return None\n"}
    await rig.cluster.patch("configmaps", "default", "mine", {"data": good})
    await rig.reconcile()
    assert len(rig.made("pods")) == 4
    assert rig.status["state"] == "Pending"


async def test_code_in_an_image_of_the_users_is_not_looked_at():
    rig = Rig()
    trainer = {
        "entrypoint": "shardwise.examples.digits:task",
        "parameters": {"wdith": 3},
        "image": "mine:1",
    }
    await rig.add(trainer=trainer)
    await rig.reconcile()
    assert len(rig.made("pods")) == 4
