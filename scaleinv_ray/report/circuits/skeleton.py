"""The frame of the page of circuits; `%%NAME%%` marks the place of a part."""

PAGE = """\
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
