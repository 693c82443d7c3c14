"""The dispatcher: batches of several users, fairness, cancellation, failures, a full queue, and its end."""

import logging
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from pbe import layout
from pbe.errors import UserError
from pbe.serving.editor import Edit, Region
from pbe.serving.service.dispatcher import Dispatcher
from pbe.serving.service.jobs import DrainingError, Job, QueueFullError
from pbe.serving.service.models import Models
from pbe.types import Image
from tests.support.service_edits import DEADLINE_S, Gated, gated, small_edit

BUNDLED = Path(__file__).parents[3] / layout.PHOTO_PAINTER


@pytest.fixture
def dispatcher(model_folder: Path) -> Iterator[Dispatcher]:
    started = Dispatcher(Models({"tiny": model_folder}, device="cpu"), max_batch=4, max_queue=8)
    started.start()
    yield started
    started.drain(DEADLINE_S)


@pytest.fixture
def gate(dispatcher: Dispatcher) -> Iterator[Gated]:
    """A gate before the painter; one edit, of seed 99, is waiting in it."""
    with gated(dispatcher) as painter:
        dispatcher.submit(small_edit(99), owner="first")
        assert painter.entered.wait(DEADLINE_S)
        yield painter


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def submit_ready(dispatcher: Dispatcher, edit: Edit, owner: str = "") -> Job:
    """Submit an edit and wait until its windows are cut."""
    job = dispatcher.submit(edit, owner=owner)
    wait_for(lambda: job.work is None or job.work.prepared is not None)
    return job


def test_an_edit_has_the_same_bits_alone_and_beside_others(dispatcher: Dispatcher, gate: Gated) -> None:
    edits = [small_edit(seed, num_regions=1 + seed % 3) for seed in range(5)]
    jobs = [submit_ready(dispatcher, edit, f"user {seed % 2}") for seed, edit in enumerate(edits)]
    gate.gate.set()

    digests = [job.future.result(DEADLINE_S).digest for job in jobs]

    assert max(len(call) for call in gate.calls) == 4
    editor = dispatcher.models.resolve(None).editor
    assert digests == [editor.edit(edit).digest for edit in edits]
    assert [job.status for job in jobs] == ["done"] * 5


def test_the_bundled_painter_has_the_same_bits_in_a_batch() -> None:
    dispatcher = Dispatcher(Models({"photo": BUNDLED}, device="cpu", precision="fp32"))
    edits = [small_edit(seed, num_steps=1, side=150) for seed in range(3)]
    dispatcher.models.start()
    editor = dispatcher.models.resolve(None).editor
    alone = [editor.edit(edit).digest for edit in edits]
    jobs = dispatcher.submit_all(edits)
    dispatcher._loop.start()

    assert [job.future.result(DEADLINE_S).digest for job in jobs] == alone
    assert dispatcher.state.counters.batch_sizes == {3: 1}
    assert dispatcher.drain(DEADLINE_S)


def test_edits_with_other_options_are_painted_in_other_batches(dispatcher: Dispatcher, gate: Gated) -> None:
    jobs = [submit_ready(dispatcher, small_edit(seed, num_steps=1 + seed % 2)) for seed in range(6)]
    gate.gate.set()
    for job in jobs:
        job.future.result(DEADLINE_S)
    assert sorted(map(sorted, gate.calls[1:])) == [[0, 2, 4], [1, 3, 5]]


def test_many_edits_of_one_owner_do_not_delay_another_owner(dispatcher: Dispatcher, gate: Gated) -> None:
    for seed in range(6):
        submit_ready(dispatcher, small_edit(seed), "many")
    last = submit_ready(dispatcher, small_edit(50), "one")
    assert last.position == 2
    gate.gate.set()
    last.future.result(DEADLINE_S)
    assert 50 in gate.calls[1]
    assert len(gate.calls[1]) == 4


def test_a_full_queue_refuses_with_the_time_when_it_has_room(dispatcher: Dispatcher, gate: Gated) -> None:
    dispatcher._counters.count_batch(1, 1, seconds=10.0)
    for seed in range(8):
        dispatcher.submit(small_edit(seed), owner=f"user {seed}")

    waits = []
    for _ in range(20):
        with pytest.raises(QueueFullError, match="the queue is full: 8 edits wait") as caught:
            dispatcher.submit(small_edit())
        waits.append(caught.value.retry_after_s)

    assert waits[0] == pytest.approx(20.0, abs=0.5)  # one edit of two steps
    assert waits[1] == pytest.approx(40.0, abs=0.5)  # after the client that was refused before
    assert max(waits) == pytest.approx(200.0, abs=0.5)  # then the queue, and this edit, would be done
    assert dispatcher.state.counters.refused == 20


