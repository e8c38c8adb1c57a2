// The last layer of the generator, in the browser: y = tanh(2 r w P + 2 (1 - r) (w1 X0 + w2 X1 + w3 X2) + b), then units
// and smoothing across slices, as inference/pilo.py has them (a test compares both).

export const SIDE = 256;
const PLANE = SIDE * SIDE;

// The head as the node sends it: a length, a description, the mask in bits, then P and the slices in half precision.
export function read(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const about = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const slices = about.shape[0];
  const bits = new Uint8Array(buffer, 4 + length, (slices * PLANE) / 8);
  const index = new Int32Array(slices * PLANE).fill(-1); // place on the grid -> voxel of the brain
  let n = 0;
  for (let i = 0; i < index.length; i++) if (bits[i >> 3] & (128 >> (i & 7))) index[i] = n++;
  const place = new Int32Array(n); // voxel -> place
  for (let i = 0; i < index.length; i++) if (index[i] >= 0) place[index[i]] = i;
  const halves = new Uint16Array(buffer, 4 + length + bits.length, (about.maps.length + 3) * n);
  const table = floats();
  const channel = (c) => Float32Array.from(halves.subarray(c * n, (c + 1) * n), (half) => table[half]);
  const perfusion = about.maps.map((_, k) => channel(k));
  const planes = [0, 1, 2].map((c) => channel(about.maps.length + c));
  const anatomy = about.maps.map(({ mix }) => {
    const sum = new Float32Array(n);
    for (let v = 0; v < n; v++) sum[v] = mix[1] * planes[0][v] + mix[2] * planes[1][v] + mix[3] * planes[2][v];
    return sum;
  });
  return { about, n, index, place, perfusion, planes, anatomy, weights: about.maps.map((map) => weights(about, map)), excess: [] };
}

// What each half-precision number is (IEEE 754 binary16).
function floats() {
  const table = new Float32Array(65536);
  for (let half = 0; half < 65536; half++) {
    const sign = half & 0x8000 ? -1 : 1, power = (half >> 10) & 31, rest = half & 1023;
    table[half] = sign * (power ? 2 ** (power - 15) * (1 + rest / 1024) : 2 ** -14 * (rest / 1024));
  }
  return table;
}

// How much slice t counts in the mean of slice s: a Gaussian of their distance, times what slice t stands for.
function weights({ heights }, { smoothing }) {
  const last = heights.length - 1;
  if (!smoothing || last < 1) return null;
  const stands = heights.map((_, t) => {
    const low = Math.max(t - 1, 0), high = Math.min(t + 1, last);
    return Math.abs(heights[high] - heights[low]) / (high - low);
  });
  return heights.map((s) => Float32Array.from(heights, (t, i) => Math.exp(-0.5 * ((s - t) / smoothing.sigma_mm) ** 2) * stands[i]));
}

// The value of one voxel of map k in its unit, before smoothing.
function value(head, k, ratio, v) {
  const { mix, ceiling } = head.about.maps[k];
  const y = Math.tanh(2 * ratio * mix[0] * head.perfusion[k][v] + 2 * (1 - ratio) * head.anatomy[k][v] + mix[4]);
  return (y + 1) * (ceiling / 2);
}

// What of a smoothed map exceeds healthy tissue, for the whole brain; kept until the ratio is another.
function excess(head, k, ratio) {
  if (head.excess[k]?.ratio !== ratio) {
    const { above } = head.about.maps[k].smoothing;
    const all = new Float32Array(head.n);
    for (let v = 0; v < head.n; v++) all[v] = Math.max(value(head, k, ratio, v) - above, 0);
    head.excess[k] = { ratio, all };
  }
  return head.excess[k].all;
}

// Map k at a ratio: the values of these voxels in its unit (0 for -1, which is no voxel).
export function blend(head, k, ratio, voxels) {
  const out = new Float32Array(voxels.length);
  const weights = head.weights[k], over = weights && excess(head, k, ratio);
  for (let i = 0; i < voxels.length; i++) {
    const v = voxels[i];
    if (v < 0) continue;
    out[i] = value(head, k, ratio, v);
    if (!weights) continue;
    const place = head.place[v], row = weights[Math.floor(place / PLANE)];
    let sum = 0, share = 0;
    for (let t = 0, at = place % PLANE; t < row.length; t++, at += PLANE) {
      const u = head.index[at];
      if (u < 0) continue;
      sum += row[t] * over[u];
      share += row[t];
    }
    out[i] += sum / share - over[v];
  }
  return out;
}

// The CT of these voxels in HU, as the generator saw it.
export function hounsfield(head, voxels) {
  const [low, high] = head.about.window;
  return Float32Array.from(voxels, (v) => (v < 0 ? low : low + ((head.planes[1][v] + 1) / 2) * (high - low)));
}

