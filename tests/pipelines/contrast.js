// The least contrast of text and of drawings in a page, as WCAG counts it, and where it is.
(() => {
  const context = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgb = (color) => {
    context.clearRect(0, 0, 1, 1); context.fillStyle = color; context.fillRect(0, 0, 1, 1);
    return [...context.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((c) => ((c /= 255), c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const behind = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const color = rgb(getComputedStyle(one).backgroundColor);
      if (color[3] === 255) return color;
    }
    return [255, 255, 255];
  };
  const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + 0.05) / (y + 0.05); };
  const found = {};
  const note = (kind, element, value) => {
    if (found[kind]?.[0] <= value) return;
    found[kind] = [value, element.className.baseVal ?? element.className, element.textContent.slice(0, 40)];
  };
  for (const element of document.querySelectorAll("body *")) {
    if (element.closest("script, .off, .skip")) continue;
    const style = getComputedStyle(element);
    const isText = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (isText) note("text", element, ratio(rgb(element.closest("svg") ? style.fill : style.color), behind(element)));
    else if (element.matches(".t, .bar, .dot, .whisker"))
      note("graphics", element, ratio(rgb(element.matches(".bar, .dot") ? style.fill : style.stroke), behind(element)));
  }
  return found;
})()
