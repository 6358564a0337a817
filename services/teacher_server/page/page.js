"use strict";
// Asks /status every other second, and changes the text of what has changed: nothing moves, nothing flickers.
const EVERY = 2000, WINDOW = 6, LINE = 60;
const places = new Map([...document.querySelectorAll("[data-value]")].map((place) => [place.dataset.value, place]));
const state = document.getElementById("state");
const whole = new Intl.NumberFormat("en", {maximumFractionDigits: 0});
const tenths = new Intl.NumberFormat("en", {maximumFractionDigits: 1, minimumFractionDigits: 1});
const share = new Intl.NumberFormat("en", {style: "percent", maximumFractionDigits: 0});
const seen = [], rates = [];

function write(place, text) {
  if (place && place.textContent !== text) place.textContent = text;
}

function show(name, text) {
  write(places.get(name), text);
}

function sum(counts) {
  return Object.values(counts).reduce((total, count) => total + count, 0);
}

function draw() {
  const most = Math.max(...rates, 1e-9);
  const points = rates.map((rate, i) => `${((LINE - rates.length + i) * 120) / (LINE - 1)},${31 - (30 * rate) / most}`);
  document.getElementById("line").setAttribute("points", points.join(" "));
}

function showRates(before, now) {
  const seconds = now.seconds - before.seconds;
  const hits = now.hits - before.hits, asked = hits + now.misses - before.misses;
  const rate = Math.max(0, sum(now.texts) - sum(before.texts)) / seconds;
  show("rate", rate < 10 ? tenths.format(rate) : whole.format(rate));
  show("hits", asked > 0 ? share.format(hits / asked) : "–");
  show("busy", share.format(Math.min(1, Math.max(0, now.model_seconds - before.model_seconds) / seconds)));
  rates.push(rate);
  if (rates.length > LINE) rates.shift();
  draw();
}

function showNow(now) {
  write(state, now.ready ? "Ready" : `Not ready: ${now.reason}`);
  state.dataset.ready = now.ready ? "yes" : "no";
  show("answered", whole.format(sum(now.texts)));
  show("cache", now.cache_up ? "of the texts asked lately" : "Redis is out of reach");
  for (const name of ["waiting", "open", "streams", "refused"]) show(name, whole.format(now[name]));
  show("oldest", tenths.format(now.oldest_seconds));
  for (const [name, text] of Object.entries(now.usage)) show(`usage.${name}`, text);
}

async function refresh() {
  if (document.hidden) return;
  try {
    const answer = await fetch("/status", {cache: "no-store", signal: AbortSignal.timeout(10000)});
    if (!answer.ok) throw new Error(`${answer.status}`);
    const now = await answer.json();
    delete document.body.dataset.lost;
    if (seen.length && now.seconds < seen[0].seconds) seen.length = 0;  // another host's clock: it was started anew
    showNow(now);
    if (seen.length) showRates(seen[0], now);
    seen.push(now);
    if (seen.length > WINDOW) seen.shift();
  } catch {
    document.body.dataset.lost = "";
    write(state, "The server cannot be reached");
    state.dataset.ready = "no";
  }
}

async function forever() {
  await refresh();
  setTimeout(forever, EVERY);
}
forever();
