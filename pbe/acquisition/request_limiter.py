"""A limit on concurrent requests that follows what the server can serve."""

import math
import threading


class RequestLimiter:
    """Additive increase, multiplicative decrease, as TCP does (Chiu and Jain, 1989).

    Each refusal halves the number of concurrent requests, each other reply raises it by the inverse of that number.
    There is no limit before the first refusal.
    """

    def __init__(self) -> None:
        self.limit = math.inf
        self.num_open = 0
        self.changed = threading.Condition()

    def acquire(self) -> None:
        """Wait until another request is allowed."""
        with self.changed:
            self.changed.wait_for(lambda: self.num_open < self.limit)
            self.num_open += 1

    def release(self, refused: bool) -> None:
        """Report the end of a request; `refused` says that the server has too many."""
        with self.changed:
            self.limit = max(1.0, min(self.limit, self.num_open) / 2) if refused else self.limit + 1 / self.limit
            self.num_open -= 1
            self.changed.notify(2)
