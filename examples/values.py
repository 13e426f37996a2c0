"""Values that must be the same on every replay: ids, random numbers, the time, a small reading from outside."""

import os

import derecho
from derecho import Engine, SQLiteStore, replay, workflow


@workflow
def draw(players: list[str]) -> dict[str, str]:
    return {
        "ticket": str(derecho.uuid4()),  # From the run's own seed: no event, no network.
        "winner": derecho.random().choice(players),
        "drawn_at": derecho.now().isoformat(),
        # Called once, recorded, and never again. For anything slow or that can fail, use an activity.
        "drawn_by": str(derecho.side_effect(os.getpid)),
    }


if __name__ == "__main__":
    with Engine(SQLiteStore("draw.db"), workflows=[draw]) as engine:
        run = engine.client.start_workflow(draw, "draw-1", ["Ada", "Grace", "Edsger"])
        result = run.get()
        print(f"{result['winner']} wins with ticket {result['ticket']}")
        print(f"the same on replay: {replay(draw, run.events()).result == result}")
