// Heat maps: decoded once, painted when they come into view.

/** @typedef {{ values: Float32Array, height: number, width: number }} HeatMap in [-1, 1] */

/** @param {string} text base64 @returns {Uint8Array<ArrayBuffer>} */
function decodeBase64(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

const COLORS = decodeBase64(errors.colors);
// of a difference: evidence for the predicted and for the true class
const PREDICTED_COLOR = [213, 94, 0];
const TRUE_COLOR = [0, 114, 178];

/** @type {Uint8ClampedArray[][]} red, green, blue and alpha of each sheet, by method and layer */
let sheets = [];

/** @returns {Promise<void>} */
async function decodeMaps() {
  sheets = await Promise.all(errors.maps.sheets.map((layers) => Promise.all(layers.map(decodePixels))));
}

/** @param {string} url @returns {Promise<Uint8ClampedArray>} */
async function decodePixels(url) {
  if (url === "") return new Uint8ClampedArray();
  const image = new Image();
  image.src = url;
  await image.decode();
  const canvas = document.createElement("canvas");
  canvas.width = image.naturalWidth;
  canvas.height = image.naturalHeight;
  const context = canvas.getContext("2d");
  if (context === null) return new Uint8ClampedArray();
  context.drawImage(image, 0, 0);
  return context.getImageData(0, 0, canvas.width, canvas.height).data;
}

/**
 * @param {number} row of the errors
 * @param {number} layer from 1; ignored for a method that needs none
 * @param {string} method
 * @param {Target} target
 * @returns {HeatMap | null} null if there is none
 */
function getMap(row, layer, method, target) {
  const methodIndex = errors.maps.methods.indexOf(method);
  const mapIndex = needsLayer(method) ? layer - 1 : 0;
  const pixels = sheets[methodIndex]?.[mapIndex];
  if (pixels === undefined || row >= errors.maps.counts[methodIndex]) return null;
  const { columns, sizes, levels, spacing } = errors.maps;
  const [height, width] = sizes[methodIndex][mapIndex];
  const top = Math.floor(row / columns) * height;
  const left = (row % columns) * 2 * width;
  const at = (/** @type {number} */ y, /** @type {number} */ x) =>
    Math.round(pixels[4 * ((top + y) * columns * 2 * width + left + x)] / spacing) - levels;
  const values = Float32Array.from({ length: height * width }, (_, index) => {
    const [y, x] = [Math.floor(index / width), index % width];
    return target === "predicted" ? at(y, x) : target === "true" ? at(y, x + width) : at(y, x) - at(y, x + width);
  });
  // The two maps share a scale, so that they can be compared; their difference has its own, or it would be faint.
  const largest = target === "difference" ? values.reduce((most, value) => Math.max(most, Math.abs(value)), 1) : levels;
  for (let index = 0; index < values.length; index++) values[index] /= largest;
  return { values, height, width };
}

/**
 * Paint a heat map on a transparent canvas; opacity follows heat.
 * @param {HTMLCanvasElement} canvas
 * @param {HeatMap | null} map
 * @param {Target} target
 * @param {number} opacity in percent
 * @param {number} width in pixels
 * @param {number} height
 */
function paint(canvas, map, target, opacity, width, height) {
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  if (map === null || context === null) return;
  const image = context.createImageData(width, height);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const value = interpolate(map, ((x + 0.5) * map.width) / width - 0.5, ((y + 0.5) * map.height) / height - 0.5);
      const heat = Math.min(1, target === "difference" ? Math.abs(value) : Math.max(0, value));
      const step = 3 * Math.round(heat * (COLORS.length / 3 - 1));
      const [red, green, blue] = target === "difference" ? (value > 0 ? PREDICTED_COLOR : TRUE_COLOR) : COLORS.subarray(step, step + 3);
      image.data.set([red, green, blue, 255 * heat * (opacity / 100)], 4 * (y * width + x));
    }
  }
  context.putImageData(image, 0, 0);
}

/**
 * Bilinear interpolation, constant beyond the centers of the outermost cells.
 * @param {HeatMap} map
 * @param {number} x
 * @param {number} y
 */
function interpolate(map, x, y) {
  const column = Math.min(Math.max(x, 0), map.width - 1);
  const row = Math.min(Math.max(y, 0), map.height - 1);
  const left = Math.floor(column);
  const top = Math.floor(row);
  const right = Math.min(left + 1, map.width - 1);
  const bottom = Math.min(top + 1, map.height - 1);
  const at = (/** @type {number} */ y, /** @type {number} */ x) => map.values[y * map.width + x];
  const upper = at(top, left) + (column - left) * (at(top, right) - at(top, left));
  const lower = at(bottom, left) + (column - left) * (at(bottom, right) - at(bottom, left));
  return upper + (row - top) * (lower - upper);
}
