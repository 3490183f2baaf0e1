// The page of a functions gateway: asks the API that everybody may ask, and shows the answers.

const EVERY_MS = 2000;
const KEPT = 150; // points of a curve: five minutes
const UNKNOWN = "–"; // what nobody knows is never shown as 0

const curves = new Map();
let token = sessionStorage.getItem("token") ?? "";

const element = (name, attributes = {}, ...children) => {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children.filter((child) => child !== null));
  return made;
};
const find = (id) => document.getElementById(id);

// Numbers as people read them

const known = (value, write) => (value === null || value === undefined ? UNKNOWN : write(value));
const whole = (value) => known(value, (n) => n.toLocaleString("en"));
const share = (value) => known(value, (n) => `${(n * 100).toFixed(n < 0.1 && n > 0 ? 1 : 0)} %`);
const seconds = (value) =>
  known(value, (s) => {
    if (s < 0.001) return `${(s * 1e6).toFixed(0)} µs`;
    if (s < 1) return `${(s * 1e3).toFixed(s < 0.01 ? 2 : 0)} ms`;
    if (s < 120) return `${s.toFixed(s < 10 ? 1 : 0)} s`;
    if (s < 7200) return `${(s / 60).toFixed(0)} min`;
    return s < 172800 ? `${(s / 3600).toFixed(1)} h` : `${(s / 86400).toFixed(0)} days`;
  });
const bytes = (value) =>
  known(value, (n) => {
    const units = ["B", "kB", "MB", "GB", "TB"];
    let unit = 0;
    while (n >= 1000 && unit < units.length - 1) [n, unit] = [n / 1000, unit + 1];
    return `${n.toFixed(unit && n < 100 ? 1 : 0)} ${units[unit]}`;
  });
const rate = (value) => known(value, (n) => n.toLocaleString("en", { maximumFractionDigits: n < 10 ? 2 : 0 }));
const perCall = (sum, calls) => (calls ? sum / calls : null);

// Parts of the page

const number = (text, kind = "") => element("td", { class: `number ${kind}` }, text);
const failures = (failed, ended) =>
  number(failed ? `${whole(failed)} (${share(failed / ended)})` : whole(failed), failed ? "bad" : "");

const meter = (value, text) => {
  if (value === null || value === undefined) return element("td", { class: "quiet" }, UNKNOWN);
  const bar = element("meter", { min: 0, max: 1, low: 0.7, high: 0.9, optimum: 0, value: Math.min(value, 1) });
  return element("td", {}, element("div", { class: "share" }, bar, text ?? share(value)));
};

const fill = (id, rows, nothing) => {
  const table = find(id);
  const columns = table.tHead.rows[0].cells.length;
  const empty = element("tr", {}, element("td", { class: "empty", colspan: columns }, nothing));
  table.tBodies[0].replaceChildren(...(rows.length ? rows : [empty]));
  find(`${id}-count`).textContent = rows.length || "";
};

const curve = (name, value) => {
  const points = curves.get(name) ?? [];
  points.push(value ?? null);
  if (points.length > KEPT) points.shift();
  curves.set(name, points);
  const top = Math.max(...points, 1e-9);
  const drawn = points
    .map((point, at) => [at, point])
    .filter(([, point]) => point !== null)
    .map(([at, point]) => `${(at / (KEPT - 1)) * 100},${25 - (point / top) * 23}`);
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 100 26");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
  line.setAttribute("points", drawn.join(" "));
  svg.append(line);
  return svg;
};

const figure = (name, value, text, kind = "") =>
  element("div", { class: "figure" }, element("h3", {}, name), element("p", { class: kind }, text), curve(name, value));

const showFigures = (gateway, broker) => {
  const failing = gateway.error_rate > 0 ? "bad" : "";
  find("figures").replaceChildren(
    figure("Nodes", gateway.connected_nodes, whole(gateway.connected_nodes)),
    figure("Functions", gateway.active_functions, whole(gateway.active_functions)),
    figure("Calls open", broker.calls, whole(broker.calls)),
    figure("Calls waiting", broker.waiting, whole(broker.waiting), broker.waiting ? "busy" : ""),
    figure("Calls per second", gateway.requests_per_second, rate(gateway.requests_per_second)),
    figure("Failed", gateway.error_rate, share(gateway.error_rate), failing),
    figure("Response time", gateway.avg_response_time, seconds(gateway.avg_response_time)),
    figure("Time to a node", gateway.request_routing_latency, seconds(gateway.request_routing_latency)),
    figure("Balance", gateway.node_utilization_balance, share(gateway.node_utilization_balance)),
  );
};

const showNodes = (nodes, metrics) => {
  const measured = new Map(metrics.map((node) => [node.node_id, node]));
  const rows = nodes.map((node) => {
    const seen = measured.get(node.node_id) ?? {};
    const failed = known(seen.success_rate, (well) => Math.round(seen.functions_executed * (1 - well)));
    const via = node.gateway ? element("span", { class: "tag" }, `at ${node.gateway}`) : null;
    return element(
      "tr",
      {},
      element("td", {}, element("code", {}, node.node_id), via),
      meter(node.running / node.max_concurrent, `${node.running} of ${node.max_concurrent}`),
      meter(node.cpu_usage),
      meter(node.memory_usage),
      meter(node.gpu_usage),
      number(seconds(node.latency_s)),
      number(whole(seen.functions_executed)),
      failed === UNKNOWN ? number(UNKNOWN) : failures(failed, seen.functions_executed),
      number(seconds(seen.avg_execution_time)),
      number(seconds(seen.uptime)),
    );
  });
  fill("nodes", rows, "No node is connected.");
};

