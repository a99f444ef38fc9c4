// Makes elements and turns the API's values into words. Text only ever becomes text nodes.

const SVG = 'http://www.w3.org/2000/svg';

const ICONS = {
  copy: 'M8 8V5.5A1.5 1.5 0 0 1 9.5 4h9A1.5 1.5 0 0 1 20 5.5v9a1.5 1.5 0 0 1-1.5 1.5H16M5.5 8h9A1.5 1.5 0 0 1 16 9.5v9a1.5 1.5 0 0 1-1.5 1.5h-9A1.5 1.5 0 0 1 4 18.5v-9A1.5 1.5 0 0 1 5.5 8z',
  check: 'M5 12.5l4.5 4.5L19 7.5',
  play: 'M8 5.5v13l10.5-6.5z',
  stop: 'M7 7h10v10H7z',
  sound: 'M4 9.5v5h3.5L12 18.5v-13L7.5 9.5zM16 9l5 6M21 9l-5 6',
  warning: 'M12 4.5l8.5 15h-17zM12 10v4.5M12 17v.1',
  live: 'M5 6v12M9 6l9 6-9 6z',
};

/** Makes `<tag>` with the given properties and children; strings among the children become text. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (key === 'class') element.className = value;
    else if (key === 'on') for (const [type, f] of Object.entries(value)) element.addEventListener(type, f);
    else if (key in element && key !== 'list') element[key] = value;
    else element.setAttribute(key, value === true ? '' : value);
  }
  element.append(...children.filter((c) => c !== null && c !== undefined));
  return element;
}

/** One of the line icons, as decoration: the words are always beside it or in a label. */
export function icon(name) {
  const svg = document.createElementNS(SVG, 'svg');
  svg.setAttribute('viewBox', '0 0 24 24');
  svg.setAttribute('aria-hidden', 'true');
  svg.classList.add('icon', `icon-${name}`);
  const path = document.createElementNS(SVG, 'path');
  path.setAttribute('d', ICONS[name]);
  svg.append(path);
  return svg;
}

/** Sets an element's text, touching the document only when it changed. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Shows or hides an element. */
export function show(element, visible) {
  if (element.hidden === visible) element.hidden = !visible;
}

async function copy(text) {
  // The clipboard API exists only in a secure context, and a server in the next room is plain HTTP.
  if (navigator.clipboard && window.isSecureContext) {
    await navigator.clipboard.writeText(text);
    return;
  }
  const area = h('textarea', { class: 'offscreen', value: text, readOnly: true, 'aria-hidden': 'true' });
  document.body.append(area);
  area.select();
  const done = document.execCommand('copy');
  area.remove();
  if (!done) throw new Error('the browser refused to copy');
}

/** A button that copies what `text()` says at that moment; `what` names it for a screen reader. */
export function copyButton(what, text) {
  const label = h('span', {}, 'Copy');
  const button = h('button', { type: 'button', class: 'copy', 'aria-label': `Copy ${what}` }, icon('copy'), label);
  let timer = 0;
  button.addEventListener('click', async () => {
    clearTimeout(timer);
    const focused = document.activeElement;
    try {
      await copy(text());
      button.replaceChildren(icon('check'), label);
      say(label, 'Copied');
      announce(`${what} copied`);
    } catch {
      say(label, 'Select it');
      announce('Copying was refused. Select the text and copy it by hand.');
    }
    focused?.focus?.();
    timer = setTimeout(() => {
      button.replaceChildren(icon('copy'), label);
      say(label, 'Copy');
    }, 1800);
  });
  return button;
}

/** A labelled, selectable address with its copy button. */
export function copyRow(label, text) {
  return h(
    'div',
    { class: 'copyrow' },
    h('span', { class: 'copyrow-label' }, label),
    h('code', { class: 'copyrow-text', tabIndex: 0 }, text),
    copyButton(label, () => text),
  );
}

/** Tells a screen reader. */
export function announce(text) {
  say(document.getElementById('announce'), text);
}

/** `value` as a finite number, else null. */
export function number(value) {
  const n = typeof value === 'string' && value !== '' ? Number(value) : value;
  return typeof n === 'number' && Number.isFinite(n) ? n : null;
}

/** `value` as a string no longer than `most`, else null. */
export function words(value, most = 120) {
  if (typeof value !== 'string' || value === '') return null;
  return value.length > most ? `${value.slice(0, most - 1)}…` : value;
}

/** 2800000 → `2.8 Mbit/s`. */
export function bitrate(bps) {
  const n = number(bps);
  if (n === null || n <= 0) return null;
  return n >= 999_500 ? `${(n / 1e6).toFixed(1)} Mbit/s` : `${Math.round(n / 1000)} kbit/s`;
}

/** 123456789 → `123 MB`. */
export function bytes(count) {
  const n = number(count);
  if (n === null) return null;
  const [divisor, unit] = n >= 1e9 ? [1e9, 'GB'] : n >= 1e6 ? [1e6, 'MB'] : [1e3, 'kB'];
  return `${(n / divisor).toFixed(n / divisor < 10 ? 1 : 0)} ${unit}`;
}

/** `"29.970"` → `29.97 fps`. */
export function frameRate(value) {
  const n = number(value);
  return n === null || n <= 0 ? null : `${Number(n.toFixed(2))} fps`;
}

/** 1280, 720 → `1280×720`. */
export function size(width, height) {
  return number(width) && number(height) ? `${width}×${height}` : null;
}

const H264 = { 42: 'Baseline', '4d': 'Main', 58: 'Extended', 64: 'High', '6e': 'High 10' };
const CODECS = [
  [/^(hvc1|hev1)/, 'HEVC'],
  [/^av01/, 'AV1'],
  [/^vp09/, 'VP9'],
  [/^mp4a\.40\.2$/, 'AAC'],
  [/^mp4a\.40\.(5|29)$/, 'HE-AAC'],
  [/^opus/i, 'Opus'],
  [/^ac-3/, 'AC-3'],
];

/** `avc1.640020` → `H.264 High`; a codec that is not known stays as it is written. */
export function codec(value) {
  const text = words(value, 40);
  if (text === null) return null;
  const avc = /^avc[13]\.([0-9a-f]{2})/i.exec(text);
  if (avc) return `H.264 ${H264[avc[1].toLowerCase()] ?? ''}`.trim();
  return CODECS.find(([pattern]) => pattern.test(text))?.[1] ?? text;
}

/** How long since `then` (RFC 3339), in words, given the server's now in milliseconds. */
export function since(then, now) {
  const start = Date.parse(then);
  if (!Number.isFinite(start)) return null;
  const seconds = Math.max(0, Math.round((now - start) / 1000));
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, '0')} min`;
}

/** Joins what is there. */
export function join(...parts) {
  return parts.filter((p) => p !== null && p !== undefined && p !== '').join(' · ');
}
