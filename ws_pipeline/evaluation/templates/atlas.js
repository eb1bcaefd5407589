(function () {
  "use strict";
  var box = document.getElementById("map");
  var figure = JSON.parse(box.querySelector("script").textContent);
  box.textContent = "";
  var mode = 0;
  var size = 7;

  function layoutOf() {
    return Object.assign({}, figure.layout, {
      width: box.clientWidth, height: box.clientHeight,
      font: { family: "system-ui, -apple-system, Segoe UI, Roboto, Arial, sans-serif", size: 12, color: "#1b242c" },
      margin: { l: 0, r: 0, t: 4, b: 4 }, showlegend: false,
      paper_bgcolor: "#ffffff", plot_bgcolor: "#ffffff",
      hoverlabel: { bgcolor: "#ffffff", bordercolor: "#b9c2c9", align: "left" },
      dragmode: box.clientWidth < 560 ? false : "pan"
    });
  }

  function draw() {
    Plotly.react(box, figure.data, layoutOf(), { displayModeBar: false, scrollZoom: true, responsive: false });
  }

  function each(selector, act) {
    Array.prototype.forEach.call(document.querySelectorAll(selector), act);
  }

  function show(chosen) {
    mode = chosen;
    figure.data.forEach(function (trace, index) {
      if (index > 0) { trace.visible = figure.modes[mode].traces.some(function (t) { return t[0] === index; }); }
    });
    each(".modes button", function (key) { key.setAttribute("aria-pressed", String(Number(key.dataset.mode) === mode)); });
    each(".legend", function (one) { one.hidden = Number(one.dataset.legend) !== mode; });
    each(".legend button", function (key) { key.setAttribute("aria-pressed", "true"); });
    draw();
  }

  function find(text) {
    var hits = 0;
    var wanted = text.trim().toLowerCase();
    figure.data.forEach(function (trace, index) {
      if (index === 0) { return; }
      var names = trace.customdata;
      var matches = names.map(function (name) { return wanted && name.toLowerCase().indexOf(wanted) >= 0; });
      if (trace.visible) { hits += matches.filter(Boolean).length; }
      trace.marker.size = wanted ? matches.map(function (hit) { return hit ? size * 1.8 : size * 0.6; }) : size;
      trace.marker.opacity = wanted ? matches.map(function (hit) { return hit ? 1 : 0.15; }) : 0.85;
    });
    document.getElementById("found").textContent = wanted ? hits + " found" : "";
    draw();
  }

  each(".modes button", function (key) {
    key.addEventListener("click", function () { show(Number(key.dataset.mode)); });
  });
  each(".legend button", function (key) {
    key.addEventListener("click", function () {
      var shown = key.getAttribute("aria-pressed") === "true";
      key.setAttribute("aria-pressed", String(!shown));
      JSON.parse(key.dataset.traces).forEach(function (index) { figure.data[index].visible = !shown; });
      draw();
    });
  });
  document.getElementById("edges").addEventListener("change", function (event) {
    figure.data[0].visible = event.target.checked;
    draw();
  });
  document.getElementById("find").addEventListener("input", function (event) { find(event.target.value); });
  var timer = null;
  window.addEventListener("resize", function () { clearTimeout(timer); timer = setTimeout(draw, 120); });
  draw();
}());