const quota = ({ quota_per_user: text, quota_used: used }) =>
  text ? meter(used, `${share(used)} of ${text.replaceAll("_", " ")}`) : element("td", { class: "quiet" }, "none");

const showFunctions = (functions) => {
  const wanted = find("filter").value.trim().toLowerCase();
  const named = functions.map((f) => [`${f.node_id}.${f.function_name}`, f]);
  const rows = named
    .filter(([name, f]) => `${name} ${f.description}`.toLowerCase().includes(wanted))
    .map(([name, f]) => {
      const ended = f.succeeded + f.failed;
      const tag = (shown, text) => (shown ? element("span", { class: "tag" }, text) : null);
      const failing = f.health_status === "healthy" ? null : element("span", { class: "tag bad" }, f.health_status);
      const description = f.description ? element("div", { class: "description" }, f.description) : null;
      const title = element("code", {}, name);
      return element(
        "tr",
        {},
        element("td", {}, title, tag(f.streams, "stream"), tag(f.idempotent, "idempotent"), failing, description),
        element("td", {}, f.access_level),
        quota(f),
        meter(f.running / f.max_concurrent, `${f.running} of ${f.max_concurrent}`),
        number(whole(ended)),
        failures(f.failed, ended),
        number(seconds(perCall(f.busy_s, ended))),
      );
    });
  fill("functions", rows, wanted ? "No function is like that." : "There is no function that you may call.");
};

const KINDS = { succeeded: "good", failed: "bad", waiting: "busy" };

const showCalls = (calls) => {
  const rows = calls.reverse().map((call) => {
    const state = call.status === "waiting" && call.before ? `waiting behind ${call.before}` : call.status;
    const why = call.error ? element("div", { class: "description" }, call.error.detail) : null;
    const progress = call.progress ?? {};
    const name = call.node ? `${call.node}.${call.function}` : call.function;
    return element(
      "tr",
      {},
      element("td", {}, element("code", {}, call.id)),
      element("td", {}, element("code", {}, name)),
      element("td", { class: KINDS[call.status] ?? "" }, state, why),
      element("td", {}, [known(progress.done ?? null, share), progress.note].filter((text) => text && text !== UNKNOWN).join(" ")),
      number(new Date(call.created_at_us / 1000).toLocaleTimeString()),
    );
  });
  fill("calls", rows, token ? "None is kept." : "Calls without a token are not listed: nobody could tell whose they are.");
};

const showUsage = (usage) => {
  const rows = usage.map((used) =>
    element(
      "tr",
      {},
      element("td", {}, element("code", {}, used.function)),
      number(whole(used.calls)),
      failures(used.failed, used.calls),
      number(seconds(used.busy_us / 1e6)),
      number(bytes(used.argument_bytes)),
      number(bytes(used.result_bytes)),
    ),
  );
  const who = token ? "Nothing since the gateway started." : "Nobody without a token has used anything since the gateway started.";
  fill("usage", rows, who);
};

// Asking

const ask = async (path) => {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const answer = await fetch(path, { headers, cache: "no-store", signal: AbortSignal.timeout(10 * EVERY_MS) });
  const body = await answer.json();
  if (!answer.ok && path !== "/health") throw new Error(body.detail ?? `${path} answers ${answer.status}`);
  return body;
};

const say = (kind, text) => {
  const state = find("state");
  if (state.textContent !== text) state.textContent = text;
  state.className = kind;
};

let functions = [];

const look = async () => {
  try {
    const paths = ["/health", "/api/metrics", "/api/nodes", "/api/functions", "/api/calls", "/api/usage"];
    const [health, metrics, nodes, offered, calls, usage] = await Promise.all(paths.map(ask));
    functions = offered.functions;
    showFigures(metrics.gateway, health.broker);
    showNodes(nodes.nodes, metrics.nodes);
    showFunctions(functions);
    showCalls(calls.calls);
    showUsage(usage.usage);
    say("live", `up for ${seconds(metrics.gateway.uptime)}`);
  } catch (error) {
    const lost = error instanceof TypeError || error.name === "TimeoutError";
    say("lost", lost ? "the gateway does not answer" : error.message);
  }
};

let next;
const follow = async () => {
  clearTimeout(next);
  if (!document.hidden) await look();
  clearTimeout(next);
  next = setTimeout(follow, EVERY_MS);
};

find("token").value = token;
find("who").addEventListener("submit", (event) => {
  event.preventDefault();
  token = find("token").value.trim();
  sessionStorage.setItem("token", token);
  follow();
});
find("filter").addEventListener("input", () => showFunctions(functions));
document.addEventListener("visibilitychange", () => document.hidden || follow());
follow();
