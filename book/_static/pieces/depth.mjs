// Chapter 1: what nets of every recorded depth learned, with and without shortcuts, and from near the identity.

const mean = (rows) => rows[0].map((_, i) => rows.reduce((sum, row) => sum + row[i], 0) / rows.length);
const NAMES = { loss: "training loss", error: "training error, %" };

/** The run that has a net, by the net's name there. */
function find({ runs }, what) {
  return runs.find((run) => `${what}.train_loss` in run.results[0].metrics);
}

export async function start(piece) {
  const { runs, gradients } = piece.data;
  const metric = (what, name) => find(piece.data, what).results.map((each) => each.metrics[`${what}.${name}`]);
  const curve = (what, name) => mean(find(piece.data, what).results.map((each) => each.curves[`${what}.${name}`]));
  const average = (values) => values.reduce((a, b) => a + b, 0) / values.length;
  const depths = [...new Set(runs.flatMap((run) => run.config.nets ?? []).map((net) => Number(net.split("-")[1])))].sort((a, b) => a - b);

  piece.slider("depth", "Layers", { min: 0, max: depths.length - 1, value: depths.indexOf(56), tell: (place) => String(depths[place]) });
  piece.toggle("shortcuts", "shortcuts", false);
  piece.choice("start", "Initial weights", { he: "He's", half: "identity + 0.5 times He's", near: "identity + 0.1 times He's" }, "he");
  piece.choice("show", "Show", NAMES, "loss");

  const scale = (name) => (name === "error" ? 100 : 1);
  const kinds = { plain: "plain", resnet: "ResNet" };
  const chosen = ({ depth, shortcuts, start: from }) => {
    const ends = { he: "", half: "~0.5", near: "~0.1" };
    const what = `${shortcuts ? "resnet" : "plain"}-${depths[depth]}${ends[from]}`;
    return find(piece.data, what) ? what : undefined;
  };
  const usual = ({ depth, shortcuts }) => `${shortcuts ? "resnet" : "plain"}-${depths[depth]}`;
  const label = (what) => `${kinds[what.split("-")[0]]}-${what.split("-")[1].split("~")[0]}`;

  const points = curve("plain-20", "loss").length;
  const steps = find(piece.data, "plain-20").config.fit.num_steps;
  const ranges = Object.fromEntries(Object.keys(NAMES).map((name) => {
    const all = runs.flatMap((run) => run.results.flatMap((each) =>
      Object.entries(each.curves).filter(([key]) => key.endsWith(`.${name}`)).flatMap(([, values]) => values)));
    return [name, [scale(name) * Math.min(...all), scale(name) * Math.max(...all)]];
  }));
  const curves = piece.chart("What the net learns, step by step", {
    x: () => Array.from({ length: points }, (_, i) => ((i + 1) * steps) / points),
    xlabel: "training step",
    range: () => ranges[piece.state.show],
    lines: () => {
      const { state } = piece;
      const what = chosen(state) ?? usual(state);
      const values = (of) => curve(of, state.show).map((value) => scale(state.show) * value);
      return [
        { label: "plain-20, to compare", values: values("plain-20"), colour: "gray", dash: [5, 4] },
        { label: label(what), values: values(what), colour: state.shortcuts ? "blue" : "vermillion", width: 3 },
      ];
    },
  });
  const ends = piece.chart("Where each depth ends", {
    x: () => depths,
    xlabel: "layers",
    lines: () => {
      const { state } = piece;
      const name = state.show === "loss" ? "train_loss" : "train_error";
      const end = (of, which) => (find(piece.data, of) ? scale(state.show) * average(metric(of, which)) : null);
      const line = (kind, which, more) => ({ values: depths.map((depth) => end(`${kind}-${depth}`, which)), dots: true, ...more });
      const lines = [
        line("plain", name, { label: `plain, ${NAMES[state.show]}`, colour: "vermillion" }),
        line("resnet", name, { label: `ResNet, ${NAMES[state.show]}`, colour: "blue" }),
      ];
      if (state.show === "error")
        lines.push(
          line("plain", "test_error", { label: "plain, test error, %", colour: "vermillion", dash: [5, 4] }),
          line("resnet", "test_error", { label: "ResNet, test error, %", colour: "blue", dash: [5, 4] }),
        );
      return lines;
    },
  });
  const signal = (kind, moment) =>
    mean(gradients.results.map((each) => each.curves[`${kind}, batch norm, He's init.${moment}.weights`]));
  const layers = piece.chart(`The gradient's norm in each of ${gradients.config.depth} layers, logarithmic`, {
    x: () => signal("plain", "start").map((_, i) => i + 1),
    xlabel: "convolution, counted from the input",
    log: true,
    lines: () => {
      const kind = piece.state.shortcuts ? "resnet" : "plain";
      const tone = piece.state.shortcuts ? "blue" : "vermillion";
      return [
        { label: `${kinds[kind]}, before training`, values: signal(kind, "start"), colour: tone },
        { label: `${kinds[kind]}, after ${gradients.config.fit.num_steps} steps`, values: signal(kind, "trained"), colour: tone, dash: [5, 4] },
      ];
    },
  });

  const per = (values) => `${(100 * average(values)).toFixed(1)} %`;
  await piece.follow((state) => {
    const what = chosen(state);
    const shown = what ?? usual(state);
    const [loss, error, test] = ["train_loss", "fixed_train_error", "test_error"].map((name) => metric(shown, name));
    const missing = what ? "" : `No run of ${label(usual(state))} from there was recorded; this is He's start. `;
    piece.say(
      `${missing}${label(shown)}: training loss ${average(loss).toFixed(2)}, training error ${per(error)}, ` +
        `test error ${per(test)} (means of ${loss.length} seeds).`,
      { train_loss: average(loss), fixed_train_error: average(error), test_error: average(test) },
    );
    return Promise.all([curves(), ends(), layers()]);
  });
}
