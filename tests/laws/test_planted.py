"""Every law can fail: with a bug planted in the engine it turns red, and says its name."""

from __future__ import annotations

import logging

import pytest

from tests.laws.corpus import CORPUS
from tests.laws.laws import LawBroken, check_r1, check_r2, check_r4, check_r5
from tests.laws.lives import live
from tests.laws.plants import PLANTS, Plant
from tests.laws.stores import MakeStores, memory

# Those of R3 have processes of their own, in `test_laws`.
HERE = [
    pytest.param(name, marks=pytest.mark.slow if plant.law in ("R4", "R5") else ())
    for name, plant in PLANTS.items()
    if plant.law != "R3"
]


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)


@pytest.mark.parametrize("name", HERE)
def test_the_law_turns_red(name: str, monkeypatch: pytest.MonkeyPatch, sqlite: MakeStores) -> None:
    plant = PLANTS[name]
    keep_the_law(plant, sqlite)
    plant.plant(monkeypatch.setattr)
    with pytest.raises(LawBroken, match=rf"^{plant.law} broken "):
        keep_the_law(plant, sqlite)


def keep_the_law(plant: Plant, sqlite: MakeStores) -> None:
    for shape in (CORPUS[name] for name in plant.shapes):
        if plant.law == "R1":
            check_r1(live(shape))
        elif plant.law == "R2":
            check_r2(live(shape))
        elif plant.law == "R4":
            check_r4(shape, memory, 200)
        else:
            check_r5(shape, {"memory": memory, "sqlite": sqlite})


def test_every_law_has_a_plant() -> None:
    assert {plant.law for plant in PLANTS.values()} == {"R1", "R2", "R3", "R4", "R5"}
    for plant in PLANTS.values():
        assert set(plant.shapes) <= set(CORPUS)
