// The editor of a picture and its mask. Gradio runs this file after mask.js, once for each editor, with `element`,
// `props`, `server` and `upload` of the component.

const MIN_DRAG_PX = 3; // on the screen; a shorter drag of the rectangle or the lasso marks nothing
const MAX_WORK_PX = 2048; // of the mask on the screen
const TINT = "rgb(236, 72, 153)";
const role = props.role;
const $ = (selector) => element.querySelector(selector);
const canvas = $("canvas");
const context = canvas.getContext("2d");
const marks = document.createElement("canvas"); // all operations
const live = document.createElement("canvas"); // and the one that is being drawn
const page = (window.pbe ??= { key: randomKey(), editors: {} });

let picture = null; // {token, url, width, height, name, file}
let image = null;
let operations = [];
let undone = [];
let active = null; // the operation being drawn
let tool = "brush";
let erase = false;
let view = { scale: 1, x: 0, y: 0 }; // picture to canvas pixels
let cursor = null; // in pixels of the picture
let isKeyCursor = false;
const pointers = new Map();
let pinch = null;

function randomKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// --- opening ---------------------------------------------------------------------------------------------------------

async function send(file) {
  const limit = props.max_file_bytes;
  if (file.size > limit) throw new Error(`${file.name} has ${megabytes(file.size)}: the limit is ${megabytes(limit)}.`);
  // A random name, so that the path on the server says nothing and no two uploads share it.
  const sent = await upload(new File([file], randomKey(), { type: file.type }));
  return { page: page.key, path: sent.path, name: file.name || "pasted picture" };
}

const megabytes = (size) => `${(size / 1e6).toFixed(size < 1e7 ? 1 : 0)} MB`;

function answered(answer) {
  if (answer?.error) throw new Error(answer.error);
  return answer;
}

async function busy(work) {
  showError("");
  $(".pbe-busy").hidden = false;
  try {
    return await work();
  } catch (error) {
    const isLost = error instanceof TypeError || !error?.message;
    showError(isLost ? "The server did not answer: check that it runs, and try again." : error.message);
  } finally {
    $(".pbe-busy").hidden = true;
  }
}

function openFile(file) {
  return busy(async () => {
    const opened = answered(await server.open_picture({ ...(await send(file)), role }));
    await show({ ...opened, file });
  });
}

function openMaskFile(file) {
  return busy(async () => {
    const opened = answered(await server.open_mask({ ...(await send(file)), picture: picture.token }));
    await takeMask(opened.url);
  });
}

async function takeMask(url) {
  const loaded = await loadImage(url);
  commit({ kind: "clear" });
  commit({ kind: "file", image: loaded });
}

async function loadImage(url) {
  const loaded = new Image();
  loaded.src = url;
  await loaded.decode();
  return loaded;
}

async function show(opened, maskUrl) {
  const loaded = await loadImage(opened.url);
  picture = opened;
  image = loaded;
  operations = [];
  undone = [];
  active = null;
  const work = Math.min(1, MAX_WORK_PX / Math.max(picture.width, picture.height));
  for (const layer of [marks, live]) {
    layer.width = Math.max(1, Math.round(picture.width * work));
    layer.height = Math.max(1, Math.round(picture.height * work));
  }
  $(".pbe-drop").hidden = true;
  canvas.hidden = false;
  $(".pbe-tools").hidden = false;
  $(".pbe-head [data-do=open]").hidden = false;
  fit();
  redraw();
  if (maskUrl) await takeMask(maskUrl);
  announce();
}

// --- drawing ---------------------------------------------------------------------------------------------------------

function fit() {
  const width = canvas.parentElement.clientWidth;
  const highest = Math.max(180, Math.min(props.stage_px, window.innerHeight * 0.62));
  const scale = Math.min(width / picture.width, highest / picture.height);
  const height = Math.max(120, Math.round(picture.height * scale));
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.height = `${height}px`;
  view = fitted();
  changed();
}

function fitted() {
  const scale = Math.min(canvas.width / picture.width, canvas.height / picture.height);
  return {
    scale,
    x: (canvas.width - picture.width * scale) / 2,
    y: (canvas.height - picture.height * scale) / 2,
  };
}

function zoom(factor, x = canvas.width / 2, y = canvas.height / 2) {
  const least = fitted().scale;
  const scale = Math.min(Math.max(view.scale * factor, least), Math.max(least, 32));
  const change = scale / view.scale;
  view = { scale, x: x - (x - view.x) * change, y: y - (y - view.y) * change };
  keepInside();
  changed();
}

