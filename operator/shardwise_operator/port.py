"""The one way to the API server, as the rest of the operator sees it.

`kube` implements it; tests put a fake in its place. Bodies are plain dictionaries.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, Protocol

Body = Mapping[str, Any]


class ApiError(Exception):
    """The API server said no, or could not be asked (status 0)."""

    def __init__(self, status: int, reason: str, message: str, *, retry_after: float = 0.0) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after = retry_after
        """Seconds that the server asks to be left alone for; 0 where it does not say."""


class Cluster(Protocol):
    """Calls on namespaced resources. `kind` is one of the plurals that `kube` knows.

    Every call has a time limit, and raises ApiError for any answer but success.
    """

    async def get(self, kind: str, namespace: str, name: str) -> dict[str, Any]: ...

    async def create(
        self, kind: str, namespace: str, body: Body, *, dry_run: bool = False
    ) -> dict[str, Any]:
        """Unknown fields are errors. A dry run goes through all but the keeping."""
        ...

    async def patch(self, kind: str, namespace: str, name: str, body: Body) -> dict[str, Any]:
        """A JSON merge patch. `optimizationjobs/status` patches the status alone."""
        ...

    async def delete(self, kind: str, namespace: str, name: str, uid: str) -> None:
        """Deletes that very object; one of another uid stays, as a conflict."""
        ...

    async def list_page(
        self,
        kind: str,
        namespace: str,
        *,
        selector: str = "",
        fields: str = "",
        limit: int,
        continue_: str = "",
    ) -> dict[str, Any]:
        """One page; an empty namespace lists all namespaces. `fields` is a field selector."""
        ...

    def watch(
        self, kind: str, namespace: str, *, selector: str, resource_version: str
    ) -> AsyncIterator[dict[str, Any]]:
        """Watch events until the server ends the stream; bookmarks included."""
        ...

    async def review_token(self, token: str, audience: str) -> dict[str, Any]:
        """The status of a TokenReview; without an audience, for the API server's own."""
        ...

    async def review_access(self, user: Body, path: str) -> dict[str, Any]:
        """The status of a SubjectAccessReview: whether this user may `get` this path.

        Args:
            user: the `user` of a TokenReview's status.
        """
        ...
