/* The explorer of the Welcome page: what the KD loss and its gradient do when a logit or the
   temperature is moved. The formulas are those of kd_notes, in a simple version, and
   tests/site/test_explorer.py holds what is shown to kd_loss and kd_grad. */
(() => {
  "use strict";

  // The formulas. All losses and gradients here are multiplied by τ².

  const sum = (x) => x.reduce((total, value) => total + value, 0);
  const dot = (x, y) => sum(x.map((value, i) => value * y[i]));

  function softmax(logits, tau) {
    const top = Math.max(...logits);
    const exponentials = logits.map((z) => Math.exp((z - top) / tau));
    const total = sum(exponentials);
    return exponentials.map((x) => x / total);
  }

  // 1 + r₁x (1 + r₂x (1 + …)), where the function gives r₁, r₂, …
  function series(x, ratio) {
    let total = 1;
    for (let n = 20; n > 0; n--) total = 1 + x * ratio(n) * total;
    return total;
  }

  // eˣ − 1 − x and x − log(1 + x), which are about x²/2 near 0.
  const phi = (x) =>
    Math.abs(x) < 0.5 ? (x * x / 2) * series(x, (n) => 1 / (n + 2)) : Math.expm1(x) - x;
  const psi = (x) =>
    Math.abs(x) < 0.1 ? (x * x / 2) * series(x, (n) => -(n + 1) / (n + 2)) : x - Math.log1p(x);

  // z − v without rounding (logits have two decimals), counted from the first class: what is
  // added to all logits drops out here, before it can leave a trace.
  function differences(student, teacher) {
    const D = student.map((z, i) => Math.round(100 * (z - teacher[i])));
    return D.map((x) => (x - D[0]) / 100);
  }

  // log(q/p) without its mean under the weights, so that KL = log(1 + Σ p φ(log(q/p) − mean)).
  function centered(D, weights, tau) {
    const mean = dot(weights, D);
    return D.map((x) => (x - mean) / tau);
  }

  function klTerm(p, x) {
    return dot(p, x.map(phi));
  }

  function forward(p, q, D, tau) {
    const x = centered(D, p, tau);
    const S = klTerm(p, x);
    return {
      loss: tau * tau * Math.log1p(S),
      gradient: x.map((d, i) => tau * p[i] * (Math.expm1(d) - S) / (1 + S)),
    };
  }

  function reverse(p, q, D, tau) {
    const x = centered(D, q, tau);
    const S = klTerm(q, x.map((d) => -d));
    return {
      loss: tau * tau * Math.log1p(S),
      gradient: x.map((d, i) => tau * q[i] * d),
    };
  }

  // With m = (p + q)/2, u = q/p − 1 and w = p/q − 1: 4 JS = 2 Σ p ψ(u/2) + 2 Σ q ψ(w/2).
  function jensenShannon(p, q, D, tau) {
    const x = centered(D, p, tau);
    const S = klTerm(p, x);
    const u = x.map((d) => (Math.expm1(d) - S) / (1 + S));
    const w = x.map((d, i) => -u[i] * (1 + S) / Math.exp(d));
    const h = w.map((value) => -2 * Math.log1p(value / 2));
    const mean = dot(q, h);
    const terms = p.map((value, i) => value * psi(u[i] / 2) + q[i] * psi(w[i] / 2));
    return {
      loss: 2 * tau * tau * sum(terms),
      gradient: h.map((value, i) => tau * q[i] * (value - mean)),
    };
  }

  const DIVERGENCES = {
    forward_kl: { compute: forward, symbol: "KL(pᵗ, pˢ)", bounds: true },
    reverse_kl: { compute: reverse, symbol: "KL(pˢ, pᵗ)", bounds: true },
    jensen_shannon: { compute: jensenShannon, symbol: "4 JS(pᵗ, pˢ)", bounds: false },
  };

  // All of it at infinite temperature: half the variance of D, which is logit matching.
  function limit(D) {
    const uniform = D.map(() => 1 / D.length);
    const deviations = centered(D, uniform, 1);
    return {
      loss: dot(uniform, deviations.map((x) => x * x)) / 2,
      gradient: deviations.map((x) => x / D.length),
    };
  }

  function compute(state, tau) {
    const p = softmax(state.teacher, tau);
    const q = softmax(state.student, tau);
    const D = differences(state.student, state.teacher);
    const L = limit(D);
    const scaled = tau === Infinity ? L : DIVERGENCES[state.divergence].compute(p, q, D, tau);
    const unit = state.squared ? 1 : 1 / (tau * tau);
    const range = (x) => Math.max(...x) - Math.min(...x);
    const factor = Math.exp(Math.max(range(state.student), range(state.teacher)) / tau);
    return {
      p, q,
      loss: scaled.loss * unit,
      gradient: scaled.gradient.map((x) => x * unit),
      limit: L.loss * unit,
      gradientLimit: L.gradient.map((x) => x * unit),
      low: L.loss / factor * unit,
      high: L.loss * factor * unit,
    };
  }

  // The temperatures: 0.1 to 10⁴ in twenty steps a decade, to two digits, and infinity.

  const TEMPERATURES = Array.from({ length: 101 }, (_, i) =>
    Number((10 ** (i / 20 - 1)).toPrecision(2)));
  TEMPERATURES.push(Infinity);
  const LAST = TEMPERATURES.length - 1;
  const ONE = TEMPERATURES.indexOf(1);
  const [LOWEST, HIGHEST] = [-4, 10];

  const nearest = (tau) => {
    const away = TEMPERATURES.map((x) => Math.abs(Math.log(x / tau)));
    return tau === Infinity ? LAST : away.indexOf(Math.min(...away));
  };

  // The state, and the address that holds it.

  const root = document.querySelector(".explorer");
  const CLASSES = root.dataset.classes.split(",");
  const numbers = (text) => text.split(",").map(Number);
  const START = {
    position: TEMPERATURES.indexOf(4),
    teacher: numbers(root.dataset.teacher),
    student: numbers(root.dataset.student),
    divergence: "forward_kl",
    squared: true,
  };
  let state = { ...START };

  const PRESETS = {
    agree: (s) => ({ student: s.teacher }),
    shifted: (s) => ({ student: s.teacher.map((z) => tidy(z + 3)) }),
    sure: () => ({ teacher: CLASSES.map((_, i) => (i ? 0 : HIGHEST)), student: START.student }),
  };

  const tidy = (z) => Number(Math.min(HIGHEST, Math.max(LOWEST, z)).toFixed(2));

  // What of an address is no state of the explorer is left as it was at the start.
  function read(hash) {
    const parameters = new URLSearchParams(hash.split("?")[1]);
    const next = { ...START };
    const tau = Number(String(parameters.get("tau")).replace("inf", "Infinity"));
    if (tau > 0) next.position = nearest(tau);
    for (const network of ["teacher", "student"]) {
      const logits = numbers(parameters.get(network) ?? "");
      if (logits.length === CLASSES.length && logits.every(Number.isFinite))
        next[network] = logits.map(tidy);
    }
    const divergence = parameters.get("divergence");
    if (Object.hasOwn(DIVERGENCES, divergence)) next.divergence = divergence;
    next.squared = parameters.get("squared") !== "no";
    const preset = parameters.get("preset");
    if (Object.hasOwn(PRESETS, preset)) Object.assign(next, PRESETS[preset](next));
    return next;
  }

  function address() {
    const parts = [];
    if (state.position !== START.position)
      parts.push("tau=" + String(TEMPERATURES[state.position]).replace("Infinity", "inf"));
    for (const network of ["teacher", "student"])
      if (String(state[network]) !== String(START[network]))
        parts.push(network + "=" + state[network]);
    if (state.divergence !== START.divergence) parts.push("divergence=" + state.divergence);
    if (!state.squared) parts.push("squared=no");
    return "#explorer" + (parts.length ? "?" + parts.join("&") : "");
  }

  // What is drawn. Lengths across are in percent, so that nothing is drawn anew for a window of
  // another width; lengths down are in pixels.

  const [ROW, BAR, FOOT] = [50, 15, 20];
  const HEIGHT = CLASSES.length * ROW;
  const PLOT = { left: 9, width: 89, top: 8, height: 170 };
  const rowTop = (k, network) => k * ROW + (network === "student" ? 27 : 7);
  const overClasses = (draw) => CLASSES.map((name, k) => draw(k, name)).join("");
  const overBars = (draw) => overClasses((k) => draw(k, "teacher") + draw(k, "student"));
  const minus = (text) => text.replace("-", "−");
  const tauName = (tau) => (tau === Infinity ? "∞" : String(tau));

  const bar = (k, network, height = BAR) =>
    `<rect class="bar ${network}" y="${rowTop(k, network)}" height="${height}"/>`;
  const label = (k, network) =>
    `<text class="value" y="${rowTop(k, network) + 12}"></text>`;
  const baseline = (x) => `<line class="axis" x1="${x}%" x2="${x}%" y1="0" y2="${HEIGHT}"/>`;
  const tick = (x, text) =>
    `<text class="tick" x="${x}%" y="${HEIGHT + 15}" text-anchor="middle">${text}</text>`;
  const logitX = (z) => 3 + 94 * (z - LOWEST) / (HIGHEST - LOWEST);
  const probabilityX = (p) => 1 + 74 * p;

  function panel(name, title, subtitle, drawing, role = "img") {
    return `<div class="explorer-panel explorer-${name}">
      <p><strong>${title}</strong><br>${subtitle}</p>
      <svg role="${role}" height="${HEIGHT + FOOT}">${drawing}</svg></div>`;
  }

  function logitSlider(k, network) {
    const y = rowTop(k, network) - 4;
    return `<g role="slider" tabindex="0" data-network="${network}" data-class="${k}"
      aria-label="The ${network}’s logit of ${CLASSES[k]}"
      aria-valuemin="${LOWEST}" aria-valuemax="${HIGHEST}">
      <rect class="reach" width="100%" y="${y}" height="24"/>${bar(k, network)}
      <circle class="handle" r="7" cy="${y + 11.5}"/>${label(k, network)}</g>`;
  }

  const names = (which) => `<div class="explorer-names ${which}" aria-hidden="true">
    <p>&nbsp;<br>&nbsp;</p>${CLASSES.map((name) => `<div>${name}</div>`).join("")}</div>`;

  const place = (position) =>
    (position === LAST ? 1 : 0.188 * (1 + Math.log10(TEMPERATURES[position])));
  const plotX = (position) => PLOT.left + PLOT.width * place(position);
  const TICKS = { 0: "0.1", [ONE]: "1", 40: "10", 60: "100", 80: "1000", 100: "10⁴", [LAST]: "∞" };
  const PLACES = TEMPERATURES.map((_, position) => (100 * place(position)).toFixed(2));
  const bottom = PLOT.top + PLOT.height;

  const curve = `<svg class="explorer-plot" role="group" height="${bottom + 34}"
      aria-label="The loss at all temperatures">
    <svg x="${PLOT.left}%" width="${PLOT.width}%" y="${PLOT.top}" height="${PLOT.height}"
        viewBox="0 0 100 100" preserveAspectRatio="none">
      <path class="bounds"/><path class="limit"/><path class="loss"/></svg>
    <line class="axis" x1="${PLOT.left}%" x2="${PLOT.left + PLOT.width}%" y1="${bottom}" y2="${bottom}"/>
    ${Object.entries(TICKS).map(([position, text]) => `<text class="tick" x="${plotX(+position)}%"
      y="${bottom + 15}" text-anchor="middle">${text}</text>`).join("")}
    <text class="tick" x="${PLOT.left + PLOT.width / 2}%" y="${bottom + 31}"
      text-anchor="middle">temperature τ</text>
    ${[0, 0.5, 1].map((part) => `<text class="tick height" x="${PLOT.left - 1}%"
      y="${bottom - part * PLOT.height + (part ? 4 : 0)}" text-anchor="end"></text>`).join("")}
    <rect class="reach" width="100%" height="${bottom}"/>
    <g role="slider" tabindex="0" aria-label="Temperature, on the curve"
      aria-valuemin="0" aria-valuemax="${LAST}">
      <line class="axis" y1="${PLOT.top}" y2="${bottom}"/><circle class="handle" r="8"/></g></svg>`;

  const button = (name, text, say) =>
    `<button type="button" data-do="${name}"${say ? ` aria-label="${say}"` : ""}>${text}</button>`;

  root.innerHTML = `
    <div class="explorer-temperature"><label for="explorer-tau">Temperature</label>
      <input type="range" id="explorer-tau" min="0" max="${LAST}">
      <output for="explorer-tau"></output></div>
    <div class="explorer-panels">
      ${names("first")}
      ${panel("logits", "Logits", "drag the bars", overBars(logitSlider) + baseline(logitX(0)) +
        tick(logitX(0), "0") + tick(logitX(5), "5") + tick(logitX(10), "10"), "group")}
      ${names("second")}
      ${panel("probabilities", "Probabilities", "softmax(z/τ)", overBars((k, network) =>
        bar(k, network) + label(k, network)) + baseline(probabilityX(0)) +
        tick(probabilityX(0.5), "0.5") + tick(probabilityX(1), "1"))}
      ${panel("gradient", "Gradient", "with respect to zˢ", overClasses((k) =>
        `<rect class="bar gradient" y="${rowTop(k) + 8}" height="${BAR + 4}"/>
        <line class="limit-mark" y1="${rowTop(k)}" y2="${rowTop(k, "student") + BAR}"/>
        <text class="value" y="${rowTop(k) + 22}"></text>`) + baseline(50) +
        tick(22, "") + tick(50, "0") + tick(78, ""))}
    </div>
    <p class="explorer-keys"><span class="key teacher"></span> teacher
      <span class="key student"></span> student <span class="key mark"></span> limit at τ = ∞</p>
    <div class="explorer-buttons">
      ${button("agree", "They agree")} ${button("shifted", "Shifted by 3")}
      ${button("sure", "A sure teacher")}
      <span>All student’s logits ${button("lower", "−1", "Lower all of the student’s logits by 1")}
      ${button("raise", "+1", "Raise all of the student’s logits by 1")}</span>
      ${button("reset", "Reset")}</div>
    <div class="explorer-loss"><div>
      <label>Divergence <select><option value="forward_kl">forward KL</option>
        <option value="reverse_kl">reverse KL</option>
        <option value="jensen_shannon">Jensen–Shannon, β = 0.5</option></select></label>
      <label><input type="checkbox" role="switch"> times τ²</label>
      <p class="explorer-keys"><span class="key loss"></span> <span class="symbol"></span>
        = <b class="shown-loss"></b><br><span class="key limit"></span> logit matching,
        <span class="limit-symbol"></span> = <b class="shown-limit"></b><br><span
        class="bounds-shown"><span class="key bounds"></span> between
        <b class="shown-low"></b> and <b class="shown-high"></b></span></p></div>
      ${curve}</div>`;

  const find = (selector) => root.querySelector(selector);
  const all = (selector) => [...root.querySelectorAll(selector)];
  // What has not changed is not touched, or the browser would lay it out again.
  const set = (element, attributes) => {
    for (const name in attributes)
      if (element.getAttribute(name) !== String(attributes[name]))
        element.setAttribute(name, attributes[name]);
  };
  const write = (element, text) => {
    if (element.textContent !== text) element.textContent = text;
  };
  const part = (name) => ({
    svg: find(`.explorer-${name} svg`),
    bars: all(`.explorer-${name} .bar`),
    values: all(`.explorer-${name} .value`),
    ticks: all(`.explorer-${name} .tick`),
  });
  const parts = { logits: part("logits"), probabilities: part("probabilities"), gradient: part("gradient") };
  const sliders = all(".explorer-logits [role=slider]");
  const handles = all(".explorer-logits .handle");
  const marks = all(".limit-mark");
  const dial = find("#explorer-tau");
  const plot = find(".explorer-plot");
  const point = find(".explorer-plot [role=slider]");
  const heights = all(".tick.height");
  const written = Object.fromEntries(["loss", "limit", "low", "high"].map((name) =>
    [name, find(".shown-" + name)]));
  const [select, squared] = [find("select"), find("[role=switch]")];

  // 1, 2 or 5 times a power of ten, and at least x.
  function roundUp(x) {
    const power = 10 ** Math.floor(Math.log10(x));
    return power * [1, 2, 5, 10].find((digit) => digit * power >= x * (1 - 1e-9));
  }

  const decimals = (x) => minus(String(Number(x.toPrecision(2))));

  function format(x) {
    if (x === 0 || (Math.abs(x) >= 5e-4 && Math.abs(x) < 1e4)) return minus(x.toFixed(4));
    const [digits, power] = x.toExponential(1).split("e");
    return `${digits} × 10${power.replace("+", "").replace(/./g, (c) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(c)])}`;
  }

  // The axes fit the temperatures from 1 on, below which a loss without τ² grows beyond bounds.
  let rows, axes;
  function fit() {
    const shown = rows.slice(ONE);
    const steepest = Math.max(0.1, ...shown.flatMap((row) => row.gradient.map(Math.abs)));
    const highest = Math.max(0.1, ...shown.map((row) => 1.1 * row.loss));
    axes = { gradient: roundUp(steepest), loss: roundUp(highest) };
  }

  // What only the temperature changes is drawn for each, and the rest if it has changed.
  let drawn = {};
  function draw() {
    const { position, ...others } = state;
    const isNew = Object.keys(others).some((key) => others[key] !== drawn[key]);
    if (isNew) rows = TEMPERATURES.map((tau) => compute(state, tau));
    axes ?? fit();
    if (isNew || axes !== drawn.axes) {
      drawLogits();
      drawCurve();
      drawn = { ...others, axes };
    }
    const now = rows[position];
    drawTemperature(TEMPERATURES[position]);
    drawProbabilities(now, TEMPERATURES[position]);
    drawGradient(now);
    drawLoss(now);
    root.now = now;
  }

  function drawTemperature(tau) {
    const name = tau === Infinity ? "infinity" : String(tau);
    dial.value = state.position;
    dial.nextElementSibling.value = "τ = " + tauName(tau);
    for (const slider of [dial, point])
      set(slider, { "aria-valuenow": state.position, "aria-valuetext": "τ = " + name });
  }

  function placeBar(rect, from, to) {
    set(rect, { x: Math.min(from, to) + "%", width: Math.abs(to - from) + "%" });
  }

  // Beside the end of a bar that begins at `from`, where there is room.
  function placeValue(text, from, to, value, gap = 4) {
    const left = to < from;
    set(text, { x: to + "%", dx: left ? -gap : gap, "text-anchor": left ? "end" : "start" });
    write(text, value);
  }

  function drawLogits() {
    sliders.forEach((slider, n) => {
      const z = state[slider.dataset.network][slider.dataset.class];
      const x = logitX(z);
      const inward = z > 7.5 || z < -2;
      placeBar(parts.logits.bars[n], logitX(0), x);
      placeValue(parts.logits.values[n], logitX(0), x, minus(String(z)), inward ? -11 : 11);
      if (inward) set(parts.logits.values[n], { "text-anchor": z > 0 ? "end" : "start" });
      parts.logits.values[n].classList.toggle("inside", inward);
      set(handles[n], { cx: x + "%" });
      set(slider, { "aria-valuenow": z });
    });
  }

  function drawProbabilities({ p, q }, tau) {
    const both = CLASSES.flatMap((_, k) => [p[k], q[k]]);
    both.forEach((value, n) => {
      placeBar(parts.probabilities.bars[n], probabilityX(0), probabilityX(value));
      placeValue(parts.probabilities.values[n], 0, probabilityX(value), value.toFixed(2));
    });
    const list = (x) => CLASSES.map((name, k) => `${name} ${x[k].toFixed(2)}`).join(", ");
    const name = tau === Infinity ? "infinity" : tau;
    set(parts.probabilities.svg, { "aria-label":
      `Bars: probabilities at temperature ${name}. Teacher: ${list(p)}. Student: ${list(q)}.` });
  }

  function drawGradient({ gradient, gradientLimit }) {
    const x = (value) => 50 + 28 * Math.max(-1, Math.min(1, value / axes.gradient));
    const shown = gradient.map((value) => minus(value.toFixed(3).replace(/^-(0\.0*)$/, "$1")));
    gradient.forEach((value, k) => {
      placeBar(parts.gradient.bars[k], 50, x(value));
      const mark = x(gradientLimit[k]);
      const side = value < 0 ? Math.min : Math.max;
      placeValue(parts.gradient.values[k], value < 0 ? 100 : 0, side(x(value), mark, 50), shown[k], 6);
      set(marks[k], { x1: mark + "%", x2: mark + "%" });
    });
    const [low, , high] = parts.gradient.ticks;
    write(low, "−" + decimals(axes.gradient));
    write(high, decimals(axes.gradient));
    const list = CLASSES.map((name, k) => `${name} ${shown[k]}`).join(", ");
    set(parts.gradient.svg, { "aria-label":
      `Bars: gradient with respect to the student’s logits: ${list}. A mark at the limit of each.` });
  }

  const lossY = (loss) => 100 * (1 - Math.min(loss / axes.loss, 9));

  function drawCurve() {
    const line = (key) => rows.map((row, i) => `${PLACES[i]},${lossY(row[key]).toFixed(2)}`);
    const { symbol, bounds } = DIVERGENCES[state.divergence];
    set(find("path.loss"), { d: "M" + line("loss").join("L") });
    set(find("path.limit"), { d: "M" + line("limit").join("L") });
    set(find("path.bounds"), { d: bounds ?
      "M" + [...line("low"), ...line("high").reverse()].join("L") : "" });
    heights.forEach((tick, n) => write(tick, decimals(axes.loss * n / 2)));
    write(find(".symbol"), (state.squared ? "τ² " : "") + symbol);
    write(find(".limit-symbol"), "½ Var(zˢ − zᵗ)" + (state.squared ? "" : "/τ²"));
    find(".bounds-shown").hidden = !bounds;
    select.value = state.divergence;
    squared.checked = state.squared;
  }

  function drawLoss(now) {
    const at = plotX(state.position) + "%";
    const height = Math.max(0, lossY(now.loss)) / 100;
    set(point.children[0], { x1: at, x2: at });
    set(point.children[1], { cx: at, cy: PLOT.top + PLOT.height * height });
    for (const name in written) write(written[name], format(now[name]));
  }

  // What the reader does. While something is dragged the axes stand still.

  function change(next) {
    state = { ...state, ...next };
    draw();
  }

  function settle() {
    fit();
    draw();
    try {
      history.replaceState(history.state, "", address());
    } catch {
      // Some browsers refuse on a page from disk; the explorer works without.
    }
  }

  function setLogit({ dataset }, z) {
    const logits = [...state[dataset.network]];
    logits[dataset.class] = tidy(z);
    change({ [dataset.network]: logits });
  }

  const logitOf = ({ dataset }) => state[dataset.network][dataset.class];
  const clamp = (position) => Math.min(LAST, Math.max(0, Math.round(position)));
  const setPosition = (position) => change({ position: clamp(position) });
  const position = () => state.position;

  /* A mouse takes hold where it is pressed. A finger that is put down may be about to scroll: it
     moves a value only by what it moves itself, and gives it back if the page scrolls instead. */
  function drag(surface, svg, perWidth, valueAt, get, put) {
    surface.addEventListener("pointerdown", (down) => {
      if (down.button !== 0) return;
      const before = get();
      const box = svg.getBoundingClientRect();
      const isMouse = down.pointerType === "mouse";
      const from = isMouse ? valueAt((down.clientX - box.left) / box.width) : before;
      const move = (event) => put(from + perWidth * (event.clientX - down.clientX) / box.width);
      const stop = (event) => {
        surface.onpointermove = surface.onpointerup = surface.onpointercancel = null;
        if (event.type === "pointercancel") put(before);
        settle();
      };
      surface.setPointerCapture(down.pointerId);
      surface.onpointermove = move;
      surface.onpointerup = surface.onpointercancel = stop;
      if (isMouse) put(from);
      (surface.closest("[role=slider]") ?? point).focus({ preventScroll: true });
      down.preventDefault();
    });
  }

  function keys(slider, get, put, step, page, first, last) {
    const steps = { ArrowUp: step, ArrowRight: step, ArrowDown: -step, ArrowLeft: -step,
      PageUp: page, PageDown: -page };
    slider.addEventListener("keydown", (event) => {
      const { key } = event;
      if (!(key in steps) && key !== "Home" && key !== "End") return;
      event.preventDefault();
      put(key === "Home" ? first : key === "End" ? last : get() + steps[key]);
    });
    slider.addEventListener("keyup", settle);
  }

  const tenth = (z) => Math.round(10 * z) / 10;
  const logitWidth = (HIGHEST - LOWEST) / 0.94;
  for (const slider of sliders) {
    drag(slider, parts.logits.svg, logitWidth, (part) => LOWEST + logitWidth * (part - 0.03),
      () => logitOf(slider), (z) => setLogit(slider, tenth(z)));
    keys(slider, () => logitOf(slider), (z) => setLogit(slider, z), 0.1, 1, LOWEST, HIGHEST);
  }
  const plotWidth = 100 * (LAST - 1) / (0.94 * PLOT.width);
  const positionAt = (part) => plotWidth * (part - PLOT.left / 100);
  for (const surface of [find(".explorer-plot > .reach"), point])
    drag(surface, plot, plotWidth, positionAt, position, setPosition);
  keys(point, position, setPosition, 1, 10, 0, LAST);

  dial.addEventListener("input", () => setPosition(Number(dial.value)));
  dial.addEventListener("change", settle);
  select.addEventListener("change", () => { change({ divergence: select.value }); settle(); });
  squared.addEventListener("change", () => { change({ squared: squared.checked }); settle(); });

  function shift(by) {
    const inside = state.student.every((z) => z + by >= LOWEST && z + by <= HIGHEST);
    if (inside) change({ student: state.student.map((z) => tidy(z + by)) });
  }

  const ACTIONS = {
    lower: () => shift(-1),
    raise: () => shift(1),
    reset: () => change(START),
  };
  for (const name in PRESETS) ACTIONS[name] = () => change(PRESETS[name](state));
  for (const button of all("[data-do]"))
    button.addEventListener("click", () => { ACTIONS[button.dataset.do](); settle(); });

  // A sentence, or an address, that sets the state.
  function show(hash) {
    if (!/^#explorer(\?|$)/.test(hash)) return;
    change(read(hash));
    settle();
    const box = root.getBoundingClientRect();
    if (box.top < 0 || box.top > innerHeight / 2) root.scrollIntoView();
  }

  addEventListener("hashchange", () => show(location.hash));
  document.addEventListener("click", (event) => {
    const link = event.target.closest('a[href^="#explorer"]');
    if (!link) return;
    event.preventDefault();
    show(link.hash);
  });

  draw();
  addEventListener("DOMContentLoaded", () => show(location.hash));
})();
