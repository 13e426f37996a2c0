"""What a workflow can ask about itself: now, info, its logger, whether it is cancelled."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import UTC
from typing import Any

import pytest

import derecho
from derecho import spawn
from derecho.clock import to_datetime
from derecho.replayer import RunSettings, open_run
from tests.core.driver import START_NS, S, a, replay


def test_info_says_who_the_run_is(drive: Any) -> None:
    seen: list[derecho.WorkflowInfo] = []
    drive(lambda: seen.append(derecho.info()))
    assert seen == [
        derecho.WorkflowInfo(
            workflow_id="order-1",
            run_id="run-1",
            workflow_type="program",
            start_time=to_datetime(START_NS),
            parent=None,
            history_length=1,
            replaying=False,
        )
    ]


def test_the_history_length_is_the_last_visible_event_live_and_on_replay(drive: Any) -> None:
    seen: list[tuple[int, bool]] = []

    def main() -> None:
        for _ in range(2):
            seen.append((derecho.info().history_length, derecho.info().replaying))
            a()

    run = drive(main).complete("a").task().complete("a").task()
    live, seen[:] = list(seen), []
    replay(main, run.journal)
    assert [length for length, _ in live] == [length for length, _ in seen]
    assert [again for _, again in live + seen] == [False, False, True, True]


def test_a_child_knows_its_parent(drive: Any) -> None:
    run = drive(lambda: None)
    first = replace(run.journal[0], parent={"workflow_id": "mother", "run_id": "r", "event_id": 4})
    seen: list[str | None] = []
    replay(lambda: seen.append(derecho.info().parent), [first, *run.journal[1:]])
    assert seen == ["mother"]


def test_now_is_the_time_of_the_task_in_utc_and_the_same_on_replay(drive: Any) -> None:
    def main() -> list[str]:
        seen = [derecho.now()]
        a()
        seen.append(derecho.now())
        assert all(moment.tzinfo is UTC for moment in seen)
        return [moment.isoformat() for moment in seen]

    run = drive(main)
    run.now_ns += 7 * S
    result = run.complete("a").task().result
    assert result == [to_datetime(START_NS).isoformat(), to_datetime(START_NS + 7 * S).isoformat()]
    replay(main, run.journal, strict=True)


def test_the_workflow_time_never_goes_back(drive: Any) -> None:
    def main() -> bool:
        before = derecho.now()
        a()
        return derecho.now() >= before

    run = drive(main)
    run.now_ns -= 3600 * S
    assert run.complete("a").task().result is True


# --- the logger


def says() -> None:
    derecho.logger.info("one of %s", "two", extra={"mine": 1})
    a()
    spawn(lambda: derecho.logger.warning("two")).get()


@pytest.fixture
def heard(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> list[logging.LogRecord]:
    caplog.set_level(logging.INFO, "derecho.workflow")
    records: list[logging.LogRecord] = []
    monkeypatch.setattr(caplog.handler, "emit", records.append)
    return records


def test_the_logger_says_everything_once_with_the_ids_of_the_run(drive: Any, heard: Any) -> None:
    run = drive(says).complete("a").task()
    assert [record.getMessage() for record in heard] == ["one of two", "two"]
    for record in heard:
        assert (record.workflow_id, record.run_id, record.workflow_type) == ("order-1", "run-1", "program")
    assert heard[0].mine == 1
    replay(says, run.journal)
    assert len(heard) == 2


def test_the_logger_speaks_again_where_the_replay_ends(drive: Any, heard: Any) -> None:
    run = drive(says).complete("a")
    heard.clear()
    live, unseen = open_run(run.definition, run.journal, RunSettings())
    assert heard == []
    live.run_task(unseen, START_NS, "worker")
    live.close()
    assert [record.getMessage() for record in heard] == ["two"]


def test_the_logger_obeys_its_level_and_works_outside_workflows(heard: Any) -> None:
    derecho.logger.debug("not heard")
    derecho.logger.info("outside")
    [record] = heard
    assert record.getMessage() == "outside"
    assert not hasattr(record, "workflow_id")
    assert derecho.logger.isEnabledFor(logging.INFO)


def test_errors_of_fibers_and_skipped_signals_are_silent_on_replay(drive: Any, heard: Any) -> None:
    def main() -> None:
        def fails() -> None:
            raise ValueError

        derecho.select(spawn(fails)).exception()
        derecho.signal_channel("box", int).receive()

    run = drive(main).signal("box", "bad", 1).task()
    assert len(heard) == 2
    replay(main, run.journal)
    assert len(heard) == 2


def test_a_logger_of_the_engine_gets_what_derecho_says_of_a_run(drive: Any, caplog: Any) -> None:
    def fails() -> None:
        raise ValueError

    drive(lambda: derecho.select(spawn(fails)).exception() and None, logger=logging.getLogger("mine"))
    assert [record.name for record in caplog.records] == ["mine"]


# --- cancellation


def test_is_cancelled_and_cancelled_tell_of_the_request(drive: Any) -> None:
    def main() -> list[Any]:
        before = [derecho.is_cancelled(), derecho.cancelled().done()]
        asked = derecho.cancelled().get()
        return [*before, derecho.is_cancelled(), asked.reason]

    assert drive(main, cooperative=True).cancel("stop").task().result == [False, False, True, "stop"]


def test_sites_are_the_lines_of_workflow_code_that_asked(drive: Any) -> None:
    def deeper() -> None:
        a.execute()

    def main() -> None:
        deeper()
        derecho.sleep(1)

    run = drive(main)
    first, second = run.journal[3:5]
    line = deeper.__code__.co_firstlineno + 1
    assert first.site == f"test_context.py:{line}"
    assert second.site == f"test_context.py:{main.__code__.co_firstlineno + 2}"


def test_the_end_of_a_run_has_no_site(drive: Any) -> None:
    assert drive(lambda: 1).journal[-2].site == ""


def test_functions_that_look_alike_in_two_files_have_their_own_sites(drive: Any, tmp_path: Any) -> None:
    def workflow_in(name: str) -> Any:
        source = "import derecho\ndef main():\n    derecho.sleep(1)\n"
        space: dict[str, Any] = {}
        exec(compile(source, str(tmp_path / name), "exec"), space)
        return space["main"]

    sites = [drive(workflow_in(name)).journal[3].site for name in ("first.py", "second.py")]
    assert sites == ["first.py:3", "second.py:3"]
