"""What a kubeconfig asks for is done, or the command ends and says why: never another request."""

from __future__ import annotations

import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from click.testing import CliRunner

from shardwise.cli import plugin
from shardwise.cli.main import main

API = "client.authentication.k8s.io/v1"
TABLE = json.dumps({"kind": "Table", "columnDefinitions": [], "rows": [], "metadata": {}}).encode()


@pytest.fixture
def requests():
    """The headers of every request, and the server's address."""
    seen = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            seen.append(self.headers.items())
            self.send_response(200)
            self.send_header("Content-Length", str(len(TABLE)))
            self.end_headers()
            self.wfile.write(TABLE)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield seen, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def get(requests, tmp_path, monkeypatch):
    """`shardwise get` as the user's entry has it; the result and what was sent."""
    seen, address = requests

    def run(user, *args, **changes):
        content = config(address, user) | changes
        file = tmp_path / "config"
        file.write_text(json.dumps(content))
        monkeypatch.setenv("KUBECONFIG", str(file))
        seen.clear()
        return CliRunner().invoke(main, ["get", *args]), [dict(each) for each in seen]

    return run


def config(address, user, name="c", namespace=None):
    context = {"cluster": "k", "user": "u"} | ({"namespace": namespace} if namespace else {})
    return {
        "current-context": name,
        "users": [{"name": "u", "user": user}],
        "clusters": [{"name": "k", "cluster": {"server": address}}],
        "contexts": [{"name": name, "context": context}],
    }


def script(folder, text, name="plugin"):
    file = folder / name
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return str(file)


def exec_user(command, **more):
    return {"exec": {"apiVersion": API, "command": command, "interactiveMode": "Never"} | more}


def credential(**status):
    return json.dumps({"apiVersion": API, "kind": "ExecCredential", "status": status})


def test_impersonation_is_sent(get, requests):
    user = {
        "token": "t",
        "as": "jane",
        "as-uid": "7",
        "as-groups": ["one", "two"],
        "as-user-extra": {"example.org/scope": ["a", "b"]},
    }
    done, (sent,) = get(user)
    assert done.exit_code == 0, done.stderr
    assert (sent["authorization"], sent["Impersonate-User"]) == ("Bearer t", "jane")
    assert sent["Impersonate-Uid"] == "7"
    assert sent["User-Agent"].startswith("shardwise-cli/")
    pairs = list(requests[0][0])
    assert [v for k, v in pairs if k == "Impersonate-Group"] == ["one", "two"]
    assert [v for k, v in pairs if k == "Impersonate-Extra-example.org%2Fscope"] == ["a", "b"]


@pytest.mark.parametrize(
    ("user", "said"),
    [
        ({"token": "t", "as-groups": ["g"]}, "need an `as`"),
        ({"token": "t", "as": "a\nb"}, "is not plain ASCII"),
        ({"token": "t", "as": "a", "as-groups": "g"}, "as-groups must be a list"),
        ({"token": "a\nb"}, "characters that no token has"),
        ({"tokenFile": "absent"}, "absent: No such file"),
        ({"auth-provider": {"name": "gone"}}, "the auth-provider 'gone' gives no token"),
    ],
)
def test_users_that_cannot_be_used_send_nothing(get, user, said):
    done, sent = get(user)
    assert done.exit_code == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert sent == []


@pytest.mark.parametrize(
    ("text", "more", "said"),
    [
        ("echo 'please log in' >&2; exit 3", {}, "ended with exit code 3: please log in"),
        ("echo nonsense", {}, "gave no credentials: its output is no JSON"),
        ("echo '{}'", {}, "has no status"),
        ("echo '[]'", {}, "has no status"),
        (f"echo '{credential()}'", {}, "neither a token nor a certificate"),
        (f"echo '{credential(clientCertificateData='x')}'", {}, "a certificate without its key"),
        (f"echo '{credential(token='t')}' | sed s/v1/v2/", {}, "is client.authentication.k8s.io"),
        ("exit 0", {"apiVersion": "v0"}, "has apiVersion 'v0'; known are"),
        ("exit 0", {"interactiveMode": "Always"}, "standard input is no terminal"),
    ],
)
def test_a_plugin_that_fails(get, tmp_path, text, more, said):
    done, sent = get(exec_user(script(tmp_path, text), **more))
    assert done.exit_code == 2
    assert said in done.stderr
    assert "no credentials: the exec plug-in plugin of" in done.stderr
    assert sent == [], "never anonymously"


