// The page: photographs in, instances shown, files out. The work is done in worker.js.

import { openCamera } from "./camera.js";
import { colorOf, drawInstances } from "./draw.js";

const element = (id) => document.getElementById(id);
const worker = new Worker("worker.js", { type: "module" });
const waiting = new Map();

let model = null;
let photo = null; // {blob, name}
let found = null; // what the worker found in it; null while it looks
let shown = []; // found instances above the least score
let top = null; // number of the instance at each pixel
let active = null; // the instance that stands out
let requests = 0;

worker.onerror = () => fail(new Error("The model's program cannot be loaded. Reload the page."));
worker.onmessage = ({ data: { id, result, error, progress, total } }) => {
  if (progress !== undefined) return showProgress(progress, total);
  const { resolve, reject } = waiting.get(id);
  waiting.delete(id);
  if (error === undefined) resolve(result);
  else reject(new Error(error));
};

function ask(action, options = {}) {
  return new Promise((resolve, reject) => {
    waiting.set(++requests, { resolve, reject });
    worker.postMessage({ id: requests, action, ...options });
  });
}

function say(text) {
  element("status").textContent = text;
  element("status").classList.remove("bad");
}

function fail(error) {
  say(error.message);
  element("status").classList.add("bad");
}

function showProgress(part, total) {
  if (document.body.dataset.state) return; // one of two files has failed, the other still comes
  element("progress").value = part;
  const size = (total / 2 ** 20).toFixed(1);
  say(part < 1 ? `Loading the model (${size} MiB) …` : "Starting the model …");
}

async function start() {
  say("Loading the model …");
  model = await ask("load");
  element("progress").hidden = true;
  element("model").textContent = `Model ${model.name}; ${model.runtime}.`;
  const scales = { "large objects": 0.6, "objects of any size": 1, "small objects": 1.5 };
  for (const [name, scale] of Object.entries(scales)) {
    const size = Math.round(model.min_size * scale);
    element("short").add(new Option(name, size, scale === 1, scale === 1));
  }
  element("sizes").hidden = model.size !== null || model.min_size === 0;
  say("Ready.");
  document.body.dataset.state = "ready";
  if (photo) await detect();
}

async function open(blob, name) {
  photo = { blob, name };
  if (model) await detect();
  else say("The image is next, once the model is there.");
}

async function detect() {
  const mine = photo;
  document.body.dataset.state = "busy";
  found = null;
  showInstances();
  say("Looking …");
  try {
    const short = model.size ? undefined : Number(element("short").value);
    const answer = await ask("detect", { blob: mine.blob, short });
    if (mine !== photo) return; // another photograph has come
    await drawPhoto(mine, answer.view);
    found = answer;
    showInstances();
    const most = `; of many candidates the best ${model.max_candidates} were looked at`;
    const [height, width] = answer.size;
    const time = `${Math.round(answer.milliseconds)} ms for ${width} x ${height} pixels`;
    say(`${time}${answer.crowded ? most : ""}.`);
    document.body.dataset.state = "done";
  } catch (error) {
    if (mine !== photo) return;
    fail(error);
    element("picture").classList.remove("full");
    document.body.dataset.state = "failed";
  }
}

async function drawPhoto({ blob, name }, [height, width]) {
  const image = await createImageBitmap(blob);
  for (const canvas of [element("image"), element("masks")]) Object.assign(canvas, { width, height });
  element("image").getContext("2d").drawImage(image, 0, 0, width, height);
  element("image").setAttribute("aria-label", `Image ${name}`);
  element("picture").classList.add("full");
  element("picture").style.setProperty("--ratio", width / height);
  image.close();
}

/** Show the instances above the least score: in the list, and as masks. */
function showInstances() {
  const least = Number(element("score").value);
  element("least").textContent = least.toFixed(2);
  shown = found ? found.instances.filter(({ score }) => score >= least) : [];
  if (!shown.includes(active)) active = null;
  element("count").textContent = `${shown.length || "No"} instance${shown.length === 1 ? "" : "s"}${found ? "" : " yet"}`;
  element("save").disabled = shown.length === 0;
  element("list").replaceChildren(...shown.map(listItem));
  draw();
}

const nameOf = ({ label }) => model.class_names[label] ?? `class ${label}`;

