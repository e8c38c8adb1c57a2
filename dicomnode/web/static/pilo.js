// The page of one head: six linked panes, three planes, one ratio.
import { PLANES, blend, colours, cut, extent, greys, hounsfield, read } from "./blend.js";

const TRAINED = 50, NO_UNIT = "exploratory, no unit", STEP = 12; // STEP: pixels of a finger for one slice
const main = document.querySelector("#pilo");
const by = (name) => document.getElementById(name);
const say = (words) => (by("status").textContent = words);
const state = { plane: "axial", at: {}, percent: TRAINED };
let head, box, asked = false;

start().catch(() => say("The maps could not be fetched. Reload the page; the link to it may have ended."));

async function start() {
  const answer = await fetch(`${location.pathname}/data`, { cache: "no-store" });
  if (!answer.ok || answer.redirected) throw new Error("no data");
  head = read(await answer.arrayBuffer());
  if (!head.n) return say("No brain was found in this series.");
  box = extent(head);
  for (const plane in PLANES) state.at[plane] = Math.floor(PLANES[plane].count(box) / 2);
  state.at.axial = latest() ?? state.at.axial;
  for (const bar of main.querySelectorAll(".bar canvas")) paintBar(bar);
  listen();
  draw();
  say("");
  main.dataset.ready = "yes";
}

// Where most tissue is late at the ratio as trained, if there is any: there a reader looks first.
function latest() {
  const tmax = head.about.maps.findIndex((map) => map.name === "Tmax");
  if (tmax < 0) return null;
  const late = box.upwards.map((_, at) => {
    const { voxels } = cut(head, box, "axial", at);
    return blend(head, tmax, TRAINED / 100, voxels).reduce((sum, seconds) => sum + (seconds > 6), 0);
  });
  const most = Math.max(...late);
  return most > 0 ? late.indexOf(most) : null;
}

function listen() {
  by("ratio").addEventListener("input", (event) => (state.percent = Number(event.target.value), soon()));
  by("trained").addEventListener("click", () => (state.percent = TRAINED, soon()));
  by("slice").addEventListener("input", (event) => go(Number(event.target.value)));
  for (const name of ["centre", "width"]) by(name).addEventListener("input", soon);
  for (const button of main.querySelectorAll("[data-plane]")) {
    button.addEventListener("click", () => (state.plane = button.dataset.plane, soon()));
  }
  const panes = by("panes");
  panes.addEventListener("wheel", (event) => (event.preventDefault(), go(state.at[state.plane] - Math.sign(event.deltaY))), { passive: false });
  panes.addEventListener("keydown", (event) => {
    const far = PLANES[state.plane].count(box), here = state.at[state.plane];
    const keys = { ArrowUp: here + 1, ArrowDown: here - 1, PageUp: here + 5, PageDown: here - 5, Home: 0, End: far - 1 };
    if (event.key in keys) event.preventDefault(), go(keys[event.key]);
  });
  let from = null;
  panes.addEventListener("pointerdown", (event) => (from = { x: event.clientX, y: event.clientY, at: state.at[state.plane] }));
  panes.addEventListener("pointermove", (event) => { // a finger goes sideways, since up and down move the page
    if (from) go(from.at + Math.round((event.clientX - from.x + from.y - event.clientY) / STEP));
  });
  for (const end of ["pointerup", "pointercancel", "pointerleave"]) panes.addEventListener(end, () => (from = null));
  by("send")?.addEventListener("submit", (event) => (event.preventDefault(), send(event.target)));
}

function go(at) {
  state.at[state.plane] = Math.min(Math.max(at, 0), PLANES[state.plane].count(box) - 1);
  soon();
}

function soon() {
  if (!asked) requestAnimationFrame(() => (asked = false, draw()));
  asked = true;
}

function draw() {
  const { plane, percent } = state, at = state.at[plane], ratio = percent / 100;
  const image = cut(head, box, plane, at);
  const ct = greys(hounsfield(head, image.voxels), image.voxels, Number(by("centre").value), Number(by("width").value));
  paint(main.querySelector("[data-map=ct] canvas"), ct, image);
  head.about.maps.forEach((map, k) => {
    const pane = main.querySelector(`[data-map="${map.name}"]`);
    paint(pane.querySelector(".view canvas"), colours(blend(head, k, ratio, image.voxels), image.voxels, map.ceiling, head.about.palette), image);
    label(pane.querySelector(".bar"), map, percent);
  });
  for (const [side, letter] of Object.entries(PLANES[plane].marks)) {
    for (const mark of main.querySelectorAll(`.side.${side}`)) mark.textContent = letter;
  }
  for (const button of main.querySelectorAll("[data-plane]")) button.setAttribute("aria-pressed", button.dataset.plane === plane);
  const slider = by("slice");
  slider.max = PLANES[plane].count(box) - 1;
  slider.value = at;
  slider.setAttribute("aria-valuetext", where(plane, at));
  by("where").textContent = where(plane, at);
  by("ratio").value = percent;
  by("shown").textContent = percent === TRAINED ? "0.50, as trained" : `${ratio.toFixed(2)}, ${NO_UNIT}`;
  main.dataset.percent = percent;
  main.classList.toggle("exploratory", percent !== TRAINED);
  if (by("order")) by("order").disabled = percent === TRAINED;
}

function paint(canvas, pixels, { width, height }) {
  canvas.width = width, canvas.height = height;
  canvas.getContext("2d").putImageData(new ImageData(pixels, width, height), 0, 0);
}

function paintBar(canvas) {
  const values = Float32Array.from({ length: 256 }, (_, row) => 255 - row);
  paint(canvas, colours(values, new Int32Array(256), 255, head.about.palette), { width: 1, height: 256 });
}

// The numbers of a colour bar; none at any ratio but that of the training.
function label(bar, map, percent) {
  const labels = percent === TRAINED ? map.labels : ["low", "high"];
  bar.querySelector(".unit").textContent = percent === TRAINED ? map.unit : NO_UNIT;
  bar.querySelector(".labels").replaceChildren(...labels.toReversed().map((text) => {
    const item = document.createElement("li");
    item.textContent = text;
    return item;
  }));
}

function where(plane, at) {
  const { heights, spacing } = head.about;
  if (plane === "axial") return `axial ${at + 1} of ${heights.length} from the feet`;
  if (plane === "coronal") return `coronal, ${(at * spacing).toFixed(0)} mm behind the front`;
  const left = (box.left + at - (box.left + box.right) / 2) * spacing;
  return `sagittal, ${Math.abs(left).toFixed(0)} mm to the patient's ${left >= 0 ? "left" : "right"}`;
}

async function send(form) {
  const body = new URLSearchParams({ csrf: form.elements.csrf.value, percent: String(state.percent) });
  by("order").disabled = true;
  say("Asking.");
  const answer = await fetch(form.action, { method: "POST", body }).catch(() => null);
  by("order").disabled = state.percent === TRAINED;
  if (!answer) return say("The node does not answer; nothing was sent.");
  if (answer.redirected) return say("Your session has ended; log in again. Nothing was sent.");
  const said = await answer.json();
  if (!answer.ok) return say(`Not sent: ${said.detail}`);
  say(`Captures at ratio ${(said.percent / 100).toFixed(2)}, without unit, go to ${said.sent_to.join(", ")}. The study's page tells when they are there.`);
}