// The box about the brain in columns and rows, the slices from the feet to the head, and which slice stands at each row
// of an upright plane, from the top. A slice stands for half the way to its neighbours, but for no more than a gap of
// one and a half usual steps; what lies between is empty.
export function extent(head) {
  const { heights, spacing } = head.about;
  const box = { left: SIDE, right: -1, top: SIDE, bottom: -1 };
  for (const place of head.place) {
    const x = place % SIDE, y = Math.floor(place / SIDE) % SIDE;
    box.left = Math.min(box.left, x), box.right = Math.max(box.right, x);
    box.top = Math.min(box.top, y), box.bottom = Math.max(box.bottom, y);
  }
  const upwards = heights.map((_, s) => s).sort((a, b) => heights[a] - heights[b]);
  const steps = upwards.slice(1).map((s, i) => heights[s] - heights[upwards[i]]).sort((a, b) => a - b);
  const reach = 0.75 * (steps[steps.length >> 1] ?? spacing);
  const top = heights[upwards.at(-1)] + reach, bottom = heights[upwards[0]] - reach;
  const rows = Array.from({ length: Math.max(1, Math.round((top - bottom) / spacing)) }, (_, row) => {
    const height = top - (row + 0.5) * spacing;
    const nearest = upwards.reduce((a, b) => (Math.abs(heights[b] - height) < Math.abs(heights[a] - height) ? b : a));
    return Math.abs(heights[nearest] - height) <= reach ? nearest : -1;
  });
  return { ...box, upwards, rows };
}

// The planes: how many there are, and the voxels of one of them, row by row from the top left as a reader sees it. The
// columns of the model grid lead to the patient's left and its rows to the back, so an axial or coronal plane has the
// patient's right on its left, and a sagittal one looks at the face from the patient's left.
export const PLANES = {
  axial: {
    marks: { left: "R", right: "L", top: "A", bottom: "P" },
    count: (extent) => extent.upwards.length,
    size: (extent) => [extent.right - extent.left + 1, extent.bottom - extent.top + 1],
    place: (extent, at) => (column, row) => extent.upwards[at] * PLANE + (extent.top + row) * SIDE + extent.left + column,
  },
  coronal: {
    marks: { left: "R", right: "L", top: "H", bottom: "F" },
    count: (extent) => extent.bottom - extent.top + 1,
    size: (extent) => [extent.right - extent.left + 1, extent.rows.length],
    place: (extent, at) => (column, row) => upright(extent.rows[row], extent.top + at, extent.left + column),
  },
  sagittal: {
    marks: { left: "A", right: "P", top: "H", bottom: "F" },
    count: (extent) => extent.right - extent.left + 1,
    size: (extent) => [extent.bottom - extent.top + 1, extent.rows.length],
    place: (extent, at) => (column, row) => upright(extent.rows[row], extent.top + column, extent.left + at),
  },
};

function upright(slice, y, x) {
  return slice < 0 ? -1 : slice * PLANE + y * SIDE + x;
}

// The voxels of a plane, with its width and height.
export function cut(head, extent, plane, at) {
  const [width, height] = PLANES[plane].size(extent), place = PLANES[plane].place(extent, at);
  const voxels = new Int32Array(width * height);
  for (let row = 0, i = 0; row < height; row++) {
    for (let column = 0; column < width; column++, i++) {
      const where = place(column, row);
      voxels[i] = where < 0 ? -1 : head.index[where];
    }
  }
  return { voxels, width, height };
}

// Pixels of a map, RGBA: the colours of the captures, black outside the brain.
export function colours(values, voxels, ceiling, palette) {
  const pixels = new Uint8ClampedArray(4 * values.length);
  for (let i = 0; i < values.length; i++) {
    pixels[4 * i + 3] = 255;
    if (voxels[i] < 0) continue;
    const level = 3 * Math.min(Math.max(Math.floor((values[i] * 255) / ceiling + 0.5), 0), 255);
    for (let c = 0; c < 3; c++) pixels[4 * i + c] = palette[level + c];
  }
  return pixels;
}

// Pixels of the CT, RGBA, by a window in HU.
export function greys(values, voxels, centre, width) {
  const pixels = new Uint8ClampedArray(4 * values.length);
  for (let i = 0; i < values.length; i++) {
    const grey = voxels[i] < 0 ? 0 : 255 * ((values[i] - centre) / Math.max(width, 1) + 0.5);
    pixels.fill(grey, 4 * i, 4 * i + 3);
    pixels[4 * i + 3] = 255;
  }
  return pixels;
}
