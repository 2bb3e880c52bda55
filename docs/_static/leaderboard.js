// The boards of the leaderboard: DataTables sorts and filters them; the ranks follow the weights of the families of metrics.
const RESAMPLES = 2000, TAIL = 1.959964;

// The normal distribution function and its inverse, within .00015 (Page 1977), less than one resample of 2,000.
const [A, B] = [1.5976, 0.070566];
const below = z => 1 / (1 + Math.exp(-A * z - B * z ** 3));
const root = Math.sqrt(A / B / 3);
const quantile = p => 2 * root * Math.sinh(Math.asinh(1.5 * Math.log(p / (1 - p)) / A / root) / 3);
const sum = values => values.reduce((one, other) => one + other, 0);

function ranked(values) { // 1 is the smallest; ties share the mean of their ranks
  const order = [...values.keys()].sort((one, other) => values[one] - values[other]), ranks = [];
  for (let first = 0, last; first < order.length; first = last) {
    for (last = first; last < order.length && values[order[last]] === values[order[first]];) last++;
    for (let place = first; place < last; place++) ranks[order[place]] = (first + last + 1) / 2;
  }
  return ranks;
}

function blockRanks(families, weights) { // per image the ranks of the methods, as in block_ranks
  const mean = (metrics, image, method) => sum(metrics.map(ranks => ranks[image][method])) / metrics.length;
  return Object.values(families)[0][0].map((row, image) => ranked(row.map((_, method) =>
    +sum(Object.entries(families).map(([family, metrics]) => weights[family] * mean(metrics, image, method))).toFixed(9))));
}

function resamples(count) { // the same ones each time, so that the intervals do not tremble while a slider moves
  let state = 1;
  const draw = () => (state = (1664525 * state + 1013904223) % 2 ** 32) / 2 ** 32;
  return Array.from({length: RESAMPLES}, () => Array.from({length: count}, () => Math.floor(draw() * count)));
}

function interval(values, draws) { // bias-corrected and accelerated, as in bootstrap_interval
  const mean = sum(values) / values.length, share = 1 / RESAMPLES;
  const means = Float64Array.from(draws, rows => rows.reduce((total, row) => total + values[row], 0) / values.length).sort();
  const under = sum(means.map(one => (one < mean) + (one <= mean))) / 2 / RESAMPLES;
  const bias = quantile(Math.min(Math.max(under, share), 1 - share));
  const spread = sum(values.map(one => (one - mean) ** 2)) ** 1.5;
  const acceleration = spread ? sum(values.map(one => (one - mean) ** 3)) / 6 / spread : 0;
  return [-TAIL, TAIL].map(tail => {
    const reach = bias + tail, place = below(bias + reach / (1 - acceleration * reach)) * (RESAMPLES - 1);
    const first = Math.floor(place);
    return means[first] + (place - first) * ((means[first + 1] ?? means[first]) - means[first]);
  });
}

for (const board of document.querySelectorAll("div.board")) {
  const form = board.querySelector("form"), source = board.querySelector("script");
  const rows = [...board.querySelectorAll("tbody tr")], sliders = form.querySelectorAll("input");
  const rank = board.querySelector("th.rank").cellIndex, status = form.querySelector("[role=status]");
  const table = new DataTable(board.querySelector("table"), {
    paging: false, autoWidth: false, order: [[rank, "asc"]], layout: {topStart: null, topEnd: null, bottomStart: null},
  });
  const show = () => {
    for (const {dataset, value} of form.querySelectorAll("select")) table.column(+dataset.column).search(value, {exact: true});
    table.draw();
    status.textContent = `${table.rows({search: "applied"}).count()} of ${rows.length} rows`;
  };
  const data = source && JSON.parse(source.textContent), draws = data && resamples(data.images);
  const weigh = () => {
    const weights = {};
    for (const slider of sliders) slider.nextElementSibling.textContent = weights[slider.dataset.family] = +slider.value;
    if (!sum(Object.values(weights))) return void (status.textContent = "Give at least one family a weight above 0.");
    const ranks = {};
    for (const [training, families] of Object.entries(data.trainings)) ranks[training] = blockRanks(families, weights);
    for (const row of rows) {
      const method = data.methods.indexOf(row.dataset.method), own = ranks[row.dataset.training].map(image => image[method]);
      const mean = sum(own) / own.length, [low, high] = interval(own, draws), cell = row.cells[rank];
      for (const [name, value] of Object.entries({rank: mean, low, high})) cell.style.setProperty(`--${name}`, value);
      cell.dataset.order = mean;
      cell.textContent = `${mean.toFixed(2)} [${low.toFixed(2)}, ${high.toFixed(2)}]`;
    }
    table.rows().invalidate("dom");
    show();
  };
  form.addEventListener("input", event => event.target.matches("select") ? show() : weigh());
  form.addEventListener("reset", () => setTimeout(data ? weigh : show)); // after the controls have their first values again
  form.hidden = false;
  show();
}
