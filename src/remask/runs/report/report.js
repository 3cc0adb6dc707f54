"use strict";
// What the page can do beyond reading: copy the prompt, replay the denoising, print what is folded.
// Everything is readable without it. Texts of the run are only read from the page, never run.
(function () {
  const all = (selector, root) => Array.from((root || document).querySelectorAll(selector));
  document.documentElement.classList.add("scripted");

  function copyText(text) {
    if (navigator.clipboard && window.isSecureContext) return navigator.clipboard.writeText(text);
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    return Promise.resolve();
  }

  function readPrompt(diff) {
    const text = diff.querySelector(".first .text").cloneNode(true);
    all("del", text).forEach((part) => part.remove());
    return text.textContent;
  }

  function setUpCopy(button) {
    const label = button.textContent;
    button.hidden = false;
    button.addEventListener("click", () => {
      copyText(readPrompt(button.closest(".diff"))).then(
        () => { button.textContent = "Copied"; },
        () => { button.textContent = "Not copied: the browser refused"; },
      ).finally(() => setTimeout(() => { button.textContent = label; }, 2000));
    });
  }

  function setUpDenoising(figure) {
    const pieces = all(".piece", figure), range = figure.querySelector("input");
    const output = figure.querySelector("output"), play = figure.querySelector("button");
    const total = Number(range.max);
    let timer = 0;
    function show(step) {
      range.value = String(step);
      let written = 0;
      for (const piece of pieces) {
        const at = Number(piece.dataset.step);
        piece.classList.toggle("masked", at > step);
        piece.classList.toggle("new", at === step && step < total);
        written += at <= step ? 1 : 0;
      }
      const said = step + " of " + total;
      output.textContent = said;
      range.setAttribute("aria-valuetext", "step " + said + ", " + written + " of " + pieces.length + " pieces written");
    }
    function stop() {
      clearInterval(timer);
      timer = 0;
      play.textContent = "Play";
    }
    range.addEventListener("input", () => { stop(); show(Number(range.value)); });
    play.addEventListener("click", () => {
      if (timer) { stop(); return; }
      if (Number(range.value) >= total) show(0);
      play.textContent = "Stop";
      timer = setInterval(() => {
        const step = Number(range.value) + 1;
        show(step);
        if (step >= total) stop();
      }, 350);
    });
    figure.querySelector(".scrub").hidden = false;
    show(total);
  }

  // The live page calls this for what it puts into the page later.
  window.setUpReport = (root) => {
    all("button.copy", root).forEach(setUpCopy);
    all(".denoise", root).forEach(setUpDenoising);
  };
  window.setUpReport(document);

  let opened = [];
  window.addEventListener("beforeprint", () => {
    opened = all("details:not([open])");
    opened.forEach((one) => { one.open = true; });
  });
  window.addEventListener("afterprint", () => opened.forEach((one) => { one.open = false; }));
})();
