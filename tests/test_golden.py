"""A guard while code moves: every experiment gives its golden numbers, on the machine that wrote them."""

from __future__ import annotations

import json

import pytest

from companion.experiments import NAMES
from tests.golden import PATH, machine, measure

GOLDEN = json.loads(PATH.read_text("utf8"))


@pytest.mark.skipif(GOLDEN["machine"] != machine(), reason="the golden numbers are another machine's")
@pytest.mark.parametrize("name", NAMES)
def test_an_experiment_still_gives_its_golden_numbers(name):
    measured, golden = measure(name), GOLDEN["metrics"][name]
    assert measured.keys() == golden.keys()
    numbers = {key: value for key, value in golden.items() if value is not None}
    assert {key: measured[key] for key in numbers} == pytest.approx(numbers, abs=1e-6, rel=1e-6, nan_ok=True)
