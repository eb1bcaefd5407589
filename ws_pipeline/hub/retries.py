"""When a request that failed is sent again. Sleeps; no other I/O.

What it is: the number of attempts and the pauses between them, by what the hub asks for, by jitter,
and by what the token has left. What it is not: which failures may pass (``responses``) or how a
request is sent (``transport``).
"""

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import tenacity

from ws_pipeline.errors import ConfigError
from ws_pipeline.hub.budget import Bucket, RateBudget
from ws_pipeline.hub.responses import TransientError

MAX_GIVEN_UP = 4
"""Requests in a row that failed at every attempt; then the hub counts as down, and each further one
is tried once until one succeeds: hundreds of repos must not wait for a dead hub one by one."""


_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryPolicy:
    """How failed requests are tried again.

    Args:
        max_attempts: Requests in all, the first included.
        max_wait_seconds: Cap of one pause by our own back-off.
        max_retry_after_seconds: Cap of one pause that the hub asks for; its windows are 300 s long.
        sleep: How to wait; tests hand in their own.
    """

    max_attempts: int = 6
    max_wait_seconds: float = 20.0
    max_retry_after_seconds: float = 330.0
    sleep: Callable[[float], None] = time.sleep

    def __post_init__(self) -> None:
        if self.max_attempts < 1:
            raise ConfigError(f"max_attempts must be at least 1; got {self.max_attempts}.")


DEFAULT_RETRIES = RetryPolicy()


class Retrier:
    """Calls what asks a hub until it succeeds. Safe to share between threads."""

    def __init__(self, policy: RetryPolicy, budget: RateBudget) -> None:
        self._policy = policy
        self._budget = budget
        self._num_given_up = 0

    def call(self, attempt: Callable[[], _T], bucket: Bucket) -> _T:
        """Return what ``attempt`` returns at last.

        Raises:
            TransientError: The last one, after all attempts.
        """
        is_down = self._num_given_up >= MAX_GIVEN_UP
        pause = _Pause()

        def paced() -> _T:
            delay = self._budget.reserve(bucket)
            if delay > 0 and not pause.is_over:
                self._policy.sleep(delay)
                self._budget.reserve(bucket)
            return attempt()

        retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(1 if is_down else self._policy.max_attempts),
            wait=functools.partial(self._wait, pause),
            retry=tenacity.retry_if_exception_type(TransientError),
            sleep=self._policy.sleep,
            reraise=True,
        )
        try:
            result = retrying(paced)
        except TransientError:
            self._num_given_up += 1
            raise
        self._num_given_up = 0
        return result

    def _wait(self, pause: "_Pause", state: tenacity.RetryCallState) -> float:
        """Return the pause: what the hub asks for, capped, or exponential; with jitter."""
        jitter = tenacity.wait_random_exponential(
            multiplier=0.5, max=self._policy.max_wait_seconds
        )(state)
        error = state.outcome.exception() if state.outcome else None
        asked = error.retry_after_seconds if isinstance(error, TransientError) else None
        pause.is_over = asked is not None
        if asked is None:
            return jitter
        return min(asked, self._policy.max_retry_after_seconds) + min(jitter, 1.0)


@dataclass(slots=True)
class _Pause:
    """Whether the last pause was one that the hub asked for; the budget then adds none."""

    is_over: bool = False
