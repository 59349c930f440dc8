// The history as a list: reordered by buttons, by dragging, and by Alt with an arrow key; removed by Delete.

import { ask, change } from "./ask.js";
import { $, fill, h, many, sign } from "./dom.js";

export function drawHistory() {
  const list = $("history");
  const items = ask.history;
  $("clear").hidden = !items.length;
  $("history-hint").textContent = items.length > 1 ? "oldest first" : "";
  fill(list, items.length ? items.map(row) : h("li.history-empty", {}, "Empty: a new user. Add what somebody watched, read or bought."));
}

function row(item, place) {
  const title = item.title ?? item.id;
  const last = ask.history.length - 1;
  const tool = (name, label, act, off) =>
    h("button.tool", { type: "button", "aria-label": `${label} ${title}`, title: label, disabled: off, onclick: act }, sign(name));
  return h(
    "li.event",
    {
      draggable: true,
      dataset: { place },
      onkeydown: (event) => byKey(event, place),
      ondragstart: (event) => {
        event.dataTransfer.setData("text/plain", String(place));
        event.dataTransfer.effectAllowed = "move";
        event.currentTarget.classList.add("dragged");
      },
      ondragend: (event) => event.currentTarget.classList.remove("dragged"),
      ondragover: (event) => {
        event.preventDefault();
        event.currentTarget.classList.add("target");
      },
      ondragleave: (event) => event.currentTarget.classList.remove("target"),
      ondrop: (event) => {
        event.preventDefault();
        move(Number(event.dataTransfer.getData("text/plain")), place);
      },
    },
    h("span.event-place", {}, String(place + 1)),
    h("span.event-title", { title: `${title} (${item.id})` }, title, item.unknown ? h("span.event-unknown", {}, "not in the catalog") : null),
    h(
      "span.event-tools",
      {},
      tool("up", "Earlier:", () => move(place, place - 1, "up"), place === 0),
      tool("down", "Later:", () => move(place, place + 1, "down"), place === last),
      tool("remove", "Remove", () => remove(place)),
    ),
  );
}

function byKey(event, place) {
  if (event.altKey && event.key === "ArrowUp") move(place, place - 1, "up");
  else if (event.altKey && event.key === "ArrowDown") move(place, place + 1, "down");
  else if (event.key === "Delete" || event.key === "Backspace") remove(place);
  else return;
  event.preventDefault();
}

function move(from, to, tool) {
  if (to < 0 || to >= ask.history.length || from === to) return;
  const items = [...ask.history];
  const [item] = items.splice(from, 1);
  items.splice(to, 0, item);
  change({ history: items });
  $("search-says").textContent = `${item.title ?? item.id} is now ${to + 1} of ${items.length}`;
  if (tool) focusTool(to, tool);
}

function remove(place) {
  const item = ask.history[place];
  change({ history: ask.history.filter((_, at) => at !== place) });
  $("search-says").textContent = `${item.title ?? item.id} removed, ${many(ask.history.length, "item")} left`;
  if (ask.history.length) focusTool(Math.min(place, ask.history.length - 1), "remove");
  else $("search").focus();
}

// The list is drawn anew, so the focus is put back: on the same tool, or on its neighbour where it is off now.
function focusTool(place, name) {
  const tools = [...$("history").children[place].querySelectorAll("button")];
  const wanted = tools[["up", "down", "remove"].indexOf(name)];
  (wanted.disabled ? tools.find((tool) => !tool.disabled) : wanted).focus();
}

export function append(item) {
  change({ history: [...ask.history, item] });
}
