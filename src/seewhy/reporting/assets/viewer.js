// One mistake, large: what speaks for the predicted class, what for the true one, at every layer.

const viewer = element("viewer", HTMLDialogElement);
const TARGETS = /** @type {Target[]} */ (["predicted", "true", "difference"]);
const LARGE = 224; // pixels of heat
const SMALL = 96;

/** Show the image that the state asks for, or close. */
function showViewer() {
  const row = state.image === null ? -1 : mistakes.index.indexOf(state.image);
  for (const [each, card] of cards.entries()) card.classList.toggle("open", each === row);
  if (row < 0) {
    if (viewer.open) viewer.close();
    return;
  }
  const [actual, predicted] = mistakes.kinds[row].map((place) => mistakes.classes[place]);
  element("viewer-title", HTMLElement).textContent = `predicted ${predicted}, true ${actual}`;
  element("viewer-index", HTMLElement).textContent = `test image ${mistakes.index[row]}`;
  element("viewer-file", HTMLElement).textContent = mistakes.names[row];
  element("viewer-status", HTMLElement).textContent = "";
  const explained = mistakes.maps.layers.length > 0;
  const covered = row < mistakes.maps.counts[mistakes.maps.methods.indexOf(state.method)];
  const plain = document.createElement("figure");
  plain.append(heated(row, state.layer, null, LARGE));
  const captions = { predicted: `what speaks for ${predicted}`, true: `what speaks for ${actual}`, difference: `orange: for ${predicted}, blue: for ${actual}` };
  const looks = explained && covered ? TARGETS.map((target) => lookOf(row, target, captions[target])) : [];
  element("viewer-looks", HTMLElement).replaceChildren(plain, ...looks);
  element("viewer-missing", HTMLElement).hidden = !explained || covered;
  const focused = document.activeElement?.closest(".stages button")?.getAttribute("data-layer");
  const stages = element("viewer-stages", HTMLElement);
  stages.replaceChildren(...mistakes.maps.layers.map((name, place) => stageOf(row, place + 1, name)));
  if (focused) /** @type {HTMLElement | null} */ (stages.querySelector(`[data-layer="${focused}"]`))?.focus();
  const bars = mistakes.top[row].map((place, rank) => barOf(mistakes.classes[place], mistakes.probabilities[row][rank], place === mistakes.kinds[row][0]));
  element("viewer-probabilities", HTMLElement).replaceChildren(...bars);
  if (!viewer.open) viewer.showModal();
}

/**
 * The image with heat on it, or without for no target.
 * @param {number} row
 * @param {number} layer
 * @param {Target | null} target
 * @param {number} pixels
 * @returns {HTMLElement}
 */
function heated(row, layer, target, pixels) {
  const box = document.createElement("div");
  const tile = cards[row].querySelector("svg")?.cloneNode(true);
  if (tile) box.append(tile);
  if (target === null) return box;
  const canvas = document.createElement("canvas");
  canvas.className = "heat";
  const map = state.overlay ? mapOf(row, layer, state.method, target) : null;
  paint(canvas, map, target, state.opacity, pixels, pixels);
  box.append(canvas);
  return box;
}

/**
 * @param {number} row
 * @param {Target} target
 * @param {string} caption
 */
function lookOf(row, target, caption) {
  const figure = document.createElement("figure");
  const text = document.createElement("figcaption");
  text.textContent = caption;
  figure.append(heated(row, state.layer, target, LARGE), text);
  return figure;
}

/**
 * @param {number} row
 * @param {number} layer
 * @param {string} name
 */
function stageOf(row, layer, name) {
  const button = document.createElement("button");
  button.type = "button";
  button.setAttribute("aria-pressed", String(layer === state.layer));
  button.setAttribute("data-layer", String(layer));
  button.append(heated(row, layer, state.target, SMALL), `${layer} ${name}`);
  button.addEventListener("click", () => look({ layer }));
  return button;
}

/**
 * @param {string} name
 * @param {number} probability
 * @param {boolean} right whether that is the true class
 */
function barOf(name, probability, right) {
  const line = document.createElement("li");
  const [label, number, bar] = [document.createElement("span"), document.createElement("span"), document.createElement("i")];
  label.textContent = right ? `${name} (true)` : name;
  number.textContent = probability.toFixed(2);
  bar.style.width = `${100 * probability}%`;
  line.append(label, bar, number);
  return line;
}

/** @param {number} step to the next image of the gallery, or back with -1 */
function move(step) {
  const row = state.image === null ? -1 : mistakes.index.indexOf(state.image);
  const place = order.indexOf(row);
  const next = place < 0 ? (step > 0 ? 0 : order.length - 1) : Math.min(Math.max(place + step, 0), order.length - 1);
  if (!order.length) return;
  if (state.image === null) enter(mistakes.index[order[next]]);
  else look({ image: mistakes.index[order[next]] });
}

/** @type {boolean} whether going back closes the image that is open */
let entered = false;

/** @param {number} index of an image that is to be opened */
function enter(index) {
  entered = state.image === null;
  look({ image: index }, entered);
}

/** Close the image; where it was opened by a step that can be gone back, go back, so that the step is not there twice. */
function leave() {
  if (entered) history.back();
  else look({ image: null });
  entered = false;
}

/** @param {string} text @param {string} what */
async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = document.createElement("textarea"); // where a page from a file may not use the clipboard itself
    area.value = text;
    viewer.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  element("viewer-status", HTMLElement).textContent = `${what} copied`;
}

/** Wire the buttons of the dialogs. */
function wireViewer() {
  const actions = new Map([
    ["previous", () => move(-1)],
    ["next", () => move(1)],
    ["close", leave],
    ["favored", () => look({ method: mistakes.method })],
    ["copy-name", () => copy(element("viewer-file", HTMLElement).textContent ?? "", "file name")],
    ["copy-link", () => copy(location.href, "link")],
  ]);
  for (const button of viewer.querySelectorAll("button")) button.addEventListener("click", () => actions.get(button.name)?.());
  viewer.addEventListener("close", () => {
    if (state.image !== null) leave(); // closed by the Escape key
  });
  const help = element("help", HTMLDialogElement);
  help.querySelector("button")?.addEventListener("click", () => help.close());
  for (const dialog of [viewer, help]) {
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close()); // on what is around it
  }
}