def test_one_owner_cannot_fill_the_queue(dispatcher: Dispatcher, gate: Gated) -> None:
    dispatcher.submit_all([small_edit(seed) for seed in range(6)], owner="many")
    with pytest.raises(QueueFullError):
        dispatcher.submit(small_edit(), owner="many")
    dispatcher.submit(small_edit(), owner="other")


def test_several_edits_are_accepted_together_or_not_at_all(dispatcher: Dispatcher, gate: Gated) -> None:
    dispatcher.submit_all([small_edit(seed) for seed in range(5)], owner="a")
    with pytest.raises(QueueFullError):
        dispatcher.submit_all([small_edit(seed) for seed in range(4)], owner="b")
    assert dispatcher.state.queued == 5
    with pytest.raises(UserError, match="7 edits at once: this service takes up to 6"):
        dispatcher.submit_all([small_edit(seed) for seed in range(7)])


def test_the_pixels_that_are_held_are_limited(model_folder: Path) -> None:
    dispatcher = Dispatcher(Models({"tiny": model_folder}, device="cpu"), max_pixels=10_000)
    dispatcher.models.start()
    variants = [Edit(small_edit().source, small_edit().regions, seed) for seed in range(4)]
    one_source = [Edit(variants[0].source, each.regions, each.seed) for each in variants]
    dispatcher.submit_all(one_source)  # 48 x 144 = 6912 pixels, which are held once
    with pytest.raises(QueueFullError):
        dispatcher.submit(small_edit())
    with pytest.raises(UserError, match=r"the source has 0\.1 megapixels"):
        dispatcher.submit(small_edit(side=200))
    assert not dispatcher.drain(0)


def test_a_waiting_job_is_cancelled_and_never_painted(dispatcher: Dispatcher, gate: Gated) -> None:
    job, other = (submit_ready(dispatcher, small_edit(seed)) for seed in (1, 2))
    assert job.cancel()
    assert not job.cancel()
    gate.gate.set()
    other.future.result(DEADLINE_S)
    assert (job.status, job.position, job.work) == ("cancelled", 0, None)
    assert gate.calls == [[99], [2]]
    with pytest.raises(CancelledError):
        job.future.result()


def test_cancelling_the_future_cancels_the_job(dispatcher: Dispatcher, gate: Gated) -> None:
    job = submit_ready(dispatcher, small_edit(1))
    assert job.future.cancel()
    assert job.status == "cancelled"
    assert dispatcher.state.queued == 0


def test_a_batch_stops_when_all_its_jobs_are_cancelled(dispatcher: Dispatcher) -> None:
    first, second = dispatcher.submit_all([small_edit(seed, num_steps=1000) for seed in (1, 2)])
    wait_for(lambda: first.progress > 0)
    first.cancel()
    before = second.progress
    wait_for(lambda: second.progress > before)
    second.cancel()
    third = dispatcher.submit(small_edit(3))
    third.future.result(DEADLINE_S)
    assert dispatcher.state.counters.windows == 1
    assert first.progress < second.progress < 1


def test_a_window_that_cannot_be_painted_fails_its_own_job_alone(
    dispatcher: Dispatcher, gate: Gated, caplog: pytest.LogCaptureFixture
) -> None:
    gate.errors = {2: RuntimeError("a bug"), 3: UserError("the model painted NaN")}
    jobs = [submit_ready(dispatcher, small_edit(seed)) for seed in (1, 2, 3)]
    gate.gate.set()

    alone = dispatcher.models.resolve(None).editor.edit(small_edit(1))
    assert jobs[0].future.result(DEADLINE_S).digest == alone.digest
    assert isinstance(jobs[1].future.exception(DEADLINE_S), RuntimeError)
    assert str(jobs[2].future.exception(DEADLINE_S)) == "the model painted NaN"

    assert [job.status for job in jobs] == ["done", "failed", "failed"]
    assert dispatcher.state.counters.retried == 3
    assert dispatcher.healthy
    assert [record.message for record in caplog.records] == [f"job {jobs[1].id} failed"]


def test_a_painter_that_fails_again_and_again_is_not_healthy(
    dispatcher: Dispatcher, gate: Gated, caplog: pytest.LogCaptureFixture
) -> None:
    gate.errors = {seed: RuntimeError("device lost") for seed in (*range(3), 99)}
    gate.gate.set()
    with caplog.at_level(logging.CRITICAL):
        for seed in range(3):
            assert dispatcher.submit(small_edit(seed)).future.exception(DEADLINE_S)
    assert not dispatcher.healthy
    assert not dispatcher.ready


