"""The frame of the page; `%%NAME%%` marks the place of a part."""

HEAD = """\
<!doctype html>
<html lang="en" data-theme="light">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src
  'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:">
<link rel="icon" href="data:,">
<title>%%TITLE%%</title>
<script>
if (matchMedia("(prefers-color-scheme: dark)").matches) {
  document.documentElement.dataset.theme = "dark";
}
</script>
<style>%%STYLE%%</style>
</head>
<body>
"""
"""What every page begins with, up to its body: style, theme, nothing from elsewhere."""

PAGE = (
    HEAD
    + """\
<a class="skip" href="#verdicts">To the verdicts</a>
<header class="top">
  <div class="bar">
    <p class="product">scaleinv_ray <span>report</span></p>
    <button type="button" id="theme" class="quiet">Theme: auto</button>
  </div>
  <h1>%%TITLE%%</h1>
  <div class="summary" id="summary">%%SUMMARY%%</div>
  %%NOTES%%
  <details class="phone" open><summary>The run</summary><dl class="facts">%%FACTS%%</dl></details>
</header>
<nav id="contents" aria-label="Sections"></nav>
<noscript><p class="note">The table and the figures of this page are drawn by the script inside
  it; nothing is loaded from elsewhere.</p></noscript>
<main>
%%PICTURE%%
<section id="verdicts" aria-labelledby="verdicts-title">
  <div class="heading">
    <h2 id="verdicts-title">Verdicts</h2>
    <div class="tools">
      <button type="button" id="csv" class="quiet">CSV of the rows shown</button>
      <button type="button" id="csv-all" class="quiet">CSV of all</button>
    </div>
  </div>
  <details class="help phone" open>
    <summary>How to read this table</summary>
    <dl>
      <dt>Conservation error</dt><dd>|I<sub>smallest</sub> − I<sub>largest</sub>| /
        |I<sub>smallest</sub>|, or an amount beside the declared unit. A headline; it decides
        nothing.</dd>
      <dt>Certified change</dt><dd>The largest change between any two sizes that the seeds do not
        exclude (95 %). Below the margin the quantity is conserved. Relative; where a quantity may
        vanish or change sign, an amount beside the unit declared for it.</dd>
      <dt>Exponent / slope</dt><dd>Slope of ln|I| over ln N; where a unit is declared, of the
        quantity itself. Beside it the 95 % interval.</dd>
      <dt>Conserved</dt><dd>Every pair of sizes is equivalent within the margin stated in
        advance. Drifting: besides, a slope is significant.</dd>
      <dt>Scales</dt><dd>Differs between sizes and follows a law in the number of parameters,
        which also predicts the largest size held out.</dd>
      <dt>Not conserved</dt><dd>Differs between sizes without a law that fits.</dd>
      <dt>Undetermined</dt><dd>The seeds do not decide; “needs” says how many would. With one
        seed a size nothing better is possible.</dd>
      <dt>Refused, not asked</dt><dd>No model has a value: it could not honestly be had, or the
        config does not ask for it. No number of seeds changes either.</dd>
      <dt>Trivial</dt><dd>Untrained networks of the same size give the same value. Architectural:
        before training too, at another value or by another law. Learned: only in trained
        networks.</dd>
      <dt>Laws beside nulls</dt><dd>A law is trivial where untrained networks follow the same,
        architectural where they follow another, learned where they are flat.</dd>
      <dt>Fragile</dt><dd>With one of the models left out the verdict is another.</dd>
      <dt>Held-out and naive error</dt><dd>Of the largest size predicted by the law from the
        others, and by the better of two guesses without a law.</dd>
      <dt>Estimator's share</dt><dd>Variance within a model over that between seeds, without what
        models share that read the same sequences; near 100 % measuring more of each model helps
        more than seeds.</dd>
      <dt>I², ρ</dt><dd>Share of the variance that is between sizes; range over the series over the
        distance from untrained networks.</dd>
      <dt>q</dt><dd>Benjamini-Hochberg within the invariant family; it filters and never changes
        a verdict.</dd>
      <dt>Keys</dt><dd><kbd>/</kbd> search; <kbd>Tab</kbd> into the rows, <kbd>↑</kbd>
        <kbd>↓</kbd> <kbd>Home</kbd> <kbd>End</kbd> from row to row, <kbd>Enter</kbd> to its
        figures. A click on a point of a figure, or “show” under it, opens the measurements that
        it is the mean of.</dd>
    </dl>
  </details>
  <details class="phone" open><summary>Search and filter</summary>
  <form class="controls" id="filters">
    <label class="grow">Search<input type="search" id="search" placeholder="site, reason …"
      autocomplete="off"></label>
    <label>Family<select id="filter-family"></select></label>
    <label>Verdict<select id="filter-verdict"></select></label>
    <label>Null class<select id="filter-null"></select></label>
    <label>Comparison<select id="filter-comparison"></select></label>
    <fieldset class="segments" id="filter-depth"><legend>Depth</legend></fieldset>
    <label class="check"><input type="checkbox" id="filter-roles"> each weight role</label>
    <label class="check" title="Null models and rotated bases, to be read beside a
      quantity"><input type="checkbox" id="filter-controls"> controls</label>
    <label class="check" title="Benjamini-Hochberg q below 0.05 within the invariant
      family"><input type="checkbox" id="filter-q"> q &lt; 0.05 only</label>
  </form>
  </details>
  <p class="status" id="count" role="status"></p>
  <div class="scroll" tabindex="0" role="region" aria-label="Verdict table">
    <table class="verdicts" id="verdict-table"><caption class="hidden">Verdicts; the headings
      sort</caption><thead><tr></tr></thead><tbody></tbody></table>
  </div>
  <p id="more"></p>
</section>
<script>
{ // before the first paint: what is long stands closed where the window is narrow
  const narrow = matchMedia("(max-width: 560px)");
  const fold = () => document.querySelectorAll("details.phone").forEach((part) => {
    part.open = !narrow.matches;
  });
  fold();
  narrow.addEventListener("change", fold);
}
</script>
<div id="families"></div>
<section id="pairs" class="later" aria-labelledby="pairs-title">
  <h2 id="pairs-title">Across models</h2>
  <p class="sub">Two models on the same tokens: how much of the one is in the other.</p>
  <div id="pairs-body"><p class="waiting note">Opens when it comes into view.</p></div>
</section>
<section id="classes" class="later" aria-labelledby="classes-title">
  <h2 id="classes-title">Universality classes</h2>
  <p class="sub">Systems whose critical exponents agree within the margin and
    whose scaling functions collapse.</p>
  <div id="classes-body"><p class="waiting note">Opens when it comes into view.</p></div>
</section>
<section id="collapses" class="later" aria-labelledby="collapses-title">
  <h2 id="collapses-title">Collapse</h2>
  <p class="sub">Whether the curves of different sizes fall onto one.</p>
  <div id="collapses-body"><p class="waiting note">Opens when it comes into view.</p></div>
</section>
<section id="transitions" class="later" aria-labelledby="transitions-title">
  <h2 id="transitions-title">Transitions</h2>
  <p class="sub">Breaks of slope and jumps of level over the training of single
    runs.</p>
  <div id="transitions-body"><p class="waiting note">Opens when it comes into view.</p></div>
</section>
<section id="kinds" class="later" aria-labelledby="kinds-title">
  <h2 id="kinds-title">Kinds of progress</h2>
  <p class="sub">In which directions runs move between two checkpoints: what moves
    together, in which runs, and whether that is more than an interval of the calendar.</p>
  <div id="kinds-body"><p class="waiting note">Opens when it comes into view.</p></div>
</section>
<section id="capabilities" class="later" aria-labelledby="capabilities-title">
  <h2 id="capabilities-title">Capabilities</h2>
  <p class="sub">What models learn to do over training, and whether a
    quantity announces it.</p>
  <div id="capabilities-body"><p class="waiting note">Opens when it comes into view.</p></div>
</section>
%%SPECTRA%%%%OTHERS%%<section id="model" class="later" aria-labelledby="model-title">
  <h2 id="model-title">One model against the series</h2>
  <p class="sub">Every quantity of one model, beside what all other
    models of its series predict for its size.</p>
  <div id="model-body"><p class="waiting note">Opens when it comes into view.</p></div>
</section>
<section id="without-value" class="later" aria-labelledby="without-title">
  <h2 id="without-title">Without a value</h2>
  %%REASONS%%
</section>
</main>
<footer><p id="foot"></p></footer>
<dialog id="details" aria-labelledby="details-title">
  <div class="heading">
    <h2 id="details-title"></h2>
    <form method="dialog"><button class="quiet">Close</button></form>
  </div>
  <div id="details-table"></div>
  <div id="details-row"></div>
</dialog>
<template id="family-template">
<section class="family">
  <h2></h2>
  <p class="waiting note">Opens when it comes into view.</p>
  <div class="controls"></div>
  <div class="cards"></div>
  <div class="figures"></div>
</section>
</template>
<script type="text/plain" id="plotly">%%PLOTLY%%</script>
<script type="text/plain" id="points">%%POINTS%%</script>
<script type="text/plain" id="curves">%%CURVES%%</script>
<script type="text/plain" id="models">%%MODELS%%</script>
%%TABLES%%<script type="text/plain" id="spectroscopy-data">%%SPECTROSCOPY%%</script>
<script type="text/plain" id="rows">%%ROWS%%</script>
<script type="application/json" id="data">%%DATA%%</script>
<script>%%SCRIPT%%</script>
</body>
</html>
"""
)
SPECTRA = """\
<section id="spectroscopy" class="later" aria-labelledby="spectroscopy-title">
  <h2 id="spectroscopy-title">Neural spectroscopy</h2>
  <p class="sub">Densities of states and learning coefficients over training, and what
    changed in behaviour at the same time.</p>
  <div id="spectroscopy-body"><p class="waiting note">Opens when it comes into view.</p></div>
</section>
"""
"""A section that a run has where curvature, bands or chains were asked for."""
