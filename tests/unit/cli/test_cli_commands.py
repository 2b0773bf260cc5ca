"""Commands against a real HTTP server: what is sent, what is printed where, and exit codes."""

from __future__ import annotations

import json

import pytest
import yaml
from cli_api import JOBS
from samples import RECOVERED, event, job, manifest, pod

PATH = "/apis/shardwise.dev/v1alpha1/namespaces/default/optimizationjobs"


def test_get_prints_the_servers_columns(api, call):
    api.put(JOBS, job())
    api.put(JOBS, job("other", state="Failed"))
    done = call("get")
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["NAME", "STATE", "PROGRESS", "%", "ETA", "WORKERS", "LOSS", "AGE"]
    assert lines[1].split()[:6] == ["digits", "Running", "42", "1m10s", "3/4", "0.1234"]
    assert lines[2].split()[:2] == ["other", "Failed"]
    wide = call("get", "other", "-o", "wide").stdout.splitlines()
    assert wide[0].split()[-3:] == ["GOODPUT", "RECOVERIES", "REASON"]
    assert len(wide) == 2


def test_get_fetches_every_page_and_all_namespaces(api, call):
    api.page = 3
    for number in range(8):
        found = job(f"job-{number}")
        found["metadata"]["namespace"] = "team" if number % 2 else "default"
        api.put(JOBS, found)
    lines = call("get", "-A").stdout.splitlines()
    assert lines[0].startswith("NAMESPACE   NAME")
    assert sorted(line.split()[1] for line in lines[1:]) == [f"job-{n}" for n in range(8)]
    assert len(call("get", "-o", "name", "-n", "team").stdout.split()) == 4
    assert len(call("get", "-o", "name", "--context", "team").stdout.split()) == 4


def test_get_selects_by_label(api, call):
    chosen = job("chosen")
    chosen["metadata"]["labels"] = {"team": "vision"}
    api.put(JOBS, chosen)
    api.put(JOBS, job("other"))
    assert call("get", "-l", "team=vision", "-o", "name").stdout == (
        "optimizationjob.shardwise.dev/chosen\n"
    )
    assert call("get", "chosen", "-l", "a=b").exit_code == 2


def test_get_in_json_and_yaml(api, call):
    api.put(JOBS, job())
    one = json.loads(call("get", "digits", "-o", "json").stdout)
    assert (one["kind"], one["status"]["state"]) == ("OptimizationJob", "Running")
    listed = yaml.safe_load(call("get", "-o", "yaml").stdout)
    assert listed["kind"] == "List"
    assert listed["items"][0]["kind"] == "OptimizationJob"


def test_get_of_nothing_is_no_failure_and_no_data(call):
    done = call("get")
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr == "No jobs found in namespace default.\n"


@pytest.mark.parametrize("command", ["get", "describe", "explain", "watch", "logs", "suspend"])
def test_a_job_that_is_not_there_is_4_with_like_names(api, call, command):
    api.put(JOBS, job())
    done = call(command, "digit")
    assert (done.exit_code, done.stdout) == (4, "")
    assert done.stderr == "Error: no job digit in namespace default; did you mean digits?\n"


def test_a_cluster_without_the_crd_is_told_so(api, call):
    for path in (PATH, f"{PATH}/digits"):
        api.say(path, "404 page not found", 404)
    done = call("describe", "digits")
    assert done.exit_code == 5
    assert "its CRD is not installed; `shardwise doctor`" in done.stderr


def test_a_right_that_is_missing_is_5_with_the_servers_words(api, call):
    api.refuse(PATH, 403, "Forbidden", 'User "me" cannot list optimizationjobs')
    done = call("get")
    assert done.exit_code == 5
    assert 'User "me" cannot list optimizationjobs; `shardwise doctor`' in done.stderr


def test_a_server_that_is_away_is_told_of_at_once(kubeconfig, call):
    content = yaml.safe_load(kubeconfig.read_text())
    content["clusters"][0]["cluster"]["server"] = "http://127.0.0.1:1"
    kubeconfig.write_text(yaml.safe_dump(content))
    done = call("get")
    assert done.exit_code == 5
    assert done.stderr.startswith("Error: the API server http://127.0.0.1:1 cannot be reached")
    assert "Connection refused" in done.stderr


def test_kubeconfigs_that_cannot_be_used(tmp_path, call):
    absent = call("get", "--kubeconfig", str(tmp_path / "absent"))
    assert absent.exit_code == 2
    assert "name a kubeconfig with --kubeconfig or KUBECONFIG" in absent.stderr
    other = call("get", "--context", "production")
    assert other.exit_code == 2
    assert "has no context 'production'; it has team, test" in other.stderr


@pytest.mark.parametrize("text", ["a: [", "", "contexts: 3", "[1, 2]", "current-context: x"])
def test_kubeconfigs_that_are_broken(kubeconfig, call, text):
    kubeconfig.write_text(text)
    done = call("get")
    assert done.exit_code == 2
    assert f"no cluster: {kubeconfig}: " in done.stderr


