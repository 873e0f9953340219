// The page of the explorer: controls that make a wish, and what Python answers. It loads nothing.

const LEAST = 1e-4; // the smallest strength of the slider, after 0
const PER_DECADE = 16;
export const STEPS = 4 * PER_DECADE + 1;
const PLACES = [["subject", "The subject's last token"], ["prompt", "The whole text"],
  ["generated", "What the model writes"], ["all", "Text and what is written"]];
const VISIBLE = { "\n": "↵\n", "\t": "⇥", "\r": "␍" };
let instances = 0;

// A slider has even steps in the logarithm, and 0 at its left end.
export const strengthOf = (step) =>
  step <= 0 ? 0 : Number((LEAST * 10 ** ((step - 1) / PER_DECADE)).toPrecision(3));
export const stepOf = (strength) =>
  !(strength > 0) ? 0 : Math.max(1, Math.min(STEPS, Math.round(1 + PER_DECADE * Math.log10(strength / LEAST))));

export const said = (value, digits = 3) => {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (value !== 0 && Math.abs(value) < 1e-4) return value.toExponential(0);
  return String(Number(value.toPrecision(digits))).replace("-", "−");
};
export const percent = (p) => {
  if (p === null || p === undefined) return "–";
  if (p >= 0.1) return `${Math.round(100 * p)} %`;
  return p >= 0.0005 ? `${(100 * p).toFixed(1)} %` : "< 0.1 %";
};

// Notebooks say themselves whether they are dark; elsewhere the system does.
export function themeOf(root, body, systemIsDark) {
  const jupyter = body.getAttribute("data-jp-theme-light");
  if (jupyter) return jupyter === "false" ? "dark" : "light";
  const words = `${root.className} ${body.className} ${["data-theme", "theme", "data-bs-theme"]
    .flatMap((name) => [root.getAttribute(name), body.getAttribute(name)]).join(" ")}`.split(/\s+/);
  if (words.includes("vscode-high-contrast-light")) return "light";
  if (["vscode-dark", "vscode-high-contrast", "dark"].some((word) => words.includes(word))) return "dark";
  if (["vscode-light", "light"].some((word) => words.includes(word))) return "light";
  return systemIsDark ? "dark" : "light";
}

// The namespace of SVG, from the browser: this file holds no address, not even one that is only a name.
const svgNamespace = () => new DOMParser().parseFromString("<svg></svg>", "text/html").body.firstChild.namespaceURI;

