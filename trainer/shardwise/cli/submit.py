"""`shardwise submit`: checks a manifest with the API's own rules, then applies it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from shardwise.cli.errors import ApiError, CliError
from shardwise.cli.names import GROUP, PLURAL, SINGULAR
from shardwise.cli.options import Place, place_options, timeout_option
from shardwise.cli.output import as_text, output_option

if TYPE_CHECKING:
    from shardwise.api.errors import FieldError
    from shardwise.api.types import Compression, OptimizationJob, Tasks, Trainer
    from shardwise.cli.cluster import Cluster

Object = dict[str, Any]
SHOWN_CHARACTERS = 200
SET_BY_THE_SERVER = (
    *("creationTimestamp", "deletionTimestamp", "generation", "managedFields"),
    *("resourceVersion", "selfLink", "uid"),
)
"""Fields of metadata that a manifest has if it was got from a cluster; they name that very job."""


@click.command()
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--create", is_flag=True, help="Only create: refuse where the job is there already.")
@click.option("--name", help="Replaces metadata.name: the same job once more.")
@click.option("--workers", type=click.IntRange(1), help="Replaces spec.workers.replicas.")
@click.option(
    "--dry-run",
    type=click.Choice(("client", "server")),
    help="Only check: here, or on the API server too.",
)
@click.option("--force", is_flag=True, help="Take over fields that another manager has set.")
@click.option("-w", "--watch", "follow", is_flag=True, help="Then watch until the job ends.")
@timeout_option("watching")
@output_option("json", "yaml", "name")
@place_options
@click.pass_context
def submit(
    context: click.Context,
    file: Path,
    create: bool,
    name: str | None,
    workers: int | None,
    dry_run: str | None,
    force: bool,
    follow: bool,
    timeout: float | None,
    output: str | None,
    place: Place,
) -> None:
    """Check the job in FILE (- for standard input) and apply it to the cluster.

    Every mistake in the manifest is told at once, each with field, value and remedy, before
    anything is sent. Applying is server-side: fields that others have set stay theirs.
    """
    manifest, job = checked(file, name, workers)
    _check_local_code(file, job)
    if dry_run == "client":
        _tell(manifest, "is valid (nothing was sent)", output)
        return
    cluster = place.connect(manifest["metadata"].get("namespace"))
    _refuse_two_namespaces(manifest, cluster.namespace)
    manifest["metadata"]["namespace"] = cluster.namespace
    before = _there(cluster, manifest["metadata"]["name"])
    if before is not None:
        _refuse_change(before, manifest, create)
    _check_config_map(cluster, file, job)
    found = _send(cluster, manifest, before, force, dry_run == "server")
    said = "" if dry_run is None else " (dry run on the server)"
    _tell(found, _what(before, found) + said, output)
    if follow and dry_run is None:
        from shardwise.cli.watch import watch_job

        context.exit(watch_job(cluster, manifest["metadata"]["name"], timeout))


def checked(file: Path, name: str | None, workers: int | None) -> tuple[Object, OptimizationJob]:
    """The manifest as it is to be sent, and the job that it says. Raises CliError with a line for
    each mistake."""
    from shardwise.api.validation import InvalidJob, validate
    from shardwise.cli.manifest import ManifestError, read_manifests

    try:
        manifest, others = read_manifests(file)
        metadata = manifest.get("metadata")
        if name and isinstance(metadata, dict):
            metadata["name"] = name
        spec = manifest.get("spec")
        if workers and isinstance(spec, dict):
            spec["workers"] = {**(spec.get("workers") or {}), "replicas": workers}
        job = validate(manifest)
    except ManifestError as error:
        raise CliError(str(error)) from error
    except InvalidJob as error:
        raise _mistakes(file, error.errors) from error
    if others:
        kinds = ", ".join(sorted({str(found.get("kind")) for found in others}))
        click.echo(
            f"Warning: {file}: only the job is submitted, not the {kinds} beside it; apply the "
            "rest with kubectl",
            err=True,
        )
    manifest.pop("status", None)
    for field in SET_BY_THE_SERVER:
        manifest["metadata"].pop(field, None)
    return manifest, job


def _mistakes(file: Path, errors: Sequence[FieldError]) -> CliError:
    many = len(errors)
    head = f"{file}: {many} mistake{'' if many == 1 else 's'}:"
    return CliError("\n  ".join([head, *map(str, errors)]))


def _check_local_code(file: Path, job: OptimizationJob) -> None:
    """Whether the parameters fit the entrypoint, as the code on this machine has it. Raises
    CliError; an image of the job's own may have other code, so that it is a warning alone."""
    from shardwise.cli.source import entrypoint_errors

    if job.spec.trainer.code_from is not None:  # The ConfigMap tells; it is on the cluster.
        return
    errors = entrypoint_errors(job)
    if errors and job.spec.trainer.image is None:
        raise _mistakes(file, errors)
    for error in errors:
        click.echo(f"Warning: {error} (as the code on this machine has it)", err=True)


