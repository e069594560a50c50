"""How the page looks: by the reader's own wish light or dark, and whole on a phone."""

from __future__ import annotations

STYLE = """
:root { --ink: #1f2328; --paper: #ffffff; --dim: #59636e; --line: #d1d9e0; --lift: #f6f8fa;
  --good: #005f43; --good-back: #d6f1e6; --short: #7a4b00; --short-back: #fdeccb;
  --bad: #a3220a; --link: #005a96; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --paper: #0d1117; --dim: #9198a1;
  --line: #3d444d; --lift: #151b23; --good: #7fe0bb; --good-back: #0a3a2a; --short: #f5c76b;
  --short-back: #46320a; --bad: #ff9d85; --link: #79c0ff; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 80rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.6rem; margin: .5rem 0; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; border-top: 1px solid var(--line);
  padding-top: 1rem; }
a { color: var(--link); }
code { font-size: .9em; overflow-wrap: anywhere; }
.lead { margin: .2rem 0; color: var(--dim); }
.scroll { overflow-x: auto; margin: .8rem 0; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .5rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th { color: var(--dim); font-weight: 600; white-space: normal; vertical-align: bottom; }
.left { text-align: left; }
.scroll td.left:first-child { position: sticky; left: 0; background: var(--paper);
  white-space: normal; min-width: 14rem; }
@media (max-width: 50rem) { .scroll td.left:first-child { min-width: 9rem; } }
.wide { white-space: normal; overflow-wrap: anywhere; }
tr.leads td { font-weight: 700; }
tr.ceiling td { color: var(--dim); font-style: italic; }
ul { padding-left: 1.1rem; margin: .5rem 0; }
.goals { list-style: none; padding: 0; }
.mark { display: inline-block; min-width: 6.2rem; text-align: center; border-radius: .3rem;
  padding: 0 .4rem; font-size: .82rem; border: 1px solid var(--line); color: var(--dim); }
.mark.good { color: var(--good); background: var(--good-back); }
.mark.short { color: var(--short); background: var(--short-back); }
.notes, .limits { font-size: .86rem; color: var(--dim); }
.limits { color: var(--ink); }
.wrong { color: var(--bad); font-weight: 700; }
.failed { color: var(--short); }
figure { margin: 1rem 0; background: var(--lift); border: 1px solid var(--line);
  border-radius: .4rem; padding: .6rem; overflow-x: auto; }
figure svg { display: block; width: 100%; height: auto; min-width: 30rem;
  max-width: 46rem; margin: 0 auto; }
figcaption { font-size: .82rem; color: var(--dim); text-align: center; }
"""
