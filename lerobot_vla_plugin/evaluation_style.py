"""Style sheet of the report: light and dark, wide and narrow, on paper. The filter needs no script."""

from .evaluation_facts import Outcome

_PAGE = """
:root { color-scheme: light dark; --text: #1b1f24; --page: #fff; --panel: #f5f6f8; --line: #c9ced6; --quiet: #59616d;
  --link: #0b57b0; --cube-red: #c4161c; --cube-blue: #1a56d6; }
@media (prefers-color-scheme: dark) { :root { --text: #e7eaee; --page: #14171b; --panel: #1e2227; --line: #424a55;
  --quiet: #a3acb8; --link: #8ab8ff; --cube-red: #ff7a75; --cube-blue: #7ea9ff; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; padding: 1rem clamp(0.75rem, 2.5vw, 2rem) 3rem; max-width: 90rem; color: var(--text);
  background: var(--page); font: 1rem/1.45 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; margin: 2.5rem 0 0.5rem; }
h3 { font-size: 1rem; margin: 0; } a { color: var(--link); } p { margin: 0.25rem 0; }
.quiet, figcaption, .time { color: var(--quiet); }
.note { border-left: 4px solid var(--line); padding: 0.25rem 0.75rem; background: var(--panel); max-width: 60rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: 0.35rem 0.9rem 0.35rem 0; border-bottom: 1px solid var(--line);
  min-width: 7.5rem; }
tbody th { font-weight: 400; color: var(--quiet); position: sticky; left: 0; background: var(--page); }
svg { fill: none; stroke: currentColor; stroke-linecap: round; }
svg a { color: var(--text); } svg text { fill: var(--quiet); stroke: none; font-size: 13px; text-anchor: middle; }
.map text { paint-order: stroke; stroke: var(--panel); stroke-width: 4; } .map .on-base { stroke: none; }
.cube-red, svg a.cube-red { color: var(--cube-red); } .cube-blue, svg a.cube-blue { color: var(--cube-blue); }
.key { width: 1em; height: 1em; vertical-align: -0.1em; overflow: visible; }
.bar { display: block; width: 11rem; height: 1rem; stroke: none; } .bar circle { fill: currentColor; }
.bar .scale { stroke: var(--line); } .bar .interval { stroke: currentColor; stroke-width: 4; opacity: 0.55; }
.mark { stroke-width: 3.5; } .full { fill: currentColor; stroke: var(--page); stroke-width: 1; }
.open { fill: var(--page); } .dashed { stroke-width: 2; stroke-dasharray: 3 3; }
.target { stroke: none; fill: transparent; }
.maps { display: flex; flex-wrap: wrap; gap: 1rem; margin-bottom: 1rem; }
.maps figure { margin: 0; flex: 0 1 22rem; min-width: min(100%, 17rem); }
.map { display: block; width: 100%; background: var(--panel); border: 1px solid var(--line); border-radius: 0.5rem; }
.map a:focus-visible .mark, .map a:hover .mark { stroke: var(--text); }
.reach { stroke: var(--quiet); stroke-dasharray: 6 5; opacity: 0.6; } .base { fill: var(--line); stroke: none; }
.axis { fill: var(--quiet); stroke: none; }
.bin, .way { pointer-events: none; opacity: 0.55; stroke-width: 1.5; } .way { visibility: hidden; }
.map a:hover :is(.bin, .way), .map a:focus-visible :is(.bin, .way) { visibility: visible; opacity: 1; }
ul.legend { list-style: none; padding: 0; margin: 0.5rem 0; display: flex; flex-wrap: wrap; gap: 0.25rem 1.25rem; }
.filter { position: sticky; top: 0; z-index: 1; margin: 1rem 0; padding: 0.4rem 0.75rem; background: var(--panel);
  border: 1px solid var(--line); border-radius: 0.5rem; display: flex; flex-wrap: wrap; gap: 0.25rem 1.25rem; }
.filter legend { float: left; margin-right: 0.5rem; padding: 0; color: var(--quiet); } label { cursor: pointer; }
.episode { margin: 0.75rem 0; padding: 0.6rem 0.75rem; border: 1px solid var(--line); border-radius: 0.5rem;
  scroll-margin-top: 5rem; }
.episode:target { outline: 3px solid var(--link); }
.strip { margin: 0.4rem 0 0; } .strip ol { display: flex; gap: 3px; margin: 0; padding: 0 0 2px; list-style: none;
  overflow-x: auto; }
.strip li { flex: 1 0 5.5rem; max-width: 8rem; }
.strip img { display: block; width: 100%; min-height: 2rem; background: var(--line); }
.time { display: block; font-size: 0.75rem; font-variant-numeric: tabular-nums; }
body:has(#large:checked) .strip li { flex: none; max-width: none; width: min(20rem, 80vw); }
@media (max-width: 40rem) { .filter { position: static; } }
@media print { :root { --text: #000; --page: #fff; --panel: #fff; --line: #bbb; --quiet: #444; --link: #000;
    --cube-red: #c4161c; --cube-blue: #1a56d6; }
  body { max-width: none; padding: 0; font-size: 10pt; } .filter { display: none; } .strip ol { flex-wrap: wrap; }
  body .strip li, body:has(#large:checked) .strip li { flex: none; width: 1.38cm; }
  .episode, .maps figure, tr { break-inside: avoid; }
  h2 { break-after: avoid; } .maps figure { flex-basis: 8cm; }
  .wide { overflow: visible; } tbody th { position: static; } }
"""


def css_class(outcome: Outcome) -> str:
    """CSS class of the episodes with an outcome.

    Args:
        outcome: The outcome.
    """
    return outcome.replace(" ", "-")


def style_sheet() -> str:
    """The style sheet."""
    hidden = [f"body:has(#show-{css_class(kind)}:not(:checked)) .{css_class(kind)}" for kind in Outcome]
    return f"{_PAGE}@media screen {{ {', '.join(hidden)} {{ display: none; }} }}\n"
