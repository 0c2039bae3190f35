// Chapter 10: a beat that the reader deforms, what the net makes of it, and its score against the threshold.

import { drag, newest } from "./pieces.mjs";

/** A beat with a bump of a height (in standard deviations of the beat) and a width (in samples) at a place. */
const deformed = (beat, { place, lift, width }) =>
  beat.map((value, i) => value + lift * Math.exp(-0.5 * ((i - place) / width) ** 2));

/** A beat with mean 0 and standard deviation 1, and what undoes it. */
function standard(beat) {
  const center = beat.reduce((a, b) => a + b) / beat.length;
  const scale = Math.sqrt(beat.reduce((sum, value) => sum + (value - center) ** 2, 0) / beat.length);
  return [beat.map((value) => (value - center) / scale), (value) => value * scale + center];
}

export const hasNet = true;

export async function start(piece, ask) {
  const { beats, threshold, fpr } = piece.data;
  const names = Object.keys(beats);
  const length = beats[names[0]].length;
  piece.choice("beat", "Begin with the mean of", Object.fromEntries(names.map((name) => [name, name])), names[0]);
  piece.slider("place", "Sample", { min: 0, max: length - 1, value: 60 });
  piece.slider("lift", "Lift it by", { min: -4, max: 4, step: 0.1, value: 0, tell: (lift) => lift.toFixed(1) });
  piece.slider("width", "Width of the bump", { min: 1, max: 30, value: 6 });
  piece.button("Undo", () => piece.set({ lift: 0 }));

  let made = beats[names[0]];
  const label = "The beat and what the net makes of it; draw on it, or use the sliders";
  const chart = piece.chart(label, {
    x: () => made.map((_, i) => i),
    xlabel: "sample",
    range: () => [-5.5, 4.5],
    lines: () => [
      { label: "the beat", values: deformed(beats[piece.state.beat], piece.state), colour: "gray", width: 3 },
      { label: "what the net makes of it", values: Array.from(made), colour: "blue" },
    ],
  });
  const answer = newest(async (state) => {
    const [window, back] = standard(deformed(beats[state.beat], state));
    const rebuilt = Array.from((await ask({ windows: [window, [1, 1, length]] })).rebuilt);
    made = rebuilt.map(back);
    const score = rebuilt.reduce((sum, value, i) => sum + (value - window[i]) ** 2, 0) / length;
    const flagged = score > threshold;
    piece.say(
      `Score ${score.toFixed(3)}, threshold ${threshold.toFixed(3)}: ${flagged ? "flagged as unusual" : "not flagged"}. ` +
        `(Of normal validation beats ${(100 * fpr).toFixed(0)} % are flagged.)`,
      { score, reconstruction: made },
    );
    await chart();
  });
  await piece.follow(answer);
  const box = piece.body.querySelector("[role=img]");
  drag(box, (x, y) => {
    const place = Math.round(box.plot.posToVal(x, "x"));
    if (place < 0 || place >= length) return;
    const lift = box.plot.posToVal(y, "y") - beats[piece.state.beat][place];
    piece.set({ place, lift: Math.round(10 * Math.min(4, Math.max(-4, lift))) / 10 });
  }, () => box.plot.over);
}
