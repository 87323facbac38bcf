// Maps of heat, unpacked once and painted where they are seen.

/** @typedef {{ values: Float32Array, height: number, width: number }} HeatMap in [-1, 1] */

/** @param {string} text base64 @returns {Uint8Array<ArrayBuffer>} */
function bytesOf(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

const COLORS = bytesOf(mistakes.colors);
const FOR = [213, 94, 0]; // of a difference: what speaks for the predicted class
const AGAINST = [0, 114, 178]; // and for the true one


/** @type {Uint8ClampedArray[][]} red, green, blue and alpha of each sheet, by method and layer */
let sheets = [];

/** @returns {Promise<void>} */
async function unpackMaps() {
  sheets = await Promise.all(mistakes.maps.sheets.map((layers) => Promise.all(layers.map(pixelsOf))));
}

/** @param {string} url @returns {Promise<Uint8ClampedArray>} */
async function pixelsOf(url) {
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
 * @param {number} row of the mistakes
 * @param {number} layer from 1
 * @param {string} method
 * @param {Target} target
 * @returns {HeatMap | null} null where there is none
 */
function mapOf(row, layer, method, target) {
  const place = mistakes.maps.methods.indexOf(method);
  const pixels = sheets[place]?.[layer - 1];
  if (pixels === undefined || row >= mistakes.maps.counts[place]) return null;
  const { columns, sizes, steps, apart } = mistakes.maps;
  const [height, width] = sizes[layer - 1];
  const top = Math.floor(row / columns) * height;
  const left = (row % columns) * 2 * width;
  const at = (/** @type {number} */ y, /** @type {number} */ x) =>
    Math.round(pixels[4 * ((top + y) * columns * 2 * width + left + x)] / apart) - steps;
  const values = Float32Array.from({ length: height * width }, (_, each) => {
    const [y, x] = [Math.floor(each / width), each % width];
    return target === "predicted" ? at(y, x) : target === "true" ? at(y, x + width) : at(y, x) - at(y, x + width);
  });
  // The two maps are on one scale, so that they can be compared; their difference is on its own, or it would hardly be seen.
  const largest = target === "difference" ? values.reduce((most, value) => Math.max(most, Math.abs(value)), 1) : steps;
  for (let each = 0; each < values.length; each++) values[each] /= largest;
  return { values, height, width };
}

/**
 * Paint heat on a transparent canvas: the hotter, the more it covers.
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
  const picture = context.createImageData(width, height);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const value = between(map, ((x + 0.5) * map.width) / width - 0.5, ((y + 0.5) * map.height) / height - 0.5);
      const heat = Math.min(1, target === "difference" ? Math.abs(value) : Math.max(0, value));
      const step = 3 * Math.round(heat * (COLORS.length / 3 - 1));
      const [red, green, blue] = target === "difference" ? (value > 0 ? FOR : AGAINST) : COLORS.subarray(step, step + 3);
      picture.data.set([red, green, blue, 255 * heat * (opacity / 100)], 4 * (y * width + x));
    }
  }
  context.putImageData(picture, 0, 0);
}

/**
 * A map's value between its places, bilinearly; places are areas, and beyond the outermost middles it is as they are.
 * @param {HeatMap} map
 * @param {number} x
 * @param {number} y
 */
function between(map, x, y) {
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
