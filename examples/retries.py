"""An activity that fails, is tried again, and goes on from its last heartbeat."""

from derecho import (
    ActivityError,
    Engine,
    NonRetryableError,
    RetryPolicy,
    SQLiteStore,
    activity,
    activity_info,
    heartbeat,
    workflow,
)

PATIENT = RetryPolicy(initial_interval=0.05, backoff_coefficient=2.0, max_attempts=5)


@activity(retry=PATIENT, start_to_close_timeout=30, heartbeat_timeout=5)
def copy_pages(pages: int) -> str:
    """Copy page by page; the first attempt breaks off in the middle."""
    info = activity_info()
    done = info.heartbeat_details or 0  # How far the attempt before came.
    begun_at = done
    while done < pages:
        if info.attempt == 1 and done == 3:
            raise ConnectionError("the line is dead")
        done += 1
        heartbeat(done)  # Also how a dead machine is noticed: none for 5 s, and the next attempt begins.
    return f"attempt {info.attempt} began at page {begun_at} and came to {done}"


@activity(retry=PATIENT)
def look_up(name: str) -> str:
    raise NonRetryableError(f"there is no {name}, and there will not be one")


@workflow
def copy(pages: int) -> list[str]:
    said = [copy_pages(pages)]
    try:
        look_up("dodo")
    except ActivityError as error:  # A failure is an exception, after the last attempt.
        said.append(f"{error.attempts} attempt: {error.message}")
    return said


if __name__ == "__main__":
    with Engine(SQLiteStore("retries.db"), workflows=[copy], activities=[copy_pages, look_up]) as engine:
        for line in engine.client.start_workflow(copy, "copy-1", 10).get():
            print(line)
