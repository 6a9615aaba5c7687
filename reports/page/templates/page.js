"use strict";
/* The page reads without this. It adds the filter, opens what a link points into, and copies rerun lines. */
(() => {
  const form = document.getElementById("filter");
  const said = document.getElementById("said");
  const papers = [...document.querySelectorAll("section.paper")].map((section) => ({
    section,
    words: section.querySelector(".paper-head").textContent.toLowerCase(),
    claims: [...section.querySelectorAll("article.claim")],
  }));
  const total = papers.reduce((sum, paper) => sum + paper.claims.length, 0);
  const texts = new Map();  // a claim's text in lower case, taken when it is first searched

  function textOf(claim, paper) {
    if (!texts.has(claim)) texts.set(claim, `${claim.id} ${claim.textContent.toLowerCase()} ${paper.words}`);
    return texts.get(claim);
  }

  function wanted() {
    const data = new FormData(form);
    return {
      verdicts: data.getAll("verdict"),
      level: data.get("level"),
      paper: data.get("paper"),
      words: data.get("text").toLowerCase().split(/\s+/).filter(Boolean),
    };
  }

  function matches(claim, paper, want) {
    return (!want.verdicts.length || want.verdicts.includes(claim.dataset.verdict))
      && (!want.level || want.level === claim.dataset.level)
      && (!want.paper || want.paper === paper.section.id)
      && want.words.every((word) => textOf(claim, paper).includes(word));
  }

  function apply() {
    const want = wanted();
    let shown = 0;
    for (const paper of papers) {
      let here = 0;
      for (const claim of paper.claims) {
        claim.hidden = !matches(claim, paper, want);
        here += !claim.hidden;
      }
      paper.section.hidden = here === 0;
      shown += here;
    }
    const all = `${total} claim${total === 1 ? "" : "s"}`;
    document.getElementById("shown").textContent = shown === total ? all : `${shown} of ${all}`;
    document.getElementById("nothing").hidden = shown > 0;
  }

  /* A filtered view has an address of its own: #?verdict=refuted&text=softmax */
  function remember() {
    const kept = [...new FormData(form)].filter(([, value]) => value);
    const address = kept.length ? `#?${new URLSearchParams(kept)}` : location.pathname + location.search;
    history.replaceState(null, "", address);
  }

  function recall(query) {
    const kept = new URLSearchParams(query);
    for (const box of form.querySelectorAll("[name=verdict]")) {
      box.checked = kept.getAll("verdict").includes(box.value);
    }
    for (const name of ["level", "paper", "text"]) form.elements[name].value = kept.get(name) || "";
    apply();
  }

  function fragment() {
    try {
      return decodeURIComponent(location.hash.slice(1));
    } catch {  // a mistyped address is no reason to stop the rest of the page
      return "";
    }
  }

  function follow() {
    if (location.hash.startsWith("#?")) {
      recall(location.hash.slice(2));
      document.getElementById("claims").scrollIntoView();
      return;
    }
    const target = document.getElementById(fragment());
    if (!target) return;
    if (target.closest("[hidden]")) recall("");
    for (let node = target; node; node = node.parentElement) if (node.tagName === "DETAILS") node.open = true;
    const claim = target.closest("article.claim");
    if (claim === target) claim.querySelectorAll("details.check").forEach((check) => { check.open = true; });
    target.scrollIntoView();
  }

  async function copy(code, button) {
    try {
      await navigator.clipboard.writeText(code.textContent);
    } catch {  // no clipboard on plain http: leave the line selected instead
      getSelection().selectAllChildren(code);
      button.textContent = "selected";
      said.textContent = "The line is selected";
      return;
    }
    button.textContent = "copied";
    said.textContent = "Copied";
  }

  /* Buttons are made when they can first be seen: a thousand claims have thousands of lines. */
  function addButtons(root) {
    for (const code of root.querySelectorAll(".rerun > code:only-child")) {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "copy";
      button.textContent = "copy";
      button.setAttribute("aria-label", `Copy ${code.textContent}`);
      button.addEventListener("click", () => copy(code, button));
      code.after(button);
    }
  }

  document.addEventListener("toggle", (event) => { if (event.target.open) addButtons(event.target); }, true);
  document.querySelectorAll("details[open], footer").forEach(addButtons);
  form.addEventListener("input", () => { apply(); remember(); });
  form.addEventListener("submit", (event) => event.preventDefault());
  document.getElementById("reset").addEventListener("click", () => { recall(""); remember(); form.elements.text.focus(); });
  addEventListener("hashchange", follow);
  /* A click on the link of the place one is at changes no hash, but should open it again. */
  document.addEventListener("click", (event) => {
    const link = event.target.closest('a[href^="#"]');
    if (link && link.hash === location.hash) follow();
  });
  addEventListener("beforeprint", () => {
    document.querySelectorAll("details.matters, details.reading, details.unrun, .problems details").forEach((part) => { part.open = true; });
  });
  if (total) form.hidden = false;
  if (location.hash) follow();
})();
