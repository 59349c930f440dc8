// Making nodes and writing numbers. No HTML is ever parsed from a string: titles are text.

const SVG = "http://www.w3.org/2000/svg";

export const $ = (id) => document.getElementById(id);

// h("li.row", {onclick}, "text", node): an element with classes, properties (or attributes) and children.
export function h(what, properties = {}, ...children) {
  const [tag, ...classes] = what.split(".");
  const node = document.createElement(tag);
  if (classes.length) node.className = classes.join(" ");
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "dataset") Object.assign(node.dataset, value);
    else if (name in node && !name.startsWith("aria")) node[name] = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

export function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

// A drawn sign. Shapes differ, so that no state is told by colour alone.
const SIGNS = {
  certified: "M8 1.2l1.9 1.3 2.3-.1.8 2.2 1.8 1.4-.6 2.2.6 2.2-1.8 1.4-.8 2.2-2.3-.1L8 15.2l-1.9-1.3-2.3.1-.8-2.2L1.200 10.400l.6-2.2-.6-2.2L3 4.600l.8-2.2 2.3.1z M5.200 8.200l2 2 3.600-4",
  finished: "M3 3h10v10H3z",
  live: "M8 2.500a5.500 5.500 0 1 0 0 11 5.500 5.500 0 0 0 0-11z",
  walked: "M8 2.500a5.500 5.500 0 1 0 0 11 5.500 5.500 0 0 0 0-11z",
  scored: "M8 5.500a2.500 2.500 0 1 0 0 5 2.500 2.500 0 0 0 0-5z",
  pruned: "M4 4l8 8M12 4l-8 8",
  filtered: "M8 2.500a5.500 5.500 0 1 0 0 11 5.500 5.500 0 0 0 0-11z M4.200 11.800l7.600-7.600",
  sun: "M8 5a3 3 0 1 0 0 6 3 3 0 0 0 0-6z M8 1v1.500M8 13.500V15M1 8h1.500M13.500 8H15M3 3l1 1M12 12l1 1M13 3l-1 1M4 12l-1 1",
  moon: "M13.500 9.700A6 6 0 0 1 6.300 2.500a6 6 0 1 0 7.200 7.200z",
  fold: "M3.500 6l4.500 4.500L12.500 6",
  up: "M8 13V3M4 7l4-4 4 4",
  down: "M8 3v10M4 9l4 4 4-4",
  remove: "M4 4l8 8M12 4l-8 8",
  plus: "M8 3v10M3 8h10",
  play: "M5 3l8 5-8 5z",
  pause: "M5 3v10M11 3v10",
  next: "M4 3l6 5-6 5zM12.500 3v10",
  back: "M12 3L6 8l6 5zM3.500 3v10",
  alert: "M8 2l6.500 11.500h-13z M8 6.500v3.500M8 11.700v.1",
  offline: "M2 6a9 9 0 0 1 12 0M4.500 8.800a5.400 5.400 0 0 1 7 0M8 12v.1M2 2l12 12",
  clock: "M8 2a6 6 0 1 0 0 12A6 6 0 0 0 8 2z M8 5v3.200l2.200 1.500",
  key: "M10.500 2.500a3 3 0 1 0 0 6 3 3 0 0 0 0-6zM8.300 7.700L2.500 13.500M4.500 11.500l1.500 1.500",
};

export function sign(name) {
  const path = svg("path", { d: SIGNS[name] });
  return svg("svg", { class: `sign sign-${name}`, viewBox: "0 0 16 16", width: 16, height: 16, "aria-hidden": "true" }, path);
}

export function fill(node, ...children) {
  node.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
}

const whole = new Intl.NumberFormat("en");
export const count = (number) => whole.format(number);
export const many = (number, noun, plural = `${noun}s`) => `${count(number)} ${number === 1 ? noun : plural}`;

// A probability as a person reads it: 19.1 %, 0.42 %, 1 in 40,000.
export function share(score) {
  if (score === null) return "0\u00a0%";
  const p = Math.exp(score);
  if (p >= 0.0995) return `${(100 * p).toFixed(1)}\u00a0%`;
  if (p >= 0.00005) return `${(100 * p).toFixed(2)}\u00a0%`;
  const one = 1 / p;
  if (one > 1e9) return `e^${score.toFixed(0)}`;
  const digits = 10 ** Math.max(0, Math.floor(Math.log10(one)) - 1);
  return `1 in ${whole.format(Math.round(one / digits) * digits)}`;
}

export const nats = (score) => (score === null ? "−∞" : score.toFixed(2).replace("-", "−"));
export const ms = (time) => (time < 10 ? time.toFixed(1) : time.toFixed(0)) + " ms";

// Calls `later` once nothing has asked for it for `wait` milliseconds.
export function debounced(later, wait) {
  let timer = 0;
  const ask = (...values) => {
    clearTimeout(timer);
    timer = setTimeout(later, wait, ...values);
  };
  ask.forget = () => clearTimeout(timer);
  return ask;
}
