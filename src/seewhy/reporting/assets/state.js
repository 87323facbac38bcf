// The state of the page. It is kept in the address, so that links, bookmarks and the back button work.

/**
 * @typedef {object} MapsData signed maps for the predicted and the true class
 * @property {string[]} methods
 * @property {boolean[]} needs_layer whether there are maps of each layer or one of the whole model, by method
 * @property {number[]} counts number of images with maps, by method
 * @property {[number, number][][]} sizes height and width of the maps, by method and layer
 * @property {number} levels the largest magnitude
 * @property {number} spacing gray values between two levels
 * @property {number} columns images in a row of a sheet, each with its two maps side by side
 * @property {string[][]} sheets gray images as data URLs, by method and layer; "" if there are no maps
 */

/**
 * @typedef {object} NeighborsData training images of the first errors
 * @property {string} sheet their thumbnails as a data URL
 * @property {number} height of a thumbnail in pixels
 * @property {number} width
 * @property {number} columns thumbnails in a row of the sheet
 * @property {number[]} indices in the training split, by thumbnail
 * @property {number[]} labels by thumbnail
 * @property {TrainingImages} nearest by features, with cosine similarities, and last the nearest of the true class
 * @property {TrainingImages | null} influential with shares of influence, and last the strongest opponent
 * @property {string} searched among which images
 */

/**
 * @typedef {object} TrainingImages some for each error
 * @property {number[][]} tiles thumbnails; -1 for none
 * @property {number[][]} values of these
 */

/**
 * @typedef {object} ErrorsData the misclassified images of the gallery, the most confident first
 * @property {number[]} index in the test split
 * @property {string[]} names file names
 * @property {[number, number][]} confusions true and predicted class
 * @property {number[]} loss
 * @property {number[][]} top the most probable classes
 * @property {number[][]} probabilities of the most probable classes
 * @property {string[]} classes all class names
 * @property {string[]} layers names of the layers
 * @property {MapsData} maps
 * @property {NeighborsData | null} neighbors
 * @property {string} colors base64 of red, green and blue by increasing heat
 * @property {number[]} true probabilities of the true class
 * @property {number} layer the default layer, from 1
 * @property {string} method the default method
 * @property {number} faithful_layer the layer of the most faithful map, from 1
 * @property {string} faithful_method its method
 */

/**
 * @typedef {object} LabelsData the images whose label can be changed, for labels.csv
 * @property {string} header
 * @property {{[index: string]: [string, number, number]}} images file, split, index and label as CSV; label; suggested class or -1
 * @property {string[]} cells class names as CSV
 */

/**
 * @typedef {object} MapOfImages images in the plane; arrays are base64, with an entry for each
 * @property {string} positions from the left and from the top, two numbers of 16 bits from 0 to 65535
 * @property {string} labels true classes
 * @property {string} predicted
 * @property {number} bytes of a class
 * @property {string} confidence in percent, a byte
 * @property {number[] | null} indices in the test split; null if all images are on the map
 * @property {number} every distance of the images that have a thumbnail
 * @property {string} sheet their thumbnails as a data URL
 * @property {number} height of a thumbnail in pixels
 * @property {number} width
 * @property {number} columns thumbnails in a row of the sheet
 * @property {string[]} cells class names as CSV
 * @property {{name: string, values: string[], codes: string}[]} groups columns of metadata: the value of each image as an index
 * @property {{indices: number[], names: string[]}} [train] training images, on request: their positions and labels follow those of the test images, which alone have the rest
 */

/** @typedef {"predicted" | "true" | "difference"} Target */

/**
 * @typedef {object} State
 * @property {[number | null, number | null]} confusion true and predicted class, null for any class
 * @property {number | null} image index of the open image in the test split, null if none is open
 * @property {number} layer from 1
 * @property {string} method
 * @property {Target} target
 * @property {string} sort
 * @property {number} opacity in percent
 * @property {boolean} overlay
 */

/**
 * The element with an id; throws an error if there is none of that kind.
 * @template {HTMLElement} T
 * @param {string} id
 * @param {new () => T} kind
 * @returns {T}
 */