function keepInside() {
  const between = (value, size, limit) =>
    size <= limit ? (limit - size) / 2 : Math.min(0, Math.max(limit - size, value));
  view.x = between(view.x, picture.width * view.scale, canvas.width);
  view.y = between(view.y, picture.height * view.scale, canvas.height);
}

function drawMarks(layer, list, isFirst = true) {
  const target = layer.getContext("2d");
  if (isFirst) {
    target.setTransform(1, 0, 0, 1, 0, 0);
    target.globalCompositeOperation = "source-over";
    target.clearRect(0, 0, layer.width, layer.height);
  }
  target.setTransform(layer.width / picture.width, 0, 0, layer.height / picture.height, 0, 0);
  list.forEach((operation) => applyOperation(target, operation, picture.width, picture.height));
  target.setTransform(1, 0, 0, 1, 0, 0);
}

function redraw() {
  drawMarks(marks, operations);
  changed();
}

let isScheduled = false;
function changed() {
  if (isScheduled) return;
  isScheduled = true;
  requestAnimationFrame(() => {
    isScheduled = false;
    if (picture) draw();
    updateTools();
  });
}

function draw() {
  const target = live.getContext("2d");
  target.globalCompositeOperation = "copy";
  target.drawImage(marks, 0, 0);
  target.globalCompositeOperation = "source-over";
  if (active) drawMarks(live, [active], false);
  target.globalCompositeOperation = "source-in";
  target.fillStyle = TINT;
  target.fillRect(0, 0, live.width, live.height);

  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.setTransform(view.scale, 0, 0, view.scale, view.x, view.y);
  context.imageSmoothingEnabled = view.scale < 4;
  context.drawImage(image, 0, 0, picture.width, picture.height);
  context.globalAlpha = 0.55;
  context.drawImage(live, 0, 0, picture.width, picture.height);
  context.globalAlpha = 1;
  drawActiveOutline();
  drawCursor();
}

function drawActiveOutline() {
  if (!active || active.kind === "brush") return;
  context.lineWidth = 1.5 / view.scale * (window.devicePixelRatio || 1);
  context.setLineDash([6 / view.scale, 4 / view.scale]);
  context.strokeStyle = "#fff";
  context.beginPath();
  if (active.kind === "rectangle") {
    const [left, top, right, bottom] = rectangleOf(active.points, picture.width, picture.height);
    context.rect(left, top, right - left, bottom - top);
  } else {
    active.points.forEach(([x, y]) => context.lineTo(x, y));
  }
  context.stroke();
  context.setLineDash([]);
}

function drawCursor() {
  if (!cursor || tool === "move") return;
  const ratio = (window.devicePixelRatio || 1) / view.scale;
  const radius = tool === "brush" ? brushSize() / 2 : 0;
  for (const [colour, width] of [["rgba(0, 0, 0, 0.7)", 3], ["#fff", 1.2]]) {
    context.strokeStyle = colour;
    context.lineWidth = width * ratio;
    context.beginPath();
    if (radius) context.arc(cursor.x, cursor.y, radius, 0, 2 * Math.PI);
    if (isKeyCursor || !radius) {
      const arm = 9 * ratio;
      context.moveTo(cursor.x - arm, cursor.y);
      context.lineTo(cursor.x + arm, cursor.y);
      context.moveTo(cursor.x, cursor.y - arm);
      context.lineTo(cursor.x, cursor.y + arm);
    }
    context.stroke();
  }
}

// From 0.4 % to 40 % of the picture's longer side, finer at the small end.
function brushSize() {
  const part = Number($("[data-size]").value) / 100;
  return Math.max(1, Math.max(picture.width, picture.height) * 0.004 * Math.pow(100, part));
}

// --- changing the mask -----------------------------------------------------------------------------------------------

function commit(operation) {
  operations.push(operation);
  undone = [];
  drawMarks(marks, [operation], false);
  changed();
  announce();
}

function undo() {
  if (!operations.length) return;
  undone.push(operations.pop());
  redraw();
  announce();
}

function redo() {
  if (!undone.length) return;
  operations.push(undone.pop());
  redraw();
  announce();
}

function begin(x, y) {
  active = { kind: tool, erase, points: [[x, y]], size: brushSize() };
  changed();
}

function extend(x, y) {
  if (!active) return;
  if (active.kind === "rectangle") active.points = [active.points[0], [x, y]];
  else active.points.push([x, y]);
  changed();
}

function finish() {
  if (!active) return;
  const operation = active;
  active = null;
  const xs = operation.points.map((point) => point[0]);
  const ys = operation.points.map((point) => point[1]);
  const extent = Math.max(Math.max(...xs) - Math.min(...xs), Math.max(...ys) - Math.min(...ys));
  const least = (MIN_DRAG_PX / view.scale) * (window.devicePixelRatio || 1);
  if (operation.kind === "brush" || extent >= least) commit(operation);
  else changed();
}