def test_the_token_goes_with_every_call(api, server, call):
    seen = []
    handler = server.RequestHandlerClass
    inner = handler.handle_any
    handler.do_GET = lambda self: (seen.append(self.headers["Authorization"]), inner(self))
    call("get")
    assert seen == ["Bearer secret"]


def test_describe_and_explain_print_to_standard_output(api, call):
    api.put(JOBS, job(**RECOVERED))
    api.put("pods", pod(0))
    api.put("events", event("Started", "training began"))
    described = call("describe", "digits")
    assert (described.exit_code, described.stderr) == (0, "")
    assert "Recoveries:   3 (Hung 1, Killed 2)" in described.stdout
    assert "digits-0" in described.stdout
    assert "training began" in described.stdout
    explained = call("explain", "digits")
    assert explained.stdout.startswith("digits is Running: Training\n")
    assert explained.stdout.endswith("Next:\n  shardwise watch digits\n")


def test_describe_leaves_out_what_the_user_may_not_see(api, call):
    api.put(JOBS, job())
    api.refuse("/api/v1/namespaces/default/pods", 403, "Forbidden", "cannot list pods")
    done = call("describe", "digits")
    assert done.exit_code == 0
    assert done.stderr.startswith("Warning: pods are left out: cannot list pods")


def test_nothing_is_coloured_when_not_on_a_terminal(api, call, monkeypatch):
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    api.put(JOBS, job(**RECOVERED))
    for command in ("get", "describe", "explain"):
        assert "\x1b" not in call(command, "digits").stdout
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[" in call("describe", "digits").stdout


def test_scale_uses_the_subresource(api, call):
    api.put(JOBS, job())
    assert call("scale", "digits", "8").stdout == "digits: 4 → 8 workers\n"
    assert api.sent("PATCH") == [
        (f"{PATH}/digits/scale", {"fieldManager": "shardwise-cli"}, {"spec": {"replicas": 8}})
    ]
    assert api.job("digits")["spec"]["workers"]["replicas"] == 8
    assert call("scale", "digits", "8").stdout == "digits: 8 workers as before\n"


@pytest.mark.parametrize(
    ("workers", "number", "words"),
    [
        ({"replicas": 4}, 9, "not between spec.workers.min (1) and spec.trainer.shards (8)"),
        ({"replicas": 4, "max": 6}, 7, "not between spec.workers.min (1) and spec.workers.max (6)"),
        ({"replicas": 4, "min": 2}, 1, "WORKERS: 1 is not between spec.workers.min (2)"),
    ],
)
def test_scale_keeps_to_the_bounds(api, call, workers, number, words):
    found = job()
    found["spec"]["workers"] = workers
    api.put(JOBS, found)
    done = call("scale", "digits", str(number))
    assert done.exit_code == 2
    assert words in done.stderr
    assert api.sent("PATCH") == []


def test_suspend_and_resume(api, call):
    api.put(JOBS, job())
    done = call("suspend", "digits")
    assert done.stdout == "digits: suspended\n"
    assert "starts from step 0" in done.stderr
    assert call("suspend", "digits").stdout == "digits: suspended already\n"
    assert "is suspended" in call("scale", "digits", "5").stderr
    assert call("resume", "digits").stdout == "digits: resumed\n"
    assert call("resume", "digits").stdout == "digits: is not suspended\n"
    assert [body for path, _, body in api.sent("PATCH") if path.endswith("/digits")] == [
        {"spec": {"suspend": True}},
        {"spec": {"suspend": False}},
    ]


def test_suspending_with_a_checkpoint_loses_nothing_and_warns_of_nothing(api, call):
    found = job()
    found["spec"]["checkpoint"] = {"everySteps": 10, "url": "s3://bucket/jobs"}
    api.put(JOBS, found)
    assert call("suspend", "digits").stderr == ""


@pytest.mark.parametrize("command", [["scale", "digits", "2"], ["suspend", "digits"]])
def test_what_has_ended_cannot_be_changed(api, call, command):
    api.put(JOBS, job(state="Succeeded"))
    done = call(*command)
    assert done.exit_code == 2
    assert "digits has ended (Succeeded)" in done.stderr


def test_delete(api, call):
    api.put(JOBS, job())
    assert call("delete", "digits").stdout == "digits: deleted\n"
    assert call("delete", "digits").exit_code == 4
    done = call("delete", "digits", "--ignore-not-found")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "")
    assert api.sent("DELETE")[0][2]["propagationPolicy"] == "Background"


@pytest.fixture
def file(tmp_path):
    def write(content):
        path = tmp_path / "job.yaml"
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        return str(path)

    return write


