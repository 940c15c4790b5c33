"""The frame of the page of circuits; `%%NAME%%` marks the place of a part."""

from scaleinv_ray.report.skeleton import HEAD

PAGE = (
    HEAD
    + """\
<header class="top">
  <div class="bar">
    <p class="product">scaleinv_ray <span>circuits</span></p>
    <button type="button" id="theme" class="quiet">Theme: auto</button>
  </div>
  <h1>%%TITLE%%</h1>
  <div class="summary" id="summary">%%SUMMARY%%</div>
  <dl class="facts">%%FACTS%%</dl>
</header>
<nav id="contents" aria-label="Sections"></nav>
<noscript><p class="note">The figures of this page are drawn by the script inside it; nothing is
  loaded from elsewhere.</p></noscript>
<main id="sections"></main>
<footer><p>An effect is what replacing a component by what it gives on the corrupted sequence adds
  to the metric of the clean one. ± is one standard error over sequences.</p></footer>
<script type="application/json" id="data">%%DATA%%</script>
<script>%%SCRIPT%%</script>
</body>
</html>
"""
)
