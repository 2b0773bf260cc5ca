"""Options and arguments that several commands share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from shardwise.cli.names import PLURAL

if TYPE_CHECKING:
    from shardwise.cli.cluster import Cluster

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Place:
    """Which cluster and which namespace the command line names."""

    namespace: str | None
    context: str | None
    kubeconfig: Path | None

    def connect(self, namespace: str | None = None) -> Cluster:
        """The cluster; `namespace` stands in where the command line names none."""
        from shardwise.cli.cluster import Cluster

        cluster = Cluster.connect(self.kubeconfig, self.context, self.namespace or namespace)
        context = click.get_current_context(silent=True)
        if context is not None:
            context.call_on_close(cluster.close)
        return cluster


def place_options(command: F) -> F:
    """-n, --context and --kubeconfig; the command gets a `place` instead of them."""

    @click.option("-n", "--namespace", help="Namespace; default: the context's.")
    @click.option("--context", help="Context of the kubeconfig; default: its current one.")
    @click.option(
        "--kubeconfig",
        type=click.Path(path_type=Path),
        help="Default: KUBECONFIG, then ~/.kube/config.",
    )
    @functools.wraps(command)
    def with_place(
        *args: Any,
        namespace: str | None,
        context: str | None,
        kubeconfig: Path | None,
        **kwargs: Any,
    ) -> Any:
        return command(*args, place=Place(namespace, context, kubeconfig), **kwargs)

    return with_place  # type: ignore[return-value]


def cluster_options(command: F) -> F:
    """As `place_options`; the command gets a `cluster` that is connected."""

    @functools.wraps(command)
    def with_cluster(*args: Any, place: Place, **kwargs: Any) -> Any:
        return command(*args, cluster=place.connect(), **kwargs)

    return place_options(with_cluster)  # type: ignore[return-value]


def timeout_option(what: str) -> Callable[[F], F]:
    return click.option(
        "--timeout", type=DURATION, help=f"Give up {what} after this long, for example 10m; exit 3."
    )


def complete_jobs(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Names of jobs for the shell; none where the cluster does not answer."""
    from shardwise.cli.errors import CliError

    given = context.params
    place = Place(given.get("namespace"), given.get("context"), given.get("kubeconfig"))
    try:
        cluster = place.connect()
        names = [job["metadata"]["name"] for job in cluster.list(PLURAL)["items"]]
    except CliError:
        return []
    return [name for name in names if name.startswith(incomplete)]


def job_argument(command: F) -> F:
    return click.argument("job", shell_complete=complete_jobs)(command)


def jobs_argument(*, required: bool = False) -> Callable[[F], F]:
    return click.argument("jobs", nargs=-1, required=required, shell_complete=complete_jobs)


def find_job(cluster: Cluster, name: str) -> dict[str, Any]:
    """The job; where there is none, an error that names the ones with a like name."""
    from shardwise.cli.errors import ApiError

    try:
        return cluster.get(PLURAL, name)
    except ApiError as error:
        if error.status == 404:
            raise _missing(cluster, name, error) from error
        raise


def _missing(cluster: Cluster, name: str, error: Exception) -> Exception:
    import difflib

    from shardwise.cli import exitcodes
    from shardwise.cli.errors import ApiError, CliError

    try:
        names = [job["metadata"]["name"] for job in cluster.list(PLURAL)["items"]]
    except ApiError as absent:
        if absent.status == 404:  # Not the job: the kind.
            return CliError(
                "the cluster has no OptimizationJobs: its CRD is not installed; "
                "`shardwise doctor` tells what is missing",
                exitcodes.API,
            )
        return error
    near = difflib.get_close_matches(name, names, n=3)
    hint = f"did you mean {', '.join(near)}?" if near else "`shardwise get -A` lists all jobs"
    return CliError(f"no job {name} in namespace {cluster.namespace}; {hint}", exitcodes.NOT_FOUND)


class _Duration(click.ParamType[float]):
    """Seconds, or a number with a unit: 90, 30s, 5m, 2h, 1d."""

    name = "duration"
    _units = {"s": 1, "m": 60, "h": 3600, "d": 86_400}  # noqa: RUF012

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        text = str(value)
        number, unit = (text[:-1], text[-1]) if text[-1:] in self._units else (text, "s")
        try:
            seconds = float(number) * self._units[unit]
        except ValueError:
            self.fail(f"{text!r} is no time; write seconds or 30s, 5m, 2h, 1d", param, ctx)
        if not 0 < seconds < float("inf"):
            self.fail(f"{text!r} is not more than 0", param, ctx)
        return seconds


DURATION = _Duration()
