// Images as the network gets them: the size, the filter, the order of channels and the padding.

/** Size [height, width] at which the network sees an image, with a short side of `short` pixels. */
export function networkSize(height, width, model, short = model.min_size) {
  if (model.size) {
    // The largest that fits.
    const scale = Math.min(model.size[0] / height, model.size[1] / width);
    return [height, width].map((side) => Math.max(1, Math.trunc(side * scale)));
  }
  if (short === 0) return [height, width];
  let scale = short / Math.min(height, width);
  let sides = height < width ? [short, scale * width] : [scale * height, short];
  const longest = Math.max(...sides);
  const limit = Math.round((model.max_size * short) / model.min_size);
  if (longest > limit) {
    scale = limit / longest;
    sides = sides.map((side) => side * scale);
  }
  return sides.map((side) => Math.max(1, Math.trunc(side + 0.5)));
}

/** Size [height, width] of the padded input that holds an image of `size`. */
export function canvasSize(size, model) {
  return model.size ?? size.map((side) => Math.ceil(side / model.divisor) * model.divisor);
}

/**
 * Make the network's input of an image.
 *
 * @param rgba Uint8 pixels of `height` rows; alpha is left out.
 * @returns Float32Array (batch, 3, *canvas): the image in the top left corner, the mean around it.
 */
export function networkInput(rgba, height, width, size, canvas, model) {
  const filter = { pillow, opencv }[model.resize_filter];
  const pixels = size[0] === height && size[1] === width ? rgba : filter(rgba, height, width, size);
  const plane = canvas[0] * canvas[1];
  const input = new Float32Array((model.batch ?? 1) * 3 * plane);
  for (let i = 0; i < input.length; i += plane) {
    input.fill(model.pixel_mean[(i / plane) % 3], i, i + plane);
  }
  const channels = model.input_format === "RGB" ? [0, 1, 2] : [2, 1, 0];
  for (let c = 0; c < 3; c++) {
    for (let y = 0; y < size[0]; y++) {
      const row = c * plane + y * canvas[1];
      const source = 4 * y * size[1] + channels[c];
      for (let x = 0; x < size[1]; x++) input[row + x] = pixels[source + 4 * x];
    }
  }
  return input;
}

/** Resize as Pillow does, bit by bit: columns, then rows, each rounded to 8 bits. */
export function pillow(rgba, height, width, size) {
  const narrow = width === size[1] ? rgba : columns(rgba, height, width, size[1]);
  return height === size[0] ? narrow : rows(narrow, height, size[1], size[0]);
}

function columns(rgba, height, width, output) {
  const taps = triangle(width, output);
  const result = new Uint8ClampedArray(4 * height * output);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < output; x++) {
      const { start, weights } = taps[x];
      let from = 4 * (y * width + start);
      let [r, g, b] = [0, 0, 0];
      for (let i = 0; i < weights.length; i++, from += 4) {
        r += rgba[from] * weights[i];
        g += rgba[from + 1] * weights[i];
        b += rgba[from + 2] * weights[i];
      }
      put(result, 4 * (y * output + x), r, g, b);
    }
  }
  return result;
}

function rows(rgba, height, width, output) {
  const taps = triangle(height, output);
  const result = new Uint8ClampedArray(4 * output * width);
  for (let y = 0; y < output; y++) {
    const { start, weights } = taps[y];
    for (let x = 0; x < width; x++) {
      let from = 4 * (start * width + x);
      let [r, g, b] = [0, 0, 0];
      for (let i = 0; i < weights.length; i++, from += 4 * width) {
        r += rgba[from] * weights[i];
        g += rgba[from + 1] * weights[i];
        b += rgba[from + 2] * weights[i];
      }
      put(result, 4 * (y * width + x), r, g, b);
    }
  }
  return result;
}

const ONE = 2 ** 22; // sums of whole numbers times this are exact in a double

function put(result, at, r, g, b) {
  result[at] = Math.floor(r / ONE + 0.5);
  result[at + 1] = Math.floor(g / ONE + 0.5);
  result[at + 2] = Math.floor(b / ONE + 0.5);
}

/** For each output the first pixel and the weights: a triangle as wide as the pixels it covers. */
function triangle(size, output) {
  const scale = size / output;
  const support = Math.max(scale, 1);
  return Array.from({ length: output }, (_, index) => {
    const center = (index + 0.5) * scale;
    const start = Math.max(Math.trunc(center - support + 0.5), 0);
    const end = Math.min(Math.trunc(center + support + 0.5), size);
    const weights = new Float64Array(end - start).map((_, i) =>
      Math.max(1 - Math.abs((start + i - center + 0.5) / support), 0),
    );
    const sum = weights.reduce((a, b) => a + b);
    return { start, weights: weights.map((x) => Math.floor((x / sum) * ONE + 0.5)) };
  });
}

/** Resize as OpenCV does: two pixels along each axis, weights of 11 bits, and the bits it drops. */
export function opencv(rgba, height, width, size) {
  const [ys, xs] = [pairs(height, size[0]), pairs(width, size[1])];
  const result = new Uint8ClampedArray(4 * size[0] * size[1]);
  const along = (row, { low, high, weight }, c) => {
    const share = low === high ? 0 : weight;
    return (rgba[row + 4 * low + c] * (2048 - share) + rgba[row + 4 * high + c] * share) >> 4;
  };
  let at = 0;
  for (const y of ys) {
    for (const x of xs) {
      for (let c = 0; c < 3; c++) {
        const top = along(4 * y.low * width, x, c) * (2048 - y.weight);
        const bottom = along(4 * y.high * width, x, c) * y.weight;
        result[at + c] = ((top >> 16) + (bottom >> 16) + 2) >> 2;
      }
      at += 4;
    }
  }
  return result;
}

function pairs(size, output) {
  return Array.from({ length: output }, (_, index) => {
    const center = Math.fround((index + 0.5) * (size / output) - 0.5);
    const low = Math.floor(center);
    const [first, second] = [low, low + 1].map((i) => Math.min(Math.max(i, 0), size - 1));
    return { low: first, high: second, weight: roundEven((center - low) * 2048) };
  });
}

function roundEven(value) {
  const floor = Math.floor(value);
  const rest = value - floor;
  return floor + (rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? 1 : 0);
}
