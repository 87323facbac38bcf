// The viewer of one error: heat maps for the predicted and the true class, at every layer.

const viewer = element("viewer", HTMLDialogElement);
const TARGETS = /** @type {Target[]} */ (["predicted", "true", "difference"]);
const LARGE = 224; // pixels of a heat map
const SMALL = 96;

/** Show the image of the state, or close the viewer if there is none. */
function showViewer() {
  const row = state.image === null ? -1 : errors.index.indexOf(state.image);
  for (const [index, card] of cards.entries()) card.classList.toggle("open", index === row);
  if (row < 0) {
    if (viewer.open) viewer.close();
    return;
  }
  const [trueName, predicted] = errors.confusions[row].map((index) => errors.classes[index]);
  element("viewer-title", HTMLElement).textContent = `predicted ${predicted}, true ${trueName}`;
  element("viewer-index", HTMLElement).textContent = `test image ${errors.index[row]}`;
  element("viewer-file", HTMLElement).textContent = errors.names[row];
  element("viewer-status", HTMLElement).textContent = "";
  const explained = errors.maps.methods.length > 0;
  const hasMaps = row < errors.maps.counts[errors.maps.methods.indexOf(state.method)];
  const original = document.createElement("figure");
  const title = document.createElement("figcaption");
  title.textContent = "the image itself";
  original.append(imageWithMap(row, state.layer, null, LARGE), title);
  const captions = {
    predicted: `evidence for ${predicted}`,
    true: `evidence for ${trueName}`,
    difference: `orange: more for ${predicted}, blue: more for ${trueName}`,
  };
  const faithful = element("viewer-faithful", HTMLButtonElement);
  faithful.hidden = !explained;
  faithful.setAttribute("aria-pressed", String(isFaithful()));
  const maps = explained && hasMaps ? TARGETS.map((target) => mapFigure(row, target, captions[target], target === "true" ? trueName : predicted)) : [];
  element("viewer-maps", HTMLElement).replaceChildren(original, ...maps);
  element("viewer-missing", HTMLElement).hidden = !explained || hasMaps;
  const focused = document.activeElement?.closest(".layers button")?.getAttribute("data-layer");
  const layers = element("viewer-layers", HTMLElement);
  const shownLayers = needsLayer(state.method) ? errors.layers : [];
  layers.replaceChildren(...shownLayers.map((name, index) => layerButton(row, index + 1, name)));
  if (focused) /** @type {HTMLElement | null} */ (layers.querySelector(`[data-layer="${focused}"]`))?.focus();
  const bars = errors.top[row].map((label, rank) => probabilityBar(errors.classes[label], errors.probabilities[row][rank], label === errors.confusions[row][0]));
  if (!errors.top[row].includes(errors.confusions[row][0])) bars.push(probabilityBar(trueName, errors.true[row], true));
  element("viewer-probabilities", HTMLElement).replaceChildren(...bars);
  showNeighbors(row);
  if (!viewer.open) viewer.showModal();
}

/**
 * The image with a heat map on it; without one if target is null.
 * @param {number} row
 * @param {number} layer
 * @param {Target | null} target
 * @param {number} pixels
 * @returns {HTMLElement}
 */
function imageWithMap(row, layer, target, pixels) {
  const box = document.createElement("div");
  const image = cards[row].querySelector("svg")?.cloneNode(true);
  if (image) box.append(image);
  if (target === null) return box;
  const canvas = document.createElement("canvas");
  canvas.className = "heat";
  const map = state.overlay ? getMap(row, layer, state.method, target) : null;
  paint(canvas, map, target, state.opacity, pixels, pixels);
  box.append(canvas);
  return box;
}

/**
 * @param {number} row
 * @param {Target} target
 * @param {string} caption
 * @param {string} name of the explained class
 */
function mapFigure(row, target, caption, name) {
  const figure = document.createElement("figure");
  const text = document.createElement("figcaption");
  const reason = state.overlay ? emptiness(row, target, name) : "";
  text.textContent = reason ? `${caption} – empty: ${reason}` : caption;
  figure.append(imageWithMap(row, state.layer, target, LARGE), text);
  return figure;
}

/**
 * Why a heat map shows nothing; empty if it shows something.
 * @param {number} row
 * @param {Target} target
 * @param {string} name of the explained class
 */