def test_batches_become_smaller_when_memory_runs_out(dispatcher: Dispatcher, gate: Gated) -> None:
    gate.most = 2
    jobs = [submit_ready(dispatcher, small_edit(seed)) for seed in range(4)]
    gate.gate.set()
    for job in jobs:
        job.future.result(DEADLINE_S)
    assert dispatcher.state.max_batch == 2
    later = [dispatcher.submit(small_edit(seed)) for seed in range(4)]
    for job in later:
        job.future.result(DEADLINE_S)
    assert max(map(len, gate.calls[6:])) == 2


def test_what_is_wrong_with_an_edit_ends_its_job(dispatcher: Dispatcher) -> None:
    edit = small_edit()
    empty = Edit(edit.source, (Region(np.zeros((48, 144), np.uint8), edit.regions[0].exemplars),))
    job = dispatcher.submit(empty)
    with pytest.raises(UserError, match="mask marks nothing"):
        job.future.result(DEADLINE_S)
    with pytest.raises(UserError, match="number of steps is 0"):
        dispatcher.submit(small_edit(num_steps=0))
    with pytest.raises(UserError, match="model 'other' is not served here; served are tiny"):
        dispatcher.submit(edit, "other")


def test_progress_grows_to_one(dispatcher: Dispatcher) -> None:
    job, progress = dispatcher.submit(small_edit(num_steps=60, num_regions=3)), [0.0]
    while not job.future.done():
        progress.append(job.progress)
        time.sleep(0.01)
    assert sorted(progress) == progress
    assert len(set(progress)) > 3
    assert job.progress == 1


def test_previews_reach_each_job_of_a_batch(dispatcher: Dispatcher) -> None:
    edits = [small_edit(seed, num_steps=60) for seed in (1, 2)]
    seen: list[list[Image]] = [[], []]
    jobs = [dispatcher.submit(edit, on_preview=shown.append) for edit, shown in zip(edits, seen, strict=True)]
    results = [job.future.result(DEADLINE_S).picture.shown for job in jobs]
    for edit, shown, result in zip(edits, seen, results, strict=True):
        kept = edit.regions[0].mask == 0
        assert shown
        assert all(np.array_equal(preview[kept], edit.source.shown[kept]) for preview in shown)
        assert not np.array_equal(shown[0], result)


def test_draining_paints_what_was_accepted_and_refuses_the_rest(dispatcher: Dispatcher) -> None:
    jobs = dispatcher.submit_all([small_edit(seed) for seed in range(6)])
    assert dispatcher.drain(DEADLINE_S)
    assert [job.status for job in jobs] == ["done"] * 6
    with pytest.raises(DrainingError, match="shutting down"):
        dispatcher.submit(small_edit())
    assert not dispatcher.ready


def test_what_cannot_be_painted_in_time_fails_with_the_reason(dispatcher: Dispatcher, gate: Gated) -> None:
    jobs = dispatcher.submit_all([small_edit(seed) for seed in range(6)])
    jobs[-1].future.add_done_callback(lambda _: gate.gate.set())
    assert not dispatcher.drain(0.1)
    for job in jobs:
        assert isinstance(job.future.exception(0), DrainingError)
    assert dispatcher.state.queued == dispatcher.state.running == 0


def test_jobs_are_found_by_id_while_somebody_holds_them(dispatcher: Dispatcher) -> None:
    job = dispatcher.submit(small_edit())
    assert dispatcher.find(job.id) is job
    job.future.result(DEADLINE_S)
    number = job.id
    del job
    wait_for(lambda: dispatcher.find(number) is None)


def test_every_job_ends_whatever_its_users_do(dispatcher: Dispatcher, caplog: pytest.LogCaptureFixture) -> None:
    def user(number: int) -> list[Job]:
        rng, jobs = random.Random(number), []
        for _ in range(12):
            edit = small_edit(rng.randrange(9), num_steps=rng.choice((1, 1, 2)), num_regions=rng.choice((1, 2)))
            try:
                jobs.append(dispatcher.submit(edit, owner=str(number % 3)))
            except QueueFullError:
                time.sleep(0.01)
            if jobs and rng.random() < 0.3:
                rng.choice(jobs).cancel()
        return jobs

    with gated(dispatcher) as painter, ThreadPoolExecutor(6) as pool:
        painter.errors = {3: RuntimeError("a bug")}
        painter.gate.set()
        with caplog.at_level(logging.CRITICAL):
            jobs = [job for jobs in pool.map(user, range(6)) for job in jobs]
            wait_for(lambda: all(job.future.done() for job in jobs))
    counters = dispatcher.state.counters
    assert counters.accepted == len(jobs) == counters.done + counters.failed + counters.cancelled
    assert dispatcher.state.pixels == 0
    assert all(job.future.result().num_changed_outside == 0 for job in jobs if job.status == "done")
