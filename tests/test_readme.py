"""The examples of the README run as they stand, on small data of the kind that they are for."""

import re
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from companion.data.synthetic_events import EventConfig, generate_events
from tests.test_cli import call

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf8")
EXAMPLES = re.findall(r"```(bash|python)\n(.*?)```", README.partition("## On your own data")[2], re.DOTALL)
LESS_TRAINING = {("fit", "images"): ["--epochs", "1"]} | {
    ("fit", what): ["--steps", "5"] for what in ("events", "rows")
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(language: str, number: int) -> str:
    """Run the example with this number among those of a language, and return what it says.

    All that is added are options for a shorter training, on the processor.
    """
    source = [text for kind, text in EXAMPLES if kind == language][number]
    told = []
    for line in source.splitlines():
        program, *arguments = shlex.split(line, comments=True)
        assert program == "companion"
        result = call(*arguments, *LESS_TRAINING.get(tuple(arguments[:2]), []))
        assert result.exit_code == 0, result.output
        told.append(result.output)
    return "\n".join(told)


def test_the_examples_are_those_that_are_run_here():
    assert [kind for kind, _ in EXAMPLES] == ["bash", "bash", "bash", "python"]


def test_images(folder):
    rng = np.random.default_rng(0)
    for name, count in (("normal", 150), ("new", 5)):
        (folder / "photos" / name).mkdir(parents=True)
        for number in range(count):
            picture = Image.fromarray(rng.integers(0, 255, (40, 50, 3), dtype=np.uint8))
            picture.save(folder / "photos" / name / f"{number}.png")
    run("bash", 0)
    scores = pd.read_csv("report/scores.csv")
    assert len(scores) == 5
    assert np.isfinite(scores["score"]).all()
    assert (folder / "report" / "unusual.png").is_file()


def test_events(folder):
    for name, seed, count in (("events.parquet", 0, 6000), ("new.jsonl", 1, 300)):
        frame = generate_events(EventConfig(num_events=count, seed=seed)).frame
        if name.endswith(".parquet"):
            frame.to_parquet(name)
        else:
            frame.to_json(name, orient="records", lines=True)
    told = run("bash", 1)
    assert "\n1. " in told
    assert "expected" in told
    assert len(pd.read_csv("scores.csv")) == 300


def test_rows(folder):
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"heat": rng.normal(60, 5, 900), "mode": rng.choice(["idle", "run"], 900)})
    rows.iloc[:800].to_csv("usual.csv", index=False)
    rows.iloc[800:].assign(heat=lambda each: each["heat"].mask(each.index == 805, 600)).to_csv(
        "new.csv", index=False
    )
    run("bash", 2)
    scores = pd.read_csv("scores.csv")
    assert scores["score"].argmax() == 5


def test_signals(folder, capsys):
    beats = np.sin(np.linspace(0, 6, 32)) + 0.1 * np.random.default_rng(0).normal(size=(300, 32))
    strange = beats[:4] * np.sign(np.linspace(-1, 1, 32))
    np.savetxt("beats.csv", beats[4:], delimiter=",")
    np.savetxt("new.csv", np.concatenate([strange, beats[:4]]), delimiter=",")
    (code,) = (text for kind, text in EXAMPLES if kind == "python")
    exec(compile(code, "README.md", "exec"), {})
    assert re.findall(r"\w+", capsys.readouterr().out)[:4] == ["True"] * 4


def test_its_table_of_folders_is_complete():
    told = set(re.findall(r"^(\w+)/ ", README, re.MULTILINE))
    assert told == {"book", "companion", "tests", "benchmarks", "tools"}
    assert all((ROOT / name).is_dir() for name in told)


def test_its_commands_exist():
    makefile = (ROOT / "Makefile").read_text("utf8")
    told = [name for words in re.findall(r"\bmake((?: [a-z]+)+)", README) for name in words.split()]
    assert {"book", "test", "lint", "check", "serve", "notebooks"} <= set(told)
    for name in set(told):
        assert re.search(rf"^{name}:", makefile, re.MULTILINE), name