function emptiness(row, target, name) {
  const values = (/** @type {Target} */ each) => getMap(row, state.layer, state.method, each)?.values;
  const shown = values(target);
  if (shown === undefined) return ""; // not decoded yet
  if (target === "difference") return shown.some((value) => value !== 0) ? "" : "the two maps are equal";
  if (shown.some((value) => value > 0)) return "";
  if (shown.some((value) => value < 0)) return `every position is evidence against ${name}`;
  const other = values(target === "true" ? "predicted" : "true");
  if (other?.some((value) => value !== 0)) return "too weak to be seen beside the other map, whose scale it shares";
  return needsLayer(state.method) ? "this layer has no effect on either class" : "no effect on either class";
}

/** Whether the most faithful map is selected. */
function isFaithful() {
  if (state.method !== errors.faithful_method) return false;
  return !needsLayer(state.method) || state.layer === errors.faithful_layer;
}

/** Select the most faithful map, or the default one if it is selected. */
function toggleFaithful() {
  if (isFaithful()) setState({ layer: errors.layer, method: errors.method });
  else setState({ layer: errors.faithful_layer, method: errors.faithful_method });
}

/**
 * @param {number} row
 * @param {number} layer
 * @param {string} name
 */
function layerButton(row, layer, name) {
  const button = document.createElement("button");
  button.type = "button";
  button.setAttribute("aria-pressed", String(layer === state.layer));
  button.setAttribute("data-layer", String(layer));
  button.append(imageWithMap(row, layer, state.target, SMALL), `${layer} ${name}${layer === errors.faithful_layer && state.method === errors.faithful_method ? " ✓" : ""}`);
  button.addEventListener("click", () => setState({ layer }));
  return button;
}

/**
 * @param {string} name
 * @param {number} probability
 * @param {boolean} isTrue whether it is the true class
 */
function probabilityBar(name, probability, isTrue) {
  const line = document.createElement("li");
  const [label, number, bar] = [document.createElement("span"), document.createElement("span"), document.createElement("i")];
  label.textContent = isTrue ? `${name} (true)` : name;
  number.textContent = probability.toFixed(2);
  bar.style.width = `${100 * probability}%`;
  line.append(label, bar, number);
  return line;
}

/** @param {number} step 1 for the next image of the gallery, -1 for the previous one */
function move(step) {
  const row = state.image === null ? -1 : errors.index.indexOf(state.image);
  const position = order.indexOf(row);
  const next = position < 0 ? (step > 0 ? 0 : order.length - 1) : Math.min(Math.max(position + step, 0), order.length - 1);
  if (!order.length) return;
  if (state.image === null) openImage(errors.index[order[next]]);
  else setState({ image: errors.index[order[next]] });
}

/** @type {boolean} whether the back button closes the open image */
let pushed = false;

/** @param {number} index of an image in the test split */
function openImage(index) {
  pushed = state.image === null;
  setState({ image: index }, pushed);
}

/** Close the image. If opening it added an entry to the history, go back, so that it does not add another. */
function closeImage() {
  if (pushed) history.back();
  else setState({ image: null });
  pushed = false;
}

/** @param {string} text @param {string} name of the text */
async function copy(text, name) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = document.createElement("textarea"); // a page from a file may not use the clipboard API
    area.value = text;
    viewer.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  element("viewer-status", HTMLElement).textContent = `${name} copied`;
}

/** Wire the buttons of the dialogs. */
function wireViewer() {
  const actions = new Map([
    ["previous", () => move(-1)],
    ["next", () => move(1)],
    ["close", closeImage],
    ["default-method", () => setState({ method: errors.method })],
    ["faithful", toggleFaithful],
    ["copy-name", () => copy(element("viewer-file", HTMLElement).textContent ?? "", "file name")],
    ["copy-link", () => copy(location.href, "link")],
  ]);
  for (const button of viewer.querySelectorAll("button")) button.addEventListener("click", () => actions.get(button.name)?.());
  viewer.addEventListener("close", () => {
    if (state.image !== null) closeImage(); // closed by the Escape key
  });
  const help = element("help", HTMLDialogElement);
  help.querySelector("button")?.addEventListener("click", () => help.close());
  for (const dialog of [viewer, help]) {
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close()); // a click outside
  }
}
