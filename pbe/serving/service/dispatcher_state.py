"""What a dispatcher has done and what it holds, for metrics."""

from collections import Counter
from dataclasses import dataclass, field, replace

SMOOTHING = 0.3  # weight of the newest batch in the seconds per step


@dataclass
class Counters:
    """What a dispatcher has done since it started."""

    accepted: int = 0
    refused: int = 0  # requests that found the queue full
    done: int = 0
    failed: int = 0
    cancelled: int = 0
    windows: int = 0  # painted
    batches: int = 0
    retried: int = 0  # windows that were painted again alone, since their batch had failed
    waiting_s: float = 0.0  # from acceptance to painting, of all jobs that were painted
    painting_s: float = 0.0
    seconds_per_step: float = 0.0  # of one window, in the last batches; 0 before the first
    batch_sizes: Counter[int] = field(default_factory=Counter)

    def count_batch(self, size: int, num_steps: int, seconds: float) -> None:
        """Count a painted batch of `size` windows."""
        self.batches += 1
        self.windows += size
        self.batch_sizes[size] += 1
        self.painting_s += seconds
        per_step = seconds / size / num_steps
        before = self.seconds_per_step or per_step
        self.seconds_per_step = (1 - SMOOTHING) * before + SMOOTHING * per_step

    def copy(self) -> "Counters":
        return replace(self, batch_sizes=self.batch_sizes.copy())


@dataclass(frozen=True)
class DispatcherState:
    """Counters and what a dispatcher holds now."""

    counters: Counters
    queued: int
    running: int
    pixels: int  # of the sources of all jobs that have not ended
    max_batch: int  # lower than configured once memory has run out
    draining: bool
    healthy: bool

    @property
    def seconds_per_step(self) -> float:
        return self.counters.seconds_per_step
