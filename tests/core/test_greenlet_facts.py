"""Facts of greenlet and Python that the core is built on: canaries, which tell of an upgrade that changed one."""

from __future__ import annotations

import contextvars
import gc
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import greenlet
import pytest

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="default")


def parent() -> greenlet.greenlet:
    found = greenlet.getcurrent().parent
    assert found is not None
    return found


def test_the_exit_of_a_dropped_greenlet_is_no_ordinary_exception() -> None:
    assert issubclass(greenlet.GreenletExit, BaseException)
    assert not issubclass(greenlet.GreenletExit, Exception)


def test_dropping_the_last_reference_runs_finally_at_once_in_the_context_of_the_dropper() -> None:
    seen: list[str] = []

    def body() -> None:
        try:
            parent().switch()
        finally:
            seen.append(variable.get())

    carrier = greenlet.greenlet(body)
    carrier.switch()
    del carrier
    assert seen == ["default"]


def test_a_bare_except_swallows_the_exit_and_the_code_goes_on() -> None:
    seen: list[str] = []

    def body() -> None:
        try:
            parent().switch()
        except BaseException as error:
            seen.append(type(error).__name__)
        seen.append("went on")

    carrier = greenlet.greenlet(body)
    carrier.switch()
    del carrier
    assert seen == ["GreenletExit", "went on"]


def test_dropping_it_on_another_thread_runs_finally_later_in_the_owner() -> None:
    seen: list[int] = []

    def body() -> None:
        try:
            parent().switch()
        finally:
            seen.append(threading.get_ident())

    kept = [greenlet.greenlet(body)]
    kept[0].switch()
    thread = threading.Thread(target=kept.clear)
    thread.start()
    thread.join()
    assert seen == []
    greenlet.greenlet(lambda: None).switch()
    assert seen == [threading.get_ident()]


def test_if_the_owner_thread_is_dead_finally_never_runs() -> None:
    seen: list[str] = []
    kept: list[greenlet.greenlet] = []

    def body() -> None:
        try:
            parent().switch()
        finally:
            seen.append("ran")

    def owner() -> None:
        kept.append(greenlet.greenlet(body))
        kept[0].switch()

    thread = threading.Thread(target=owner)
    thread.start()
    thread.join()
    kept.clear()
    gc.collect()
    greenlet.greenlet(lambda: None).switch()
    assert seen == []


def test_a_greenlet_cannot_be_resumed_on_another_thread() -> None:
    carrier = greenlet.greenlet(lambda: parent().switch())
    carrier.switch()
    errors: list[BaseException] = []

    def elsewhere() -> None:
        try:
            carrier.switch()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert isinstance(errors[0], greenlet.error)


def test_a_switch_in_finally_keeps_the_greenlet_alive() -> None:
    def body() -> None:
        try:
            parent().switch()
        finally:
            parent().switch("still here")

    carrier = greenlet.greenlet(body)
    carrier.switch()
    assert carrier.throw() == "still here"
    assert not carrier.dead
    carrier.switch()
    assert carrier.dead


def test_a_new_greenlet_sees_an_empty_context() -> None:
    token = variable.set("outside")
    try:
        assert greenlet.greenlet(variable.get).switch() == "default"
    finally:
        variable.reset(token)


def test_a_generator_suspended_by_a_switch_is_executing_for_others() -> None:
    def numbers() -> Iterator[int]:
        parent().switch()
        yield 1

    generator = numbers()
    carrier = greenlet.greenlet(lambda: next(generator))
    carrier.switch()
    with pytest.raises(ValueError, match="already executing"):
        next(generator)
    assert carrier.switch() == 1


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
def test_an_exception_goes_to_the_parent(error: type[BaseException]) -> None:
    def body() -> None:
        raise error

    with pytest.raises(error):
        greenlet.greenlet(body).switch()


def test_recursion_without_end_stays_inside() -> None:
    def endless() -> None:
        endless()

    def body() -> str:
        try:
            endless()
        except RecursionError:
            return "inside"
        return ""

    assert greenlet.greenlet(body).switch() == "inside"


def test_a_suspended_greenlet_in_a_cycle_is_never_collected() -> None:
    class Marked:
        carrier: Any

    def make() -> weakref.ref[Marked]:
        marked = Marked()

        def body() -> None:
            assert marked is not None
            parent().switch()

        marked.carrier = greenlet.greenlet(body)
        marked.carrier.switch()
        return weakref.ref(marked)

    kept = make()
    gc.collect()
    found = kept()
    assert found is not None
    found.carrier.switch()


def test_a_dead_greenlet_gives_control_to_its_parent_whoever_switched_to_it() -> None:
    seen: list[str] = []
    carrier = greenlet.greenlet(lambda: parent().switch())
    carrier.switch()

    def elsewhere() -> None:
        carrier.switch()
        seen.append("came back here")

    middle = greenlet.greenlet(elsewhere)
    middle.switch()
    assert seen == [], "this is why Pool.close sets the parent"
    middle.switch()
    assert seen == ["came back here"]


def test_the_handled_exception_belongs_to_the_greenlet() -> None:
    def body() -> list[Any]:
        before = sys.exc_info()[1]
        try:
            raise KeyError
        except KeyError as error:
            parent().switch()
            return [before, sys.exc_info()[1] is error]

    carrier = greenlet.greenlet(body)
    try:
        raise ValueError
    except ValueError as error:
        carrier.switch()
        kept = sys.exc_info()[1] is error
    assert kept
    assert carrier.switch() == [None, True]


def test_a_suspended_greenlet_has_a_frame_and_its_stack_ends_with_its_function() -> None:
    def body() -> None:
        parent().switch()

    carrier = greenlet.greenlet(body)
    carrier.switch()
    frame = carrier.gr_frame
    assert frame is not None
    names = []
    while frame is not None:
        names.append(frame.f_code.co_name)
        frame = frame.f_back
    assert names[-1] == "body"
    carrier.switch()


def test_a_callback_set_as_a_trace_sees_switches() -> None:
    seen: list[str] = []
    callback: Callable[..., None] = lambda event, args: seen.append(event)  # noqa: E731 - As greenlet wants it.
    before = greenlet.settrace(callback)
    try:
        greenlet.greenlet(lambda: None).switch()
    finally:
        greenlet.settrace(before)
    assert seen == ["switch", "switch"]
