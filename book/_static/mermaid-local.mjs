// Mermaid from this site, in the colours of the page. Each diagram keeps its natural size or shrinks with its
// column, to two thirds of that size at least, so that a phone shows letters and not dots; then its box scrolls. The
// library is fetched when it is wanted, see book.js.

const colours = ({ ground, box, text, line }) => ({
  background: ground, mainBkg: box, primaryColor: box, primaryTextColor: text, primaryBorderColor: line,
  nodeBorder: line, lineColor: line, textColor: text, titleColor: text, edgeLabelBackground: ground,
  clusterBkg: "transparent", clusterBorder: line, fontSize: "15px",
  actorBkg: box, actorBorder: line, actorTextColor: text, signalColor: line, signalTextColor: text,
  noteBkgColor: ground, noteTextColor: text, noteBorderColor: line, labelBoxBkgColor: box, labelTextColor: text,
});
const light = colours({ ground: "#ffffff", box: "#eef4fb", text: "#1b1f24", line: "#5a6a7a" });
const dark = colours({ ground: "#121212", box: "#1f2b3a", text: "#e8eaed", line: "#9aa9b8" });

// the font of `pre.mermaid` in book.css, in which the labels are measured
const font = 'system-ui, "Segoe UI", Roboto, Helvetica, Arial, sans-serif';

document.documentElement.dataset.diagrams = "wait"; // their source is not shown until then, see book.css
const library = wanted("pre.mermaid").then(() => import("./vendor/mermaid/mermaid.esm.min.mjs"));
library.catch(() => delete document.documentElement.dataset.diagrams); // then their source is better than nothing
const SMALLEST = 0.67; // of its letters, which have 15 pixels
let settings;

export default {
  initialize(options) {
    settings = {
      ...options,
      theme: "base",
      themeVariables: { darkMode: options.darkMode, fontFamily: font, ...(options.darkMode ? dark : light) },
      flowchart: { nodeSpacing: 30, rankSpacing: 32, padding: 10 },
    };
  },
  async run(options) {
    const { default: mermaid } = await library;
    mermaid.initialize(settings);
    await mermaid.run(options);
    for (const svg of document.querySelectorAll("pre.mermaid > svg")) {
      const { width } = svg.viewBox.baseVal;
      svg.style.setProperty("max-width", `max(min(100%, ${Math.ceil(width)}px), ${SMALLEST * width}px)`, "important");
      svg.style.setProperty("min-width", `${SMALLEST * width}px`);
    }
    mark();
  },
};
