// The viewer of a painting and of its variants. Python sets `props.value` while it paints; see painting.py.

const $ = (selector) => element.querySelector(selector);
const divider = $(".pbe-picture input");
let chosen = 0; // the variant that is shown
let mode = "compare";
let isClose = false;
let runs = 0; // the painting that is shown

function render() {
  const value = props.value;
  if (!value?.state) return;
  if (value.run !== runs) {
    runs = value.run;
    chosen = 0;
    $(".pbe-viewer").scrollIntoView({ behavior: "smooth", block: "nearest" });
  }
  const isRunning = value.state === "running";
  $(".pbe-viewer").dataset.state = value.state;
  $(".pbe-sub").textContent = value.message;
  $(".pbe-error").hidden = value.state !== "failed";
  $(".pbe-error").textContent = value.error;
  $(".pbe-progress").hidden = !isRunning;
  $(".pbe-progress").setAttribute("aria-valuenow", Math.round(100 * value.progress));
  $(".pbe-progress span").style.width = `${100 * value.progress}%`;
  const hasPictures = value.variants.some((variant) => variant.token || variant.preview);
  $(".pbe-result").hidden = !hasPictures;
  $(".pbe-idle").hidden = hasPictures || isRunning;
  if (!hasPictures) return;
  renderVariants(value);
  renderChosen(value);
}

function renderVariants(value) {
  const list = $(".pbe-variants");
  while (list.children.length > value.variants.length) list.lastChild.remove();
  value.variants.forEach((variant, number) => {
    const button = list.children[number] ?? list.appendChild(newVariant(number));
    setSource(button.querySelector("img"), source(variant, "after", true));
    button.querySelector("span").textContent = `Seed ${variant.seed}`;
    button.setAttribute("aria-pressed", String(number === chosen));
    button.classList.toggle("pbe-waiting", !variant.token && value.state === "running");
  });
  list.hidden = value.variants.length < 2;
}

function newVariant(number) {
  const button = document.createElement("button");
  button.type = "button";
  button.title = `Variant ${number + 1} (${number + 1})`;
  const picture = document.createElement("img");
  picture.alt = "";
  button.append(picture, document.createElement("span"));
  button.addEventListener("click", () => choose(number));
  return button;
}

function source(variant, view, close) {
  if (variant.token) return `page/variants/${variant.token}/${view}?close=${close}`;
  return view === "difference" ? "" : (variant.preview ?? "");
}

function setSource(picture, address) {
  picture.hidden = !address;
  if (address && picture.getAttribute("src") !== address) picture.setAttribute("src", address);
}

function renderChosen(value) {
  const variant = value.variants[chosen];
  const isPainted = Boolean(variant.token);
  const shownMode = isPainted ? mode : "after";
  const close = isClose && shownMode !== "difference";
  const [width, height] = close || !isPainted ? value.close_size : value.size;
  const frame = $(".pbe-picture");
  frame.dataset.mode = shownMode;
  frame.style.aspectRatio = `${width} / ${height}`;
  frame.style.maxWidth = `min(100%, calc(68vh * ${width / height}))`;
  setSource($(".pbe-below"), source(variant, shownMode === "compare" ? "before" : shownMode, close));
  setSource($(".pbe-above"), shownMode === "compare" ? source(variant, "after", close) : "");
  $(".pbe-below").alt = { compare: "The picture before", before: "The picture before", after: "The painted picture",
    difference: "Changed pixels in orange on black" }[shownMode];
  element.querySelectorAll("[data-mode]").forEach((button) => {
    if (button.tagName !== "BUTTON") return;
    button.setAttribute("aria-pressed", String(button.dataset.mode === shownMode));
    button.disabled = !isPainted;
  });
  $("[data-do=close]").setAttribute("aria-pressed", String(close));
  $("[data-do=close]").disabled = !isPainted || shownMode === "difference";
  $(".pbe-actions").hidden = $(".pbe-proof").hidden = !isPainted;
  renderFacts(isPainted ? variant : null);
  if (!isPainted) return;
  $(".pbe-download").href = `page/variants/${variant.token}`;
  renderProof(variant);
}

function renderProof(variant) {
  const number = (count) => count.toLocaleString("en");
  const proof = $(".pbe-proof");
  proof.classList.toggle("pbe-broken", variant.changed_outside > 0);
  proof.textContent =
    `${number(variant.changed_outside)} pixels changed outside the mask ` +
    `(of ${number(variant.outside)}); ${number(variant.changed_inside)} changed inside.`;
}

function renderFacts(variant) {
  $(".pbe-facts").replaceChildren(
    ...Object.entries(variant?.facts ?? {}).flatMap(([name, fact]) => [textOf("dt", name), textOf("dd", fact)]),
  );
  $(".pbe-notes").replaceChildren(...(variant?.notes ?? []).map((note) => textOf("li", note)));
}

function textOf(tag, text) {
  const child = document.createElement(tag);
  child.textContent = text;
  return child;
}

function moveDivider() {
  $(".pbe-picture").style.setProperty("--divider", `${divider.value}%`);
}

function choose(number) {
  if (number >= (props.value?.variants?.length ?? 0)) return;
  chosen = number;
  render();
}

function show(name) {
  mode = name;
  render();
}

function toggleClose() {
  isClose = !isClose;
  render();
}

async function reuse() {
  const { source: editor } = window.pbe.editors;
  await editor.busy(async () => {
    const opened = await server.open_variant({ page: window.pbe.key, token: props.value.variants[chosen].token });
    if (opened.error) throw new Error(opened.error);
    await editor.show(opened);
    editor.focus();
  });
}

const KEYS = {
  c: () => show("compare"),
  b: () => show("before"),
  a: () => show("after"),
  d: () => show("difference"),
  z: toggleClose,
};

divider.addEventListener("input", moveDivider);
element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button?.dataset.mode) show(button.dataset.mode);
  else if (button?.dataset.do === "close") toggleClose();
  else if (button?.dataset.do === "reuse") reuse();
});
element.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const key = event.key.toLowerCase();
  if (KEYS[key]) KEYS[key]();
  else if (/^[1-8]$/.test(key)) choose(Number(key) - 1);
  else return;
  event.preventDefault();
});
watch("value", render);
moveDivider();
render();
