import json
import re
import tomllib
from dataclasses import replace

import numpy as np
import pytest
import torch

from companion import runs
from companion.compute import pick_compute
from companion.detection.metrics import pr_auc
from companion.estimators import FaultClassifier
from companion.experiments import NAMES, casting, casting_detectors, classifier, get_experiment, runner
from companion.experiments.base import REPLAY_STEPS, TABLE, Context
from companion.experiments.degradation import shrink
from companion.experiments.runner import execute
from companion.inspection import predict
from companion.runs import RECORDED, RunError, library_versions, load_run, weights_path
from tests.small_data import CONTEXT, CPU

OF_A_LIBRARY = {"table_realmlp"}  # its net is not trained by our loop, and the library loads slowly
RECORDED_PATHS = sorted(RECORDED.glob("*.json"))
# experiments of one chapter load the same data, which one process keeps
REPLAYED = [
    pytest.param(
        path, marks=pytest.mark.xdist_group(TABLE[path.stem.partition("-")[0]]["module"].split("_")[0])
    )
    for path in RECORDED_PATHS
    if path.stem.partition("-")[0] not in OF_A_LIBRARY
]

# fields that a seed chose or asked for, and kinds of attack that its generated test part has
FOUND_BY_A_SEED = r"one field\.(?!test_|validation_)| by |_accuracy$|-\w+_roc_auc$"


@pytest.mark.parametrize("path", RECORDED_PATHS, ids=lambda path: path.stem)
def test_a_recorded_run_belongs_to_todays_experiment(path):
    run = load_run(path)
    experiment = get_experiment(run.experiment)
    assert path.stem == f"{run.experiment}-{run.scale}-{run.device}"
    assert run.config == experiment.config(run.scale, run.device).model_dump(mode="json")
    # no stand-in in the place of real data
    assert run.data.synthetic == run.data.name.startswith("generated")
    assert run.commit is not None
    assert not run.commit.endswith("-dirty")
    assert len(set(run.seeds)) == len(run.seeds) >= 1
    for result in run.results:
        values = [*result.metrics.values(), *(v for curve in result.curves.values() for v in curve)]
        assert np.isfinite(values).all()
        metrics = result.metrics.keys() ^ run.results[0].metrics.keys()
        assert all(re.search(FOUND_BY_A_SEED, key) for key in metrics)


class FirstNet(Exception):
    pass


class Replay(Context):
    """Ends a run after the first steps of its first net, by an exception with its name and losses."""

    def _around(self, name):
        return super()._around(name) | {"stop_after": REPLAY_STEPS}

    def fit(self, name, *data, **around):
        raise FirstNet(name, super().fit(name, *data).train["loss"])

    def fit_estimator(self, name, *data, **options):
        raise FirstNet(name, super().fit_estimator(name, *data, **options).history_.train["loss"])


def replay(experiment, config, seed, compute):
    try:
        experiment.run(config, seed, Replay(experiment.compute(compute), progress=False))
    except FirstNet as first:
        return first.args


@pytest.mark.parametrize("path", REPLAYED, ids=lambda path: path.stem)
def test_the_first_steps_of_a_recorded_run_can_be_repeated(path):
    run = load_run(path)
    experiment = get_experiment(run.experiment)
    if experiment.data().digest != run.data.digest:
        pytest.skip("the data of the recorded run are out of reach here")
    config = type(experiment.scales["full"]).model_validate(run.config)
    name, losses = replay(experiment, config, run.seeds[0], pick_compute("cpu"))
    curves = {name: curve for name, curve in run.results[0].curves.items() if name.endswith("first_loss")}
    if not curves:
        pytest.skip("recorded before experiments kept their first losses")
    # some records tell the first losses of the first net only, under a shorter name
    recorded = curves.get(f"{name}.first_loss", next(iter(curves.values())))
    # other processors round differently, and precision may differ; other data or code differ by far more
    np.testing.assert_allclose(losses[: len(recorded)], recorded, rtol=0.03)


