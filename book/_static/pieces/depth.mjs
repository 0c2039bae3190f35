// Chapter 1: what nets of every recorded depth learned, with and without shortcuts, from near the identity, and for longer.

const mean = (rows) => rows[0].map((_, i) => rows.reduce((sum, row) => sum + row[i], 0) / rows.length);
const average = (values) => values.reduce((a, b) => a + b, 0) / values.length;
const NAMES = { loss: "training loss", error: "training error, %", test_error: "test error, %" };
const STARTS = { he: ["He's", ""], half: ["identity + 0.5 times He's", "~0.5"], near: ["identity + 0.1 times He's", "~0.1"] };
const KINDS = { plain: "plain", resnet: "ResNet" };
const TONES = { plain: "vermillion", resnet: "blue" };
const label = (what) => `${KINDS[what.split("-")[0]]}-${what.split("-")[1].split("~")[0]}`;
const told = ({ fit, image_size: side }) => `${fit.num_steps.toLocaleString("en")} steps, images of ${side} x ${side}`;

/** The run among some that has a net, by the net's name there. */
const find = (runs, what) => runs.find((run) => `${what}.train_loss` in run.results[0].metrics);
const metric = (run, what, name) => run.results.map((each) => each.metrics[`${what}.${name}`]);

export async function start(piece) {
  const [first, ...short] = piece.data.runs;
  const trainings = { short, long: [first] };
  const { data: { gradients }, state } = piece;
  const depths = [...new Set(short.flatMap((run) => run.config.nets ?? []).map((net) => Number(net.split("-")[1])))].sort((a, b) => a - b);

  piece.slider("depth", "Layers", { min: 0, max: depths.length - 1, value: depths.indexOf(56), tell: (place) => String(depths[place]) });
  piece.toggle("shortcuts", "shortcuts", false);
  piece.choice("start", "Initial weights", Object.fromEntries(Object.entries(STARTS).map(([key, [name]]) => [key, name])), "he");
  piece.choice("training", "Training", { short: told(short[0].config), long: told(first.config) }, "short");
  piece.choice("show", "Show", { loss: "loss", error: "error" }, "loss");

  const kind = () => (state.shortcuts ? "resnet" : "plain");
  const scale = () => (state.show === "error" ? 100 : 1);
  const measures = () => (state.show === "error" ? ["error", "test_error"] : ["loss"]);
  /** The net that the controls ask for, or what was recorded of it: the usual start, and then the short training. */
  const chosen = () => {
    const usual = `${kind()}-${depths[state.depth]}`;
    for (const runs of [trainings[state.training], short])
      for (const what of [usual + STARTS[state.start][1], usual])
        if (find(runs, what)) return { runs, what, asked: runs === trainings[state.training] && what === usual + STARTS[state.start][1] };
  };
  const points = (runs) => runs[0].config.points;
  /** A curve, the mean of the seeds, at as many points as all have; those that were measured more rarely have gaps. */
  const curve = (runs, what, name) => {
    const rows = find(runs, what).results.map((each) => each.curves[`${what}.${name}`]);
    const every = rows[0] && points(runs) / rows[0].length;
    const values = rows[0] && mean(rows);
    return values && Array.from({ length: points(runs) }, (_, i) => ((i + 1) % every ? null : scale() * values[(i + 1) / every - 1]));
  };
  const curves = piece.chart("What the net learns, step by step", {
    x: () => {
      const { runs } = chosen();
      return Array.from({ length: points(runs) }, (_, i) => ((i + 1) * runs[0].config.fit.num_steps) / points(runs));
    },
    xlabel: "training step",
    range: () => {
      const all = chosen().runs.flatMap((run) => run.results.flatMap(({ curves: kept }) =>
        Object.keys(kept).filter((key) => measures().includes(key.split(".").at(-1))).flatMap((key) => kept[key])));
      return [scale() * Math.min(...all), scale() * Math.max(...all)];
    },
    lines: () => {
      const { runs, what } = chosen();
      const shown = [["plain-20", "gray", 2], [what, TONES[kind()], 3]].slice(Number(what === "plain-20"));
      return shown.flatMap(([net, tone, width]) =>
        measures().map((name, i) => ({ values: curve(runs, net, name), colour: tone, width, dash: i ? [5, 4] : undefined,
          label: `${label(net)}, ${NAMES[name]}` })).filter(({ values }) => values));
    },
  });
  const ends = piece.chart("Where each depth ends", {
    x: () => depths,
    xlabel: "layers",
    lines: () => Object.keys(KINDS).flatMap((each) => measures().map((name, i) => ({
      values: depths.map((depth) => {
        const run = find(chosen().runs, `${each}-${depth}`);
        return run ? scale() * average(metric(run, `${each}-${depth}`, i ? name : `train_${name}`)) : null;
      }),
      label: `${KINDS[each]}, ${NAMES[name]}`, colour: TONES[each], dash: i ? [5, 4] : undefined, dots: true,
    }))),
  });
  const signal = (net, moment) =>
    mean(gradients.results.map((each) => each.curves[`${net}, batch norm, He's init.${moment}.weights`]));
  const layers = piece.chart(`The gradient's norm in each of ${gradients.config.depth} layers, logarithmic`, {
    x: () => signal("plain", "start").map((_, i) => i + 1),
    xlabel: "convolution, counted from the input",
    log: true,
    lines: () => [
      { label: `${KINDS[kind()]}, before training`, values: signal(kind(), "start"), colour: TONES[kind()] },
      { label: `${KINDS[kind()]}, after ${gradients.config.fit.num_steps} steps`, values: signal(kind(), "trained"), colour: TONES[kind()], dash: [5, 4] },
    ],
  });

  const per = (values) => `${(100 * average(values)).toFixed(1)} %`;
  await piece.follow(() => {
    const { runs, what, asked } = chosen();
    const run = find(runs, what);
    const [loss, error, test] = ["train_loss", "fixed_train_error", "test_error"].map((name) => metric(run, what, name));
    const missing = asked ? "" : `No such run of ${label(what)} was recorded; shown instead: ${what.includes("~") ? "" : "He's start, "}${told(runs[0].config)}. `;
    piece.say(
      `${missing}${label(what)}: training loss ${average(loss).toFixed(2)}, training error ${per(error)}, ` +
        `test error ${per(test)} (${loss.length > 1 ? `means of ${loss.length} seeds` : "one seed"}).`,
      { train_loss: average(loss), fixed_train_error: average(error), test_error: average(test) },
    );
    return Promise.all([curves(), ends(), layers()]);
  });
}
