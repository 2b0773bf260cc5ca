"""`watch` and `logs` against a real HTTP server, with changes while they follow."""

from __future__ import annotations

import pytest
from cli_api import JOBS, SECONDS, wait_for_call
from samples import RECOVERED, job, manifest, pod

from shardwise.cli.errors import ApiError
from shardwise.cli.logs import Line, parse_ranks, split


def test_watch_tells_what_changes_until_the_job_succeeds(api, beside):
    api.put(JOBS, job(state="Starting", reason="WaitingForWorkers", message="2 of 4 are here"))
    done = beside("watch", "digits")
    wait_for_call(api, JOBS, watch="1")
    api.update("digits", **RECOVERED)
    api.update("digits", state="Succeeded", reason="Completed", message="done")
    result = done.result(SECONDS)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == "digits: Starting (WaitingForWorkers): 2 of 4 are here"
    assert any("digits: recovered: digits-2 Killed at step 1200" in line for line in lines)
    assert "digits: Succeeded (Completed): done" in lines


@pytest.mark.parametrize("state", ["Failed", "Invalid"])
def test_watch_of_a_job_that_fails_is_1(api, call, state):
    api.put(JOBS, job(state=state, reason="UserCodeFailed", message="no such file"))
    done = call("watch", "digits")
    assert done.exit_code == 1
    assert f"digits: {state} (UserCodeFailed): no such file" in done.stdout


def test_watch_gives_up_after_its_time(api, call):
    api.put(JOBS, job())
    done = call("watch", "digits", "--timeout", "0.2")
    assert done.exit_code == 3
    assert "digits has not ended within 0 s" in done.stderr


def test_watch_of_a_job_that_is_deleted_is_1(api, beside):
    api.put(JOBS, job())
    done = beside("watch", "digits")
    wait_for_call(api, JOBS, watch="1")
    api.remove(JOBS, "default", "digits")
    result = done.result(SECONDS)
    assert result.exit_code == 1
    assert "digits was deleted" in result.stderr


def test_a_job_that_goes_before_it_is_watched_is_deleted_too():
    from shardwise.cli.follow import News
    from shardwise.cli.view.sight import Sight
    from shardwise.cli.watch import over, take

    sight = Sight()
    take(sight, News("pods", "LISTED", {}))
    assert not over(sight)
    take(sight, News("job", "LISTED", {}))
    assert over(sight)


def test_watch_goes_on_when_its_place_is_too_old(api, beside):
    """410 Gone: a new list, and nothing is missed."""
    api.put(JOBS, job())
    api.oldest = 2
    done = beside("watch", "digits")
    wait_for_call(api, JOBS, watch="1")
    api.oldest = 0
    api.update("digits", state="Succeeded")
    assert done.result(SECONDS).exit_code == 0


def test_watch_needs_no_pods_and_no_events(api, call):
    api.put(JOBS, job(state="Succeeded"))
    for kind in ("pods", "events"):
        api.refuse(f"/api/v1/namespaces/default/{kind}", 403, "Forbidden", f"cannot list {kind}")
    assert call("watch", "digits").exit_code == 0


def test_watch_of_all_jobs(api, call):
    api.put(JOBS, job("a"))
    api.put(JOBS, job("b", state="Failed", reason="Stalled", message="no step for 60 s"))
    done = call("watch", "--timeout", "1.5")
    assert done.exit_code == 0
    assert set(done.stdout.splitlines()) == {
        "a: Running (Training): 4 of 4 workers train",
        "b: Failed (Stalled): no step for 60 s",
    }


def test_submit_can_watch(api, beside, tmp_path):
    import yaml

    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(manifest()))
    done = beside("submit", str(file), "--watch")
    wait_for_call(api, JOBS, watch="1")
    api.update("digits", state="Failed", reason="OutOfMemory", message="worker 1 used more")
    result = done.result(SECONDS)
    assert result.exit_code == 1
    assert "digits: Failed (OutOfMemory): worker 1 used more" in result.stdout


def stamped(second: int, text: str) -> str:
    return f"2026-01-01T00:00:{second:02}.123456789Z {text}"


@pytest.fixture
def two_logs(api):
    api.put(JOBS, job())
    for index in range(2):
        api.put("pods", pod(index))
    api.write_log("digits-0", stamped(1, "zero starts"), stamped(4, "zero trains"))
    api.write_log("digits-1", stamped(2, "one starts"), stamped(3, "one trains"))
    return api


def test_logs_are_merged_by_time(two_logs, call):
    done = call("logs", "digits")
    assert done.exit_code == 0
    assert done.stdout == "[0] zero starts\n[1] one starts\n[1] one trains\n[0] zero trains\n"


def test_logs_of_some_ranks_with_times(two_logs, call):
    done = call("logs", "digits", "--rank", "1", "--tail", "1", "--timestamps", "--since", "5m")
    assert done.stdout == f"[1] {stamped(3, 'one trains')}\n"
    query = next(q for path, q, _ in two_logs.sent("GET") if path.endswith("/log"))
    assert query["sinceSeconds"] == "300"
    assert query["container"] == "trainer"


def test_logs_of_a_container_that_has_not_started_are_left_out(two_logs, call):
    two_logs.refuse(
        "/api/v1/namespaces/default/pods/digits-1/log", 400, "BadRequest", "is waiting to start"
    )
    done = call("logs", "digits")
    assert done.exit_code == 0
    assert done.stdout == "[0] zero starts\n[0] zero trains\n"
    assert "no log of digits-1: is waiting to start" in done.stderr


def test_logs_without_pods(api, call):
    api.put(JOBS, job())
    done = call("logs", "digits")
    assert done.exit_code == 1
    assert "digits has no pods; `shardwise explain` tells why" in done.stderr


def test_logs_follow_new_lines_and_new_pods_until_the_end(two_logs, beside):
    done = beside("logs", "digits", "-f")
    wait_for_call(two_logs, "digits-1/log", follow="true")
    two_logs.write_log("digits-0", stamped(5, "zero goes on"))
    two_logs.put("pods", pod(2))
    wait_for_call(two_logs, "digits-2/log", follow="true")
    two_logs.write_log("digits-2", stamped(6, "two is new"))
    two_logs.update("digits", state="Succeeded")
    for index in range(3):
        two_logs.end_log(f"digits-{index}")
    lines = done.result(SECONDS).stdout.splitlines()
    assert "[0] zero goes on" in lines
    assert "[2] two is new" in lines
    assert len(lines) == 6


def test_lines_without_a_time_go_with_the_one_before():
    lines = list(split(iter([stamped(1, "a"), "Traceback:", stamped(2, "b")]), 3))
    first, second = stamped(1, "").strip(), stamped(2, "").strip()
    assert lines == [Line(first, 3, "a"), Line(first, 3, "Traceback:"), Line(second, 3, "b")]


def test_lists_of_ranks():
    assert parse_ranks("0,2,5-7") == {0, 2, 5, 6, 7}
    with pytest.raises(Exception, match="'a' is no list of ranks"):
        parse_ranks("a")


def test_a_broken_stream_is_an_api_error(api, kubeconfig, server):
    from shardwise.cli.cluster import Cluster

    server.RequestHandlerClass.stream = lambda self, lines: (
        self.send_response(200),
        self.send_header("Transfer-Encoding", "chunked"),
        self.end_headers(),
        self.wfile.write(b"5\r\nabc"),
        self.connection.close(),
    )
    cluster = Cluster.connect(None, None, None)
    with pytest.raises(ApiError, match="cannot be reached"):
        list(cluster.lines("/api/v1/namespaces/default/pods/x/log", {}, 1.0))
    cluster.close()