@pytest.mark.parametrize("path", RECORDED_PATHS, ids=lambda path: path.stem)
def test_the_weights_of_a_recorded_run_are_there(path):
    run = load_run(path)
    for part in run.weights:
        assert weights_path(run, part).stat().st_size < 10e6
    kept = {f"{run.stem}.{part}.safetensors" for part in run.weights}
    assert {p.name for p in RECORDED.glob(f"{run.stem}.*.safetensors")} == kept


def test_the_recorded_classifier_errs_as_recorded(cifar10):
    run = load_run("classifier-full-cpu")
    if cifar10.digest != run.data.digest:
        pytest.skip("the data of the recorded run are out of reach here")
    trained = classifier.trained_classifier(CPU)
    images, labels = cifar10.validation.images[:500], cifar10.validation.labels[:500]
    answers = predict(trained.model, images, trained.objective, CPU).argmax(dim=1)
    error = float((answers != labels).float().mean())
    assert error == pytest.approx(run.results[0].metrics["validation_error"], abs=0.04)
    assert trained.class_names == cifar10.class_names


@pytest.mark.xdist_group("casting")
def test_the_recorded_fault_classifier_scores_as_recorded(real):
    run, data = load_run("casting_controls-full-cpu"), casting_detectors.load()
    real(lambda: data.images)
    model = FaultClassifier.load(weights_path(run, "net"), CPU)
    recorded = {name: run.results[0].metrics[f"both.{name}"] for name in ("pr_auc", "disturbed.threshold")}
    assert model.limit() == (pytest.approx(recorded["disturbed.threshold"], rel=1e-5), 0.01)
    scores = model.decision_function(data.test.color)
    assert pr_auc(data.labels["test"], scores) == pytest.approx(recorded["pr_auc"], abs=1e-4)
    missed = np.flatnonzero((data.labels["test"] == 1) & (scores <= model.threshold_))
    assert missed.tolist() == run.results[0].curves["both.missed"]


def test_the_package_carries_its_tables_texts_and_recorded_runs():
    about = tomllib.loads((RECORDED.parents[1] / "pyproject.toml").read_text("utf8"))
    patterns = about["tool"]["setuptools"]["package-data"]["companion"]
    carried = {path for pattern in patterns for path in RECORDED.parent.glob(pattern)}
    code = {".py", ".pyc"}
    assert carried == {p for p in RECORDED.parent.rglob("*") if p.is_file() and p.suffix not in code}


# what there are metrics of, and which nets' seconds are told
MEASURED = {
    "casting": {*casting.DISCRIMINATORS, "pca", "published", "memory"},
    "event_detection": {
        f"zeek.{name}" for name in ("rate", "class rarity", "FRaC", "one field", "untrained surprise",
                                    "converged surprise")
    },
}  # fmt: skip
TRAINED = {"casting": {*casting.DISCRIMINATORS, "published", "moved", "residual"}}


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.xdist_group("realmlp")) if n in OF_A_LIBRARY else n for n in NAMES],
)
def test_every_experiment_has_its_scales_and_runs_at_smoke(name, small):
    experiment = get_experiment(name)
    for scale in ("smoke", "live", "full"):
        for device in ("cpu", "cuda"):
            assert isinstance(experiment.config(scale, device), type(experiment.scales["full"]))
    result = experiment.run(experiment.config("smoke"), 0, CONTEXT)
    assert result.metrics == experiment.run(experiment.config("smoke"), 0, CONTEXT).metrics
    assert np.isfinite(list(result.metrics.values())).all()
    assert MEASURED.get(name, set()) <= {key.rpartition(".")[0] for key in result.metrics}
    assert TRAINED.get(name, result.seconds.keys()) == result.seconds.keys()
    assert all(0 <= value <= 1 for key, value in result.metrics.items() if "_recall_at_" in key)
    assert result.metrics.get("zeek.class rarity.test_roc_auc", 1) > 0.9
    found = ("missed", "flagged")  # images, of which there may be none
    assert all(len(curve) > 0 for where, curve in result.curves.items() if not where.endswith(found))
    if name in OF_A_LIBRARY:
        return
    first, other = (replay(experiment, experiment.config("smoke"), seed, CPU) for seed in (0, 1))
    curves = [curve for curve_name, curve in result.curves.items() if curve_name.endswith("first_loss")]
    assert first[1] in curves
    assert other[1] not in curves


