// The model, off the page's thread: answers {id, action, ...} with {id, result} or {id, error}.

import * as ort from "./runtime.js";
import { encodeRle, maskResizer } from "./masks.js";
import { maskRefiner } from "./refine.js";
import { canvasSize, networkInput, networkSize } from "./resize.js";

const MAX_PIXELS = 40_000_000; // of a photograph; decoded it takes four bytes a pixel
const VIEW = 1280; // long side of the masks that are drawn

let model, session;
let last = null; // the photograph and its soft masks: what downloads are made of

const actions = {
  /** Fetch the model and start the runtime; returns the metadata. */
  async load() {
    if (typeof WebAssembly !== "object" || typeof OffscreenCanvas !== "function") {
      throw new Error("This browser is too old: the page needs WebAssembly and OffscreenCanvas.");
    }
    model = await (await get("model.json")).json();
    const total = Object.values(model.files).reduce((a, b) => a + b);
    let loaded = 0;
    const report = (bytes) => postMessage({ progress: (loaded += bytes) / total, total });
    const [weights, binary] = await Promise.all(
      ["model.bin", "runtime.bin"].map((name) => unpack(name, report)),
    );
    ort.env.wasm.wasmBinary = binary;
    // Threads need a page that is isolated from others, which most servers do not make it.
    ort.env.wasm.numThreads = self.crossOriginIsolated ? 0 : 1;
    ort.env.logLevel = "error";
    session = await ort.InferenceSession.create(weights, { executionProviders: ["wasm"] });
    return model;
  },

  /** Find instances: those with masks at a size to be drawn, best first. */
  async detect({ blob, short }) {
    const { pixels, size } = await decode(blob);
    const seen = networkSize(...size, model, short);
    const canvas = canvasSize(seen, model);
    const input = networkInput(pixels, ...size, seen, canvas, model);
    const start = performance.now();
    const shape = [model.batch ?? 1, 3, ...canvas];
    const found = await run({ image: new ort.Tensor("float32", input, shape) });
    const refine = model.refine_masks
      ? maskRefiner(input, canvas, model.pixel_mean, model.mask_thresh)
      : (mask) => mask;
    last = { blob, size, seen, canvas, found, refine };
    const scale = Math.min(1, VIEW / Math.max(...size));
    const view = size.map((side) => Math.max(1, Math.round(side * scale)));
    const instances = select(view, () => true);
    const crowded = Number(found.num_candidates.data[0]) > model.max_candidates;
    return { size, view, instances, crowded, milliseconds: performance.now() - start };
  },

  /** Cut an instance out: a PNG that is transparent around it. */
  async cutOut({ number }) {
    const { x, y, width, height, data } = resizer(last.size)(softMask(number));
    const image = await bitmap(last.blob);
    const context = new OffscreenCanvas(width, height).getContext("2d");
    context.drawImage(image, -x, -y);
    image.close();
    const pixels = context.getImageData(0, 0, width, height);
    data.forEach((inside, i) => (pixels.data[4 * i + 3] *= inside));
    context.putImageData(pixels, 0, 0);
    return context.canvas.convertToBlob({ type: "image/png" });
  },

  /** COCO results, as the package writes them. */
  async results({ threshold, fileName }) {
    return select(last.size, (score) => score >= threshold).map(({ score, label, window }) => ({
      image_id: 1,
      file_name: fileName,
      category_id: model.category_ids[label] ?? label,
      bbox: [window.x, window.y, window.width, window.height],
      score,
      ...(label in model.class_names && { category_name: model.class_names[label] }),
      segmentation: { size: last.size, counts: encodeRle(window, last.size) },
    }));
  },
};

async function run(inputs) {
  try {
    return await session.run(inputs);
  } catch (error) {
    // Most often of memory. What a program in WebAssembly was about is not known any more.
    throw new Error(`The model failed (${error.message ?? error}). Reload, and take a smaller image.`);
  }
}

/** Instances of the last photograph by their numbers, with masks of a size. */
function select(size, isWanted) {
  const { scores, labels } = last.found;
  const resize = resizer(size);
  return Array.from(scores.data.slice(0, scores.dims[1]), (score, number) => ({ score, number }))
    .filter(({ score }) => score > 0 && isWanted(score))
    .map(({ score, number }) => ({
      number,
      score,
      label: Number(labels.data[number]),
      window: resize(softMask(number)),
    }))
    .filter(({ window }) => window !== null);
}

function resizer(size) {
  const finer = model.refine_masks ? 2 : 1;
  const stride = last.found.masks.dims.slice(2).map((side) => side * finer);
  return maskResizer(stride, last.canvas, last.seen, size, model.mask_thresh);
}

function softMask(number) {
  const { data, dims } = last.found.masks;
  const length = dims[2] * dims[3];
  return last.refine(data.subarray(number * length, (number + 1) * length));
}

/** Pixels as the file has them, upright. */
async function decode(blob) {
  const image = await bitmap(blob);
  const { width, height } = image;
  if (width * height > MAX_PIXELS) {
    image.close();
    const millions = (x) => Math.round(x / 1e6);
    throw new Error(
      `This image has ${millions(width * height)} million pixels, the page takes ` +
        `${millions(MAX_PIXELS)}. Make it smaller first.`,
    );
  }
  const context = new OffscreenCanvas(width, height).getContext("2d");
  context.drawImage(image, 0, 0);
  image.close();
  return { pixels: context.getImageData(0, 0, width, height).data, size: [height, width] };
}

async function bitmap(blob) {
  try {
    return await createImageBitmap(blob, { colorSpaceConversion: "none" });
  } catch {
    throw new Error("The browser cannot read this as an image. Take a JPEG, PNG or WebP file.");
  }
}

async function get(name) {
  let answer;
  try {
    answer = await fetch(name);
  } catch {
    throw new Error(`${name} cannot be fetched. Is the server still there?`);
  }
  if (!answer.ok) throw new Error(`${name} cannot be fetched: the server answers ${answer.status}.`);
  return answer;
}

/** Fetch a compressed file; `report` is told of the bytes that arrive. */
async function unpack(name, report) {
  const counter = new TransformStream({
    transform(chunk, controller) {
      report(chunk.byteLength);
      controller.enqueue(chunk);
    },
  });
  const { body } = await get(name);
  const stream = body.pipeThrough(counter).pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

onmessage = async ({ data: { id, action, ...options } }) => {
  try {
    postMessage({ id, result: await actions[action](options) });
  } catch (error) {
    postMessage({ id, error: String(error.message ?? error).split("\n")[0] });
  }
};
