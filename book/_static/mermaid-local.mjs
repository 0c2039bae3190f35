// Mermaid from this site. Each diagram keeps its natural size and never outgrows its column.
import mermaid from "./vendor/mermaid/mermaid.esm.min.mjs";
const run = mermaid.run.bind(mermaid);
mermaid.run = async (options) => {
  await run(options);
  for (const svg of document.querySelectorAll("pre.mermaid > svg")) {
    const { width } = svg.viewBox.baseVal;
    svg.style.setProperty("max-width", `min(100%, ${Math.ceil(width)}px)`, "important");
  }
};
export default mermaid;
