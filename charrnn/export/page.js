'use strict';
/* A recurrent network that writes and reads one character at a time; written by `charrnn export`.
 *
 * The letters are the lecture's: x_t is the character read at time t, h_t the hidden state after
 * it, ŷ_t the probabilities of the character that follows; V, W, U, b_h and b_y were learned.
 * Matrices lie row by row in flat arrays. Sizes: N characters, H units, G gates, L layers. */

// ---------------------------------------------------------------- the network

const { tanh, exp } = Math;
const σ = (a) => 1 / (1 + exp(-a));

/* A cell goes from h_{t−1} and c_{t−1} to h_t and c_t, given A = V x_t + b_h and B = W h_{t−1}. */

/** h_t = tanh(V x_t + W h_{t−1} + b_h) */
function rnn(A, B, { h }) {
  return { h: h.map((_, k) => tanh(A[k] + B[k])) };
}

/** r, z = σ(A + B);  n = tanh(A + r ⊙ B);  h_t = (1 − z) ⊙ n + z ⊙ h_{t−1} */
function gru(A, B, { h }) {
  const H = h.length;
  return {
    h: h.map((before, k) => {
      const r = σ(A[k] + B[k]);
      const z = σ(A[H + k] + B[H + k]);
      const n = tanh(A[2 * H + k] + r * B[2 * H + k]);
      return (1 - z) * n + z * before;
    }),
  };
}

/** i, f, o = σ(A + B);  g = tanh(A + B);  c_t = f ⊙ c_{t−1} + i ⊙ g;  h_t = o ⊙ tanh(c_t) */
function lstm(A, B, { h, c }) {
  const H = h.length;
  const next = { h: new Float32Array(H), c: new Float32Array(H) };
  for (let k = 0; k < H; k++) {
    const i = σ(A[k] + B[k]);
    const f = σ(A[H + k] + B[H + k]);
    const o = σ(A[2 * H + k] + B[2 * H + k]);
    const g = tanh(A[3 * H + k] + B[3 * H + k]);
    next.c[k] = f * c[k] + i * g;
    next.h[k] = o * tanh(next.c[k]);
  }
  return next;
}

const CELLS = { rnn: [rnn, 1], gru: [gru, 3], lstm: [lstm, 4] }; // each with its G

class Network {
  /** `numbers`: V (G·H, N or H), W (G·H, H), b_h (G·H) of each layer, then U (N, H), b_y (N). */
  constructor({ cell, hidden: H, layers: L, vocabulary }, numbers) {
    const N = vocabulary.length;
    const [step, G] = CELLS[cell];
    let at = 0;
    const take = (size) => numbers.subarray(at, (at += size));
    this.N = N;
    this.step = step;
    this.layers = Array.from({ length: L }, (_, layer) => ({
      V: take(G * H * (layer ? H : N)),
      W: take(G * H * H),
      b_h: take(G * H),
    }));
    this.U = take(N * H);
    this.b_y = take(N);
    this.zero = this.layers.map(() => ({ h: new Float32Array(H), c: new Float32Array(H) }));
  }

  /** Return the state, {h, c} of each layer, after the character x was read in `state`. */
  read(state, x) {
    let below;
    return this.layers.map(({ V, W, b_h }, layer) => {
      const Vx = layer ? product(V, below.h) : column(V, this.N, x);
      const { h } = state[layer];
      below = this.step(plus(Vx, b_h), product(W, h), state[layer]);
      return below;
    });
  }

  /** Return U h_t + b_y, whose softmax is ŷ_t. */
  logits(state) {
    return plus(product(this.U, state.at(-1).h), this.b_y);
  }
}

/** Return probabilities; a temperature below 1 favours the likely, 0 leaves only the likeliest. */
function softmax(y, temperature = 1) {
  const peak = y.reduce((a, b) => Math.max(a, b));
  if (temperature === 0) {
    const best = y.indexOf(peak);
    return new Float64Array(y.length).fill(1, best, best + 1);
  }
  const e = new Float64Array(y).map((a) => exp((a - peak) / temperature));
  const sum = e.reduce((a, b) => a + b);
  return e.map((a) => a / sum);
}

/** Return the first index whose cumulative probability exceeds u. */
function draw(p, u) {
  let index = 0;
  for (let sum = p[0]; sum <= u && index < p.length - 1; sum += p[index]) index++;
  return index;
}

