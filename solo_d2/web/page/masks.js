// From soft masks at stride 4 to masks at a size of one's own, and to COCO's RLE.

/**
 * Make a resizer of soft masks.
 *
 * Both steps, to the canvas and from the image in it to the output, are linear along each axis, so
 * that an output is a sum of a few inputs. Only the window that a mask can reach is computed.
 *
 * @param stride [height, width] of soft masks.
 * @param canvas Of the padded input.
 * @param image Of the image in its top left corner.
 * @param output Wanted.
 * @returns A function of one soft mask (Float32Array): null where nothing exceeds the threshold,
 *     else {x, y, width, height, data}, the tight box and its Uint8Array of 0 and 1.
 */
export function maskResizer(stride, canvas, image, output, threshold) {
  const [ys, xs] = [0, 1].map((i) => chain(stride[i], canvas[i], image[i], output[i]));
  return (probs) => {
    const reach = extent(probs, stride, threshold);
    if (!reach) return null;
    const [y0, y1] = span(ys, reach.y0, reach.y1);
    const [x0, x1] = span(xs, reach.x0, reach.x1);
    const size = [y1 - y0, x1 - x0];
    if (Math.min(...size) <= 0) return null;
    const data = new Uint8Array(size[0] * size[1]);
    const row = new Float64Array(stride[1]);
    for (let y = 0; y < size[0]; y++) {
      const { start, weights } = ys[y0 + y];
      row.fill(0);
      for (let k = 0; k < weights.length; k++) {
        const from = (start + k) * stride[1];
        for (let i = 0; i < row.length; i++) row[i] += weights[k] * probs[from + i];
      }
      for (let x = 0; x < size[1]; x++) {
        const tap = xs[x0 + x];
        let value = 0;
        for (let k = 0; k < tap.weights.length; k++) value += tap.weights[k] * row[tap.start + k];
        data[y * size[1] + x] = value > threshold ? 1 : 0;
      }
    }
    return tight({ x: x0, y: y0, width: size[1], height: size[0], data });
  };
}

/** Rows and columns [low, high) that hold what exceeds the threshold; null for none. */
export function extent(values, [height, width], threshold) {
  const box = { x0: width, y0: height, x1: 0, y1: 0 };
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (!(values[y * width + x] > threshold)) continue;
      box.y0 = Math.min(box.y0, y);
      box.y1 = y + 1;
      if (x < box.x0) box.x0 = x;
      if (x >= box.x1) box.x1 = x + 1;
    }
  }
  return box.y1 ? box : null;
}

/** First and one-past-last output that uses an input in [low, high). */
function span(taps, low, high) {
  const start = taps.findIndex((tap) => tap.start + tap.weights.length > low);
  const end = taps.findIndex((tap) => tap.start >= high);
  return [start < 0 ? taps.length : start, end < 0 ? taps.length : end];
}

function tight(window) {
  const { x, y, width, data } = window;
  const box = extent(data, [window.height, width], 0);
  if (!box) return null;
  const [w, h] = [box.x1 - box.x0, box.y1 - box.y0];
  const cut = new Uint8Array(w * h);
  for (let i = 0; i < h; i++) {
    const from = (box.y0 + i) * width + box.x0;
    cut.set(data.subarray(from, from + w), i * w);
  }
  return { x: x + box.x0, y: y + box.y0, width: w, height: h, data: cut };
}

/** Both steps of resizing as one: for each output the first input and the weights. */
function chain(size, canvas, image, output) {
  const inner = linear(size, canvas);
  return linear(image, output).map(({ start, weights }) => {
    const parts = [...weights].map((weight, i) => ({ weight, tap: inner[start + i] }));
    const first = parts[0].tap.start;
    const last = parts[parts.length - 1].tap;
    const sum = new Float64Array(last.start + last.weights.length - first);
    for (const { weight, tap } of parts) {
      tap.weights.forEach((x, k) => (sum[tap.start + k - first] += weight * x));
    }
    return { start: first, weights: sum };
  });
}

/** Linear interpolation with half-pixel centres, in single precision as torch has it. */
function linear(size, output) {
  const scale = Math.fround(size / output);
  return Array.from({ length: output }, (_, index) => {
    const center = Math.max(Math.fround(Math.fround((index + 0.5) * scale) - 0.5), 0);
    const start = Math.min(Math.trunc(center), size - 1);
    const share = Math.fround(center - start);
    return start + 1 < size && share > 0
      ? { start, weights: Float64Array.of(Math.fround(1 - share), share) }
      : { start, weights: Float64Array.of(1) };
  });
}

/** COCO's compressed RLE of a window in an image of [height, width], column by column. */
export function encodeRle(window, [height, width]) {
  const counts = runs(window, height, width);
  let text = "";
  counts.forEach((count, i) => {
    // Differences to the run before the last, in groups of 5 bits.
    let value = i > 2 ? count - counts[i - 2] : count;
    for (let more = true; more; ) {
      const group = value & 31;
      value >>= 5;
      more = group & 16 ? value !== -1 : value !== 0;
      text += String.fromCharCode((more ? group | 32 : group) + 48);
    }
  });
  return text;
}

/** Lengths of runs of 0 and 1 in turns, column by column, beginning with 0. */
function runs(window, height, width) {
  const counts = [];
  let [value, end] = [0, 0]; // of the run so far, and where it began
  const change = (at, next) => {
    if (next === value) return;
    counts.push(at - end);
    [value, end] = [next, at];
  };
  for (let x = 0; x < window.width; x++) {
    const top = (window.x + x) * height + window.y;
    change(top, window.data[x]);
    for (let y = 1; y < window.height; y++) change(top + y, window.data[y * window.width + x]);
    if (window.height < height) change(top + window.height, 0);
  }
  change((window.x + window.width) * height, 0);
  if (end < height * width) counts.push(height * width - end);
  return counts;
}
