"""Signals: each value goes to one receiver, in order, and a receiver that lost takes none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

import derecho
from derecho import gather, select, signal_channel, spawn, timer
from derecho.journal.events import SignalReceived, WorkflowCompleted, WorkflowTaskCompleted
from tests.core.driver import a, b, hand_made, replay, started


def test_signals_come_in_order_of_arrival(drive: Any) -> None:
    def main() -> list[int]:
        box = signal_channel("box")
        return [box.receive() for _ in range(4)]

    assert drive(main).signal("box", 1, 2).task().signal("box", 3, 4).task().result == [1, 2, 3, 4]


def test_signals_that_came_before_the_first_task_are_kept(prepare: Any) -> None:
    run = prepare(lambda: [value for _, value in zip(range(2), signal_channel("box"), strict=False)])
    assert run.signal("box", "x", "y").task().result == ["x", "y"]


def test_channels_of_two_names_do_not_mix(drive: Any) -> None:
    def main() -> list[int]:
        return [signal_channel("x").receive(), signal_channel("y").receive()]

    assert drive(main).signal("y", 1).signal("x", 2).task().result == [2, 1]


def test_two_channels_of_one_name_share_its_signals(drive: Any) -> None:
    def main() -> list[int]:
        return [signal_channel("box").receive(), signal_channel("box").receive()]

    assert drive(main).signal("box", 1, 2).task().result == [1, 2]


def test_try_receive_never_waits(drive: Any) -> None:
    def main() -> list[Any]:
        box = signal_channel("box")
        a.execute().get()
        return [box.try_receive(), box.try_receive("none"), box.try_receive()]

    assert drive(main).signal("box", None).complete("a").task().result == [None, "none", None]


def test_values_go_to_waiting_fibers_first_come_first_served(drive: Any) -> None:
    def main() -> list[int]:
        box = signal_channel("box")
        return gather(*[spawn(box.receive) for _ in range(3)])

    run = drive(main).signal("box", 1, 2).task()
    assert run.signal("box", 3).task().result == [1, 2, 3]


def test_values_of_a_batch_beyond_the_waiters_are_buffered(drive: Any) -> None:
    def main() -> list[int]:
        box = signal_channel("box")
        return [*gather(spawn(box.receive), spawn(box.receive)), box.try_receive(), box.try_receive()]

    assert drive(main).signal("box", 1, 2, 3).task().result == [1, 2, 3, None]


def test_a_receive_that_lost_a_select_takes_no_later_signal(drive: Any) -> None:
    def main() -> list[Any]:
        box = signal_channel("box")
        seen: list[Any] = []
        while len(seen) < 3:
            future = box.receive_future()
            winner = select(timer(5), future)
            seen.append(future.get() if winner is future else "timer")
        return seen

    run = drive(main).fire(5).task().fire(5).task()
    assert run.signal("box", "kept").task().result == ["timer", "timer", "kept"]


def test_a_receive_that_lost_takes_no_signal_of_the_same_batch(drive: Any) -> None:
    def main() -> list[Any]:
        box = signal_channel("box")
        future = box.receive_future()
        won = select(a.execute(), future)
        return [won is future, future.done(), box.try_receive()]

    assert drive(main).complete("a").signal("box", 1).task().result == [False, False, 1]


def test_selecting_the_same_receive_again_loses_no_signal(drive: Any) -> None:
    def main() -> list[Any]:
        box = signal_channel("box")
        future = box.receive_future()
        for _ in range(3):
            assert select(timer(5), future) is not future
        return [select(future, timer(5)) is future, future.get(), box.receive()]

    run = drive(main).fire(5).task().fire(5).task().fire(5).task()
    assert run.signal("box", 1, 2).task().result == [True, 1, 2]


def test_two_receives_of_one_channel_in_a_select_take_one_signal(drive: Any) -> None:
    def main() -> list[Any]:
        box = signal_channel("box")
        first, second = box.receive_future(), box.receive_future()
        won = select(first, second)
        return [won is first, second.done(), won.get(), box.try_receive()]

    assert drive(main).signal("box", 1, 2).task().result == [True, False, 1, 2]


def test_a_signal_that_is_there_beats_a_later_completion_in_a_select(drive: Any) -> None:
    def main() -> list[bool]:
        box, work = signal_channel("box"), a.execute()
        b.execute().get()
        future = box.receive_future()
        return [select(work, future) is future, select(work, box.receive_future()) is work]

    assert drive(main).signal("box", 1).complete("a").signal("box", 2).complete("b").task().result == [
        True,
        True,
    ]


def test_values_that_a_cancelled_receiver_would_have_had_go_to_the_next(drive: Any) -> None:
    def main() -> list[Any]:
        box = signal_channel("box")
        try:
            box.receive()
        except derecho.CancelledError:
            return [box.receive(), box.receive()]
        return []

    assert drive(main).cancel().signal("box", 1, 2).task().result == [1, 2]


def test_a_receive_future_shared_by_two_fibers_gives_both_its_one_value(drive: Any) -> None:
    def main() -> list[Any]:
        box = signal_channel("box")
        future = box.receive_future()
        return [*gather(spawn(future.get), spawn(future.get)), box.try_receive()]

    assert drive(main).signal("box", 1, 2).task().result == [1, 1, 2]


def test_a_shared_receive_future_goes_on_waiting_when_one_of_its_fibers_left(drive: Any) -> None:
    def main() -> list[Any]:
        future = signal_channel("box").receive_future()

        def loses() -> str:
            select(a.execute(), future)
            return "left"

        return gather(spawn(loses), spawn(future.get))

    run = drive(main).complete("a").task()
    assert run.signal("box", 1).task().result == ["left", 1]


def test_a_receive_future_has_no_value_before_somebody_waits_for_it(drive: Any) -> None:
    def main() -> list[Any]:
        box = signal_channel("box")
        future = box.receive_future()
        a.execute().get()
        return [future.done(), box.receive(), future.done()]

    assert drive(main).signal("box", 1).complete("a").task().result == [False, 1, False]


@dataclass
class Payment:
    cents: int


def test_payloads_are_decoded_by_the_type_of_the_channel(drive: Any) -> None:
    def main() -> int:
        payment = signal_channel("pay", Payment).receive()
        assert isinstance(payment, Payment)
        return payment.cents

    assert drive(main).signal("pay", {"cents": 5}).task().result == 5


def receives(times: int) -> list[int]:
    box = signal_channel("box", int)
    return [box.receive() for _ in range(times)]


def test_a_signal_that_cannot_be_decoded_is_skipped_with_its_id_and_a_warning(
    drive: Any, caplog: Any
) -> None:
    run = drive(receives, 2).signal("box", "no int", 1).task()
    skipped = run.journal[-1].skipped
    assert [event.id for event in run.journal if getattr(event, "payload", b"") == b'"no int"'] == list(
        skipped
    )
    assert "is skipped, it cannot be decoded" in caplog.text
    assert run.signal("box", 2).task().result == [1, 2]


def test_a_buffered_signal_that_cannot_be_decoded_is_skipped_when_it_is_asked_for(drive: Any) -> None:
    def main() -> list[Any]:
        a.execute().get()
        return [signal_channel("box", int).try_receive("none"), *receives(1)]

    run = drive(main).signal("box", "bad", "worse", 1).task().complete("a").task()
    assert run.ended == ""
    assert len(run.journal[-1].skipped) == 2
    assert run.signal("box", 2).task().result == [1, 2]


def test_a_replay_obeys_what_was_skipped_and_decodes_it_no_more(drive: Any) -> None:
    run = drive(receives, 1).signal("box", "text", 1).task()

    def takes_text_now(times: int) -> list[Any]:
        box = signal_channel("box")
        return [box.receive() for _ in range(times)]

    replay(takes_text_now, run.journal)
    with pytest.raises(derecho.NondeterminismError):
        replay(lambda times: [], run.journal)


def test_a_replay_of_a_live_skip_skips_again_also_from_the_buffer(drive: Any) -> None:
    def main(times: int) -> list[int]:
        a.execute().get()
        return receives(times)

    run = drive(main, 1).signal("box", "bad", 1).complete("a").task()
    assert run.result == [1]
    replay(main, run.journal, strict=True)


@pytest.mark.parametrize("waits_first", [True, False])
def test_a_recorded_signal_that_no_longer_decodes_blocks_the_run(drive: Any, waits_first: bool) -> None:
    def takes(times: int, type: Any) -> list[Any]:
        if not waits_first:
            a.execute().get()
        box = signal_channel("box", type)
        return [box.receive() for _ in range(times)]

    run = drive(lambda times: takes(times, Any), 1).signal("box", "text")
    run = run.task() if waits_first else run.complete("a").task()
    assert run.ended == 'completed ["text"]'

    def catches_all(times: int) -> Any:
        try:
            return takes(times, int)
        except BaseException:
            return ["text"]

    with pytest.raises(derecho.DerechoError, match="signal 'box'"):
        replay(catches_all, run.journal)


def test_an_api_call_while_a_signal_is_decoded_is_refused_wherever_that_is(drive: Any) -> None:
    class Codec(derecho.JSONCodec):
        def decode(self, data: bytes, type: Any) -> Any:
            if data == b'"call"':
                signal_channel("box").try_receive()
            return super().decode(data, type)

    def main() -> list[Any]:
        box = signal_channel("box")
        first = box.receive()
        a.execute().get()
        return [first, box.try_receive(), box.try_receive()]

    run = drive(main, codec=Codec()).signal("box", "call", 1, "call", 2).task()
    assert len(run.journal[-1].skipped) == 1, "the one that found a waiting fiber"
    assert run.complete("a").task().result == [1, 2, None]
    assert len(run.journal[-1].skipped) == 1, "the one from the buffer"


def test_a_signal_to_another_workflow_is_a_command(drive: Any) -> None:
    def main() -> None:
        derecho.signal_external("order-2", "poke", {"n": 1})

    run = drive(main)
    assert run.commands == ["signal poke to order-2", "completed null"]
    assert run.journal[-3].payload == b'{"n":1}'


def test_unread_signals_are_counted(drive: Any) -> None:
    def main() -> Any:
        return signal_channel("box").receive()

    run = drive(main).signal("box", 1, 2, 3).signal("other", 4).task()
    assert run.live.unread_signals == 3


def test_a_hand_made_journal_with_a_skipped_signal_replays() -> None:
    signals = [SignalReceived(signal_name="box", payload=data, sent_at_ns=1) for data in (b"broken", b"7")]
    journal = hand_made(([started(1)], []), (signals, [WorkflowCompleted(result=b"[7]")]))
    with pytest.raises(derecho.DerechoError, match="signal 'box'"):
        replay(receives, journal)
    assert isinstance(journal[-1], WorkflowTaskCompleted)
    journal[-1] = WorkflowTaskCompleted(id=journal[-1].id, scheduled_by_id=5, skipped=(signals[0].id,))
    replay(receives, journal, strict=True)
