"""What model cards say besides the numbers of a run, a text for each experiment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class CardText:
    """What a card says besides the numbers of a run.

    Metrics of a run are called ``"<system>.<metric>"``, with ``_low`` and ``_high`` behind them where they
    have an interval, and at a threshold ``"<system>.<point>.tpr"`` and ``".tnr"``.

    Attributes:
        title: of the model.
        task: what it does, as the ``model-index`` names it.
        tags: of the front matter.
        dataset: name and, for people, a description of the data.
        data_licence: what is known of the data's terms.
        model: the system that the card is about.
        systems: how all systems of the table are called, the model's included.
        metrics: how the metrics of the table are called.
        points: how the operating points are called.
        description: one or more paragraphs, as the texts below.
        intended: what it is for.
        out_of_scope: what it is not for.
        training_data: of what it learned.
        procedure: from the run's config, how it learned.
        limits: one risk each.
    """

    title: str
    task: str
    tags: tuple[str, ...]
    dataset: tuple[str, str]
    data_licence: str
    model: str
    systems: Mapping[str, str]
    metrics: Mapping[str, str]
    points: Mapping[str, str]
    description: str
    intended: str
    out_of_scope: str
    training_data: str
    procedure: Callable[[Mapping[str, Any]], str]
    limits: tuple[str, ...]


def _waveforms_procedure(config: Mapping[str, Any]) -> str:
    widths = ", ".join(map(str, config["bottlenecks"]))
    return (
        f"Each window gets mean 0 and standard deviation 1. The net has {config['width']} channels "
        "behind its first "
        f"convolution and learns for {config['epochs']} epochs with Adam, a learning rate of 0.001 that "
        "falls to "
        f"0 as a cosine, and the {config['loss'].upper()} loss. Noise with a standard deviation of "
        f"{config['jitter']:g} is added to the input, and the target is without it. Latent widths of "
        f"{widths} "
        f"were trained, {config['members']} nets of each with different seeds, whose scores are "
        "averaged. The "
        "width with the best ROC-AUC on validation was taken. The score is the mean "
        f"{'squared' if config['score_norm'] == 'l2' else 'absolute'} residual.\n\n"
        f"Validation holds {config['validation_normals']} normal beats and the 208 beats of other "
        "classes of the "
        "official training file. So known anomalies chose the width; where none are known, choose with "
        "something else, and expect less."
    )


def _casting_procedure(config: Mapping[str, Any]) -> str:
    fit = config["fit"]
    optimizer = {"adam": "Adam", "adamw": "AdamW", "sgd": "SGD"}[fit["optimizer"]]
    part = f"This run used {100 * config['share']:g} % of the images of each part, or 120 of each label."
    return (
        f"The net is {config['width']} channels wide behind its first convolution and learns for "
        f"{fit['num_steps']} steps of {fit['batch_size']} images with {optimizer}, a learning rate of "
        f"{fit['lr']:g} that falls to 0 as a cosine. Half of each batch is normal. The other half is known "
        "spills, normal images with painted spills, and normal images whose mould was painted empty, a third "
        "of each. All are shifted, zoomed, mirrored and lit as a camera might; two fifths of all get an "
        "obstacle, and 15 % of the normal ones haze.\n\n"
        f"Two thresholds were set without any test image. One flags at most {100 * config['fpr']:g} % of the "
        "validation normals disturbed as in training, and needs no anomaly. The other, `tnr_target`, is the "
        "one that flags the most of the known spills that training did not see, among those that leave at "
        f"least {100 * config['tnr']:g} % of the undisturbed validation normals alone."
    ) + ("" if config["share"] == 1 else f"\n\n{part}")


CARDS: dict[str, CardText] = {
    "waveforms": CardText(
        title="Residual autoencoder for heartbeats (ResNetAE)",
        task="Anomaly detection in fixed-length waveforms",
        tags=("anomaly-detection", "time-series", "autoencoder", "residual-network", "ecg"),
        dataset=("ECG5000", "heartbeats of one patient"),
        data_licence="none stated; cite the UCR archive and PhysioNet (BIDMC record chf07)",
        model="ae",
        systems={
            "ae": "residual autoencoder",
            "mean": "distance to the mean beat",
            "pca": "PCA",
            "knn": "nearest neighbours",
        },
        metrics={"roc_auc": "ROC-AUC", "pr_auc": "PR-AUC"},
        points={"fpr_0.01": "1 % false positives", "fpr_0.001": "0.1 % false positives"},
        description=(
            "A one-dimensional residual encoder, a latent vector and a mirrored decoder. It learns to "
            "reconstruct "
            "normal windows; what it reconstructs badly is flagged. The code is "
            "`companion.estimators.ResNetAE`."
        ),
        intended=(
            "Teaching, and as a starting point for detectors of unusual windows in signals of one's own, "
            "fitted to one's own normal data, beside the simple detectors in the table below."
        ),
        out_of_scope=(
            "Diagnosis or monitoring of people, or any medical use: the beats are those of one patient. "
            "Other "
            "patients, electrodes, sampling rates or machines without fitting and calibrating again. Telling "
            "kinds of anomalies apart."
        ),
        training_data=(
            "ECG5000 (Dau et al. 2019): 5,000 heartbeats of one patient with severe congestive heart "
            "failure, each "
            "resampled to 140 samples, in five classes that were assigned automatically. The 292 normal "
            "beats of the "
            "official training file are for training; the test split is the official test file without the "
            "normal beats that were moved to validation."
        ),
        procedure=_waveforms_procedure,
        limits=(
            "One patient: the intervals say how sure the numbers are for this patient's beats, and nothing "
            "about other people.",
            "Simple detectors come close or are ahead: see the table before you choose a net.",
            "While the recipe was made, test scores of an earlier one were seen, before its loss was "
            "changed. The change was decided on validation, but the test split is not wholly untouched.",
            "One net alone varies much over seeds, therefore the scores of several are averaged.",
            "With a wide latent vector the net may reconstruct anomalies, too, which then pass unseen.",
            "Each window is standardised by itself, so a change of offset or amplitude alone is invisible.",
            "An event that is short beside the window hardly moves its mean residual.",
            "A threshold holds for the deployment that it was set in. Set it again after any change of "
            "sensor, gain or population, and watch the rate of false positives.",
        ),
    ),
    "casting": CardText(
        title="Small residual classifier for casting faults",
        task="Anomaly detection in camera images",
        tags=("anomaly-detection", "image-classification", "residual-network", "industrial-inspection"),
        dataset=("Casting", "camera crops of moulds in a line that casts metal cylinders"),
        data_licence="none stated; fetched, never passed on",
        model="final",
        systems={
            "final": "small residual classifier",
            "pca": "PCA",
            "published": "published autoencoder",
            "coarse": "autoencoder, coarse scales",
            "memory": "patch memory",
        },
        metrics={"roc_auc": "ROC-AUC", "pr_auc": "PR-AUC"},
        points={"disturbed": "1 % of disturbed normals", "tnr_target": "tnr_target, 95 %"},
        description=(
            "A residual net of three blocks with one output, the logit of a fault. It takes images of 32x48 "
            "pixels in colour. The score is the mean logit of an image and its mirror image. The code is "
            "`companion.models.resnet.ResNet` and `companion.objectives.reconstruction.FaultDiscrimination`."
        ),
        intended=(
            "Teaching, and as a recipe for detectors that are fitted to images of one's own line, to known "
            "faults, painted ones, and what a camera may do besides."
        ),
        out_of_scope=(
            "Safety decisions by itself: a missed spill may hurt people. Other lines, other cameras or "
            "another place of the camera, without images of their own to learn from and thresholds of their "
            "own. Telling kinds of faults apart, or where in the image they are."
        ),
        training_data=(
            "Casting (chernovssss and full-metal0 2023): camera crops of moulds in a line that casts metal "
            "cylinders, brought to 32x48 pixels. The net learns from 6,636 distinct normal images and 59 "
            "distinct known spills, half of those there are. Thresholds come from 1,659 other normal images "
            "and the 58 other spills. Faults, obstacles and haze are painted on normal images. The test "
            "split is four fifths of the published test images, chosen by content hash: 2,450 distinct ones, "
            "97 of them anomalous. The other fifth, development, chose the recipe. No image stands in two "
            "parts."
        ),
        procedure=_casting_procedure,
        limits=(
            "That moulds may be empty was known to the designer from looking at the development fifth; "
            "neither training images nor known spills show one. The test split has the same kinds of fault, "
            "so its numbers hold for these kinds.",
            "Faults of a kind that nobody thought of may pass. The rows without painting, in the chapter's "
            "table, show how many that may be.",
            "First trials for the book had scored the whole test folder and looked at its errors. So the "
            "test split is clean of tuning, and not of ideas.",
            "All images are frames of one line, and many are nearly identical. The intervals "
            "treat images as independent, which near-copies are not: they are too narrow, and they say "
            "nothing about another line.",
            "It is not for safety decisions alone. Keep the checks that are there, and people who look.",
            "The threshold for disturbed normals allows for the movements, obstacles and haze that were "
            "painted, not for more. Watch the rate of false alarms, and set the threshold again after any "
            "change of camera, light or line.",
            "The threshold tnr_target knows spills alone; empty moulds score lower and may fall below it.",
        ),
    ),
}
"""By experiment. Another experiment gets a card by adding its text here."""
