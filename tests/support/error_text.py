"""The text of an error that a log could show."""

from __future__ import annotations

import traceback


def log_text(error: BaseException) -> str:
    """The message, the repr and the traceback of an error, without causes that ``from None`` hides."""
    return "\n".join([str(error), repr(error), *traceback.format_exception(error)])


def error_text(error: BaseException) -> str:
    """The traceback of an error, and the repr of each error in its chain."""
    chain = ["".join(traceback.format_exception(error)), repr(error)]
    while cause := error.__cause__ or error.__context__:
        error = cause
        chain.append(repr(error))
    return "\n".join(chain)
