/* Mark regions whose content is wider than they are, for the hint that they scroll. */
document.addEventListener("DOMContentLoaded", () => {
  const mark = (region) => region.classList.toggle("wide", region.scrollWidth > region.clientWidth + 1);
  const seen = new ResizeObserver((entries) => entries.forEach((entry) => mark(entry.target)));
  for (const region of document.querySelectorAll("[role=region][tabindex]")) seen.observe(region);
});