function element(id, kind) {
  const result = document.getElementById(id);
  if (!(result instanceof kind)) throw new Error(`the page has no #${id}`);
  return result;
}

/** @type {{errors: ErrorsData, "label-issues"?: LabelsData, "image-map"?: MapOfImages}} */
const pageData = JSON.parse(element("data", HTMLScriptElement).textContent ?? "");
const errors = pageData.errors;

/** @param {string} method @returns {boolean} whether it has maps of each layer */
function needsLayer(method) {
  return errors.maps.needs_layer[errors.maps.methods.indexOf(method)] ?? true;
}

/** The keys of the classes in an address: their names, or their numbers if a name is empty or not unique. */
const CLASS_KEYS = errors.classes.map((name, index) =>
  name !== "" && errors.classes.indexOf(name) === errors.classes.lastIndexOf(name) ? name : `class ${index}`,
);

/** @type {State} */
const DEFAULT_STATE = {
  confusion: [null, null],
  image: null,
  layer: errors.layer,
  method: errors.method,
  target: "predicted",
  sort: "confidence",
  opacity: 65,
  overlay: true,
};

/** @type {State} */
let state = DEFAULT_STATE;

const DEFAULT_ADDRESS = "#all"; // an empty address would scroll to the top

/** @returns {State} the state in the address; invalid parts are ignored */
function readState() {
  const next = { ...DEFAULT_STATE };
  const plain = /^#image-(\d+)$/.exec(location.hash); // a link that also works without a script
  if (plain) return { ...state, image: knownImage(Number(plain[1])) };
  if (/^#[\w-]+$/.test(location.hash) && location.hash !== DEFAULT_ADDRESS) return { ...state, image: null }; // an anchor in the page
  for (const part of location.hash.slice(1).split("&")) {
    const [key, value = ""] = part.split("=", 2);
    if (key === "confusion") {
      const [trueClass, predicted] = value.split(",").map(classIndex);
      next.confusion = [trueClass ?? null, predicted ?? null];
    } else if (key === "image") next.image = knownImage(Number(value));
    else if (key === "layer" && errors.layers[Number(value) - 1] !== undefined) next.layer = Number(value);
    else if (key === "method" && errors.maps.methods.includes(value)) next.method = value;
    else if (key === "target" && (value === "predicted" || value === "true" || value === "difference")) next.target = value;
    else if (key === "sort" && ["confidence", "loss", "confusion"].includes(value)) next.sort = value;
    else if (key === "opacity" && value !== "" && Number(value) >= 0 && Number(value) <= 100) next.opacity = Number(value);
    else if (key === "overlay") next.overlay = value !== "off";
  }
  return next;
}

/**
 * Change the state in the address; the page follows.
 * @param {Partial<State>} changes
 * @param {boolean} [push] whether to add an entry to the history
 */
function setState(changes, push = false) {
  const next = { ...state, ...changes };
  const parts = [];
  if (next.confusion[0] !== null || next.confusion[1] !== null) {
    parts.push("confusion=" + next.confusion.map((index) => (index === null ? "" : encodeURIComponent(CLASS_KEYS[index]))).join(","));
  }
  if (next.image !== null) parts.push(`image=${next.image}`);
  for (const key of /** @type {const} */ (["layer", "method", "target", "sort", "opacity"])) {
    if (next[key] !== DEFAULT_STATE[key]) parts.push(`${key}=${next[key]}`);
  }
  if (!next.overlay) parts.push("overlay=off");
  const address = parts.length ? "#" + parts.join("&") : DEFAULT_ADDRESS;
  if (push) location.hash = address;
  else location.replace(address);
}

/** @param {string} text a class key in an address @returns {number | null} */
function classIndex(text) {
  try {
    const index = CLASS_KEYS.indexOf(decodeURIComponent(text));
    return index < 0 ? null : index;
  } catch {
    return null; // malformed percent-encoding
  }
}

/** @param {number} index @returns {number | null} the index, null if the gallery does not have the image */
function knownImage(index) {
  return errors.index.includes(index) ? index : null;
}
