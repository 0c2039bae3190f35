// MathJax from this site, in the parts that the book needs: no menu, but the formulas for screen readers.
{
  const folder = new URL("vendor/mathjax", document.currentScript.src).href;
  window.MathJax ??= {};
  MathJax.loader = {
    paths: { mathjax: folder },
    load: ["core", "input/tex", "output/chtml", "a11y/assistive-mml"],
  };
  // long formulas are boxes that scroll, see book.js
  const ready = () => MathJax.startup.defaultPageReady().then(() => dispatchEvent(new Event("resize")));
  MathJax.startup = { pageReady: ready };
  wanted(".math").then(() => {
    const script = document.createElement("script");
    script.src = `${folder}/startup.js`;
    document.head.append(script);
  });
}
