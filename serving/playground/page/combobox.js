// Find an item by typing: a combobox with a list, after the ARIA pattern ("list autocomplete, manual selection").

import { call } from "./api.js";
import { $, debounced, fill, h, many } from "./dom.js";

const LIMIT = 8;

// `taken(item)` is called with what was chosen; `failed(failure)` where the server cannot say.
export function makeCombobox({ taken, failed }) {
  const input = $("search");
  const list = $("found");
  const says = $("search-says");
  let items = [];
  let active = -1;
  let running = null;
  const later = debounced(() => find(), 90);

  const close = () => {
    later.forget(); // nothing may open it again by itself
    running?.abort();
    list.hidden = true;
    fill(list);
    active = -1;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  };

  const mark = (next) => {
    const options = list.querySelectorAll("[role=option]");
    if (!options.length) return;
    active = (next + options.length) % options.length;
    options.forEach((option, place) => option.setAttribute("aria-selected", String(place === active)));
    options[active].scrollIntoView({ block: "nearest" });
    input.setAttribute("aria-activedescendant", options[active].id);
  };

  const take = (item) => {
    input.value = "";
    close();
    says.textContent = `${item.title} added`;
    taken({ id: item.item_id, title: item.title });
    input.focus();
  };

  const show = (rows, spoken) => {
    fill(list, rows);
    list.hidden = false;
    input.setAttribute("aria-expanded", "true");
    says.textContent = spoken;
  };

  const option = (item, place) =>
    h(
      "li.option",
      {
        role: "option",
        id: `option-${place}`,
        "aria-selected": "false",
        onmousedown: (event) => event.preventDefault(), // the input keeps the focus
        onclick: () => take(item),
      },
      h("span.option-title", {}, ...marked(item.title, input.value)),
      h("span.option-id", {}, item.item_id),
    );

  const suggestion = (word) =>
    h("button.link", { type: "button", onmousedown: (event) => event.preventDefault(), onclick: () => find(word) }, word);

  async function find(text) {
    if (text !== undefined) input.value = text;
    const prefix = input.value.trim();
    running?.abort();
    if (!prefix) return close();
    running = new AbortController();
    try {
      const { data } = await call(`/v1/items?${new URLSearchParams({ prefix, limit: LIMIT })}`, { signal: running.signal });
      items = data.data;
      active = -1;
      input.removeAttribute("aria-activedescendant");
      if (items.length) show(items.map(option), `${many(items.length, "item")} found`);
      else show([nothing(prefix, data.did_you_mean)], `Nothing found for ${prefix}`);
    } catch (failure) {
      if (failure.name === "AbortError") return;
      close();
      failed(failure);
    }
  }

  const nothing = (prefix, words) =>
    h(
      "li.nothing",
      { role: "presentation" },
      `No title with “${prefix}”.`,
      words.length ? h("span", {}, " Did you mean ", ...words.slice(0, 3).flatMap((word, place) => (place ? [" or ", suggestion(word)] : [suggestion(word)])), "?") : null,
    );

  input.addEventListener("input", later);
  input.addEventListener("focus", () => input.value.trim() && find());
  input.addEventListener("blur", close);
  input.addEventListener("keydown", (event) => {
    const isOpen = !list.hidden;
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (!isOpen) find();
      else mark(active + (event.key === "ArrowDown" ? 1 : active < 0 ? 0 : -1));
    } else if (event.key === "Enter") {
      event.preventDefault();
      if (isOpen && items.length) take(items[Math.max(active, 0)]);
    } else if (event.key === "Escape") {
      event.preventDefault();
      if (isOpen) close();
      else input.value = "";
    }
  });
  document.addEventListener("keydown", (event) => {
    const isTyping = event.target instanceof Element && event.target.matches("input, textarea, select");
    if (event.key === "/" && !isTyping && !event.ctrlKey && !event.metaKey && !$("key-dialog").open) {
      event.preventDefault();
      input.focus();
    }
  });
}

// The title with what was typed of it set off, where it stands there as it was typed.
function marked(title, typed) {
  const at = title.toLowerCase().indexOf(typed.trim().toLowerCase());
  if (at < 0 || !typed.trim()) return [title];
  const end = at + typed.trim().length;
  return [title.slice(0, at), h("mark", {}, title.slice(at, end)), title.slice(end)];
}
