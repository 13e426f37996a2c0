"""A worker process that finishes what it does when it is told to stop: `Engine.run` and SIGTERM."""

import os
import signal
import threading
import time

from derecho import Engine, SQLiteStore, activity, workflow


@activity
def print_page(number: int) -> int:
    time.sleep(0.5)
    print(f"page {number} is printed", flush=True)
    return number


@workflow
def book(pages: int) -> int:
    return sum(print_page(number) for number in range(1, pages + 1))


if __name__ == "__main__":
    store = SQLiteStore("book.db")
    engine = Engine(store, workflows=[book], activities=[print_page])
    engine.client.start_workflow(book, f"book-{os.getpid()}", 1000)
    # In place of your supervisor (systemd, Docker, Kubernetes), which sends this when it wants you to stop.
    threading.Timer(0.7, os.kill, (os.getpid(), signal.SIGTERM)).start()

    engine.run()  # Until SIGTERM or Ctrl-C. The page that is being printed is finished, no other is begun.

    store.close()
    print("stopped; the rest of the book is printed after the next start")