DEGRADATION = get_experiment("degradation")
FEW = DEGRADATION.config("smoke").model_copy(update={"nets": ("plain-8",)})
DEGRADATION = replace(DEGRADATION, scales={"smoke": FEW})


def test_peeking_is_measured_and_decides_nothing(small):
    peeking = FEW.model_copy(update={"peek": True, "fit": FEW.fit.model_copy(update={"eval_every": 3})})
    without, result = (DEGRADATION.run(config, 0, CONTEXT) for config in (FEW, peeking))
    assert len(result.curves["plain-8.test_error"]) == 2
    assert result.metrics == without.metrics


def test_shrinking_averages():
    images = torch.tensor([[0, 2], [4, 7]], dtype=torch.uint8).repeat(1, 1, 4, 4)
    assert shrink(images, 4).tolist() == [[[[3] * 4] * 4]]
    assert shrink(images, 8) is images


def executed(folder, *seeds, experiment=DEGRADATION, resume=False):
    path = execute(experiment, "smoke", [*seeds], compute=CPU, out=folder, progress=False, resume=resume)
    assert path.name == "degradation-smoke-cpu.json"
    return load_run(path)


def test_a_run_is_recorded_with_its_provenance(tmp_path, small):
    run = executed(tmp_path, 0, 1)
    assert run.seeds == [0, 1]
    assert run.metric("plain-8.train_loss").shape == (2,)
    assert run.curve("plain-8.loss").shape == (2, 6)
    assert run.precision == "float32"
    assert run.threads == torch.get_num_threads()
    assert run.libraries["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert run.finished.startswith("20")
    assert run.data.digest == DEGRADATION.data().digest


def test_resuming_keeps_finished_seeds_and_starting_anew_does_not(tmp_path, small):
    first, calls = executed(tmp_path, 0), []

    def counted(config, seed, context):
        calls.append(seed)
        return DEGRADATION.run(config, seed, context)

    watched = replace(DEGRADATION, run=counted)
    more = executed(tmp_path, 0, 1, experiment=watched, resume=True)
    assert calls == [1]
    assert more.results[0] == first.results[0]
    executed(tmp_path, 0, experiment=watched)
    assert calls == [1, 0]


def test_a_finished_seed_of_other_conditions_is_not_signed_with_todays_commit(tmp_path, small, monkeypatch):
    executed(tmp_path, 0)
    today, others = runner.conditions, {"libraries": library_versions() | {"torch": "0.1"}, "threads": 99}
    monkeypatch.setattr(runner, "conditions", lambda *given: today(*given) | others)
    told = r"other conditions: threads was \d+, is 99; libraries.torch was \S+, is 0.1\. .*without --resume"
    with pytest.raises(RunError, match=told):
        executed(tmp_path, 0, 1, resume=True)
    assert executed(tmp_path, 0, 1).seeds == [0, 1]  # anew: nothing is left of the old
    monkeypatch.setattr(runner, "conditions", today)
    with pytest.raises(RunError, match="other conditions"):
        executed(tmp_path, 0, resume=True)


def test_the_digest_of_the_source_changes_with_any_module(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "PACKAGE", tmp_path)
    digests = set()
    for name, text in (("a.py", "x"), ("a.py", "y"), ("b.py", "x"), ("recorded.json", "x")):
        (tmp_path / name).write_text(text, "utf8")
        digests.add(runs.source_digest.__wrapped__())
    assert len(digests) == 3  # a data file is no source


def test_a_run_that_is_missing_or_damaged_is_named_with_those_that_are_there(tmp_path):
    with pytest.raises(RunError, match="degradation-full-cpu"):
        load_run("nothing")
    with pytest.raises(RunError, match="none"):
        load_run(tmp_path / "nothing.json")
    whole, path = RECORDED_PATHS[0].read_bytes(), tmp_path / "run.json"
    other = json.dumps(json.loads(whole) | {"version": 2}).encode()
    for damaged in (whole[:-50], other, b"\xff\xfe\x00"):
        path.write_bytes(damaged)
        with pytest.raises(RunError, match="not a recorded run"):
            load_run(path)
