// The dialog that asks for an API key.

import { key } from "./api.js";
import { $ } from "./dom.js";

// `changed()` is called once there is another key, or none. Returns what opens the dialog.
export function makeKeyDialog(changed) {
  const dialog = $("key-dialog");
  const input = $("key");
  const open = (message = "") => {
    $("key-error").textContent = message;
    $("key-error").hidden = !message;
    $("key-forget").hidden = !key.get();
    input.value = "";
    if (!dialog.open) dialog.showModal();
    input.focus();
  };
  $("key-button").addEventListener("click", () => open());
  $("key-cancel").addEventListener("click", () => dialog.close());
  $("key-forget").addEventListener("click", () => {
    key.forget();
    dialog.close();
    changed();
  });
  $("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const value = input.value.trim();
    if (!/^[\x21-\x7e]+$/.test(value)) return open("A key is printable ASCII without spaces.");
    key.set(value);
    dialog.close();
    return changed();
  });
  return open;
}
