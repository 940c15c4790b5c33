"""Bad moments of an object store: what passes is tried again, what does not is said at once."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

TRIES = 4
"""Times in all that something is asked of a store which has a bad moment."""
FIRST_S = 0.5
"""Seconds before the second time, doubled before each further one. Arrow itself asks S3 again five
times a second for six seconds, but for objects that are being read."""
_PASSING = re.compile(
    r"HTTP status (5\d\d|429)"
    r"|SLOW_DOWN|[Ss]low ?[Dd]own|THROTTL|SERVICE_UNAVAILABLE|INTERNAL_FAILURE|INTERNAL_ERROR"
    r"|REQUEST_TIMEOUT|RequestTimeout|NETWORK_CONNECTION|curlCode"
    r"|UNAVAILABLE|DEADLINE_EXCEEDED|RESOURCE_EXHAUSTED"
    r"|timed out|[Tt]imeout|[Cc]onnection (reset|refused|aborted|closed)"
)
"""As AWS, Google and curl say it. Of a GET that failed Arrow says INTERNAL_FAILURE, whatever it
was; the HEAD before it has said the rest."""
_REFUSED = re.compile(r"ACCESS_DENIED|NO_SUCH|INVALID_ACCESS_KEY|SIGNATURE|HTTP status 40[134]")

P = ParamSpec("P")
T = TypeVar("T")


def passes(error: BaseException) -> bool:
    """Whether an error of a store is a bad moment: overload, a timeout, a connection that broke.

    Returns:
        False for what another try cannot mend: refused access, a bucket or an object that is not
        there, a disk that is full.

    >>> passes(OSError("When reading: AWS Error SLOW_DOWN during GetObject operation: slow down"))
    True
    >>> passes(PermissionError("When reading: AWS Error ACCESS_DENIED (HTTP status 403)"))
    False
    """
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    if not isinstance(error, OSError) or isinstance(error, PermissionError | FileNotFoundError):
        return False
    return _PASSING.search(str(error)) is not None


def refused(error: BaseException) -> bool:
    """Whether a store says that it will not, however often it is asked.

    Returns:
        True for access, keys, buckets and objects that are not there.
    """
    return isinstance(error, PermissionError) or _REFUSED.search(str(error)) is not None


def patient(function: Callable[P, T]) -> Callable[P, T]:
    """Has something that may be repeated done again after a bad moment, at growing intervals.

    Args:
        function: leaves nothing behind when it raises.

    Returns:
        The same, which raises what it raised last after `TRIES` bad moments, and anything else at
        once.
    """

    @wraps(function)
    def again(*args: P.args, **kwargs: P.kwargs) -> T:
        for tries in range(1, TRIES):
            try:
                return function(*args, **kwargs)
            except OSError as error:
                if not passes(error):
                    raise
            # each at a moment of its own: all workers saw the same bad one
            time.sleep(FIRST_S * 2 ** (tries - 1) * random.uniform(0.5, 1.5))
        return function(*args, **kwargs)

    return again
