/* The explorer of the Welcome page: what the KD loss and its gradient do when a logit or the
   temperature is moved. tests/site/test_explorer.py holds what it shows to kd_loss and kd_grad. */
(() => {
  "use strict";

  const sum = (x) => x.reduce((total, value) => total + value, 0);
  const times = (x, y) => x.map((value, i) => value * y[i]);
  const dot = (x, y) => sum(times(x, y));
  const scaled = (x, factor) => x.map((value) => value * factor);
  const range = (x) => Math.max(...x) - Math.min(...x);
  const clamp = (x, low, high) => Math.min(high, Math.max(low, x));

  // Less its mean under the weights.
  function centered(x, weights) {
    const mean = dot(x, weights);
    return x.map((value) => value - mean);
  }

  // The divergences of p = softmax(zᵗ/τ) and q = softmax(zˢ/τ), from l = log(q/p).

  function softmax(logits, tau) {
    const top = Math.max(...logits);
    const exponentials = logits.map((z) => Math.exp((z - top) / tau));
    return scaled(exponentials, 1 / sum(exponentials));
  }

  // eˣ − 1 − x, near 0 by its series.
  function phi(x) {
    if (Math.abs(x) > 0.5) return Math.expm1(x) - x;
    let [total, term] = [0, x];
    for (let n = 2; n < 16; n++) total += term *= x / n;
    return total;
  }

  // KL(p, q) = Σ p φ(l), whose terms are all positive: none of its digits cancel.
  const kl = (p, l) => dot(p, l.map(phi));

  // zˢ − zᵗ without rounding (logits have two decimals), less that of the first class, or what is
  // added to all logits would leave a trace.
  function differences(student, teacher) {
    const D = student.map((z, i) => Math.round(100 * (z - teacher[i])));
    return D.map((x) => (x - D[0]) / 100);
  }

  function logRatio(D, p, tau) {
    const x = scaled(centered(D, p), 1 / tau);
    const logSum = Math.log1p(kl(p, x)); // of Σ p eˣ, since Σ p x = 0
    return x.map((value) => value - logSum);
  }

  // Each returns the divergence and its gradient with respect to zˢ/τ.
  const DIVERGENCES = {
    forward_kl: {
      symbol: "KL(pᵗ, pˢ)",
      compute: (p, q, l) => [kl(p, l), times(p, l.map(Math.expm1))],
    },
    reverse_kl: {
      symbol: "KL(pˢ, pᵗ)",
      compute: (p, q, l) => [kl(q, scaled(l, -1)), times(q, centered(l, q))],
    },
    jensen_shannon: {
      symbol: "4 JS(pᵗ, pˢ)",
      compute(p, q, l) {
        const half = (x) => Math.log1p(Math.expm1(x) / 2); // log(m/p), with m = (p + q)/2
        const [toTeacher, toStudent] = [l.map(half), l.map((x) => half(-x))];
        return [2 * kl(p, toTeacher) + 2 * kl(q, toStudent),
          scaled(times(q, centered(toStudent, q)), -2)];
      },
    },
  };

  function compute({ teacher, student, divergence, squared }, tau) {
    const [p, q] = [softmax(teacher, tau), softmax(student, tau)];
    const D = differences(student, teacher);
    const [loss, gradient] = DIVERGENCES[divergence].compute(p, q, logRatio(D, p, tau));
    // At infinite temperature all of them match logits: half the variance of D.
    const deviations = centered(D, D.map(() => 1 / D.length));
    const limit = dot(deviations, deviations) / D.length / 2;
    const gradientLimit = scaled(deviations, 1 / D.length);
    const factor = Math.exp(Math.max(range(student), range(teacher)) / tau);
    const unit = squared ? 1 : 1 / tau ** 2;
    const isLimit = tau === Infinity;
    return {
      teacher: p,
      student: q,
      loss: unit * (isLimit ? limit : tau ** 2 * loss),
      gradient: scaled(isLimit ? gradientLimit : scaled(gradient, tau), unit),
      limit: unit * limit,
      gradientLimit: scaled(gradientLimit, unit),
      low: unit * limit / factor,
      high: unit * limit * factor,
    };
  }

  // The state, what a button makes of it, and the address that holds it.

  // 0.1 to 10⁴ in twenty steps a decade, to two digits, and infinity.
  const TEMPERATURES = Array.from({ length: 101 }, (_, i) =>
    Number((10 ** (i / 20 - 1)).toPrecision(2))).concat(Infinity);
  const LAST = TEMPERATURES.length - 1;
  const [LOWEST, HIGHEST] = [-4, 10];

  const root = document.querySelector(".explorer");
  const { classes: CLASSES, ...START } = JSON.parse(root.dataset.example);
  const position = () => TEMPERATURES.indexOf(state.tau);
  const tidy = (z) => Number(clamp(z, LOWEST, HIGHEST).toFixed(2));
  let state = START;

  // As far as no logit leaves its axis.
  function raised(logits, by) {
    const step = clamp(by, LOWEST - Math.min(...logits), HIGHEST - Math.max(...logits));
    return logits.map((z) => tidy(z + step));
  }

  const ACTIONS = {
    agree: ({ teacher }) => ({ student: teacher }),
    shifted: ({ teacher }) => ({ student: raised(teacher, 3) }),
    sure: () => ({ teacher: CLASSES.map((_, k) => (k ? 0 : HIGHEST)), student: START.student }),
    lower: ({ student }) => ({ student: raised(student, -1) }),
    raise: ({ student }) => ({ student: raised(student, 1) }),
    reset: () => START,
  };

  // What makes no sense in an address is left as it was at the start.
  function read(hash) {
    const given = Object.fromEntries(new URLSearchParams(hash.split("?")[1]));
    const next = { ...START, squared: given.squared !== "no" };
    if (given.tau === "inf") next.tau = Infinity;
    if (given.tau > 0)
      next.tau = TEMPERATURES[clamp(Math.round(20 * (Math.log10(given.tau) + 1)), 0, LAST - 1)];
    for (const network of ["teacher", "student"]) {
      const logits = String(given[network]).split(",").map(Number);
      if (logits.length === CLASSES.length && logits.every(Number.isFinite))
        next[network] = logits.map(tidy);
    }
    if (Object.hasOwn(DIVERGENCES, given.divergence)) next.divergence = given.divergence;
    if (Object.hasOwn(ACTIONS, given.preset)) Object.assign(next, ACTIONS[given.preset](next));
    return next;
  }

  function address() {
    const changed = Object.entries(state).filter(([key, x]) => String(x) !== String(START[key]));
    const parameters = changed.map((pair) => pair.join("=")).join("&");
    return ("#explorer?" + parameters).replace(/\?$/, "")
      .replace("=Infinity", "=inf").replace("=false", "=no");
  }

  // What is drawn. Lengths across are in percent, so that nothing is drawn anew for a window of
  // another width.

  const logitX = (z) => 100 * (z - LOWEST) / (HIGHEST - LOWEST);
  const gradientX = (g) => 50 + 50 * clamp(g / axes.gradient, -1, 1);
  const curveX = (tau) => (tau === Infinity ? 100 : 18.8 * (1 + Math.log10(tau)));
  const PLACES = TEMPERATURES.map((tau) => curveX(tau).toFixed(2));
  const curveY = (loss) => 100 * (1 - Math.min(loss / axes.loss, 9));

  const tick = (x, text = "", y = 100, dy = 15) =>
    `<text class="tick" x="${x}%" y="${y}%" dy="${dy}">${text}</text>`;

  const TOP = { teacher: 7, student: 27, gradient: 17 };
  const bar = (kind, k, attributes = "", more = "") =>
    `<g data-kind="${kind}" data-class="${k}" transform="translate(0 ${50 * k + TOP[kind]})"
      ${attributes}><rect class="bar" height="15"/><text class="value" y="12"></text>${more}</g>`;

  const logitBar = (network, k) => bar(network, k,
    `role="slider" tabindex="0" aria-label="The ${network}’s logit of ${CLASSES[k]}"
      aria-valuemin="${LOWEST}" aria-valuemax="${HIGHEST}"`,
    `<circle class="handle" r="7" cy="7.5"/>
      <rect class="reach" x="-3%" width="106%" y="-4" height="24"/>`);

  const gradientBar = (kind, k) => bar(kind, k, "", `<line class="limit-mark" y1="-10" y2="25"/>`);

  const panel = (kinds, bar, zero, ticks) =>
    CLASSES.flatMap((_, k) => kinds.map((kind) => bar(kind, k))).join("") +
    `<line class="axis" x1="${zero}%" x2="${zero}%" y2="100%"/>` + ticks.join("");

  const DRAWINGS = {
    logits: panel(["teacher", "student"], logitBar, logitX(0),
      [0, 5, 10].map((z) => tick(logitX(z), z))),
    probabilities: panel(["teacher", "student"], bar, 0, [tick(50, "0.5"), tick(100, "1")]),
    gradient: panel(["gradient"], gradientBar, 50, [tick(0), tick(50), tick(100)]),
    curve: `
      <svg viewBox="0 0 100 100" preserveAspectRatio="none">
        <path class="bounds"/><path class="limit"/><path class="loss"/></svg>
      <line class="axis" x2="100%" y1="100%" y2="100%"/>
      ${[0.1, 1, 10, 100, 1000].map((tau) => tick(curveX(tau), tau)).join("")}
      ${tick(curveX(1e4), "10⁴")} ${tick(100, "∞")} ${tick(50, "temperature τ", 100, 31)}
      <g class="heights">${tick(-1, "", 100, 0)} ${tick(-1, "", 50, 4)} ${tick(-1, "", 0, 4)}</g>
      <g role="slider" tabindex="0" aria-label="Temperature, on the curve"
        aria-valuemin="0" aria-valuemax="${LAST}">
        <line class="axis" y2="100%"/><circle class="handle" r="8"/>
        <rect class="reach" x="-3%" width="106%" height="100%"/></g>`,
  };

  const find = (selector) => root.querySelector(selector);
  const all = (selector) => [...root.querySelectorAll(selector)];
  for (const name in DRAWINGS) find(`.explorer-${name} svg`).innerHTML = DRAWINGS[name];
  const valueOf = ({ dataset }, values) => values[dataset.kind][dataset.class];
  const bars = (name) => all(`.explorer-${name} [data-kind]`);
  const point = find(".explorer-curve [role=slider]");
  const [dial, select, squared] = [find("[type=range]"), find("select"), find("[role=switch]")];
  dial.max = LAST;
  root.hidden = false;

  // What has not changed is not touched, or the browser would lay it out again.
  function set(element, attributes) {
    for (const [name, value] of Object.entries(attributes))
      if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
  }
  function write(element, text) {
    if (element.textContent !== text) element.textContent = text;
  }

  const minus = (text) => String(text).replace("-", "−");
  const fixed = (x, digits) => minus(x.toFixed(digits).replace(/^-(0\.0*)$/, "$1"));
  const decimals = (x) => minus(Number(x.toPrecision(2)));
  const spoken = (tau) => (tau === Infinity ? "infinity" : tau);
  const listed = (x, digits) =>
    CLASSES.map((name, k) => `${name} ${fixed(x[k], digits)}`).join(", ");

  function format(x) {
    if (x === 0 || (Math.abs(x) >= 5e-4 && Math.abs(x) < 1e4)) return fixed(x, 4);
    const [digits, power] = x.toExponential(1).replace("+", "").split("e");
    return `${digits} × 10${power.replace(/./g, (c) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[c] ?? "⁻")}`;
  }

  // A bar from `zero` to `x`, and its value beside `end`.
  function place({ children: [rect, value] }, zero, x, text,
      { left = x < zero, end = x, gap = 4 } = {}) {
    set(rect, { x: Math.min(zero, x) + "%", width: Math.abs(x - zero) + "%" });
    const [dx, anchor] = left ? [-gap, "end"] : [gap, "start"];
    set(value, { x: end + "%", dx, "text-anchor": anchor });
    write(value, text);
  }

  function drawLogits() {
    for (const slider of bars("logits")) {
      const [, value, handle] = slider.children;
      const z = valueOf(slider, state);
      const isInside = z > 7.5 || z < -2; // there is no room beside the bar
      place(slider, logitX(0), logitX(z), minus(z), { left: (z < 0) !== isInside, gap: 11 });
      value.classList.toggle("inside", isInside);
      set(handle, { cx: logitX(z) + "%" });
      set(slider, { "aria-valuenow": z });
    }
  }

  function drawProbabilities(now) {
    for (const bar of bars("probabilities")) {
      const p = valueOf(bar, now);
      place(bar, 0, 100 * p, fixed(p, 2));
    }
    set(find(".explorer-probabilities svg"), {
      "aria-label": `Bars: probabilities at temperature ${spoken(state.tau)}. Teacher: ${
        listed(now.teacher, 2)}. Student: ${listed(now.student, 2)}.` });
  }

  function drawGradient({ gradient, gradientLimit }) {
    bars("gradient").forEach((bar, k) => {
      const [x, limit] = [gradientX(gradient[k]), gradientX(gradientLimit[k])];
      const left = gradient[k] < 0;
      const end = (left ? Math.min : Math.max)(x, limit, 50);
      place(bar, 50, x, fixed(gradient[k], 3), { left, end, gap: 6 });
      set(bar.children[2], { x1: limit + "%", x2: limit + "%" });
    });
    set(find(".explorer-gradient svg"), {
      "aria-label": `Bars: gradient with respect to the student’s logits: ${
        listed(gradient, 3)}. A mark at the limit of each.` });
  }

  function drawCurve() {
    const hasBounds = state.divergence !== "jensen_shannon";
    const points = (key) => rows.map((row, i) => `${PLACES[i]},${curveY(row[key]).toFixed(2)}`);
    set(find("path.loss"), { d: "M" + points("loss") });
    set(find("path.limit"), { d: "M" + points("limit") });
    set(find("path.bounds"), { d: "M" + points("low").concat(points("high").reverse()) });
    for (const bounds of all(".bounds")) bounds.style.display = hasBounds ? "" : "none";
    all(".heights .tick").forEach((tick, n) => write(tick, decimals(axes.loss * n / 2)));
    all(".explorer-gradient .tick").forEach((tick, n) =>
      write(tick, decimals(axes.gradient * (n - 1))));
    write(find(".symbol"), (state.squared ? "τ² " : "") + DIVERGENCES[state.divergence].symbol);
    write(find(".limit-symbol"), "½ Var(zˢ − zᵗ)" + (state.squared ? "" : "/τ²"));
    select.value = state.divergence;
    squared.checked = state.squared;
  }

  function drawTemperature({ loss }) {
    const x = curveX(state.tau) + "%";
    const [line, handle] = point.children;
    set(line, { x1: x, x2: x });
    set(handle, { cx: x, cy: Math.max(0, curveY(loss)) + "%" });
    dial.value = position();
    write(find("output"), "τ = " + (state.tau === Infinity ? "∞" : state.tau));
    for (const slider of [dial, point])
      set(slider, { "aria-valuenow": dial.value, "aria-valuetext": "τ = " + spoken(state.tau) });
  }

  // 1, 2 or 5 times a power of ten, and at least x.
  function roundUp(x) {
    const power = 10 ** Math.floor(Math.log10(x));
    return power * [1, 2, 5, 10].find((digit) => digit * power >= x * (1 - 1e-9));
  }

  // The axes fit the temperatures from 1 on, below which a loss without τ² grows beyond bounds.
  function fit() {
    const shown = rows.slice(TEMPERATURES.indexOf(1));
    const steepest = Math.max(0.1, ...shown.flatMap((row) => row.gradient.map(Math.abs)));
    const highest = Math.max(0.1, ...shown.map((row) => 1.1 * row.loss));
    axes = { gradient: roundUp(steepest), loss: roundUp(highest) };
  }

  // What the reader does. While something is dragged the axes stand still.

  let rows, axes;

  function draw() {
    const now = rows[position()];
    drawTemperature(now);
    drawProbabilities(now);
    drawGradient(now);
    for (const name of ["loss", "limit", "low", "high"])
      write(find(".shown-" + name), format(now[name]));
    root.now = now; // for the tests
  }

  function setPosition(position) {
    state = { ...state, tau: TEMPERATURES[clamp(position, 0, LAST)] };
    draw();
  }

  function change(next) {
    state = { ...state, ...next };
    rows = TEMPERATURES.map((tau) => compute(state, tau));
    axes ?? fit();
    drawLogits();
    drawCurve();
    draw();
  }

  function settle() {
    fit();
    drawCurve();
    draw();
    try {
      history.replaceState(history.state, "", address());
    } catch {
      // Some browsers refuse on a page from disk; the explorer works without.
    }
  }

  function jump(next) {
    change(next);
    settle();
  }

  const STEPS = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1,
    PageUp: 10, PageDown: -10, Home: -Infinity, End: Infinity };

  /* A slider whose value is `low` at the left of its drawing. A mouse takes hold where it is
     pressed. A finger that is put down may be about to scroll: it moves a value only by what it
     moves itself, and gives it back if the page scrolls instead. */
  function slide(slider, { low, perWidth, step, get, put }) {
    slider.onpointerdown = (down) => {
      if (down.button !== 0) return;
      const before = get();
      const box = slider.ownerSVGElement.getBoundingClientRect();
      const valueAt = ({ clientX }) => low + perWidth * (clientX - box.left) / box.width;
      const isMouse = down.pointerType === "mouse";
      const offset = isMouse ? 0 : before - valueAt(down);
      const move = (event) => put(step * Math.round((valueAt(event) + offset) / step));
      slider.onpointermove = move;
      slider.onpointercancel = () => put(before);
      slider.onlostpointercapture = () => {
        slider.onpointermove = null;
        settle();
      };
      slider.setPointerCapture(down.pointerId);
      if (isMouse) move(down);
    };
    slider.onkeydown = (event) => {
      if (!Object.hasOwn(STEPS, event.key)) return;
      event.preventDefault();
      put(get() + step * STEPS[event.key]);
    };
    slider.onkeyup = settle;
  }

  for (const slider of bars("logits")) {
    const { kind, class: k } = slider.dataset;
    slide(slider, {
      low: LOWEST, perWidth: HIGHEST - LOWEST, step: 0.1,
      get: () => state[kind][k],
      put: (z) => change({ [kind]: state[kind].with(k, tidy(z)) }),
    });
  }
  slide(point, {
    low: 0, perWidth: 100 / 0.94, step: 1,
    get: position,
    put: setPosition,
  });

  dial.oninput = () => setPosition(Number(dial.value));
  dial.onchange = settle;
  select.onchange = () => jump({ divergence: select.value });
  squared.onchange = () => jump({ squared: squared.checked });
  for (const button of all("button"))
    button.onclick = () => jump(ACTIONS[button.name](state));

  // A sentence, or an address, that sets the state.
  function show(hash) {
    if (!/^#explorer(\?|$)/.test(hash)) return;
    jump(read(hash));
    const { top } = root.getBoundingClientRect();
    if (top < 0 || top > innerHeight / 2) root.scrollIntoView();
  }

  addEventListener("hashchange", () => show(location.hash));
  document.addEventListener("click", (event) => {
    const link = event.target.closest('a[href^="#explorer"]');
    if (!link) return;
    event.preventDefault();
    show(link.hash);
  });

  change(START);
  addEventListener("DOMContentLoaded", () => show(location.hash));
})();
