"""The style of reports and of tables in notebooks."""

CSS = """
:root { color-scheme: light; --ink: #1c1c1c; --soft: #5b5b5b; --line: #d9d9d9; --back: #f6f6f4;
  --blue: #0062a3; --good: #00684c; --poor: #a83f00; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem 1rem 4rem; max-width: 64rem; color: var(--ink);
  background: #fff; font: 16px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: .8rem 0 .2rem; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; padding-bottom: .2rem;
  border-bottom: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.2rem 0 .4rem; }
p { margin: .4rem 0; }
a { color: var(--blue); }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1rem; margin: .8rem 0; font-size: .9rem; }
.sub { color: var(--soft); }
.status { display: inline-block; padding: 0 .5em; border: 1px solid; border-radius: .4em;
  font-weight: 600; }
.good { color: var(--good); } .poor { color: var(--poor); }
.wide { overflow-x: auto; max-width: 100%; }
table.blv { border-collapse: collapse; font-size: .9rem; margin: .4rem 0; }
table.blv th, table.blv td { text-align: left; vertical-align: top; padding: .25rem .9rem .25rem 0;
  border-bottom: 1px solid var(--line); font-weight: normal; }
table.blv thead th { color: var(--soft); font-size: .8rem; }
table.blv tbody th { white-space: nowrap; font-weight: 600; }
table.values td:last-child, table.numbers td { font-family: ui-monospace, monospace;
  font-size: .85rem; }
table.values td { white-space: pre-wrap; overflow-wrap: anywhere; }
pre { background: var(--back); padding: .7rem .9rem; overflow-x: auto; font-size: .85rem;
  line-height: 1.45; border-radius: .3rem; }
math { font-size: 1.05rem; }
.wide > math { width: fit-content; margin: .4rem 0; }
img { max-width: 100%; height: auto; }
figure { margin: .6rem 0; overflow-x: auto; } figcaption { color: var(--soft); font-size: .85rem; }
summary { cursor: pointer; color: var(--blue); }
.key { font-size: 1.1rem; }
@media (max-width: 40rem) {
  body { padding: .6rem .6rem 3rem; font-size: 15px; }
  h1 { font-size: 1.3rem; }
  table.facts thead { display: none; }
  table.facts tr { display: block; padding: .4rem 0; border-bottom: 1px solid var(--line); }
  table.facts th, table.facts td { display: inline-block; border: 0; padding: 0 .6rem 0 0; }
  table.facts td:last-child { display: block; color: var(--soft); }
  table.blv tbody th { white-space: normal; overflow-wrap: anywhere; }
  math { font-size: .85rem; }
  figure img { max-width: none; width: 31rem; }
}
@media print { nav { display: none; } details[open] summary { display: none; } }
"""
