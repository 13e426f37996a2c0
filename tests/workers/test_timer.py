"""The timer worker: fires what is due by the store's clock, and rests until the next timer."""

from __future__ import annotations

from typing import Any

from derecho.journal.events import TimerFired
from derecho.stores.bell import TIMERS
from derecho.testing.conformance import scene
from derecho.workers.due import DUE_BATCH_MAX
from derecho.workers.idle import OUT_OF_REACH_S
from derecho.workers.loop import IDLE_MAX_S
from derecho.workers.timer import TimerWorker


def fired(bench: Any) -> list[int]:
    return [event.scheduled_by_id for event in scene.events_of(bench.store, TimerFired)]


def test_a_timer_fires_when_its_time_has_come_and_not_before(bench: Any) -> None:
    worker = TimerWorker(bench.store, worker_id="a")
    [timer_id] = bench.schedule(scene.timer(bench.clock, 3600))
    bench.clock.advance(3599)
    assert worker.process() == 0
    bench.clock.advance(1)
    assert worker.process() == 1
    assert worker.process() == 0
    assert fired(bench) == [timer_id]


def test_timers_fire_after_any_downtime_in_the_order_of_their_due_moments(bench: Any) -> None:
    late, early = bench.schedule(scene.timer(bench.clock, 50), scene.timer(bench.clock, 40))
    bench.clock.advance(365 * 86400)
    assert TimerWorker(bench.store, worker_id="a").process() == 2
    assert fired(bench) == [early, late]


def test_more_timers_than_a_batch_are_fired_in_several(bench: Any) -> None:
    bench.schedule(*(scene.timer(bench.clock, 1) for _ in range(DUE_BATCH_MAX + 1)))
    bench.clock.advance(1)
    worker = TimerWorker(bench.store, worker_id="a")
    assert [worker.process() for _ in range(3)] == [DUE_BATCH_MAX, 1, 0]


def test_the_worker_rests_until_the_next_timer_but_never_for_long(bench: Any) -> None:
    worker = TimerWorker(bench.store, worker_id="a")
    assert worker.topic == TIMERS
    assert worker.bell is bench.store.bell
    assert worker.idle_s() == IDLE_MAX_S
    bench.schedule(scene.timer(bench.clock, 10))
    assert worker.idle_s() == IDLE_MAX_S  # So that a clock that jumps is noticed.
    bench.clock.advance(9.75)
    assert worker.process() == 0
    assert worker.idle_s() == 0.25
    bench.clock.advance(0.25)
    assert worker.idle_s() == 0


def test_a_timer_that_another_process_is_firing_makes_no_hot_loop(bench: Any, monkeypatch: Any) -> None:
    worker = TimerWorker(bench.store, worker_id="a")
    bench.schedule(scene.timer(bench.clock, 1))
    bench.clock.advance(1)
    monkeypatch.setattr(bench.store, "fire_timers", lambda limit: 0)
    assert worker.process() == 0
    assert worker.idle_s() == OUT_OF_REACH_S


def test_a_clock_that_jumps_back_fires_nothing_early_and_nothing_twice(bench: Any) -> None:
    worker = TimerWorker(bench.store, worker_id="a")
    [timer_id] = bench.schedule(scene.timer(bench.clock, 10))
    start = bench.clock.now()
    bench.clock.advance(10)
    bench.clock.set(start)
    assert worker.process() == 0
    assert worker.idle_s() == IDLE_MAX_S
    bench.clock.advance(10)
    assert worker.process() == 1
    bench.clock.set(start)
    bench.clock.advance(10)
    assert worker.process() == 0
    assert fired(bench) == [timer_id]