/** Return the t-th uniform number in [0, 1) of a seed: Tommy Ettinger's mulberry32. */
function uniform(seed, t) {
  let a = (seed + 0x6d2b79f5 * (t + 1)) | 0;
  a = Math.imul(a ^ (a >>> 15), a | 1);
  a ^= a + Math.imul(a ^ (a >>> 7), a | 61);
  return ((a ^ (a >>> 14)) >>> 0) / 2 ** 32;
}

/** Return M x, eight rows at a time, which is several times as fast as one. */
function product(M, x) {
  const n = x.length;
  const y = new Float32Array(M.length / n);
  let row = 0;
  for (; row + 8 <= y.length; row += 8) {
    let [a, b, c, d, e, f, g, h] = [0, 0, 0, 0, 0, 0, 0, 0];
    for (let j = 0, k = row * n; j < n; j++, k++) {
      const x_j = x[j];
      a += M[k] * x_j;
      b += M[k + n] * x_j;
      c += M[k + 2 * n] * x_j;
      d += M[k + 3 * n] * x_j;
      e += M[k + 4 * n] * x_j;
      f += M[k + 5 * n] * x_j;
      g += M[k + 6 * n] * x_j;
      h += M[k + 7 * n] * x_j;
    }
    y.set([a, b, c, d, e, f, g, h], row);
  }
  for (; row < y.length; row++) {
    for (let j = 0; j < n; j++) y[row] += M[row * n + j] * x[j];
  }
  return y;
}

/** Return M x for an x that is 1 at one index and 0 elsewhere: one column of M, which has n. */
function column(M, n, index) {
  const y = new Float32Array(M.length / n);
  for (let row = 0; row < y.length; row++) y[row] = M[row * n + index];
  return y;
}

/** Return a + b. */
function plus(a, b) {
  const y = new Float32Array(a.length);
  for (let row = 0; row < y.length; row++) y[row] = a[row] + b[row];
  return y;
}

/** Return the numbers in base64 of half precision: a sign, 5 bits of exponent, 10 of fraction. */
function decoded(base64) {
  const half = Float32Array.from({ length: 1 << 16 }, (_, bits) => {
    const exponent = (bits >> 10) & 31;
    const fraction = (bits & 1023) / 1024;
    const size = exponent ? (1 + fraction) * 2 ** (exponent - 15) : fraction * 2 ** -14;
    return bits >> 15 ? -size : size;
  });
  const bytes = atob(base64);
  return new Float32Array(bytes.length / 2).map(
    (_, k) => half[bytes.charCodeAt(2 * k) | (bytes.charCodeAt(2 * k + 1) << 8)],
  );
}

// ---------------------------------------------------------------- writing and reading

const element = (id) => document.getElementById(id);
const data = JSON.parse(element('data').textContent);
const network = new Network(data, decoded(element('weights').textContent));
const index = new Map(data.vocabulary.map((char, x) => [char, x]));
const LONGEST = 20_000; // characters of a text; the states after all of them are kept

/** The state before the first character of a line, or of a text without a prime. */
const opening = network.read(
  network.zero,
  index.get('\n') ?? network.b_y.indexOf(network.b_y.reduce((a, b) => Math.max(a, b))),
);

const ends = (char) => data.lines && char === '\n';

/** Return a character with the states before and after it and the probability that ŷ_t gave it.
 *
 * Where nothing was read before, nothing was predicted: `before` and p are null. A character that
 * the model doesn't know leaves the state as it is. In a model of lines the newline ends a line,
 * and the next one begins afresh. */
function step(char, before, y = before && network.logits(before)) {
  const x = index.get(char);
  if (x === undefined) return { char, before, after: before, p: null };
  const after = ends(char) ? opening : network.read(before ?? network.zero, x);
  return { char, x, before, after, p: before && softmax(y)[x] };
}

/** Continue from the existing steps until `length` characters, or lines, are drawn.
 *
 * Yield each step, which the caller adds to `steps`. The text, or each line of a
 * model of lines, begins with `prime`, unless its beginning was kept from before. */
