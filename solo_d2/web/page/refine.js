// Soft masks at twice the resolution, along the edges of the image: a guided filter.

import { extent } from "./masks.js";

const RADIUS = 2; // of a neighbourhood, in pixels of the masks
const RIDGE = 1e-4; // variance of colours below which a neighbourhood counts as flat
const REACH = 2; // how far a mask may grow beyond its box

/**
 * Make a filter that doubles the resolution of soft masks.
 *
 * In every neighbourhood of 5 x 5 pixels a mask is taken for a linear function of the colours,
 * found by ridge regression. A pixel gets the mean of the functions of the neighbourhoods that it
 * lies in, applied to its own colour in the finer image. Only a window round a mask is computed.
 *
 * @param input Of the network: planes of 3 colours, of which the first image is taken.
 * @param canvas [height, width] of the input, four times those of the masks.
 * @param mean Of the colours.
 * @returns A function of one soft mask (Float32Array): the finer one, 0 away from the mask.
 */
export function maskRefiner(input, canvas, mean, threshold) {
  const [height, width] = canvas.map((side) => side / 4);
  const fine = mean.map((value, c) => half(input, c, canvas, value));
  const coarse = fine.map((plane) => half(plane, 0, [2 * height, 2 * width], 0, 1));
  const all = { y0: 0, y1: height, x0: 0, x1: width };
  const size = [height, width];
  const means = coarse.map((plane) => localMean(plane, all, all, size));
  const inverse = inverses(coarse, means, all, size);
  return (probs) => {
    const refined = new Float32Array(4 * height * width);
    const box = extent(probs, size, threshold);
    if (!box) return refined;
    // What a window depends on: two neighbourhoods.
    const [inner, middle, outer] = [0, 1, 2].map((n) => grow(box, REACH + n * RADIUS, size));
    const mask = cut(probs, outer, width);
    const mean = localMean(mask, outer, middle, size);
    const seen = coarse.map((plane) => {
      const products = cut(plane, outer, width).map((value, i) => value * mask[i]);
      return localMean(products, outer, middle, size);
    });
    const functions = regress(mean, seen, means, inverse, (use) => visit(middle, width, use));
    const [r, g, b, constant] = functions.map((plane) => localMean(plane, middle, inner, size));
    visit(inner, width, (i, at) => {
      const first = 4 * (at - (at % width)) + 2 * (at % width); // of four, at twice the resolution
      for (const to of [first, first + 1, first + 2 * width, first + 2 * width + 1]) {
        refined[to] = r[i] * fine[0][to] + g[i] * fine[1][to] + b[i] * fine[2][to] + constant[i];
      }
    });
    return refined;
  };
}

/** Three slopes and a constant for every neighbourhood that `each` visits. */
function regress(mean, seen, means, inverse, each) {
  const functions = [0, 1, 2, 3].map(() => new Float64Array(mean.length));
  each((i, at) => {
    const covariances = seen.map((plane, k) => plane[i] - mean[i] * means[k][at]);
    functions[3][i] = mean[i];
    inverse.forEach((row, k) => {
      const slope = row.reduce((sum, plane, j) => sum + plane[at] * covariances[j], 0);
      functions[k][i] = slope;
      functions[3][i] -= slope * means[k][at];
    });
  });
  return functions;
}

/** Means of 2 x 2 pixels of a plane, less `zero`, as parts of `range`. */
function half(planes, number, [height, width], zero, range = 255) {
  const result = new Float64Array((height * width) / 4);
  const start = number * height * width;
  for (let y = 0, i = 0; y < height; y += 2) {
    for (let x = 0; x < width; x += 2, i++) {
      const at = start + y * width + x;
      const sum = planes[at] + planes[at + 1] + planes[at + width] + planes[at + width + 1];
      result[i] = (sum / 4 - zero) / range;
    }
  }
  return result;
}

/** The inverse (3, 3) of the covariances of the colours around every pixel, with the ridge. */
function inverses(coarse, means, all, size) {
  const covariance = (i, j) => {
    const products = coarse[i].map((value, at) => value * coarse[j][at]);
    const ridge = i === j ? RIDGE : 0;
    return localMean(products, all, all, size).map((x, at) => x - means[i][at] * means[j][at] + ridge);
  };
  const [rr, rg, rb] = [covariance(0, 0), covariance(0, 1), covariance(0, 2)];
  const [gg, gb, bb] = [covariance(1, 1), covariance(1, 2), covariance(2, 2)];
  const entry = (f) => rr.map((_, i) => f(i));
  const determinant = entry(
    (i) =>
      rr[i] * (gg[i] * bb[i] - gb[i] ** 2) -
      rg[i] * (rg[i] * bb[i] - gb[i] * rb[i]) +
      rb[i] * (rg[i] * gb[i] - gg[i] * rb[i]),
  );
  const upper = [
    entry((i) => (gg[i] * bb[i] - gb[i] ** 2) / determinant[i]),
    entry((i) => (rb[i] * gb[i] - rg[i] * bb[i]) / determinant[i]),
    entry((i) => (rg[i] * gb[i] - rb[i] * gg[i]) / determinant[i]),
    entry((i) => (rr[i] * bb[i] - rb[i] ** 2) / determinant[i]),
    entry((i) => (rg[i] * rb[i] - rr[i] * gb[i]) / determinant[i]),
    entry((i) => (rr[i] * gg[i] - rg[i] ** 2) / determinant[i]),
  ];
  const [a, b, c, d, e, f] = upper;
  return [[a, b, c], [b, d, e], [c, e, f]];
}

/** Means of the neighbourhoods of the pixels of `inner`, of values in `outer`, a window round it. */
function localMean(values, outer, inner, [height, width]) {
  const [from, to] = [outer.x1 - outer.x0, inner.x1 - inner.x0];
  const rows = new Float64Array((outer.y1 - outer.y0) * to);
  for (let y = 0; y < outer.y1 - outer.y0; y++) {
    for (let x = 0; x < to; x++) {
      let sum = 0;
      for (let k = -RADIUS; k <= RADIUS; k++) {
        sum += values[y * from + clamp(inner.x0 + x + k, width) - outer.x0];
      }
      rows[y * to + x] = sum;
    }
  }
  const result = new Float64Array((inner.y1 - inner.y0) * to);
  for (let y = 0; y < inner.y1 - inner.y0; y++) {
    for (let k = -RADIUS; k <= RADIUS; k++) {
      const row = (clamp(inner.y0 + y + k, height) - outer.y0) * to;
      for (let x = 0; x < to; x++) result[y * to + x] += rows[row + x];
    }
  }
  return result.map((sum) => sum / (2 * RADIUS + 1) ** 2);
}

/** The border is repeated outside of the masks. */
function clamp(place, size) {
  return Math.min(Math.max(place, 0), size - 1);
}

function grow({ y0, y1, x0, x1 }, margin, [height, width]) {
  return {
    y0: Math.max(0, y0 - margin),
    y1: Math.min(height, y1 + margin),
    x0: Math.max(0, x0 - margin),
    x1: Math.min(width, x1 + margin),
  };
}

function cut(plane, { y0, y1, x0, x1 }, width) {
  const result = new Float64Array((y1 - y0) * (x1 - x0));
  for (let y = y0; y < y1; y++) {
    result.set(plane.subarray(y * width + x0, y * width + x1), (y - y0) * (x1 - x0));
  }
  return result;
}

/** Call for every pixel of a window with its number there, and on the whole. */
function visit({ y0, y1, x0, x1 }, width, use) {
  for (let y = y0, i = 0; y < y1; y++) for (let x = x0; x < x1; x++, i++) use(i, y * width + x);
}
