// Colours, masks and outlines on a canvas.

const GOLDEN = 0.618033988749895; // steps of the hue circle that stay far from one another

const LINE = 2; // width of outlines in pixels

/** A vivid colour [r, g, b] for each number, as in the package's own drawings. */
export function colorOf(index) {
  const value = Math.floor(index / 7) % 2 ? 0.8 : 1;
  const hue = ((index * GOLDEN) % 1) * 6;
  const channel = (n) => {
    const k = (n + hue) % 6;
    return Math.round(255 * value * (1 - 0.85 * Math.max(0, Math.min(k, 4 - k, 1))));
  };
  return [channel(5), channel(3), channel(1)];
}

/**
 * Draw instances over an image, the large ones first.
 *
 * @param context Of the canvas that lies over the image; it has the masks' size.
 * @param instances With `window` (see masks.js) and `number`.
 * @param active The instance to stand out, or null.
 * @returns Int16Array (height, width): the number of the instance on top, -1 for none.
 */
export function drawInstances(context, instances, active) {
  const { width, height } = context.canvas;
  const overlay = context.createImageData(width, height);
  const top = new Int16Array(width * height).fill(-1);
  const area = ({ window }) => window.width * window.height;
  for (const instance of [...instances].sort((a, b) => area(b) - area(a))) {
    const strength = active === null ? 110 : instance === active ? 150 : 40;
    paint(overlay, top, instance, strength);
  }
  context.putImageData(overlay, 0, 0);
  return top;
}

function paint(overlay, top, instance, strength) {
  const { window, number } = instance;
  const pixels = new Uint32Array(overlay.data.buffer);
  const [r, g, b] = colorOf(number);
  const color = (alpha) => ((alpha << 24) | (b << 16) | (g << 8) | r) >>> 0;
  const down = LINE * window.width;
  const [fill, outline] = [color(strength), color(Math.min(255, 2 * strength))];
  const { x: left, y: up, width, height, data } = window;
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const i = y * width + x;
      if (!data[i]) continue;
      const inside =
        x >= LINE && x < width - LINE && y >= LINE && y < height - LINE &&
        data[i - LINE] && data[i + LINE] && data[i - down] && data[i + down];
      const at = (up + y) * overlay.width + left + x;
      top[at] = number;
      pixels[at] = inside ? fill : outline;
    }
  }
}