function* writing(steps, { prime, temperature, length, seed }) {
  const kept = steps.length;
  let start = steps.findLastIndex(({ char }) => ends(char)) + 1;
  let lines = steps.filter(({ char }) => ends(char)).length;
  while (
    data.lines ? lines < length && steps.length < LONGEST : steps.length < length + prime.length
  ) {
    const before = steps.at(-1)?.after ?? (data.lines || !prime.length ? opening : null);
    const given = start >= kept ? prime[steps.length - start] : undefined;
    if (given !== undefined) {
      yield { ...step(given, before), given: true };
    } else {
      const y = network.logits(before ?? network.zero);
      const x = draw(softmax(y, temperature), uniform(seed, steps.length));
      yield { ...step(data.vocabulary[x], before, y), temperature };
    }
    if (ends(steps.at(-1).char)) {
      start = steps.length;
      lines++;
    }
  }
}

/** Read on after the existing steps; yield each step, which the caller adds to `steps`.
 *
 * For a model of lines, the last line gets a newline too, and an empty line isn't predicted. */
function* reading(steps, characters) {
  const all = data.lines && characters.length ? endedBy(characters, '\n') : characters;
  for (const char of all.slice(steps.length)) {
    const before = steps.at(-1)?.after ?? (data.lines ? opening : null);
    const read = step(char, before);
    yield ends(char) && before === opening ? { ...read, p: null } : read;
  }
}

const endedBy = (characters, end) =>
  characters.at(-1) === end ? characters : [...characters, end];

// ---------------------------------------------------------------- how characters look

const ESCAPED = // controls, and what would change the direction of the text or end a line
  /[\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufff9-\ufffb\ufeff\ud800-\udfff]/u;
const NAMES = { ' ': 'space', '\n': 'newline', '\t': 'tab' };

/** Return the escape of such a character, like \x1b, \u202e or \U000e0001. */
function escaped(char) {
  const code = char.codePointAt(0).toString(16);
  if (code.length <= 2) return `\\x${code.padStart(2, '0')}`;
  return code.length <= 4 ? `\\u${code.padStart(4, '0')}` : `\\U${code.padStart(8, '0')}`;
}

/** Return what is shown for a character in a text. */
const looks = (char) => (ESCAPED.test(char) && !'\n\t'.includes(char) ? escaped(char) : char);

/** Return the name of a character that is shown alone. */
function called(char) {
  if (char in NAMES) return NAMES[char];
  if (/\p{M}/u.test(char)) return `◌${char}`;
  return /[\p{C}\p{Z}\p{Default_Ignorable_Code_Point}]/u.test(char) ? escaped(char) : char;
}

const percent = (p) => (p === 0 || p >= 0.0005 ? `${(100 * p).toFixed(1)} %` : '< 0.1 %');
const bits = (p) => -Math.log2(p);

// ---------------------------------------------------------------- the page

const MOST_BITS = Math.max(8, Math.ceil(Math.log2(network.N))); // the surprise shown in full colour
const BARS = Math.min(10, network.N);
const CONTEXT = 12; // characters of context that are shown
const SLICE = 32; // milliseconds of work before the browser may draw and listen
const SLOW = 90; // milliseconds for each character when it writes slowly
const box = element('characters');
let steps = []; // the text that is shown, a step for each character
let spans = []; // the element that shows each step
let pinned = null; // the position of the character that was clicked or reached by arrow keys
let shown = null; // the position whose ŷ_t is shown: under the pointer, else `pinned`
let run = {}; // the latest task; an earlier one stops when it sees that it was replaced
let settings = {}; // what the text was written with
let unitChosen = false; // whether a unit was shown before; if not, the liveliest comes first
let written = []; // the steps of the written text, kept while another text is read

const reads = () => element('controls').elements.mode.value === 'read';
const byUnit = () => reads() && element('controls').elements.colour.value === 'unit';

/** Return the value that colours a character, −1 to 1; null: no colour. */
function colour({ char, x, p, after, given }) {
  if (byUnit()) {
    return x === undefined || ends(char) ? null : after.at(-1).h[element('unit').valueAsNumber];
  }
  return p === null || given ? null : Math.min(1, bits(p) / MOST_BITS);
}

function paint(span, step) {
  const value = colour(step);
  span.classList.toggle('plain', value === null);
  span.classList.toggle('negative', value < 0);
  span.style.setProperty('--v', Math.abs(value ?? 0).toFixed(4));
}

