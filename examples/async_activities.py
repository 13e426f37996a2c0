"""Activities may be `async def`: they share one event loop of the engine. Workflows call them like any other."""

import asyncio

from derecho import Engine, SQLiteStore, activity, gather, workflow


@activity(start_to_close_timeout=10)
async def fetch(url: str) -> int:
    await asyncio.sleep(0.1)  # Here you would await a client library.
    return len(url)


@workflow
def crawl(urls: list[str]) -> int:
    return sum(gather(*[fetch.execute(url) for url in urls]))


if __name__ == "__main__":
    with Engine(SQLiteStore("crawl.db"), workflows=[crawl], activities=[fetch], concurrency=100) as engine:
        urls = [f"https://example.org/{number:03}" for number in range(100)]
        # All hundred wait at the same time, on one thread.
        print(engine.client.start_workflow(crawl, "crawl-1", urls).get())
