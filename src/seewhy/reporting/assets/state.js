// What the reader looks at. It is kept in the address, so that it can be linked, bookmarked and gone back to.

/**
 * @typedef {object} MapsData signed maps for the predicted and for the true class
 * @property {string[]} methods
 * @property {number[]} counts how many images have maps of each method
 * @property {string[]} layers
 * @property {[number, number][]} sizes height and width of the maps of each layer
 * @property {number} steps the largest magnitude
 * @property {number} apart shades of gray between two steps
 * @property {number} columns images in a row of a sheet, each with its two maps side by side
 * @property {string[][]} sheets gray images as data URLs, by method and layer; "" where there is none
 */

/**
 * @typedef {object} Mistakes one entry for each image of the gallery, the surest mistake first
 * @property {number[]} index in the test split
 * @property {string[]} names
 * @property {[number, number][]} kinds true and predicted class
 * @property {number[]} loss
 * @property {number[][]} top most probable classes
 * @property {number[][]} probabilities of these
 * @property {string[]} classes
 * @property {MapsData} maps
 * @property {string} colors base64 of red, green and blue for rising heat
 * @property {number} layer the one to begin with, from 1
 * @property {string} method likewise
 */

/** @typedef {"predicted" | "true" | "difference"} Target */

/**
 * @typedef {object} State
 * @property {[number | null, number | null]} confusion true and predicted class, null for any
 * @property {number | null} image its index in the test split, null where none is open
 * @property {number} layer from 1
 * @property {string} method
 * @property {Target} target
 * @property {string} sort
 * @property {number} opacity in percent
 * @property {boolean} overlay
 */

/**
 * The element of that id, which the page has.
 * @template {HTMLElement} T
 * @param {string} id
 * @param {new () => T} kind
 * @returns {T}
 */
function element(id, kind) {
  const found = document.getElementById(id);
  if (!(found instanceof kind)) throw new Error(`the page lacks #${id}`);
  return found;
}

/** @type {Mistakes} */
const mistakes = JSON.parse(element("data", HTMLScriptElement).textContent ?? "").mistakes;

/** How each class is called in an address: by its name, or by its number where the name is empty or another's too. */
const KEYS = mistakes.classes.map((name, place) =>
  name !== "" && mistakes.classes.indexOf(name) === mistakes.classes.lastIndexOf(name) ? name : `class ${place}`,
);

/** @type {State} */
const START = {
  confusion: [null, null],
  image: null,
  layer: mistakes.layer,
  method: mistakes.method,
  target: "predicted",
  sort: "confidence",
  opacity: 65,
  overlay: true,
};

/** @type {State} */
let state = START;

const NOTHING = "#all"; // the address of the start: an empty one would scroll to the top

/** @returns {State} what the address says; whatever it says wrongly is left as it is at the start */
function readState() {
  const next = { ...START };
  const plain = /^#image-(\d+)$/.exec(location.hash); // a link that works without a script too
  if (plain) return { ...state, image: known(Number(plain[1])) };
  if (/^#[\w-]+$/.test(location.hash) && location.hash !== NOTHING) return { ...state, image: null }; // a place in the page
  for (const part of location.hash.slice(1).split("&")) {
    const [key, value = ""] = part.split("=", 2);
    if (key === "confusion") {
      const [actual, predicted] = value.split(",").map(classNamed);
      next.confusion = [actual ?? null, predicted ?? null];
    } else if (key === "image") next.image = known(Number(value));
    else if (key === "layer" && mistakes.maps.layers[Number(value) - 1] !== undefined) next.layer = Number(value);
    else if (key === "method" && mistakes.maps.methods.includes(value)) next.method = value;
    else if (key === "target" && (value === "predicted" || value === "true" || value === "difference")) next.target = value;
    else if (key === "sort" && ["confidence", "loss", "confusion"].includes(value)) next.sort = value;
    else if (key === "opacity" && value !== "" && Number(value) >= 0 && Number(value) <= 100) next.opacity = Number(value);
    else if (key === "overlay") next.overlay = value !== "off";
  }
  return next;
}

/**
 * Change what is looked at; the page follows the address.
 * @param {Partial<State>} changes
 * @param {boolean} [lasting] whether going back leads to what was before
 */
function look(changes, lasting = false) {
  const next = { ...state, ...changes };
  const parts = [];
  if (next.confusion[0] !== null || next.confusion[1] !== null) {
    parts.push("confusion=" + next.confusion.map((place) => (place === null ? "" : encodeURIComponent(KEYS[place]))).join(","));
  }
  if (next.image !== null) parts.push(`image=${next.image}`);
  for (const key of /** @type {const} */ (["layer", "method", "target", "sort", "opacity"])) {
    if (next[key] !== START[key]) parts.push(`${key}=${next[key]}`);
  }
  if (!next.overlay) parts.push("overlay=off");
  const address = parts.length ? "#" + parts.join("&") : NOTHING;
  if (lasting) location.hash = address;
  else location.replace(address);
}

/** @param {string} text a class in an address @returns {number | null} */
function classNamed(text) {
  try {
    const place = KEYS.indexOf(decodeURIComponent(text));
    return place < 0 ? null : place;
  } catch {
    return null; // a percent sign that begins no character
  }
}

/** @param {number} index @returns {number | null} the index, if the gallery has that image */
function known(index) {
  return mistakes.index.includes(index) ? index : null;
}