/** Show another character; each line is a block of its own, so that a long text is drawn fast. */
function append(step) {
  if (!steps.length || steps.at(-1).char === '\n') {
    const line = document.createElement('div');
    line.dir = 'auto';
    box.append(line);
  }
  const span = document.createElement('span');
  span.textContent = looks(step.char);
  span.classList.toggle('newline', step.char === '\n');
  span.classList.toggle('given', Boolean(step.given));
  span.classList.toggle('unknown', step.x === undefined);
  span.dataset.t = steps.length;
  paint(span, step);
  box.lastElementChild.append(span);
  steps.push(step);
  spans.push(span);
}

/** Keep only the first `length` characters. */
function cut(length) {
  for (const span of spans.splice(length)) span.remove();
  while (box.lastElementChild?.childElementCount === 0) box.lastElementChild.remove();
  steps.length = length;
  pinned = null;
  show(null);
}

/** Show what a generator of steps yields, in slices, so that the page stays responsive.
 *
 * Resolve to false if it didn't reach its end: other work has begun, or Stop was pressed. */
async function work(generator) {
  const own = (run = {});
  busy(true);
  for (let ended = false; !ended;) {
    const until = performance.now() + SLICE;
    const atEnd = box.scrollTop + box.clientHeight >= box.scrollHeight - 8;
    const follows = atEnd && (!reads() || box.scrollTop > 0); // pasted text is shown from its top
    const slow = !reads() && element('slowly').checked;
    do {
      const { value, done } = generator.next();
      if (value) append(value);
      ended = done;
    } while (!ended && !slow && performance.now() < until);
    if (follows) box.scrollTop = box.scrollHeight;
    if (slow) show(steps.length - 1);
    await new Promise((resolve) => setTimeout(resolve, slow ? SLOW : 0));
    if (run !== own) return false;
  }
  halt();
  return true;
}

/** End the current work. */
function halt() {
  run = {};
  busy(false);
  if (steps.length) show(shown ?? steps.length - 1);
}

function busy(is) {
  element('start').textContent = is && !reads() ? 'Stop' : 'Write';
  box.setAttribute('aria-busy', is);
  element('came').setAttribute('aria-live', is ? 'off' : 'polite');
}

// ---- ŷ_t as bars

const rows = Array.from({ length: BARS }, () => {
  const item = document.createElement('li');
  const button = document.createElement('button');
  const parts = ['name', 'bar', 'percent'].map((kind) => {
    const part = document.createElement('span');
    part.className = kind;
    return part;
  });
  button.type = 'button';
  button.append(...parts);
  button.addEventListener('click', () => choose(data.vocabulary[button.dataset.x]));
  item.append(button);
  element('bars').append(item);
  return { button, parts };
});

/** Show the ŷ_t that the character at t was drawn from, or scored with. */
function show(t) {
  if (shown !== null) spans[shown]?.classList.remove('shown');
  shown = t;
  const position = element('position');
  position.max = Math.max(0, steps.length - 1);
  position.disabled = !steps.length;
  if (t === null) {
    for (const id of ['after', 'came', 'sum']) element(id).textContent = '';
    bars(null);
    return;
  }
  const { x, before, temperature } = steps[t];
  const start = steps.slice(0, t).findLastIndex(({ char }) => ends(char)) + 1; // of its line
  const read = steps.slice(start, t).map(({ char }) => (char === '\n' ? '↵' : looks(char)));
  const context = `${read.length > CONTEXT ? '…' : ''}${read.slice(-CONTEXT).join('')}`;
  spans[t].classList.add('shown');
  position.value = t;
  element('after').textContent = context ? `After “${context}” came` : 'First came';
  element('came').textContent = described(steps[t]);
  bars(before ?? network.zero, x, temperature ?? 1);
}

/** Return in words a character and what the network computed for it. */
function described(step) {
  const { char, x, p, after } = step;
  const word = called(char) === char ? `“${char}”` : called(char);
  if (x === undefined) return `${word}: unknown to the model, left out`;
  const words = [`${word}: ${p === null ? 'not predicted' : percent(p)}`];
  if (p !== null) words.push(`${bits(p).toFixed(2)} bits`);
  if (byUnit() && colour(step) !== null) {
    const unit = element('unit').valueAsNumber;
    words.push(`unit ${unit}: ${after.at(-1).h[unit].toFixed(3).replace('-', '−')}`);
  }
  return words.join(', ');
}

