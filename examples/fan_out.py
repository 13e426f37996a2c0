"""Many activities at once, but only so many at a time."""

from derecho import Engine, SQLiteStore, activity, gather, spawn, workflow

LANES = 3
at_work: list[str] = []
counts: list[int] = []


@activity
def resize(picture: str) -> str:
    at_work.append(picture)
    counts.append(len(at_work))
    done = picture.replace(".png", "-small.png")
    at_work.remove(picture)
    return done


@workflow
def gallery(pictures: list[str]) -> list[str]:
    small = [""] * len(pictures)
    waiting = iter(range(len(pictures)))

    def lane() -> None:  # A fiber. They take turns, so they need no locks.
        for number in waiting:
            small[number] = resize(pictures[number])

    gather(*[spawn(lane) for _ in range(LANES)])
    return small


if __name__ == "__main__":
    with Engine(SQLiteStore("gallery.db"), workflows=[gallery], activities=[resize]) as engine:
        names = [f"{number}.png" for number in range(20)]
        small = engine.client.start_workflow(gallery, "gallery-1", names).get()
        print(f"{len(small)} pictures, from {small[0]} to {small[-1]}")
        print(f"never more than {LANES} at a time: {max(counts) <= LANES}")
