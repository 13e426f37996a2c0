"""Side effects, random numbers, and the calls that are pure reads."""

from __future__ import annotations

import random as standard_random
from typing import Any

import pytest

import derecho
from derecho import NotInWorkflowError, SideEffectError, side_effect, sleep, spawn, timer, uuid4, wait_for
from tests.core.driver import a, replay


def test_a_side_effect_is_called_once_and_recorded(drive: Any) -> None:
    calls: list[int] = []

    def draws(n: int, *, plus: int) -> int:
        calls.append(n)
        return n + plus

    def main() -> int:
        value = side_effect(draws, 40, plus=2)
        a.execute().get()
        return value

    run = drive(main)
    assert run.commands == ["side effect", "activity a"]
    assert run.complete("a").task().result == 42
    replay(main, run.journal, strict=True)
    assert calls == [40]


def test_the_first_execution_sees_what_a_replay_will_see(drive: Any) -> None:
    assert drive(lambda: side_effect(lambda: (1, {"x": (2,)})) == [1, {"x": [2]}]).result is True


def test_an_error_is_recorded_and_raised_again_without_a_second_call(drive: Any) -> None:
    calls: list[int] = []

    def breaks() -> None:
        calls.append(1)
        raise KeyError("gone")

    def main() -> list[str]:
        try:
            side_effect(breaks)
        except SideEffectError as error:
            return [error.type, error.message]
        return []

    run = drive(main)
    assert run.result == ["KeyError", "'gone'"]
    replay(main, run.journal, strict=True)
    assert calls == [1]


@pytest.mark.parametrize(
    ("fn", "type"),
    [
        (a.execute, "NotInWorkflowError"),
        (lambda: spawn(int), "NotInWorkflowError"),
        (lambda: sleep(1), "NotInWorkflowError"),
        (lambda: timer(1), "NotInWorkflowError"),
        (lambda: wait_for(lambda: True), "NotInWorkflowError"),
        (derecho.gather, "NotInWorkflowError"),
        (lambda: side_effect(int), "NotInWorkflowError"),
        (derecho.random, "NotInWorkflowError"),
        (uuid4, "NotInWorkflowError"),
        (lambda: derecho.signal_channel("box").try_receive(), "NotInWorkflowError"),
        (lambda: derecho.signal_external("x", "y"), "NotInWorkflowError"),
        (object, "CodecError"),
        (lambda: exec("raise SystemExit"), "SystemExit"),
        (lambda: exec("raise derecho.CancelledError", {"derecho": derecho}), "CancelledError"),
    ],
)
@pytest.mark.parametrize("caught", [True, False])
def test_whatever_goes_wrong_inside_is_recorded_so_that_the_journal_replays(
    drive: Any, fn: Any, type: str, caught: bool
) -> None:
    def main() -> str:
        try:
            side_effect(fn)
        except SideEffectError as error:
            if caught:
                return error.type
            raise
        return "no error"

    run = drive(main)
    assert (
        run.ended == f'completed "{type}"'
        if caught
        else run.ended.startswith(f"failed SideEffectError: {type}")
    )
    assert run.commands[:-1] == ["side effect"]
    replay(main, run.journal, strict=True)


def test_calls_work_again_after_a_refused_one(drive: Any) -> None:
    def main() -> Any:
        try:
            side_effect(a.execute)
        except SideEffectError:
            return a.execute().get()

    assert drive(main).complete("a", 1).task().result == 1


def test_a_recorded_value_that_cannot_be_decoded_blocks_the_run(drive: Any) -> None:
    class Broken(derecho.JSONCodec):
        def decode(self, data: bytes, type: Any) -> Any:
            if data == b'"recorded"':
                raise ValueError("cannot read this")
            return super().decode(data, type)

    def main() -> Any:
        try:
            return side_effect(lambda: "recorded")
        except BaseException:
            return "recorded"

    run = drive(main)
    with pytest.raises(derecho.DerechoError, match="cannot read this"):
        replay(main, run.journal, codec=Broken())


# --- random


def draws() -> list[Any]:
    numbers = derecho.random()
    first = [
        numbers.random(),
        numbers.randrange(1000),
        numbers.gauss(0, 1),
        numbers.choice("abc"),
        str(uuid4()),
    ]
    deck = list(range(10))
    numbers.shuffle(deck)
    a.execute().get()
    return [*first, deck, derecho.random().random(), str(uuid4()), derecho.random().randbytes(3).hex()]


def test_random_numbers_are_the_same_on_replay_and_emit_nothing(drive: Any) -> None:
    run = drive(draws)
    assert run.commands == ["activity a"]
    result = run.complete("a").task().result
    replay(draws, run.journal, strict=True)
    assert result[0] != result[6]