def _refuse_two_namespaces(manifest: Object, namespace: str) -> None:
    own = manifest["metadata"].get("namespace")
    if own and own != namespace:
        raise CliError(
            f"--namespace: {namespace} is not the manifest's metadata.namespace ({own}); "
            "leave one of them out"
        )


def _there(cluster: Cluster, name: str) -> Object | None:
    try:
        return cluster.get(PLURAL, name)
    except ApiError as error:
        # 403: may create but not see; 404 of the kind shows when it is sent.
        if error.status in (403, 404):
            return None
        raise


def _refuse_change(before: Object, manifest: Object, create: bool) -> None:
    from shardwise.api.validation import InvalidJob, validate
    from shardwise.cli.view.fields import name, state

    if create:
        raise CliError(
            f"{name(before)} is there already ({state(before)}); leave out --create, or choose "
            "another --name"
        )
    try:
        old, new = validate(before).spec, validate(manifest).spec
    except InvalidJob:  # What is there was made by another version: the server decides.
        return
    for part in ("trainer", "compression", "tasks"):
        was, wanted = (_json(getattr(spec, part)) for spec in (old, new))
        if was == wanted:
            continue
        changed = sorted(key for key in was.keys() | wanted if was.get(key) != wanted.get(key))
        told = ", ".join(
            f"{key} {_short(was.get(key))} → {_short(wanted.get(key))}" for key in changed
        )
        raise CliError(
            f"spec.{part}: cannot be changed once the job is there ({told}); delete "
            f"{name(before)} first, or submit with another --name"
        )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"


def _json(part: Trainer | Compression | Tasks | None) -> Object:
    return {} if part is None else part.to_json()


def _check_config_map(cluster: Cluster, file: Path, job: OptimizationJob) -> None:
    """Whether the ConfigMap with the code is there, and the parameters fit the code in it."""
    from shardwise.cli.source import entrypoint_errors

    wanted = job.spec.trainer.code_from
    if wanted is None:
        return
    try:
        found = cluster.get("configmaps", wanted.config_map)
    except ApiError as error:
        if error.status == 404:
            click.echo(
                f"Warning: spec.trainer.codeFrom.configMap: {wanted.config_map} is not there; the "
                "job waits until you create it: kubectl create configmap "
                f"{wanted.config_map} --from-file=FOLDER",
                err=True,
            )
        return
    if errors := entrypoint_errors(job, found.get("data") or {}):
        raise _mistakes(file, errors)


def _send(
    cluster: Cluster, manifest: Object, before: Object | None, force: bool, dry_run: bool
) -> Object:
    name, namespace = manifest["metadata"]["name"], manifest["metadata"]["namespace"]
    try:
        return cluster.apply(
            PLURAL, name, manifest, namespace=namespace, force=force, dry_run=dry_run
        )
    except ApiError as error:
        if error.status == 409 and before is not None:
            raise CliError(
                f"{error.message}; --force takes the fields over", error.exit_code
            ) from error
        if error.status == 404 and before is None:
            raise CliError(
                f"{error.message}: the CRD or the namespace {namespace} is not there; "
                "`shardwise doctor` tells which",
                error.exit_code,
            ) from error
        raise


def _what(before: Object | None, after: Object) -> str:
    if before is None:
        return "created"
    same = before["metadata"].get("generation") == after["metadata"].get("generation")
    return "unchanged" if same else "configured"


def _tell(found: Object, what: str, output: str | None) -> None:
    if output:
        click.echo(as_text([found], output, single=True), nl=False)
    else:
        click.echo(f"{SINGULAR}.{GROUP}/{found['metadata']['name']} {what}")