/** Show the likeliest characters after `state`, and always x, the one that came. */
function bars(state, x, temperature) {
  const y = state && network.logits(state);
  const y_hat = state ? softmax(y) : new Float64Array(network.N);
  const drawn = state && temperature !== 1 ? softmax(y, temperature) : null;
  const ranked = [...y_hat.keys()].sort((a, b) => y_hat[b] - y_hat[a]);
  const some = ranked.slice(0, BARS);
  if (x !== undefined && !some.includes(x)) some[BARS - 1] = x;
  rows.forEach(({ button, parts: [label, bar, share] }, k) => {
    const p = y_hat[some[k]];
    button.dataset.x = some[k];
    button.disabled = !state;
    button.classList.toggle('came', some[k] === x);
    label.textContent = state ? called(data.vocabulary[some[k]]) : '';
    share.textContent = state ? percent(p) : '';
    bar.style.setProperty('--p', p.toFixed(4));
    const q = drawn ? drawn[some[k]] : p;
    bar.classList.toggle('marked', Math.abs(q - p) > 0.004);
    bar.style.setProperty('--q', q.toFixed(4));
  });
  if (!state) return;
  element('hint').textContent =
    (drawn ? `The mark is the probability at temperature ${temperature}, used for drawing. ` : '') +
    `Choose ${reads() ? 'a' : 'another'} bar to continue with that character.`;
  const rest = 1 - some.reduce((sum, k) => sum + y_hat[k], 0);
  const sum = y_hat.reduce((a, b) => a + b).toFixed(4);
  element('sum').textContent =
    `ŷ has N = ${number(network.N)} entries and sums to ${sum}` +
    (network.N > BARS ? `; those not shown have ${percent(Math.max(0, rest))}.` : '.');
}

/** Continue from the character that is shown, with another one in its place. */
function choose(char) {
  if (!reads()) return write(char);
  const read = steps
    .slice(0, shown)
    .map((step) => step.char)
    .filter((known) => index.has(known));
  const line = data.lines ? read.lastIndexOf('\n') + 1 : 0;
  element('prime').value = [...read.slice(line), char].join('');
  element('controls').elements.mode.value = 'write';
  switchMode();
  return write();
}

// ---- controls

/** Write a text; `choice`: continue from the shown character, with this one in its place. */
async function write(choice) {
  const temperature = element('temperature').valueAsNumber;
  if (choice === undefined) {
    const { value, valueAsNumber } = element('seed');
    settings = {
      prime: [...element('prime').value].filter((char) => !ends(char)),
      length: Math.max(1, Math.min(10_000, element('length').valueAsNumber || 1)),
      seed: value === '' ? crypto.getRandomValues(new Uint32Array(1))[0] : valueAsNumber,
    };
    cut(0);
  } else {
    const t = shown;
    const { before } = steps[t];
    cut(t);
    append({ ...step(choice, before, network.logits(before ?? network.zero)), temperature });
    show((pinned = t));
  }
  say('');
  const begun = performance.now();
  const kept = steps.length;
  if (!(await work(writing(steps, { ...settings, temperature })))) return;
  const speed = ((steps.length - kept) / (performance.now() - begun)) * 1000;
  const unknown = settings.prime.filter((char) => !index.has(char)).length;
  say(
    `${counted(steps.length)}, seed ${settings.seed}, ${number(speed)} a second${leftOut(unknown)}`,
  );
}

/** Read what was typed, from the first character that has changed. */
async function read() {
  const all = [...element('given').value];
  const characters = all.slice(0, LONGEST);
  let same = 0;
  while (same < steps.length && steps[same].char === characters[same]) same++;
  cut(same);
  if (!(await work(reading(steps, characters)))) return;
  const surprises = steps.filter(({ p }) => p !== null).map(({ p }) => bits(p));
  const mean = surprises.reduce((a, b) => a + b, 0) / surprises.length;
  const unknown = steps.filter(({ x }) => x === undefined).length;
  say(
    (surprises.length ? `Mean ${mean.toFixed(3)} bits over ${counted(surprises.length)}` : '') +
      leftOut(unknown) +
      (all.length > LONGEST ? `; only the first ${number(LONGEST)} are read` : ''),
  );
}

const say = (text) => void (element('status').textContent = text);
const number = (n) => Math.round(n).toLocaleString('en');
const counted = (n, noun = 'character') => `${number(n)} ${noun}${n === 1 ? '' : 's'}`;
const leftOut = (n) => (n ? `; ${number(n)} unknown, left out` : '');

