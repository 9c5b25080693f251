// The server sends the values of predictions as well, so moving the pointer causes no requests.
const hidden = new Set();
let limit = Infinity;
let alpha = 0.7;
let result = null;
let maps = [];
let uploads = 0;

const find = (selector) => document.querySelector(selector);
const all = (selector) => [...document.querySelectorAll(selector)];

function make(tag, options = {}, ...children) {
  const node = Object.assign(document.createElement(tag), options);
  node.append(...children);
  return node;
}

function say(text, wrong = false) {
  const message = find('.message');
  message.textContent = text;
  message.classList.toggle('wrong', wrong);
}

// Send a file to the server.

async function send(file) {
  if (!file) return;
  uploads += 1;
  const index = uploads;
  if (file.size > limit) {
    say(`${file.name}: this file is larger than ${limit >> 20} MB (choose a smaller one)`, true);
    return;
  }
  say(`${file.name}: predicting ...`);
  const answer = await predict(file);
  if (index !== uploads) return;  // a later upload has replaced this one
  if (answer.error) say(`${file.name}: ${answer.error}`, true);
  else await show(file.name, answer);
}

async function predict(file) {
  try {
    const headers = { 'content-type': 'application/octet-stream' };
    const response = await fetch('predict', { method: 'POST', headers, body: file });
    const isJson = response.headers.get('content-type') === 'application/json';
    return isJson ? await response.json() : { error: `the server failed (status ${response.status})` };
  } catch (error) {
    return { error: `the server cannot be reached or the file cannot be read (${error.message})` };
  }
}

document.addEventListener('change', (event) => {
  if (event.target.type === 'file') {
    send(event.target.files[0]);
    event.target.value = '';
  }
});
for (const kind of ['dragenter', 'dragover', 'dragleave', 'drop']) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    find('.drop').classList.toggle('over', kind.endsWith('er'));
    if (kind === 'drop') send(event.dataTransfer.files[0]);
  });
}

// Show predictions as cards.

async function inflate(view) {
  const bytes = Uint8Array.from(atob(view.values), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('deflate'));
  const buffer = await new Response(stream).arrayBuffer();
  return view.bits === 8 ? new Uint8Array(buffer) : new Uint16Array(buffer);
}

function legend(view) {
  if (view.classes.length) {
    const shown = view.classes.filter((each) => each.share >= 0.0005);
    shown.sort((one, other) => other.share - one.share);
    return make('div', { className: 'legend' }, ...shown.map((each) => {
      const swatch = make('b');
      swatch.style.background = each.color;
      const share = make('em', {}, `${(100 * each.share).toFixed(1)} %`);
      const entry = make('span', {}, swatch, each.name, share);
      entry.dataset.name = each.name;
      return entry;
    }));
  }
  if (!view.legend) return '';
  const [low, high] = view.legend.captions;
  const picture = make('img', { src: view.legend.picture, alt: '' });
  picture.className = low === undefined ? 'ball' : 'scale';
  const after = low === undefined ? 'colors of a sphere seen from the front' : high;
  return make('div', { className: 'legend' }, ...(low ? [make('span', {}, low)] : []), picture,
    make('span', {}, after));
}

function card(title, image, view) {
  const layers = [make('img', { src: image, alt: title, draggable: false })];
  if (view) layers.push(make('img', { src: view.picture, alt: '', draggable: false }));
  const stack = make('div', { className: 'stack' }, ...layers, make('i', { hidden: true }));
  const figure = make('figure', { className: 'card' }, make('figcaption', {}, title), stack);
  figure.dataset.task = view ? view.task : '';
  if (view) figure.append(legend(view));
  return figure;
}

function chip(task) {
  const box = make('input', { type: 'checkbox', checked: !hidden.has(task) });
  box.dataset.task = task;
  return make('label', {}, box, task);
}

async function show(name, value) {
  result = value;
  maps = await Promise.all(value.views.map(inflate));
  find('.chips').replaceChildren(...value.views.map((view) => chip(view.task)));
  find('.cards').replaceChildren(card('image', value.image),
    ...value.views.map((view) => card(view.task, value.image, view)));
  find('.bar').hidden = false;
  find('.drop').classList.remove('empty');
  say(`${name}, ${value.width} x ${value.height}: move the pointer over an image to read values`);
  refresh();
}

function refresh() {
  find('.slider input').value = Math.round(100 * alpha);
  find('.slider output').textContent = `${Math.round(100 * alpha)} %`;
  all('.stack img + img').forEach((layer) => { layer.style.opacity = alpha; });
  all('.card').forEach((each) => {
    each.style.display = hidden.has(each.dataset.task) ? 'none' : '';
  });
}

document.addEventListener('input', (event) => {
  if (event.target.type === 'range') alpha = event.target.value / 100;
  if (event.target.type === 'checkbox') {
    const { task } = event.target.dataset;
    if (event.target.checked) hidden.delete(task); else hidden.add(task);
  }
  refresh();
});

// Show values under the pointer.

function read(view, map, pixel) {
  if (view.classes.length) return view.classes[map[pixel]]?.name ?? 'ignored';
  const step = (view.high - view.low) / (2 ** view.bits - 1);
  const start = pixel * view.channels;
  const numbers = [...map.slice(start, start + view.channels)];
  const rounded = numbers.map((level) => Math.round(100 * (view.low + level * step)) / 100);
  const texts = rounded.map((number) => number.toFixed(2).replace('-', '\u2212'));
  return `${texts.join(', ')} ${view.unit}`.trim();
}

function point(event) {
  const stack = event.target.closest?.('.stack');
  const value = result;
  find('.tip').hidden = !stack;
  all('.stack i').forEach((dot) => { dot.hidden = !stack; });
  all('.legend .here').forEach((entry) => entry.classList.remove('here'));
  if (!stack || !value) return;
  const box = stack.getBoundingClientRect();
  const [x, y] = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  const column = Math.min(Math.max(Math.floor(x * value.width), 0), value.width - 1);
  const row = Math.min(Math.max(Math.floor(y * value.height), 0), value.height - 1);
  const lines = value.views.flatMap((view, index) => {
    if (hidden.has(view.task)) return [];
    const text = read(view, maps[index], row * value.width + column);
    const entries = all(`.card[data-task="${CSS.escape(view.task)}"] .legend span`);
    entries.find((entry) => entry.dataset.name === text)?.classList.add('here');
    return make('div', {}, make('span', {}, view.task), make('b', {}, text));
  });
  all('.stack i').forEach((dot) => {
    Object.assign(dot.style, { left: `${100 * x}%`, top: `${100 * y}%` });
  });
  place(find('.tip'), lines, event);
}

function place(tip, lines, event) {
  tip.replaceChildren(...lines);
  const left = event.clientX + 18 + tip.offsetWidth > innerWidth
    ? event.clientX - 18 - tip.offsetWidth : event.clientX + 18;
  const above = event.clientY - 18 - tip.offsetHeight;  // legends are below the images
  const top = above < 8 ? event.clientY + 18 : above;
  Object.assign(tip.style, { left: `${left}px`, top: `${top}px` });
}

document.addEventListener('pointermove', point);
document.documentElement.addEventListener('pointerleave', point);

// Show the tasks of the model.

fetch('info').then((response) => response.json()).then((info) => {
  limit = info.max_bytes;
  find('.tasks').textContent = `tasks: ${info.tasks.join(', ')}`;
});
