"""The bell: no ring is missed between looking and waiting, and topics that nobody watches cost nothing."""

from __future__ import annotations

import threading

from derecho.stores.bell import Bell


def test_a_ring_between_the_look_and_the_wait_is_not_missed() -> None:
    bell = Bell()
    bell.watch("runs")
    before = bell.seq("runs")
    bell.ring(["runs"])
    assert bell.wait("runs", before, timeout_s=0)


def test_a_wait_without_a_ring_ends_in_time() -> None:
    bell = Bell()
    bell.watch("runs")
    assert not bell.wait("runs", bell.seq("runs"), timeout_s=0.001)


def test_a_ring_of_another_topic_wakes_nobody() -> None:
    bell = Bell()
    for topic in ("runs", "timers"):
        bell.watch(topic)
    before = bell.seq("runs")
    bell.ring(["timers"])
    assert bell.seq("runs") == before
    assert not bell.wait("runs", before, timeout_s=0)


def test_a_ring_wakes_all_who_wait() -> None:
    bell = Bell()
    gate = threading.Barrier(5)
    woken: list[bool] = []

    def wait() -> None:
        bell.watch("runs")
        before = bell.seq("runs")
        gate.wait(10)
        woken.append(bell.wait("runs", before, timeout_s=10))
        bell.unwatch("runs")

    threads = [threading.Thread(target=wait) for _ in range(4)]
    for thread in threads:
        thread.start()
    gate.wait(10)  # Each has read the counter: from here on no ring can be missed.
    bell.ring(["runs"])
    for thread in threads:
        thread.join(20)
    assert woken == [True] * 4
    assert bell.watched() == []


def test_topics_that_nobody_watches_leave_nothing_behind() -> None:
    bell = Bell()
    for number in range(100):
        bell.ring([f"run {number}"])
    bell.watch("run 1")
    bell.ring(["run 1", "run 2"])
    assert bell.watched() == ["run 1"]
    assert (bell.seq("run 1"), bell.seq("run 2")) == (1, 0)
    bell.unwatch("run 1")
    assert bell.watched() == []
    assert bell._seq == bell._waiting == bell._condition_of == {}


def test_a_topic_is_watched_until_the_last_lets_go() -> None:
    bell = Bell()
    bell.watch("runs")
    bell.watch("runs")
    bell.unwatch("runs")
    before = bell.seq("runs")
    bell.ring(["runs"])
    assert bell.seq("runs") == before + 1
