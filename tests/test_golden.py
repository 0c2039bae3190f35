"""A guard while code moves: on the machine that wrote them, every experiment gives its golden numbers again."""

from __future__ import annotations

import json

import pytest

from companion.experiments import NAMES
from tests.golden import PATH, machine, measure

GOLDEN = json.loads(PATH.read_text("utf8"))


@pytest.mark.skipif(GOLDEN["machine"] != machine(), reason="the golden numbers are another machine's")
@pytest.mark.parametrize("name", NAMES)
def test_an_experiment_still_gives_its_golden_numbers(name):
    measured = measure(name)
    assert measured.keys() == GOLDEN["metrics"][name].keys()
    assert measured == pytest.approx(GOLDEN["metrics"][name], abs=1e-6, rel=1e-6)
