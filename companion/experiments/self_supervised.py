"""Chapter 6: what a net learns of security events without labels, and what longer training adds."""

import numpy as np
import torch
from torch import Tensor

from companion.detection.event_detectors import drawn
from companion.detection.plain_columns import PlainColumns
from companion.experiments import event_data
from companion.experiments.base import Config, Context, from_table
from companion.experiments.event_data import EventSetsConfig, PreparedEvents, Recipe
from companion.models.masked_resnet import SelfSupervisedResNet
from companion.objectives.event_features import field_family
from companion.objectives.selfsupervised import embed, linear_probe, neighbor_purity
from companion.runs import SeedResult
from companion.training import evaluate

KNOWN = 2  # the first index of a category that is neither missing nor rare
Nets = dict[str, SelfSupervisedResNet]


class SelfSupervisedConfig(Config):
    """What is trained and how it is looked at."""

    data: EventSetsConfig = EventSetsConfig()  #: which events
    nets: dict[str, Recipe]  #: by name
    rows: int = 5000  #: events of a part that are asked about, at most


def asked_fields(events: PreparedEvents) -> list[str]:
    """A category of each family, the most varied one, if it is worth a guess.

    In at least 2 % of the training events it has a value that is not rare, at most 90 % of these the same.
    """
    found: dict[str, tuple[float, str]] = {}
    for name, column in zip(events.features.fitted.categorical, events.categorical.T, strict=True):
        known = column[events.train].numpy()
        counts = np.bincount(known)[KNOWN:]
        shares = counts[counts > 0] / max(1, counts.sum())
        if counts.sum() >= 0.02 * len(known) and shares.max() <= 0.9:
            best = found.get(field_family(name), (0.0, ""))
            found[field_family(name)] = max(best, (float(-(shares * np.log(shares)).sum()), name))
    return [name for _, name in found.values()]


def guess(net: SelfSupervisedResNet, events: PreparedEvents, field: str, rows: np.ndarray) -> Tensor:
    """The value that the net takes for the likeliest where the field's family is hidden: int64 (rows,)."""
    hidden = torch.tensor([field_family(name) == field_family(field) for name in events.features.fields])
    place = torch.tensor([events.features.fields.index(field)], device=net.ignorance.device)
    x, c = (part.to(net.ignorance.device) for part in events.tensors(rows))
    with torch.inference_mode():
        vectors = net.embed(x, c, hidden.to(x.device).expand(len(x), -1))
        return net.guess(vectors, place).logits[0][:, KNOWN:].argmax(dim=1).cpu() + KNOWN


def look_up(events: PreparedEvents, field: str, rows: np.ndarray) -> tuple[str, np.ndarray, int]:
    """The simple rival: the value that was most common in training where one other field is as it is here.

    That field is the one of another family that guesses the calibration events best (a number counts by its
    tenth). Gives its name, the guesses, int64 (rows,), and the value that is most common in all.
    """
    encoder, train = events.features.fitted, events.train
    numbers = [np.searchsorted(np.quantile(x[train], np.linspace(0.1, 0.9, 9)), x)
               for x in events.numerical.numpy().T]  # fmt: skip
    columns = [*numbers, *events.categorical.numpy().T]
    target = columns[len(numbers) + encoder.categorical.index(field)]
    known = train[target[train] >= KNOWN]
    common = int(np.bincount(target[known]).argmax())
    best = (-1.0, "", target)
    for name, column in zip(events.features.fields, columns, strict=True):
        if field_family(name) != field_family(field):
            counts = np.zeros((column.max() + 1, target.max() + 1))
            np.add.at(counts, (column[known], target[known]), 1)
            counts[:, common] += 0.5  # where a value is new, and of equals
            guesses = counts.argmax(axis=1)[column]
            held = events.calibration[target[events.calibration] >= KNOWN]
            right = float((guesses[held] == target[held]).mean()) if len(held) else 0.0
            best = max(best, (right, name, guesses), key=lambda one: one[0])
    return best[1], best[2][rows], common


