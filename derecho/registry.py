"""The workflows and activities that an engine knows, by name, and the protocols of custom resolvers."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Protocol, runtime_checkable

from derecho.errors import RegistrationError
from derecho.payloads import Codec
from derecho.signatures import Signature


@runtime_checkable
class Definition(Protocol):
    """What `@workflow` and `@activity` make, as far as a registry cares."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str:
        """ "workflow" or "activity"."""
        ...

    @property
    def fn(self) -> Callable[..., Any]: ...
    @property
    def signature(self) -> Signature: ...


class WorkflowResolver(Protocol):
    """Finds workflows by name; a `names()` method, if there is one, lets a worker claim only what it can resolve."""

    def resolve_workflow(self, name: str) -> Any | None: ...


class ActivityResolver(Protocol):
    """Finds activities by name; a `names()` method, if there is one, lets a worker claim only what it can resolve."""

    def resolve_activity(self, name: str) -> Any | None: ...


class Registry:
    """Definitions by name: the resolver that an engine has unless it is given another."""

    def __init__(self) -> None:
        self._known: dict[str, dict[str, Definition]] = {"workflow": {}, "activity": {}}

    def register(self, definition: Any, codec: Codec | None = None) -> None:
        """Add a definition.

        Raises:
            RegistrationError: it is none, its name is taken by another, or its type hints cannot be decoded.
        """
        if not isinstance(definition, Definition):
            raise RegistrationError(
                f"{definition!r} is neither a workflow nor an activity; put @workflow or @activity over the function"
            )
        known = self._known[definition.kind]
        taken = known.get(definition.name)
        if taken is not None and taken.fn != definition.fn:
            raise RegistrationError(
                f"two {definition.kind} functions are named {definition.name!r}: {taken.fn!r} and {definition.fn!r}; "
                f"give one of them another name with @{definition.kind}(name=...)"
            )
        definition.signature.check(codec)
        known[definition.name] = definition

    def resolve_workflow(self, name: str) -> Any | None:
        """Return the workflow of this name, or None."""
        return self._known["workflow"].get(name)

    def resolve_activity(self, name: str) -> Any | None:
        """Return the activity of this name, or None."""
        return self._known["activity"].get(name)

    def names(self, kind: str) -> Collection[str]:
        """Return the names of all "workflow" or all "activity" definitions."""
        return self._known[kind].keys()


def claimable_names(resolver: Any, kind: str) -> Collection[str] | None:
    """Return what a worker may claim with this resolver; None = any name, and it gives back what it cannot resolve."""
    if isinstance(resolver, Registry):
        return resolver.names(kind)
    names: Callable[[], Collection[str]] | None = getattr(resolver, "names", None)
    return names() if names is not None else None
