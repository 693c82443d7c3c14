"""What `/metrics` says, for Prometheus: requests, queue, batches, windows and models."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from pbe.serving.service.dispatcher import Dispatcher
from pbe.serving.service.models import MAX_BATCH

_LATENCIES = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_BODY_SIZES = (1e4, 1e5, 1e6, 4e6, 16e6, 64e6)


class Metrics:
    """The metrics of one application, in a registry of its own."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self.registry = CollectorRegistry()
        labels = ("method", "route", "code")
        self._requests = Counter("pbe_http_requests", "Requests answered", labels, registry=self.registry)
        self._latency = Histogram(
            "pbe_http_request_seconds", "From the headers to the end of the answer", ("route",), buckets=_LATENCIES,
            registry=self.registry,
        )  # fmt: skip
        self._bodies = Histogram("pbe_http_body_bytes", "Bodies received", buckets=_BODY_SIZES, registry=self.registry)
        self._refused = Counter("pbe_refused", "Requests refused, by reason", ("reason",), registry=self.registry)
        self.registry.register(_Dispatched(dispatcher))
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answered request."""
        self._requests.labels(method, route, str(status)).inc()
        self._latency.labels(route).observe(seconds)

    def count_body(self, num_bytes: int) -> None:
        """Count a body that was received."""
        self._bodies.observe(num_bytes)

    def count_refusal(self, reason: str) -> None:
        """Count a request that was refused; the reason is the error's code."""
        self._refused.labels(reason).inc()

    def exposition(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)


class _Dispatched(Collector):
    """Reads the dispatcher's state when Prometheus asks."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    def collect(self) -> Iterator[Metric]:
        state = self._dispatcher.state
        counters = state.counters
        yield _gauge("pbe_queue_length", "Edits that wait", state.queued)
        yield _gauge("pbe_running_edits", "Edits that are painted", state.running)
        yield _gauge("pbe_held_pixels", "Pixels of the sources of all edits that have not ended", state.pixels)
        yield _gauge("pbe_seconds_per_step", "Of one window, in the last batches", state.seconds_per_step)
        yield _gauge("pbe_ready", "1 when edits are accepted", self._dispatcher.ready)
        edits = CounterMetricFamily("pbe_edits", "Edits by how they ended; accepted counts all", labels=["status"])
        for status in ("accepted", "refused", "done", "failed", "cancelled"):
            edits.add_metric([status], getattr(counters, status))
        yield edits
        yield CounterMetricFamily("pbe_painted_windows", "Windows painted", value=counters.windows)
        yield CounterMetricFamily("pbe_painting_seconds", "Time in the model", value=counters.painting_s)
        yield CounterMetricFamily("pbe_waiting_seconds", "Time of edits in the queue", value=counters.waiting_s)
        yield _batch_sizes(counters.batch_sizes)
        yield from self._models()

    def _models(self) -> Iterator[Metric]:
        models = self._dispatcher.models
        state = models.state
        info = GaugeMetricFamily("pbe_model_info", "The models in use", labels=["model", "version", "alias"])
        for model in models.list():
            info.add_metric([model.id, model.version or "", model.alias or ""], 1)
        yield info
        yield CounterMetricFamily("pbe_model_reloads", "Versions that replaced another", value=state.reloads)
        yield CounterMetricFamily("pbe_failed_model_reloads", "Versions not loaded", value=state.failed_reloads)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=float(value))


def _batch_sizes(sizes: "dict[int, int]") -> Metric:
    """Return a histogram of how many windows were painted together."""
    bounds = range(1, max([MAX_BATCH, *sizes]) + 1)
    below = [(str(float(bound)), sum(count for size, count in sizes.items() if size <= bound)) for bound in bounds]
    buckets = [*below, ("+Inf", sum(sizes.values()))]
    total = sum(size * count for size, count in sizes.items())
    return HistogramMetricFamily("pbe_batch_size", "Windows painted together", buckets=buckets, sum_value=total)
