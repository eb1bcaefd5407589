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
    layout.legend = { orientation: "h", x: 0, y: 1, yanchor: "bottom", font: { size: narrow ? 11 : 12 } };
    layout.hoverlabel = { bgcolor: "#ffffff", bordercolor: "#b9c2c9", font: { size: 12 } };
    layout.dragmode = narrow ? false : "zoom";
    return layout;
  }

  function draw(box, figure) {
    var width = box.clientWidth;
    if (box.drawnWidth === width) { return; }
    box.drawnWidth = width;
    Plotly.react(box, figure.data, layoutOf(figure.layout, width), {
      displaylogo: false, displayModeBar: false, responsive: false, scrollZoom: false
    });
  }

  var boxes = Array.prototype.map.call(document.querySelectorAll(".figure"), function (box) {
    var source = box.querySelector("script");
    var figure = JSON.parse(source.textContent);
    source.remove();
    return function () { draw(box, figure); };
  });
  function drawAll() { boxes.forEach(function (redraw) { redraw(); }); }
  drawAll();
  var timer = null;
  window.addEventListener("resize", function () { clearTimeout(timer); timer = setTimeout(drawAll, 120); });
}());