def test_random_numbers_differ_between_runs_and_depend_on_the_run_id_alone(drive: Any) -> None:
    one, same, other = (drive(draws, run_id=run_id).complete("a").task().result for run_id in ("x", "x", "y"))
    assert one == same
    assert one != other


def test_random_numbers_are_those_of_the_standard_library_seeded_with_the_run_id(drive: Any) -> None:
    assert drive(lambda: derecho.random().random(), run_id="r").result == standard_random.Random("r").random()


def test_random_numbers_are_refused_in_a_predicate(drive: Any) -> None:
    def main() -> str:
        numbers = derecho.random()
        refused = []
        for draw in (numbers.random, lambda: numbers.getrandbits(8), lambda: numbers.choice([1, 2]), uuid4):
            try:
                wait_for(draw)
            except NotInWorkflowError:
                refused.append(1)
        return str(len(refused))

    assert drive(main).result == "4"


def test_random_numbers_are_refused_in_a_side_effect_outside_and_in_another_run(drive: Any) -> None:
    kept: list[Any] = []

    def main() -> str:
        kept.append(derecho.random())
        try:
            side_effect(kept[0].random)
        except SideEffectError as error:
            return error.type
        return "drawn"

    def thief() -> str:
        try:
            kept[0].random()
        except NotInWorkflowError as error:
            return str(error)
        return "drawn"

    assert drive(main).result == "NotInWorkflowError"
    assert drive(thief).result.startswith("these random numbers belong to another run")
    with pytest.raises(NotInWorkflowError):
        kept[0].getrandbits(8)


def test_a_uuid_is_a_proper_random_one(drive: Any) -> None:
    def main() -> list[Any]:
        made = uuid4()
        return [made.version, made != uuid4()]

    assert drive(main).result == [4, True]


# --- pure reads in predicates and side effects


READS = [
    derecho.now,
    derecho.info,
    derecho.is_cancelled,
    derecho.cancelled,
    lambda: derecho.cancelled().done(),
]
ACTS = [
    a.execute,
    a,
    lambda: spawn(int),
    lambda: timer(5),
    lambda: sleep(5),
    lambda: wait_for(lambda: True),
    lambda: derecho.select(derecho.cancelled()),
    derecho.gather,
    lambda: derecho.as_completed([]),
    lambda: derecho.cancelled().get(),
    lambda: derecho.signal_channel("box").receive(),
    lambda: derecho.signal_channel("box").try_receive(),
    lambda: derecho.signal_external("x", "y"),
    lambda: side_effect(int),
    derecho.random,
]


@pytest.mark.parametrize("read", READS, ids=lambda read: "")
def test_pure_reads_are_allowed_in_predicates_and_side_effects(drive: Any, read: Any) -> None:
    def main() -> bool:
        side_effect(lambda: read() and None)
        return wait_for(lambda: read() or True)

    assert drive(main).result is True


@pytest.mark.parametrize("act", ACTS, ids=lambda call: "")
def test_calls_that_schedule_consume_or_block_raise_in_a_predicate(drive: Any, act: Any) -> None:
    def main() -> str:
        try:
            wait_for(act)
        except NotInWorkflowError as error:
            return str(error)
        return "allowed"

    run = drive(main)
    assert run.commands == [
        'completed "this call is not allowed inside a wait_for predicate, which must be a pure read"'
    ]


@pytest.mark.parametrize("act", ACTS, ids=lambda call: "")
def test_they_raise_as_well_when_the_hub_looks_at_the_predicate_again(drive: Any, act: Any) -> None:
    looks: list[int] = []

    def predicate() -> bool:
        looks.append(1)
        return len(looks) > 1 and bool(act())

    def main() -> str:
        spawn(a.execute().get)
        try:
            wait_for(predicate)
        except NotInWorkflowError:
            return "refused"
        return "allowed"

    assert drive(main).result == "refused"


@pytest.mark.parametrize("act", [*ACTS, *READS[:4]], ids=lambda call: "")
def test_every_call_raises_outside_workflow_code(act: Any) -> None:
    with pytest.raises(NotInWorkflowError):
        act()


def test_a_plain_function_of_an_activity_may_be_called_outside(drive: Any) -> None:
    @derecho.activity
    def doubles(n: int) -> int:
        return 2 * n

    assert doubles(4) == 8
    assert drive(lambda: doubles(4)).commands == ["activity doubles"]
    assert drive(lambda: side_effect(doubles.fn, 4)).result == 8
