(function () {
  "use strict";
  var font = { family: "system-ui, -apple-system, Segoe UI, Roboto, Arial, sans-serif", color: "#1b242c" };

  function axis(own, narrow) {
    var shared = {
      automargin: true, gridcolor: "#e8ecef", linecolor: "#b9c2c9", zerolinecolor: "#b9c2c9",
      ticks: "", fixedrange: narrow, tickfont: { size: narrow ? 11 : 12 }
    };
    own = Object.assign(shared, own || {});
    if (own.title) { own.title = Object.assign({ font: { size: 12 }, standoff: 8 }, own.title); }
    return own;
  }

  function layoutOf(own, width) {
    var narrow = width < 560;
    var layout = Object.assign({}, own);
    layout.width = width;
    layout.font = Object.assign({ size: 12 }, font);
    layout.paper_bgcolor = layout.plot_bgcolor = "#ffffff";
    layout.margin = { l: 8, r: 12, t: 8, b: 44 };
    layout.xaxis = axis(own.xaxis, narrow);
    layout.yaxis = axis(own.yaxis, narrow);
    layout.showlegend = false; // the page has its own
    layout.hoverlabel = { bgcolor: "#ffffff", bordercolor: "#b9c2c9", font: { size: 12 } };
    layout.dragmode = narrow ? false : "zoom";
    return layout;
  }

  function draw(box, figure) {
    var width = box.clientWidth;
    if (box.drawnWidth === width) { return; }
    box.drawnWidth = width;
    var layout = layoutOf(figure.layout, width);
    Plotly.react(box, figure.data, layout, {
      displaylogo: false, displayModeBar: false, responsive: false, scrollZoom: false
    });
  }

  var boxes = Array.prototype.map.call(document.querySelectorAll(".figure"), function (box) {
    var source = box.querySelector("script");
    var figure = JSON.parse(source.textContent);
    source.remove();
    return function () { draw(box, figure); };
  });
  // A key of the legend hides and shows its traces.
  Array.prototype.forEach.call(document.querySelectorAll(".legend button"), function (key) {
    key.addEventListener("click", function () {
      var box = key.closest(".legend").nextElementSibling;
      var shown = key.getAttribute("aria-pressed") === "true";
      key.setAttribute("aria-pressed", String(!shown));
      Plotly.restyle(box, { visible: !shown }, JSON.parse(key.dataset.traces));
    });
  });
  function drawAll() { boxes.forEach(function (redraw) { redraw(); }); }
  drawAll();
  var timer = null;
  window.addEventListener("resize", function () { clearTimeout(timer); timer = setTimeout(drawAll, 120); });
}());
