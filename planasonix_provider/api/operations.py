"""Turns each route into a method of the hook and of both clients: blocking or awaited, as the class is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any, Generic, ParamSpec, Protocol, Self, TypeVar, overload

from planasonix_provider.api import routes
from planasonix_provider.api.errors import PlanasonixUnreadableError
from planasonix_provider.api.models import Page
from planasonix_provider.api.request import Request

#: A server that filters a page after cutting it may send an empty page with a cursor. This many in a row mean that the
#: list never ends.
MAX_EMPTY_PAGES = 50

P = ParamSpec("P")
T = TypeVar("T")


class SyncSender(Protocol):
    """Sends a request and blocks until the response has arrived."""

    def send(self, request: Request[T]) -> T:
        """Return the content of the response, or raise a ``PlanasonixError``."""
        ...


class AsyncSender(Protocol):
    """Sends a request without blocking the event loop."""

    async def send(self, request: Request[T]) -> T:
        """Return the content of the response, or raise a ``PlanasonixError``."""
        ...


class operation(Generic[P, T]):  # noqa: N801 - used like a decorator
    """A route that returns one object, as a method."""

    def __init__(self, route: Callable[P, Request[T]]) -> None:
        self.route = route
        self.__doc__ = route.__doc__

    @overload
    def __get__(self, sender: None, owner: type) -> Self: ...
    @overload
    def __get__(self, sender: SyncSender, owner: type) -> Callable[P, T]: ...
    @overload
    def __get__(self, sender: AsyncSender, owner: type) -> Callable[P, Coroutine[Any, Any, T]]: ...
    def __get__(self, sender: Any, owner: type) -> Any:
        """Bind the route to the object that sends it."""
        if sender is None:
            return self

        @wraps(self.route)
        def send(*args: P.args, **kwargs: P.kwargs) -> Any:
            return sender.send(self.route(*args, **kwargs))

        return send


class paginated_operation(Generic[P, T]):  # noqa: N801 - as above
    """A route that returns a list, as a method: an iterator that requests each page when it gets there."""

    def __init__(self, route: Callable[P, Request[Page[T]]]) -> None:
        self.route = route
        self.__doc__ = route.__doc__

    @overload
    def __get__(self, sender: None, owner: type) -> Self: ...
    @overload
    def __get__(self, sender: SyncSender, owner: type) -> Callable[P, Iterator[T]]: ...
    @overload
    def __get__(self, sender: AsyncSender, owner: type) -> Callable[P, AsyncIterator[T]]: ...
    def __get__(self, sender: Any, owner: type) -> Any:
        """Bind the route to what sends it."""
        if sender is None:
            return self
        pages = _iterate_async if iscoroutinefunction(sender.send) else _iterate

        @wraps(self.route)
        def iterate(*args: P.args, **kwargs: P.kwargs) -> Any:
            # The request is created here and not at the first step, so that invalid arguments raise at once.
            return pages(sender, self.route(*args, **kwargs))

        return iterate


class Operations:
    """One method per route."""

    trigger_sync = operation(routes.trigger_sync)
    trigger_backfill = operation(routes.trigger_backfill)
    list_backfills = paginated_operation(routes.list_backfills)
    get_backfill = operation(routes.get_backfill)
    list_jobs = paginated_operation(routes.list_jobs)
    get_job = operation(routes.get_job)
    get_job_results = operation(routes.get_job_results)
    cancel_job = operation(routes.cancel_job)
    list_webhooks = paginated_operation(routes.list_webhooks)
    create_webhook = operation(routes.create_webhook)
    get_webhook = operation(routes.get_webhook)
    update_webhook = operation(routes.update_webhook)
    delete_webhook = operation(routes.delete_webhook)
    rotate_webhook_secret = operation(routes.rotate_webhook_secret)
    test_webhook = operation(routes.test_webhook)
    list_webhook_deliveries = paginated_operation(routes.list_webhook_deliveries)
    get_openapi = operation(routes.get_openapi)


class Paginator(Generic[T]):
    """Follows the cursors of a list until it ends, the caller's limit is reached, or the server leads in a circle."""

    def __init__(self, request: Request[Page[T]]) -> None:
        #: The request for the current page.
        self.request = request
        self.left = request.max_items
        self.seen: set[str] = set()
        self._empty_pages = 0

    def items_of(self, page: Page[T]) -> list[T]:
        """Return the items of a page, up to the caller's limit."""
        items = page.data if self.left is None else page.data[: self.left]
        if self.left is not None:
            self.left -= len(items)
        return items

    def advance(self, page: Page[T]) -> bool:
        """Make :attr:`request` the one for the next page; return whether there is one.

        :raises PlanasonixUnreadableError: if the cursor came before, or after :data:`MAX_EMPTY_PAGES` empty pages in a
            row.
        """
        if page.cursor is None or self.left == 0:
            return False
        if page.cursor in self.seen:
            raise PlanasonixUnreadableError(
                f"{self.request}: a page of the list names an earlier one as the next, so the list would never end. "
                "Report it to Planasonix."
            )
        self._empty_pages = 0 if page.data else self._empty_pages + 1
        if self._empty_pages >= MAX_EMPTY_PAGES:
            raise PlanasonixUnreadableError(
                f"{self.request}: {MAX_EMPTY_PAGES} pages of the list in a row were empty, and each names another one "
                "as the next, so the list may never end. Report it to Planasonix."
            )
        self.seen.add(page.cursor)
        self.request = self.request.next_page(page.cursor)
        return True


def _iterate(sender: SyncSender, request: Request[Page[T]]) -> Iterator[T]:
    paginator = Paginator(request)
    while True:
        page = sender.send(paginator.request)
        yield from paginator.items_of(page)
        if not paginator.advance(page):
            return


async def _iterate_async(sender: AsyncSender, request: Request[Page[T]]) -> AsyncIterator[T]:
    paginator = Paginator(request)
    while True:
        page = await sender.send(paginator.request)
        for item in paginator.items_of(page):
            yield item
        if not paginator.advance(page):
            return
