// Elements. Text goes in as text only, so a name can never become markup.

type Child = Node | string | null | undefined | false;
type Properties = Record<string, unknown>;

/** An element with properties (`on...` are listeners, `class` and `data-`/`aria-` attributes as written) and children. */
export function el<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  properties: Properties = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value as EventListener);
    else made.setAttribute(name, value === true ? "" : String(value));
  }
  made.append(...children.filter((child): child is Node | string => Boolean(child)));
  return made;
}

/** An element of a drawing. */
export function svg(tag: string, attributes: Record<string, string | number>, ...children: Child[]): SVGElement {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, String(value));
  made.append(...children.filter((child): child is Node | string => Boolean(child)));
  return made;
}

/** Replaces what is in an element; whatever had the focus has it again if it is still there (by its `data-key`). */
export function fill(parent: Element, ...children: Child[]): void {
  const focused = parent.contains(document.activeElement) ? document.activeElement?.getAttribute("data-key") : null;
  parent.replaceChildren(...children.filter((child): child is Node | string => Boolean(child)));
  if (focused) parent.querySelector<HTMLElement>(`[data-key="${CSS.escape(focused)}"]`)?.focus();
}

/** A dialog that opens over the page and closes with Escape or its button. */
export function dialog(title: string, ...children: Child[]): HTMLDialogElement {
  const opened = el(
    "dialog",
    { "aria-label": title, onclose: () => opened.remove() },
    el(
      "header",
      {},
      el("h2", {}, title),
      el("button", { type: "button", class: "quiet", "aria-label": "Close", onclick: () => opened.close() }, "✕"),
    ),
    ...children,
  );
  document.body.append(opened);
  opened.showModal();
  return opened;
}