// Returns the part of the picture that is marked, from 0 to 1, as far as the screen's mask says.
function markedPart() {
  const small = document.createElement("canvas");
  small.width = Math.min(256, marks.width);
  small.height = Math.min(256, marks.height);
  const target = small.getContext("2d", { willReadFrequently: true });
  target.drawImage(marks, 0, 0, small.width, small.height);
  const { data } = target.getImageData(0, 0, small.width, small.height);
  let sum = 0;
  for (let i = 3; i < data.length; i += 4) sum += data[i];
  return sum / (255 * small.width * small.height);
}

function announce() {
  const part = markedPart();
  const size = `${picture.name} · ${picture.width} × ${picture.height} px`;
  const share = part < 0.001 ? "less than 0.1" : (100 * part).toFixed(part < 0.1 ? 1 : 0);
  const state = part ? `${share} % marked` : props.empty_mask;
  $(".pbe-state").textContent = [size, state, ...(picture.notes ?? [])].join(" · ");
}

function updateTools() {
  element.querySelectorAll("[data-tool]").forEach((button) => {
    button.setAttribute("aria-pressed", String(button.dataset.tool === tool));
  });
  $("[data-do=erase]").setAttribute("aria-pressed", String(erase));
  $("[data-do=undo]").disabled = !operations.length;
  $("[data-do=redo]").disabled = !undone.length;
  $("[data-do=clear]").disabled = !operations.length;
  if (!picture) return;
  $(".pbe-percent").textContent = `${Math.round((100 * view.scale) / fitted().scale)} %`;
  canvas.style.cursor = tool === "move" ? "grab" : "none";
}

function showError(message) {
  const line = $(".pbe-error");
  line.textContent = message;
  line.hidden = !message;
}

// --- pointer ---------------------------------------------------------------------------------------------------------

function onCanvas(event) {
  const box = canvas.getBoundingClientRect();
  const x = ((event.clientX - box.left) * canvas.width) / box.width;
  const y = ((event.clientY - box.top) * canvas.height) / box.height;
  return { x, y };
}

function inPicture({ x, y }) {
  return { x: (x - view.x) / view.scale, y: (y - view.y) / view.scale };
}

canvas.addEventListener("pointerdown", (event) => {
  if (event.button > 1) return;
  event.preventDefault();
  canvas.focus({ preventScroll: true });
  canvas.setPointerCapture(event.pointerId);
  pointers.set(event.pointerId, onCanvas(event));
  if (pointers.size === 2) {
    active = null; // the first finger of a pinch draws nothing
    pinch = [...pointers.values()];
    return;
  }
  if (pointers.size > 2 || tool === "move" || event.button === 1) return;
  isKeyCursor = false;
  const { x, y } = inPicture(onCanvas(event));
  begin(x, y);
});

canvas.addEventListener("pointermove", (event) => {
  const last = pointers.get(event.pointerId);
  const now = onCanvas(event);
  if (last) pointers.set(event.pointerId, now);
  if (pinch && pointers.size === 2) return movePinch();
  if (last && !active && (tool === "move" || event.buttons & 4)) {
    view.x += now.x - last.x;
    view.y += now.y - last.y;
    keepInside();
    return changed();
  }
  for (const moved of event.getCoalescedEvents?.() ?? [event]) {
    const { x, y } = inPicture(onCanvas(moved));
    extend(x, y);
  }
  isKeyCursor = false;
  cursor = event.pointerType === "touch" ? null : inPicture(now);
  changed();
});

function movePinch() {
  const now = [...pointers.values()];
  const middle = ([a, b]) => ({ x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 });
  const apart = ([a, b]) => Math.hypot(a.x - b.x, a.y - b.y) || 1;
  const [from, to] = [middle(pinch), middle(now)];
  view.x += to.x - from.x;
  view.y += to.y - from.y;
  zoom(apart(now) / apart(pinch), to.x, to.y);
  pinch = now;
}

function release(event) {
  if (!pointers.delete(event.pointerId)) return;
  if (pinch) {
    if (pointers.size === 0) pinch = null;
    return;
  }
  if (event.type === "pointercancel") active = null;
  finish();
}

canvas.addEventListener("pointerup", release);
canvas.addEventListener("pointercancel", release);
canvas.addEventListener("pointerleave", () => {
  if (!isKeyCursor) cursor = null;
  changed();
});
canvas.addEventListener("wheel", (event) => {
  if (!event.ctrlKey && !event.metaKey) return; // the wheel alone scrolls the page
  event.preventDefault();
  const { x, y } = onCanvas(event);
  zoom(Math.exp(-event.deltaY / 300), x, y);
}, { passive: false });

