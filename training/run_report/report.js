"use strict";
// Reading values off the curves, and the slider of pictures. Without it the page shows the same.

for (const figure of document.querySelectorAll(".chart")) {
  const { steps, area, curves } = JSON.parse(figure.dataset.chart);
  const svg = figure.querySelector("svg");
  const cursor = svg.querySelector(".cursor");
  const outputs = figure.querySelectorAll("figcaption output");
  const [left, right, top, bottom] = area;
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
    const share = Math.min(1, Math.max(0, (x - left) / (right - left)));
    const step = steps[0] + share * (steps[1] - steps[0]);
    let at = 0;
    curves.forEach((curve, i) => {
      let nearest = 0;
      curve.x.forEach((each, k) => {
        if (Math.abs(each - step) < Math.abs(curve.x[nearest] - step)) nearest = k;
      });
      at = curve.x[nearest];
      outputs[i].textContent = `${curve.y[nearest]} (${at})`;
    });
    const place = left + ((at - steps[0]) / Math.max(steps[1] - steps[0], 1)) * (right - left);
    cursor.setAttribute("d", `M${place} ${top}V${bottom}`);
  });
  svg.addEventListener("pointerleave", () => {
    cursor.setAttribute("d", "");
    for (const output of outputs) output.textContent = "";
  });
}

for (const film of document.querySelectorAll(".film")) {
  const images = film.querySelectorAll("img");
  const slider = film.querySelector("input");
  const button = film.querySelector("button");
  let playing = null;
  const show = () => {
    images.forEach((image, i) => (image.hidden = i !== Number(slider.value)));
    film.querySelector("output").textContent = images[slider.value].alt;
  };
  const stop = () => {
    clearInterval(playing);
    playing = null;
    button.textContent = "Play";
  };
  slider.addEventListener("input", () => {
    stop();
    show();
  });
  button.addEventListener("click", () => {
    if (playing !== null) return stop();
    if (slider.value === slider.max) slider.value = 0;
    show();
    button.textContent = "Pause";
    playing = setInterval(() => {
      slider.value = Number(slider.value) + 1;
      show();
      if (slider.value === slider.max) stop();
    }, 350);
  });
}
