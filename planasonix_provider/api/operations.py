"""A route as a method: written once, blocking or awaited as its class is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any, Generic, ParamSpec, Protocol, Self, TypeVar, overload

from planasonix_provider.api import routes
from planasonix_provider.api.errors import PlanasonixUnreadableError
from planasonix_provider.api.models import Page
from planasonix_provider.api.request import Request

#: A server may filter a page after it has cut it, and send it empty with a cursor to the next. So many in a row are no
#: such accident: the list would never end.
MAX_EMPTY_PAGES = 50

P = ParamSpec("P")
T = TypeVar("T")


class SyncSender(Protocol):
    """Whatever sends a request and blocks until its answer is there."""

    def send(self, request: Request[T]) -> T:
        """Send a request; return what its answer holds, or raise a ``PlanasonixError``."""
        ...


class AsyncSender(Protocol):
    """Whatever sends a request and lets others run until its answer is there."""

    async def send(self, request: Request[T]) -> T:
        """Send a request; return what its answer holds, or raise a ``PlanasonixError``."""
        ...


class operation(Generic[P, T]):  # noqa: N801 - stands where a decorator would, and reads like one
    """A route that gives one thing.

    :param route: the function of :mod:`planasonix_provider.api.routes` that makes the request.
    """

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
        """Bind the route to what sends it."""
        if sender is None:
            return self

        @wraps(self.route)
        def send(*args: P.args, **kwargs: P.kwargs) -> Any:
            return sender.send(self.route(*args, **kwargs))

        return send


class paginated_operation(Generic[P, T]):  # noqa: N801 - as above
    """A route that gives a list: an iterator that asks for a page when the one before is used up.

    :param route: the function of :mod:`planasonix_provider.api.routes` that makes the request for the first page.
    """

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
        pages = _awaited_items if iscoroutinefunction(sender.send) else _items

        @wraps(self.route)
        def iterate(*args: P.args, **kwargs: P.kwargs) -> Any:
            # The request is made here and not at the first step, so that a bad argument is refused at once.
            return pages(sender, self.route(*args, **kwargs))

        return iterate


class Operations:
    """One method per route, the same on the hook, the blocking and the awaiting client."""

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
    """Walks from page to page, and ends: the list, the caller's limit, or a server that leads in a circle.

    :param request: asks for the first page.
    """

    def __init__(self, request: Request[Page[T]]) -> None:
        #: Asks for the page where the walk is.
        self.request = request
        self.left = request.max_items
        self.seen: set[str] = set()
        self._empty_pages = 0

    def items_of(self, page: Page[T]) -> list[T]:
        """Give the items of a page, as far as the caller wants them.

        :param page: the page that :attr:`request` has brought.
        :return: its items.
        """
        items = page.data if self.left is None else page.data[: self.left]
        if self.left is not None:
            self.left -= len(items)
        return items

    def advance(self, page: Page[T]) -> bool:
        """Go to the page behind this one.

        :param page: the page that :attr:`request` has brought.
        :return: whether there is one to ask for, by what is :attr:`request` then.
        :raises PlanasonixUnreadableError: if it is one that was asked for before, or after :data:`MAX_EMPTY_PAGES`
            pages in a row without an item.
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


def _items(sender: SyncSender, request: Request[Page[T]]) -> Iterator[T]:
    cursors = Paginator(request)
    while True:
        page = sender.send(cursors.request)
        yield from cursors.items_of(page)
        if not cursors.advance(page):
            return


async def _awaited_items(sender: AsyncSender, request: Request[Page[T]]) -> AsyncIterator[T]:
    cursors = Paginator(request)
    while True:
        page = await sender.send(cursors.request)
        for item in cursors.items_of(page):
            yield item
        if not cursors.advance(page):
            return