def test_a_plugin_that_is_not_there(get):
    done, sent = get(exec_user("no-such-login", installHint="get it at example.org"))
    assert done.exit_code == 2
    assert "cannot be run: No such file or directory; get it at example.org" in done.stderr
    assert sent == []


def test_a_plugin_that_hangs(get, tmp_path, monkeypatch):
    monkeypatch.setattr(plugin, "SECONDS", 0.3)
    done, sent = get(exec_user(script(tmp_path, "exec sleep 30")))
    assert done.exit_code == 2
    assert "has given no answer within" in done.stderr
    assert sent == []


def test_a_plugin_beside_the_kubeconfig_with_all_that_it_is_told(get, tmp_path):
    (tmp_path / "bin").mkdir()
    told = tmp_path / "told"
    script(
        tmp_path / "bin",
        f'printf "%s" "$KUBERNETES_EXEC_INFO" >{told}; echo "$1" >&2\n'
        f"echo '{credential(token='of-plugin')}' | sed s/of-plugin/$NAME/",
    )
    user = exec_user(
        "bin/plugin",
        args=["x"],
        env=[{"name": "NAME", "value": "named"}],
        provideClusterInfo=True,
    )
    done, (sent,) = get(user)
    assert done.exit_code == 0, done.stderr
    assert sent["authorization"] == "Bearer named"
    spec = json.loads(told.read_text())["spec"]
    assert spec["interactive"] is False
    assert spec["cluster"]["server"].startswith("http://127.0.0.1")


def test_a_static_token_goes_before_a_plugin(get):
    _, (sent,) = get(exec_user("/bin/false") | {"token": "mine"})
    assert sent["authorization"] == "Bearer mine"


def test_a_token_file_beside_the_kubeconfig(get, tmp_path):
    (tmp_path / "token").write_text("of-file\n")
    _, (sent,) = get({"tokenFile": "token", "token": "older"})
    assert sent["authorization"] == "Bearer of-file"


def test_several_files_are_one_and_the_first_wins(requests, tmp_path, monkeypatch):
    seen, address = requests
    (tmp_path / "empty").write_text("")
    (tmp_path / "comment").write_text("# nothing\n")
    (tmp_path / "one").write_text(json.dumps(config(address, {"token": "one"}, namespace="mine")))
    (tmp_path / "two").write_text(json.dumps(config(address, {"token": "two"}, name="other")))
    names = ("empty", "absent", "comment", "one", "two")
    monkeypatch.setenv("KUBECONFIG", os.pathsep.join(str(tmp_path / name) for name in names))
    done = CliRunner().invoke(main, ["get"])
    assert "namespace mine" in done.stderr
    assert dict(seen[0])["authorization"] == "Bearer one"
    assert CliRunner().invoke(main, ["get", "--context", "other"]).exit_code == 0
    assert dict(seen[1])["authorization"] == "Bearer one", "the first entry of a name wins"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no contexts"),
        ("[]", "is no kubeconfig"),
        ("users: 3", "users is no list"),
        ("users: [{user: {}}]", "users has an entry without a name"),
        ("contexts: [{name: c, context: {}}]", "sets no current-context; choose one by --context"),
        ("current-context: d\ncontexts: [{name: c}]", "has no context of its current-context, 'd'"),
        ("current-context: c\ncontexts: [{name: c}]", "names the cluster ''"),
        ("a: [", "no YAML"),
        ("[" * 5000, "no YAML"),
        ("\x00", "no YAML"),
    ],
)
def test_files_that_are_no_kubeconfig(tmp_path, monkeypatch, text, said):
    (tmp_path / "config").write_text(text)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    done = CliRunner().invoke(main, ["get"])
    assert done.exit_code == 2
    assert said in done.stderr
    assert str(tmp_path / "config") in done.stderr