def test_submit_applies_on_the_server(api, call, file):
    path = file(manifest())
    assert call("submit", path).stdout == "optimizationjob.shardwise.dev/digits created\n"
    sent_to, query, body = api.sent("PATCH")[0]
    assert sent_to == f"{PATH}/digits"
    assert query == {"fieldManager": "shardwise-cli", "force": "false"}
    assert body == {**manifest(), "metadata": {"name": "digits", "namespace": "default"}}
    assert call("submit", path).stdout == "optimizationjob.shardwise.dev/digits unchanged\n"
    done = call("submit", path, "--workers", "2")
    assert done.stdout == "optimizationjob.shardwise.dev/digits configured\n"
    assert api.job("digits")["spec"]["workers"]["replicas"] == 2


def test_submit_from_standard_input_by_another_name(api, call):
    done = call("submit", "-", "--name", "again", input=yaml.safe_dump(manifest()))
    assert done.stdout == "optimizationjob.shardwise.dev/again created\n"


def test_submit_tells_every_mistake_before_anything_is_sent(api, call, file):
    wrong = manifest()
    wrong["spec"]["trainer"] |= {"batchSize": 0, "learningRate": 0.5}
    done = call("submit", file(wrong))
    assert (done.exit_code, done.stdout) == (2, "")
    assert "2 mistakes:" in done.stderr
    assert "spec.trainer.batchSize" in done.stderr
    assert "spec.trainer.learningRate" in done.stderr
    assert api.calls == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("kind: ConfigMap", "holds 0 documents of kind OptimizationJob"),
        ("a: [", "no YAML"),
        ("kind: OptimizationJob", "metadata"),
    ],
)
def test_submit_of_what_is_no_job(call, file, text, words):
    done = call("submit", file(text))
    assert done.exit_code == 2
    assert words in done.stderr


def test_submit_of_a_file_that_is_not_there(call):
    done = call("submit", "absent.yaml")
    assert done.exit_code == 2
    assert done.stderr == "Error: absent.yaml: No such file or directory\n"


def test_submit_dry_runs(api, call, file):
    path = file(manifest())
    done = call("submit", path, "--dry-run", "client")
    assert "is valid (nothing was sent)" in done.stdout
    assert api.calls == []
    assert "created (dry run on the server)" in call("submit", path, "--dry-run", "server").stdout
    assert api.sent("PATCH")[0][1]["dryRun"] == "All"
    assert not api.objects


def test_submit_of_another_trainer_says_what_differs(api, call, file):
    api.put(JOBS, job())
    other = manifest()
    other["spec"]["trainer"]["seed"] = 8
    done = call("submit", file(other))
    assert done.exit_code == 2
    assert "spec.trainer: cannot be changed once the job is there (seed 7 → 8)" in done.stderr
    assert "another --name" in done.stderr


def test_submit_create_refuses_what_is_there(api, call, file):
    api.put(JOBS, job())
    done = call("submit", file(manifest()), "--create")
    assert done.exit_code == 2
    assert "digits is there already (Running)" in done.stderr


def test_submit_tells_of_conflicts_and_force_takes_over(api, call, file):
    found = job()
    found["metadata"]["annotations"] = {"owned-by": "kubectl-scale"}
    api.put(JOBS, found)
    done = call("submit", file(manifest(workers={"replicas": 2})))
    assert done.exit_code == 5
    assert 'conflict with "kubectl-scale": .spec.workers.replicas; --force' in done.stderr
    assert call("submit", file(manifest(workers={"replicas": 2})), "--force").exit_code == 0


def test_submit_warns_of_a_config_map_that_is_not_there(api, call, file):
    wanted = manifest()
    wanted["spec"]["trainer"]["codeFrom"] = {"configMap": "my-code"}
    done = call("submit", file(wanted))
    assert done.exit_code == 0
    assert "kubectl create configmap my-code --from-file=FOLDER" in done.stderr


def test_submit_into_the_manifests_namespace(api, call, file):
    wanted = manifest()
    wanted["metadata"]["namespace"] = "team"
    assert call("submit", file(wanted)).exit_code == 0
    assert (JOBS, "team", "digits") in api.objects
    done = call("submit", file(wanted), "-n", "default")
    assert done.exit_code == 2
    assert "default is not the manifest's metadata.namespace (team)" in done.stderr


def test_submit_prints_the_object_that_came_of_it(call, file):
    done = call("submit", file(manifest()), "-o", "json")
    assert json.loads(done.stdout)["metadata"]["uid"]


def test_what_get_prints_can_be_submitted_again(api, call, file):
    api.put(JOBS, job())
    text = call("get", "digits", "-o", "yaml").stdout
    call("delete", "digits")
    assert call("submit", file(text)).stdout == "optimizationjob.shardwise.dev/digits created\n"
    sent = api.sent("PATCH")[0][2]
    assert sent["metadata"] == {"name": "digits", "namespace": "default"}
    assert "status" not in sent


def test_submit_says_that_it_leaves_other_kinds_out(call, file):
    both = yaml.safe_dump_all([manifest(), {"kind": "ConfigMap", "metadata": {"name": "x"}}])
    done = call("submit", file(both))
    assert done.exit_code == 0
    assert "only the job is submitted, not the ConfigMap beside it" in done.stderr