// An element with attributes, listeners ("onclick") and children; text stays text.
function el(name, given = {}, ...children) {
  const made = name.startsWith("svg:") ? document.createElementNS(svgNamespace(), name.slice(4)) : document.createElement(name);
  for (const [key, value] of Object.entries(given)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

function field(id, label, control, hint) {
  control.id = id;
  const about = hint ? el("span", { class: "x-hint", id: `${id}-hint` }, hint) : null;
  if (about) control.setAttribute("aria-describedby", about.id);
  return el("div", { class: "x-field" }, el("label", { for: id }, label), control, about);
}
const options = (pairs) => pairs.map(([value, text]) => el("option", { value }, text));

function controls(id, offer, change, hurry) {
  const concepts = [["", "nothing"], ...offer.concepts.map((name) => [name, name])];
  const soon = { oninput: () => change(300) };
  const at = { onchange: () => change(0) };
  const last = offer.n_layers - 1;
  const whole = (max, min = 0) => el("input", { type: "number", min, max, step: 1, ...soon });
  const all = {
    text: el("textarea", { rows: 2, spellcheck: "false", placeholder: "A text that the model goes on with", ...soon }),
    subject: el("input", { type: "text", spellcheck: "false", autocomplete: "off", placeholder: "the last word", ...soon }),
    remove: el("select", { class: "x-remove", ...at }, options(concepts)),
    add: el("select", { class: "x-add", ...at }, options(concepts)),
    slider: el("input", { type: "range", min: 0, max: STEPS, step: 1 }),
    strength: el("input", { type: "number", min: 0, max: 10, step: "any", inputmode: "decimal" }),
    place: el("select", at, options(PLACES)),
    layers: el("select", at, options([["all", `All ${offer.n_layers} layers`], ["from", `Layer ${offer.layer} and later`],
      ["own", `Layer ${offer.layer} only`], ["some", "From layer … to …"]])),
    first_layer: whole(last), last_layer: whole(last), n_tokens: whole(offer.most_tokens, 1),
  };
  const share = el("span", { class: "x-hint", id: `${id}-share` });
  const say = () => {
    const value = Number(all.strength.value);
    all.slider.setAttribute("aria-valuetext", said(value));
    share.textContent = `${said(100 * value)} % of the activation's length, at each edited layer`;
  };
  all.slider.addEventListener("input", () => { all.strength.value = strengthOf(Number(all.slider.value)); say(); change(90); });
  all.strength.addEventListener("input", () => { all.slider.value = stepOf(Number(all.strength.value)); say(); change(250); });
  const range = el("div", { class: "x-pair", hidden: true },
    field(`${id}-first`, "First layer", all.first_layer), field(`${id}-last`, "Last layer", all.last_layer));
  all.layers.addEventListener("change", () => { range.hidden = all.layers.value !== "some"; });
  const exchange = el("button", { type: "button", class: "x-exchange", "aria-label": "Exchange the two concepts", title: "Exchange the two concepts",
    onclick: () => { [all.remove.value, all.add.value] = [all.add.value, all.remove.value]; change(0); } }, "⇄");
  all.slider.setAttribute("aria-label", "Strength");
  all.slider.setAttribute("aria-describedby", share.id);
  all.strength.id = `${id}-strength`;
  const form = el("form", { class: "x-controls", "aria-label": "Text and edit", onsubmit: (event) => { event.preventDefault(); hurry(); } },
    field(`${id}-text`, "Text", all.text),
    field(`${id}-subject`, "Subject in the text", all.subject),
    el("div", { class: "x-swap" }, field(`${id}-remove`, "Remove", all.remove), exchange, field(`${id}-add`, "Add", all.add)),
    el("div", { class: "x-field" }, el("label", { for: all.strength.id }, "Strength"),
      el("div", { class: "x-strength" }, all.slider, all.strength), share),
    field(`${id}-place`, "Where", all.place), field(`${id}-layers`, "Layers", all.layers), range,
    field(`${id}-tokens`, "Tokens to write", all.n_tokens));
  const number = (control) => (control.value.trim() === "" ? null : Number(control.value));
  return {
    form, all,
    values: () => ({
      ...Object.fromEntries(["text", "subject", "remove", "add", "place", "layers"].map((name) => [name, all[name].value])),
      ...Object.fromEntries(["strength", "first_layer", "last_layer", "n_tokens"].map((name) => [name, number(all[name])])),
    }),
    show(wish) {
      for (const name of Object.keys(all)) if (name in wish) all[name].value = wish[name] ?? "";
      all.slider.value = stepOf(wish.strength);
      range.hidden = all.layers.value !== "some";
      say();
    },
    setStrength(value) { all.strength.value = value; all.slider.value = stepOf(value); say(); change(0); },
    invalid(name, errorId) {
      for (const [key, control] of Object.entries(all)) {
        for (const [attribute, value] of [["aria-invalid", "true"], ["aria-errormessage", errorId]])
          if (key === name) control.setAttribute(attribute, value); else control.removeAttribute(attribute);
      }
    },
  };
}

// Tabs as in the ARIA practices: one tab stop, arrows between them.
function tabs(id, names, panels, chosen) {
  const buttons = names.map(([key, name], place) => el("button", {
    type: "button", role: "tab", id: `${id}-tab-${key}`, "aria-controls": `${id}-panel-${key}`,
    onclick: () => choose(place), onkeydown: (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      const to = event.key === "Home" ? 0 : event.key === "End" ? names.length - 1 : step ? (place + step + names.length) % names.length : null;
      if (to === null) return;
      event.preventDefault();
      choose(to);
      buttons[to].focus();
    },
  }, name));
  panels.forEach((panel, place) => {
    const given = { id: `${id}-panel-${names[place][0]}`, role: "tabpanel", "aria-labelledby": buttons[place].id };
    for (const [key, value] of Object.entries(given)) panel.setAttribute(key, value);
  });
  const mark = (place) => buttons.forEach((button, at) => {
    button.setAttribute("aria-selected", String(at === place));
    button.tabIndex = at === place ? 0 : -1;
    panels[at].hidden = at !== place;
  });
  const choose = (place) => { mark(place); chosen(names[place][0]); };
  return { bar: el("div", { class: "x-tabs", role: "tablist", "aria-label": "Views" }, buttons), mark };
}

const shade = (value, scale) => {
  if (value === null || !scale) return "transparent";
  const share = Math.min(Math.abs(value) / scale, 1) * 0.6;
  return `rgba(${value >= 0 ? "224,112,0" : "64,128,255"},${share.toFixed(3)})`;
};
const visible = (token) => token.replace(/[\n\t\r]/g, (letter) => VISIBLE[letter]);

// The largest score of a word in both texts, which gets the full colour.
const scaleOf = (texts, name) => Math.max(0, ...texts.filter(Boolean).flatMap((text) =>
  ((text.shades || {})[name] || []).filter((value, at) => value !== null && !text.special.includes(at)).map(Math.abs)));

function textCard(title, text, name, scale, isFresh, empty) {
  const card = el("section", { class: "x-card", "data-stale": !isFresh }, el("h4", {}, title));
  if (!text) return el("section", { class: "x-card" }, el("h4", {}, title), el("p", { class: "x-empty" }, empty));
  const flow = el("p", { class: "x-text", dir: "auto" });
  const scores = (text.shades || {})[name] || [];
  (text.prompt || []).concat("partial" in text ? [] : text.new).forEach((token, at) => {
    const isNew = at >= text.prompt.length, changed = isNew && text.changed[at - text.prompt.length];
    const pale = text.special.includes(at);
    const classes = [isNew && "x-new", pale && "x-pale", at === text.read_at && "x-read"].filter(Boolean).join(" ");
    const hover = [`${name}: ${said(scores[at], 4)}`, changed && `without the edit: ${text.instead[at - text.prompt.length]}`]
      .filter(Boolean).join("; ");
    const word = token.replace(/^ +/, ""); // the space before a word has no colour
    flow.append(" ".repeat(token.length - word.length));
    flow.append(el("span", { class: classes || null, title: hover, style: pale ? null : `background:${shade(scores[at] ?? null, scale)}` },
      changed ? el("u", {}, visible(word || "␣")) : visible(word || "␣")));
  });
  if ("partial" in text) flow.append(el("span", { class: "x-new" }, visible(text.partial)), el("span", { class: "x-caret", "aria-hidden": "true" }));
  card.append(flow);
  if (text.kl !== null && text.kl !== undefined && !("partial" in text))
    card.append(el("p", { class: "x-note" }, `${said(text.kl, 2)} nats per token from the unedited model; underlined: it would have said another word there`));
  return card;
}

// Scores of one table with equally many decimals.
export const alike = (values) => {
  const most = Math.max(0, ...values.filter(Number.isFinite).map(Math.abs));
  const decimals = most > 0 ? Math.min(6, Math.max(0, 2 - Math.floor(Math.log10(most)))) : 0;
  return (value) => (Number.isFinite(value) ? value.toFixed(decimals).replace("-", "−") : "–");
};

// Objects with a bar of what they have now, and a tick where they were before the edit.
function ranking(title, note, key, before, after, edit, isFresh) {
  const was = new Map((before ? before.objects : []).map((object) => [object.name, object[key]]));
  const now = after ? new Map(after.objects.map((object) => [object.name, object[key]])) : was;
  const names = [...was.keys()].sort((a, b) => (now.get(b) ?? -Infinity) - (now.get(a) ?? -Infinity));
  const shown = names.filter((name, at) => at < 8 || edit.includes(name));
  const values = [...was.values(), ...now.values()].filter((value) => value !== null);
  const write = key === "p" ? percent : alike(values);
  const low = Math.min(0, ...values), high = Math.max(key === "p" ? 0.01 : 0, ...values), span = high - low || 1;
  const place = (value) => 100 * ((value ?? low) - low) / span;
  const rows = shown.map((name) => {
    const from = place(Math.min(0, now.get(name) ?? 0)), to = place(Math.max(0, now.get(name) ?? 0));
    const kind = name === edit[1] ? "add" : name === edit[0] ? "remove" : null;
    return el("tr", { "data-kind": kind }, el("th", { scope: "row", dir: "auto" }, name,
      kind ? el("span", { class: "x-sr" }, kind === "add" ? " (added)" : " (removed)") : null),
      el("td", { class: "x-bar", "aria-hidden": "true" }, el("div", { class: "x-track" },
        el("i", { class: "x-now", style: `left:${from}%;width:${Math.max(to - from, 0)}%` }),
        after ? el("i", { class: "x-was", style: `left:${place(was.get(name))}%` }) : null)),
      after ? el("td", { class: "x-number x-old" }, write(was.get(name))) : null, el("td", { class: "x-number" }, write(now.get(name))));
  });
  const more = names.length - shown.length + (before ? before.left_out : 0);
  const head = el("tr", {}, el("th", { scope: "col" }, "Object"), el("td", {}),
    after ? el("th", { scope: "col", class: "x-number" }, "before") : null, el("th", { scope: "col", class: "x-number" }, after ? "after" : "now"));
  return el("section", { class: "x-card", "data-stale": !isFresh }, el("h4", {}, title),
    before ? el("table", { class: "x-ranking" }, el("caption", { class: "x-sr" }, title), el("thead", {}, head), el("tbody", {}, rows))
      : el("p", { class: "x-empty" }, "Not read yet"),
    el("p", { class: "x-note" }, note, after ? el("span", { class: "x-bar" }, " The line marks where it was.") : null, more > 0 ? ` ${more} more objects are lower.` : ""));
}

// One panel of lines over strengths, drawn at the width that there is.
function chart(curve, width, { label, lines, ticks, write, y, chosen, pick }) {
  const box = { left: 56, right: 12, top: 10, bottom: 26, height: 190 };
  const inner = width - box.left - box.right;
  const x = (strength) => box.left + inner * (Math.log10(Math.max(strength, LEAST)) + 4) / 4;
  const level = (value) => box.top + (box.height - box.top - box.bottom) * (1 - y(value));
  const line = (x1, y1, x2, y2, kind) => el("svg:line", { x1, y1, x2, y2, class: kind });
  const word = (at, height, anchor, text) => el("svg:text", { x: at, y: height, "text-anchor": anchor }, text);
  const drawing = el("svg:svg", { viewBox: `0 0 ${width} ${box.height}`, width, height: box.height, role: "img", "aria-label": label,
    onclick: (event) => {
      const share = (event.clientX - drawing.getBoundingClientRect().left - box.left) / inner;
      pick(Number((10 ** (4 * Math.min(1, Math.max(0, share)) - 4)).toPrecision(2)));
    } });
  (curve.says || []).forEach((yes, at) => {
    const half = inner / (curve.strengths.length - 1) / 2, middle = x(curve.strengths[at]);
    const from = Math.max(box.left, middle - half), to = Math.min(box.left + inner, middle + half);
    if (yes) drawing.append(el("svg:rect", { x: from, y: box.top, width: to - from, height: box.height - box.top - box.bottom, class: "x-says" }));
  });
  for (const tick of ticks) drawing.append(line(box.left, level(tick), box.left + inner, level(tick), "x-grid"), word(box.left - 6, level(tick) + 4, "end", write(tick)));
  for (const tick of inner < 200 ? [1e-4, 1e-2, 1] : [1e-4, 1e-3, 1e-2, 1e-1, 1]) drawing.append(word(x(tick), box.height - 8, tick === 1 ? "end" : "middle", String(tick)));
  if (chosen > 0) drawing.append(line(x(chosen), box.top, x(chosen), box.height - box.bottom, "x-chosen"));
  for (const { values, kind } of lines) {
    const points = values.map((value, at) => (value === null ? null : [x(curve.strengths[at]), level(value)])).filter(Boolean);
    drawing.append(el("svg:polyline", { points: points.map((point) => point.join(",")).join(" "), class: `x-line ${kind}` }));
    for (const [cx, cy] of points) drawing.append(el("svg:circle", { cx, cy, r: 3, class: `x-dot ${kind}` }));
  }
  return drawing;
}

function curvePage(curve, isFresh, chosen, width, pick) {
  if (!curve) return [el("p", { class: "x-empty" }, "Choose a concept to remove or to add: this page tries it at every strength.")];
  const { remove, add } = curve, names = [remove, add].filter(Boolean);
  const saying = add ? `the model itself says ${add}` : `the model no longer says ${remove}`;
  const key = (kind, text) => el("span", { class: "x-key" }, el("i", { class: kind }), text);
  const legend = el("p", { class: "x-legend" }, names.map((name) => key(name === add ? "x-add" : "x-remove", `${name} (${percent(curve.p_unedited[name])} without the edit)`)),
    curve.says ? key("x-says", saying) : null, key("x-chosen", "the strength now"));
  const least = 1e-3, most = Math.max(10, ...(curve.kl || []));
  const log = (value) => Math.min(1, Math.max(0, Math.log10(Math.max(value, least) / least) / Math.log10(most / least)));
  const shared = { chosen, pick };
  const at = curve.first ? curve.strengths.indexOf(curve.first) : -1;
  const kl = at >= 0 && curve.kl ? `, where other texts move by ${said(curve.kl[at], 2)} nats per token` : "";
  const verdict = curve.says === null ? null : el("p", { class: "x-verdict" },
    at >= 0 ? `From a strength of ${said(curve.first, 2)} ${saying}${kl}. ` : `At no strength tried ${saying}. `,
    at >= 0 ? el("button", { type: "button", onclick: () => pick(Number(curve.first.toPrecision(3))) }, `Use ${said(curve.first, 3)}`) : null);
  const rows = curve.strengths.map((strength, row) => el("tr", {}, el("th", { scope: "row", class: "x-number" }, said(strength, 2)),
    names.map((name) => el("td", { class: "x-number" }, percent(curve.p[name][row]))),
    el("td", {}, curve.says ? (curve.says[row] ? "yes" : "no") : "–"), el("td", { class: "x-number" }, curve.kl ? said(curve.kl[row], 2) : "–")));
  return [el("div", { "data-stale": !isFresh && Boolean(curve.kl) }, verdict, legend,
    el("h4", {}, "How likely the model finds it"),
    chart(curve, width, { ...shared, label: `Probability of ${names.join(" and ")} by strength; the table below has the numbers`, y: (p) => p, ticks: [0, 0.5, 1], write: (p) => `${100 * p} %`,
      lines: names.map((name) => ({ values: curve.p[name], kind: name === add ? "x-add" : "x-remove" })) }),
    el("h4", {}, "Side effects: how far four unrelated texts move (nats per token)"),
    chart({ ...curve, says: null }, width, { ...shared, label: "Side effects by strength; the table below has the numbers", y: log, ticks: [least, 0.01, 0.1, 1, 10], write: (kl) => (kl === least ? `≤ ${kl}` : String(kl)),
      lines: curve.kl ? [{ values: curve.kl, kind: "x-kl" }] : [] }),
    el("details", {}, el("summary", {}, "All numbers"), el("div", { class: "x-scroll" }, el("table", { class: "x-numbers" }, el("thead", {}, el("tr", {}, ["Strength", ...names, "Says it", "Side effects"]
      .map((text) => el("th", { scope: "col" }, text)))), el("tbody", {}, rows)))))];
}

function render({ model, el: host }) {
  const id = `lrc-x${(instances += 1)}`, offer = model.get("offer");
  let timer = null, sent = model.get("wish").number || 0, view = model.get("wish").view || "edit", shadeBy = null, width = 0;
  const send = (more = {}) => {
    clearTimeout(timer);
    sent = Math.max(sent, model.get("wish").number || 0) + 1;
    model.set("wish", { ...form.values(), view, number: sent, ...more });
    model.save_changes();
    paintStatus();
  };
  const change = (pause) => { clearTimeout(timer); timer = setTimeout(send, pause); };
  const form = controls(id, offer, change, () => send());

  const doing = el("span", { class: "x-doing" }), live = el("span", { class: "x-sr", "aria-live": "polite" });
  const stop = el("button", { type: "button", class: "x-stop", onclick: () => send({ stop: true }) }, "Stop");
  const status = el("div", { class: "x-status" }, el("span", { class: "x-spin", "aria-hidden": "true" }), doing, stop, live);
  const problem = el("div", { class: "x-error", role: "alert", id: `${id}-error`, hidden: true });
  const edited = el("div", { class: "x-page" }), curve = el("div", { class: "x-page" });
  const pages = tabs(id, [["edit", "Before and after"], ["curve", "Strength curve"]], [edited, curve], (chosen) => {
    if (chosen !== view) { view = chosen; send(); paint(); }
  });
  const code = el("pre", { tabindex: 0, "aria-label": "Python code" });
  const root = el("section", { class: "lrc-explorer", "aria-label": `Concept explorer: ${offer.relation}`, "data-lm-suppress-shortcuts": "true" },
    el("header", {}, el("h3", {}, offer.relation),
      el("p", {}, `${offer.concepts.length} concepts · ${offer.model} · read after layer ${offer.layer} of ${offer.n_layers}`)),
    el("div", { class: "x-body" }, form.form, el("div", { class: "x-results" },
      el("div", { class: "x-bar-top" }, pages.bar, status), problem, edited, curve,
      el("details", { class: "x-code" }, el("summary", {}, "The same in Python"), code))));
  // The notebook's own shortcuts must not act on keys that are meant for the controls.
  root.addEventListener("keydown", (event) => {
    event.stopPropagation();
    if (event.key === "Escape" && root.dataset.busy === "true") send({ stop: true });
  });

  let spoken = "";
  function paintStatus() {
    const answer = model.get("answer"), waiting = answer.number < sent && !model.get("wish").stop;
    const busy = waiting || answer.status === "working";
    root.dataset.busy = String(busy);
    root.setAttribute("aria-busy", String(busy));
    stop.hidden = !busy;
    const ended = { done: "", stopped: "Stopped", idle: "Type a text to begin", failed: "" }[answer.status] ?? "";
    doing.textContent = busy ? `${(!waiting && answer.doing) || "Waiting for the model"} …` : ended;
    const now = busy ? "Working" : answer.status === "done" ? "Up to date" : ended;
    if (now !== spoken) live.textContent = spoken = now;
    const error = waiting ? null : answer.error;
    problem.hidden = !error;
    if (error && problem.textContent !== error.text) problem.textContent = error.text;
    form.invalid(error ? error.field : null, problem.id);
  }

  function paint() {
    paintStatus();
    const answer = model.get("answer"), fresh = (part) => answer.number >= sent && (answer.fresh || []).includes(part);
    const wish = model.get("wish"), edit = [wish.remove || null, wish.add || null], isEdit = Boolean(wish.remove || wish.add);
    code.textContent = answer.code || "";
    if (view === "curve") {
      width = curve.clientWidth;
      const open = curve.querySelector("details")?.open;
      curve.replaceChildren(...curvePage(isEdit ? answer.curve : null, fresh("curve"), Number(form.all.strength.value), Math.max(160, width || 600), form.setStrength));
      if (open) curve.querySelector("details").open = true;
      return;
    }
    const before = answer.before_text, after = isEdit ? answer.after_text : null;
    const names = Object.keys((after && after.shades) || (before && before.shades) || {});
    if (!names.includes(shadeBy)) shadeBy = names[0] ?? null;
    const scale = scaleOf([before, after], shadeBy);
    const hadFocus = edited.contains(document.activeElement) ? document.activeElement.value : null;
    const radios = names.map((name) => el("label", {}, el("input", { type: "radio", name: `${id}-shade`, value: name, checked: name === shadeBy,
      onchange: () => { shadeBy = name; paint(); } }), name));
    const colours = names.length ? el("fieldset", { class: "x-shades" }, el("legend", {}, "Colour by"), radios,
      el("span", { class: "x-scale" }, said(-scale), el("i", { "aria-hidden": "true" }), said(scale)), el("span", { class: "x-note" }, "outlined: the token that is read")) : null;
    const token = answer.before ? answer.before.subject.trim() : "the subject";
    const rest = isEdit ? answer.after : null;
    edited.replaceChildren(
      el("div", { class: "x-cards" },
        textCard("Without the edit", before, shadeBy, scale, fresh("before_text"), "Nothing written yet"),
        textCard("With the edit", after, shadeBy, scale, fresh("after_text"), isEdit ? "Nothing written yet" : "Choose a concept to remove or to add")),
      ...(colours ? [colours] : []),
      el("div", { class: "x-cards" },
        ranking("What the model expects next", "Probability of each object behind the text.", "p", answer.before, rest, edit, fresh(isEdit ? "after" : "before")),
        ranking(`What the concepts read at “${token}”`, "Score of each concept.", "score", answer.before, rest, edit, fresh(isEdit ? "after" : "before"))));
    if (hadFocus) edited.querySelector(`input[value="${CSS.escape(hadFocus)}"]`)?.focus();
  }

  function fromModel() {
    const wish = model.get("wish");
    if (wish.number === sent && root.isConnected) return; // our own
    sent = Math.max(sent, wish.number || 0);
    view = wish.view || view;
    form.show(wish);
    pages.mark(view === "curve" ? 1 : 0);
    paint();
  }
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const theme = () => { root.dataset.theme = themeOf(document.documentElement, document.body, system.matches); };
  const watcher = new MutationObserver(theme);
  for (const node of [document.documentElement, document.body]) watcher.observe(node, { attributes: true });
  system.addEventListener("change", theme);
  const sizes = new ResizeObserver(() => { if (view === "curve" && curve.clientWidth !== width) paint(); });
  model.on("change:answer", paint);
  model.on("change:wish", fromModel);
  theme();
  form.show(model.get("wish"));
  pages.mark(view === "curve" ? 1 : 0);
  host.append(root);
  sizes.observe(curve);
  paint();
  return () => {
    clearTimeout(timer);
    watcher.disconnect();
    sizes.disconnect();
    system.removeEventListener("change", theme);
    model.off("change:answer", paint);
    model.off("change:wish", fromModel);
  };
}

export default { render };