function listItem(instance) {
  const item = document.createElement("li");
  const part = (kind, text) => {
    const child = document.createElement(kind === "button" ? "button" : "span");
    child.className = kind;
    child.textContent = text;
    item.append(child);
    return child;
  };
  part("swatch", "").style.background = `rgb(${colorOf(instance.number)})`;
  part("name", nameOf(instance));
  part("score", instance.score.toFixed(2));
  const button = part("button", "Cut out");
  const place = `${nameOf(instance)}, score ${instance.score.toFixed(2)}`;
  button.setAttribute("aria-label", `Save a cut-out of ${place}`);
  button.onclick = () => saveCutOut(instance);
  item.onmouseenter = button.onfocus = () => activate(instance);
  item.onmouseleave = button.onblur = () => activate(null);
  return item;
}

function activate(instance) {
  if (instance === active) return;
  active = instance;
  draw();
}

function draw() {
  top = drawInstances(element("masks").getContext("2d"), shown, active);
  [...element("list").children].forEach((item, i) =>
    item.classList.toggle("active", shown[i] === active),
  );
  const label = element("label");
  label.hidden = active === null;
  if (!active) return;
  label.textContent = `${nameOf(active)} ${active.score.toFixed(2)}`;
  const canvas = element("masks");
  const scale = canvas.clientWidth / canvas.width;
  const left = canvas.offsetLeft + middleOf(active.window) * scale - label.offsetWidth / 2;
  const room = element("picture").clientWidth - label.offsetWidth;
  label.style.left = `${Math.max(0, Math.min(left, room))}px`;
  const above = active.window.y * scale - label.offsetHeight - 4;
  label.style.top = `${canvas.offsetTop + Math.max(0, above)}px`;
}

/** Mean column of a mask's pixels; parts far off move it less than they move its box. */
function middleOf({ x, width, data }) {
  let [sum, count] = [0, 0];
  data.forEach((inside, i) => {
    sum += inside * (i % width);
    count += inside;
  });
  return x + sum / count;
}

function pointed({ offsetX, offsetY, currentTarget: canvas }) {
  if (!top) return;
  const x = Math.floor((offsetX * canvas.width) / canvas.clientWidth);
  const y = Math.floor((offsetY * canvas.height) / canvas.clientHeight);
  const number = top[y * canvas.width + x];
  activate(shown.find((instance) => instance.number === number) ?? null);
}

async function saveCutOut(instance) {
  try {
    const rank = shown.indexOf(instance) + 1;
    save(await ask("cutOut", instance), `${stem()}_${rank}_${nameOf(instance)}.png`);
  } catch (error) {
    fail(error);
  }
}

async function saveResults() {
  try {
    const options = { threshold: Number(element("score").value), fileName: photo.name };
    const text = JSON.stringify(await ask("results", options));
    save(new Blob([text], { type: "application/json" }), `${stem()}.json`);
  } catch (error) {
    fail(error);
  }
}

const stem = () => photo.name.replace(/\.[^.]*$/, "");

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

function openFirst(files) {
  if (files.length) open(files[0], files[0].name);
}

element("choose").onclick = () => element("file").click();
element("file").onchange = ({ target }) => {
  openFirst(target.files);
  target.value = ""; // the same file may be chosen again
};
element("camera").onclick = () =>
  openCamera().then((blob) => blob && open(blob, "camera.png"), fail);
element("example").onclick = async () => {
  try {
    await open(await (await fetch("example.jpg")).blob(), "example.jpg");
  } catch {
    fail(new Error("The example cannot be fetched. Is the server still there?"));
  }
};
element("score").oninput = showInstances;
element("short").onchange = () => photo && detect();
element("save").onclick = saveResults;
element("masks").onmousemove = element("masks").onclick = pointed;
element("masks").onmouseleave = () => activate(null);
addEventListener("paste", ({ clipboardData }) => openFirst(clipboardData.files));
for (const name of ["dragover", "dragleave", "drop"]) {
  addEventListener(name, (event) => {
    event.preventDefault();
    element("picture").classList.toggle("over", name === "dragover");
    if (name === "drop") openFirst(event.dataTransfer.files);
  });
}
start().catch((error) => {
  document.body.dataset.state = "failed";
  element("progress").hidden = true;
  fail(error);
});