def guessing(events: PreparedEvents, nets: Nets, rows: int, seed: int) -> dict[str, float]:
    """How often hidden fields of normal validation events are guessed right.

    ``"<net>.<field>_accuracy"``, also for ``common`` and ``lookup``, and ``"lookup.<field> by <other>"``, 1.
    """
    found: dict[str, float] = {}
    for field in asked_fields(events):
        target = events.categorical[:, events.features.fitted.categorical.index(field)]
        asked = events.normal("validation")
        asked = asked[target[asked].numpy() >= KNOWN]
        asked = asked[drawn(len(asked), rows, seed)]
        if len(asked) == 0:
            continue
        other, guesses, common = look_up(events, field, asked)
        answers = {"common": np.full(len(asked), common), "lookup": guesses}
        answers |= {name: guess(net, events, field, asked).numpy() for name, net in nets.items()}
        truth = target[asked].numpy()
        found |= {f"{name}.{field}_accuracy": float((own == truth).mean()) for name, own in answers.items()}
        found[f"lookup.{field} by {other}"] = 1.0
    return found


def probing(events: PreparedEvents, nets: Nets, context: Context, rows: int, seed: int) -> dict[str, float]:
    """``"<net>.probe"`` and ``"<net>.purity"``, also for ``plain``, columns without any learning; chance.

    A probe tells classes that no field holds: the kind of generated session, the host that captured a flow.
    """
    frame, labels, later = events.events.frame, events.events.labels, events.normal("validation")
    if events.name == "generated":
        classes = labels["kind"].to_numpy(dtype=object)
    elif events.name == "zeek":
        classes, later = labels["incident"].str.split("/").str[0].to_numpy(dtype=object), events.calibration
    else:
        return {}
    known, asked = (part[drawn(len(part), rows, seed)] for part in (events.train, later))
    plain = PlainColumns(entity=events.events.entity).fit(frame.iloc[events.train])
    spaces = {"plain": [plain.transform(frame.iloc[part]).plain for part in (known, asked)]}
    for name, net in nets.items():
        spaces[name] = [embed(net, *events.tensors(part), compute=context.compute) for part in (known, asked)]
    shares = np.unique(classes[asked].astype(str), return_counts=True)[1] / len(asked)
    found = {"chance.probe": 1 / len(shares), "chance.purity": float(np.square(shares).sum())}
    for name, (a, b) in spaces.items():
        found[f"{name}.probe"] = linear_probe(a, classes[known], b, classes[asked], seed)
        found[f"{name}.purity"] = neighbor_purity(b, classes[asked])
    return found


def run(config: SelfSupervisedConfig, seed: int, context: Context) -> SeedResult:
    """Train every net on every set, and ask what it knows, by :func:`guessing` and :func:`probing`.

    ``"<set>.<net>.validation_loss"`` is that of masked features on normal validation events.
    """
    result = SeedResult(seed=seed)
    for name in config.data.sets:
        events = event_data.prepared(name, config.data, seed)
        nets = {
            net: event_data.train(events, recipe, seed, context, f"{name}.{net}", result)
            for net, recipe in config.nets.items()
        }
        masked = {net: nets[net] for net, recipe in config.nets.items() if recipe.objective == "masked"}
        found = guessing(events, masked, config.rows, seed)
        later = events.tensors(events.normal("validation"))
        for net, model in masked.items():
            objective = event_data.make_objective(events, config.nets[net], context.compute.device)
            found[f"{net}.validation_loss"] = evaluate(model, later, objective, context.compute)["loss"]
        found |= probing(events, nets, context, config.rows, seed)
        result.metrics.update({f"{name}.{key}": round(value, 4) for key, value in found.items()})
    return result


SELF_SUPERVISED = from_table("self_supervised", SelfSupervisedConfig, run, event_data.info, float32=True)