/** Show the controls for writing or for reading, and the text of that mode. */
function switchMode() {
  const reading = reads();
  halt();
  element('write').hidden = reading;
  element('read').hidden = !reading;
  if (reading) {
    written = [...steps];
    element('given').value ||= written.map(({ char }) => char).join('');
  }
  cut(0);
  say('');
  legend();
  if (reading) return read();
  written.forEach(append);
  return halt();
}

/** Return the unit of the last layer that is farthest from 0 in the text that is shown. */
function liveliest() {
  const sums = new Float64Array(data.hidden);
  for (const { after } of steps)
    after?.at(-1).h.forEach((value, k) => (sums[k] += Math.abs(value)));
  return sums.indexOf(Math.max(...sums));
}

/** Say what the colours mean. */
function legend() {
  const [low, , high] = element('legend').children;
  element('legend').classList.toggle('diverging', byUnit());
  let words = ['probability 1', `1/${2 ** MOST_BITS} or less`];
  if (reads()) words = byUnit() ? ['−1', '+1'] : ['0 bits', `${MOST_BITS} or more`];
  [low.textContent, high.textContent] = words;
  element('unit-value').textContent = element('unit').value;
}

function choosePosition(t) {
  if (t < 0 || t >= steps.length) return;
  show((pinned = t));
  spans[t].scrollIntoView({ block: 'nearest' });
}

/** Call `act` with the position of the character that an event is about, if there is one. */
const on = (kind, act) =>
  box.addEventListener(kind, (event) => {
    const span = event.target.closest('[data-t]');
    if (span) act(Number(span.dataset.t));
  });

/** Fill in the facts about the model, and the initial settings. */
function fill() {
  const { title, cell, hidden, layers, parameters, lines, prime, temp, version } = data;
  document.title = element('title').textContent = title;
  element('about').textContent =
    `${cell}, ${counted(layers, 'layer')} of ${counted(hidden, 'unit')}, ` +
    `${counted(network.N)}, ${number(parameters)} parameters`;
  element('version').textContent = version;
  element('code').textContent = element('script')
    .textContent.split(/\/\/ -{60,}.*\n/)[1]
    .trim();
  element('prime').value = prime;
  const temperature = element('temperature');
  temperature.max = Math.max(2, temp);
  temperature.value = temp;
  if (temperature.valueAsNumber !== temp) temperature.step = 'any'; // between the slider's steps
  temperature.value = temp;
  element('temperature-value').textContent = temp;
  element('length').value = lines ? 20 : 500;
  if (lines) element('length-name').textContent = 'Lines';
  box.classList.toggle('lines', lines);
  element('unit').max = hidden - 1;
  element('unit').value = 0;
}

/** Respond to the controls. */
function listen() {
  const temperature = element('temperature');
  temperature.addEventListener('input', () => {
    element('temperature-value').textContent = temperature.value;
  });
  element('controls').addEventListener('submit', (event) => {
    event.preventDefault();
    if (reads()) return;
    if (element('start').textContent === 'Stop') {
      halt();
      say(`Stopped at ${counted(steps.length)}, seed ${settings.seed}`);
    } else write();
  });
  element('controls').addEventListener('change', ({ target }) => {
    if (target.name === 'mode') switchMode();
  });
  element('given').addEventListener('input', read);
  for (const control of [element('unit'), ...document.getElementsByName('colour')]) {
    control.addEventListener('input', () => {
      if (control.id === 'unit') element('controls').elements.colour.value = 'unit';
      else if (byUnit() && !unitChosen) element('unit').value = liveliest();
      unitChosen ||= byUnit();
      spans.forEach((span, t) => paint(span, steps[t]));
      legend();
      show(shown);
    });
  }
  element('position').addEventListener('input', () =>
    choosePosition(element('position').valueAsNumber),
  );
  on('pointerover', show);
  on('click', (t) => {
    choosePosition(t);
    element('bars').scrollIntoView({ block: 'nearest' }); // on a phone they are below
  });
  box.addEventListener('pointerleave', () => {
    if (pinned !== null) show(pinned);
  });
  box.addEventListener('keydown', ({ key }) => {
    const move = { ArrowLeft: -1, ArrowRight: 1 }[key];
    if (move) choosePosition((shown ?? 0) + move);
  });
}

fill();
listen();
switchMode();
write();