// --- keyboard --------------------------------------------------------------------------------------------------------

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const KEYS = {
  b: () => choose("brush"),
  r: () => choose("rectangle"),
  l: () => choose("lasso"),
  h: () => choose("move"),
  e: () => toggleErase(),
  i: () => commit({ kind: "invert" }),
  "[": () => resizeBrush(-5),
  "]": () => resizeBrush(5),
  "+": () => zoom(1.5),
  "=": () => zoom(1.5),
  "-": () => zoom(1 / 1.5),
  0: () => fit(),
  delete: () => clear(),
  backspace: () => clear(),
};

canvas.addEventListener("keydown", (event) => {
  const key = event.key.toLowerCase();
  let isKnown = true;
  if ((event.ctrlKey || event.metaKey) && key === "z") event.shiftKey ? redo() : undo();
  else if ((event.ctrlKey || event.metaKey) && key === "y") redo();
  else if (event.ctrlKey || event.metaKey || event.altKey) isKnown = false;
  else if (ARROWS[event.key]) moveCursor(ARROWS[event.key], event.shiftKey);
  else if (event.key === " " || event.key === "Enter") togglePen();
  else if (event.key === "Escape" && active) { active = null; changed(); }
  else if (KEYS[key]) KEYS[key]();
  else isKnown = false;
  if (isKnown) {
    event.preventDefault();
    event.stopPropagation();
  }
});

function moveCursor([dx, dy], isFast) {
  const step = Math.max(1, Math.max(picture.width, picture.height) / (isFast ? 20 : 200));
  const from = cursor ?? { x: picture.width / 2, y: picture.height / 2 };
  cursor = {
    x: Math.min(Math.max(from.x + dx * step, 0), picture.width),
    y: Math.min(Math.max(from.y + dy * step, 0), picture.height),
  };
  isKeyCursor = true;
  extend(cursor.x, cursor.y);
  changed();
}

function togglePen() {
  cursor ??= { x: picture.width / 2, y: picture.height / 2 };
  isKeyCursor = true;
  if (active) finish();
  else if (tool !== "move") begin(cursor.x, cursor.y);
}

function choose(name) {
  tool = name;
  active = null;
  changed();
}

function toggleErase() {
  erase = !erase;
  changed();
}

function resizeBrush(change) {
  const slider = $("[data-size]");
  slider.value = Number(slider.value) + change;
  changed();
}

function clear() {
  if (operations.length) commit({ kind: "clear" });
}

// --- buttons and files -----------------------------------------------------------------------------------------------

const ACTIONS = {
  open: () => $("[data-file=picture]").click(),
  mask: () => $("[data-file=mask]").click(),
  erase: toggleErase,
  undo,
  redo,
  clear,
  invert: () => commit({ kind: "invert" }),
  in: () => zoom(1.5),
  out: () => zoom(1 / 1.5),
  fit,
};

element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button || button.disabled) return;
  if (button.dataset.tool) choose(button.dataset.tool);
  else ACTIONS[button.dataset.do]?.();
});
$("[data-size]").addEventListener("input", changed);
for (const [kind, open] of [["picture", openFile], ["mask", openMaskFile]]) {
  $(`[data-file=${kind}]`).addEventListener("change", (event) => {
    const [file] = event.target.files;
    event.target.value = "";
    if (file) open(file);
  });
}

for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  element.addEventListener(kind, (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    $(".pbe-editor").classList.toggle("pbe-dropping", kind === "dragover" || kind === "dragenter");
    if (kind === "drop" && event.dataTransfer.files[0]) openFile(event.dataTransfer.files[0]);
  });
}

new ResizeObserver(() => {
  if (picture && canvas.clientWidth && Math.abs(canvas.width - canvas.clientWidth * devicePixelRatio) > 1) fit();
}).observe(canvas.parentElement);

// --- for the page ----------------------------------------------------------------------------------------------------

page.editors[role] = {
  isEmpty: () => !picture,
  openFile,
  show,
  busy,
  focus: () => (picture ? canvas : $(".pbe-drop")).focus(),

  // Returns what the server needs to paint. A picture that the server deleted meanwhile is sent again.
  async exportValue() {
    if (!picture) return { page: page.key, token: null, mask: [] };
    const { held } = answered(await server.holds({ token: picture.token }));
    if (!held && picture.file) {
      const opened = answered(await server.open_picture({ ...(await send(picture.file)), role }));
      picture.token = opened.token;
    }
    const mask = operations.length ? maskStrips(operations, picture.width, picture.height) : [];
    return { page: page.key, token: picture.token, mask };
  },
};
updateTools();
