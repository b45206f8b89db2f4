"""The page's style sheet. A Python string, so that it is installed wherever the code is.

Two colours carry the meaning: `--see` for what came from looking, the hatched `--guess` for what can be had without. Every text colour has a
contrast of at least 4.5 : 1 on its surface in both schemes; right and wrong also differ by a mark, never by colour alone.
"""
from vlmjax.report.html import Html

CSS = Html("""
:root {
  --page: #eef1f4; --panel: #ffffff; --ink: #17212b; --muted: #566472; --line: #dbe1e7; --wash: #f4f6f8;
  --see: #0a62c4; --guess: #8d9aa7; --guess-back: #d9dfe5; --good: #0e6f47; --bad: #b3261e; --warn: #8a5300;
  --good-back: #e3f4eb; --bad-back: #fbe7e5; --warn-back: #fbf0dc;
  --fall: #d1480b; --rise: #0a62c4; --c0: #0a62c4; --c1: #b9480b; --c2: #0b7a68; --c3: #7b3fc0; --c4: #b8305f; --c5: #6b6a0c; --c6: #566472;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #0e1318; --panel: #171e25; --ink: #e4eaf0; --muted: #9caab7; --line: #2b3640; --wash: #1d252d;
    --see: #62abff; --guess: #75838f; --guess-back: #333e49; --good: #62cf9b; --bad: #ff9087; --warn: #efb35b;
    --good-back: #163126; --bad-back: #3b1f1d; --warn-back: #372a14;
    --c0: #62abff; --c1: #f79a5c; --c2: #4fcdb6; --c3: #c19bff; --c4: #ff8fb2; --c5: #d0ce5b; --c6: #9caab7;
  }
}
* { box-sizing: border-box; }
html { scroll-behavior: smooth; -webkit-text-size-adjust: 100%; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
body { margin: 0; background: var(--page); color: var(--ink); line-height: 1.5;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", "Liberation Sans", Arial, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 40px 24px 72px; }
h1, h2, h3, p { margin: 0; overflow-wrap: break-word; }
h1 { font-size: 2rem; line-height: 1.15; letter-spacing: -0.02em; }
h2 { font-size: 1.3rem; letter-spacing: -0.01em; margin: 56px 0 14px; scroll-margin-top: 16px; }
h3 { font-size: 1rem; margin-bottom: 10px; }
code { font: 0.86em/1.5 ui-monospace, "SF Mono", Menlo, Consolas, "Liberation Mono", monospace; overflow-wrap: anywhere; }
small { font-size: 0.78em; font-weight: 400; color: var(--muted); }
a { color: var(--see); }
.muted { color: var(--muted); }
.good { color: var(--good); } .bad { color: var(--bad); } .warn { color: var(--warn); }
.eyebrow { color: var(--muted); font-size: 0.9rem; margin-bottom: 2px; }
.panel { background: var(--panel); border: 1px solid var(--line); border-radius: 10px; padding: 22px 24px; }
.panel + .panel { margin-top: 16px; }
.note { color: var(--muted); max-width: 75ch; margin: 10px 0; font-size: 0.92rem; }
.note.warn { color: var(--warn); }
section > .note { margin-top: 14px; }

.row-shown { margin-top: 12px; font: 0.86rem/1.9 ui-monospace, "SF Mono", Menlo, Consolas, "Liberation Mono", monospace; overflow-wrap: anywhere; white-space: pre-wrap; }
.supervised { background: var(--good-back); color: var(--good); border-radius: 4px; padding: 1px 3px; font-weight: 650; }
.image-tokens { border: 1px solid var(--line); border-radius: 4px; padding: 0 6px; color: var(--see); margin-right: 4px; }

.chips { display: flex; flex-wrap: wrap; gap: 8px; margin: 14px 0 22px; }
.chip { display: inline-block; padding: 2px 10px; border-radius: 99px; font-size: 0.82rem; background: var(--wash); color: var(--muted);
  border: 1px solid var(--line); white-space: nowrap; }
.chip.good { background: var(--good-back); color: var(--good); border-color: transparent; }
.chip.bad { background: var(--bad-back); color: var(--bad); border-color: transparent; }
.chip.warn { background: var(--warn-back); color: var(--warn); border-color: transparent; }

.headline { display: grid; grid-template-columns: minmax(240px, 4fr) 6fr; gap: 24px 48px; align-items: center; padding: 30px 32px; }
.score { font-size: clamp(3.6rem, 9vw, 5.4rem); line-height: 1; font-weight: 700; letter-spacing: -0.045em; font-variant-numeric: tabular-nums; }
.score small { font-size: 0.42em; letter-spacing: 0; }
.score-of { margin: 8px 0 14px; font-weight: 600; }
.verdict { color: var(--muted); max-width: 44ch; }
.verdict b { color: var(--ink); } .verdict b.seen { color: var(--see); }

.bars { display: grid; gap: 9px; }
.bar-row { display: grid; grid-template-columns: 7.4em 1fr 4.4em; gap: 12px; align-items: center; font-size: 0.92rem; color: var(--muted); }
.bar-row.real { color: var(--ink); font-weight: 650; }
.bar-name { overflow-wrap: anywhere; }
.bar-value { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.bar { position: relative; height: 20px; background: var(--wash); border-radius: 3px; }
.bar-row.real .bar { height: 32px; }
.bar i { position: absolute; top: 0; bottom: 0; left: 0; }
.bar .guess, .key.guess::before { background: repeating-linear-gradient(-45deg, var(--guess) 0 1.5px, var(--guess-back) 1.5px 6px); }
.bar .guess { border-radius: 3px 0 0 3px; }
.bar .see { background: var(--see); border-radius: 0 3px 3px 0; }
.bar .time { background: var(--c0); border-radius: 3px; }
.times .bar { height: 14px; } .times .bar-row { grid-template-columns: 8em 1fr 6.4em; }

.forest-row { display: grid; grid-template-columns: minmax(7.4em, 2fr) 5fr 13em; gap: 12px; align-items: center; font-size: 0.92rem; padding: 3px 0; }
.forest, .forest-axis { position: relative; height: 26px; }
.forest { background: var(--wash); border-radius: 3px; }
.forest i { position: absolute; top: 50%; transform: translate(-50%, -50%); }
.forest .interval { height: 4px; transform: translate(0, -50%); border-radius: 2px; background: var(--guess); }
.forest .mean { width: 13px; height: 13px; border-radius: 50%; background: var(--muted); border: 2px solid var(--panel); }
.forest .seed { width: 2px; height: 16px; background: var(--ink); opacity: 0.55; }
.forest.good .interval, .forest.good .mean { background: var(--good); } .forest.bad .interval, .forest.bad .mean { background: var(--bad); }
.forest-axis span { position: absolute; transform: translateX(-50%); font-size: 0.78rem; color: var(--muted); font-variant-numeric: tabular-nums; }
.delta { display: inline-block; min-width: 10em; margin-left: 8px; } .delta.good { color: var(--good); } .delta.bad { color: var(--bad); }
@media (max-width: 640px) { .forest-row { grid-template-columns: 1fr; gap: 2px; padding: 8px 0; } .forest-row .bar-value { text-align: left; } }
.overrides { border-collapse: collapse; } .overrides th, .overrides td { text-align: left; vertical-align: top; padding: 6px 28px 6px 0; font-weight: 400; border-bottom: 1px solid var(--line); }
.confusion { border-collapse: collapse; font-variant-numeric: tabular-nums; } .confusion th { font-weight: 400; text-align: left; padding: 4px 14px 4px 0; } .confusion th.n { text-align: center; padding: 4px 8px; }
.confusion .cell { min-width: 3.2em; padding: 5px 8px; text-align: center; border: 1px solid var(--line); background: color-mix(in srgb, var(--fall) calc(75% * var(--share)), var(--panel)); }
.confusion .cell.hit { background: color-mix(in srgb, var(--see) calc(55% * var(--share)), var(--panel)); font-weight: 650; }

.legend { display: flex; flex-wrap: wrap; gap: 2px 16px; font-size: 0.82rem; color: var(--muted); margin-top: 12px; }
.key { display: inline-flex; align-items: center; gap: 7px; }
.key::before { content: ""; width: 16px; height: 3px; border-radius: 2px; background: var(--key, var(--see)); }
.key.guess::before, .key.see::before { height: 12px; width: 18px; }
.key.faint::before { opacity: 0.35; }

nav { display: flex; gap: 4px 20px; flex-wrap: wrap; margin: 18px 2px 0; font-size: 0.92rem; }
nav a { text-decoration: none; padding: 4px 0; } nav a:hover { text-decoration: underline; }

.wide { overflow-x: auto; margin: 0 -4px; padding: 0 4px; }
table { border-collapse: collapse; width: 100%; font-size: 0.92rem; font-variant-numeric: tabular-nums; }
th, td { padding: 8px 10px; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { padding-left: 0; } th:last-child, td:last-child { padding-right: 0; }
thead th { font-size: 0.82rem; color: var(--muted); font-weight: 600; vertical-align: bottom; }
tbody th { font-weight: 500; } tbody tr:last-child > * { border-bottom: 0; }
th small, .scores td small { display: block; }
.n { text-align: right; white-space: nowrap; }
tfoot th, tfoot td { border: 0; border-top: 1px solid var(--line); color: var(--muted); font-weight: 400; }
.scores td { position: relative; padding-bottom: 13px; min-width: 5.2em; }
.scores td.real { font-weight: 650; }
.scores td { --bar: var(--guess); width: 17%; } .scores td.real { --bar: var(--see); }
.scores td i { position: absolute; left: 24px; right: 10px; bottom: 6px; height: 4px; border-radius: 2px;
  background: linear-gradient(to right, var(--bar) var(--part), var(--wash) var(--part)); }
.scores td:last-child i { right: 0; }
.scores .whole > * { font-weight: 650; }
.scores thead th.real { color: var(--see); }

details { margin-top: 16px; } summary { cursor: pointer; color: var(--see); font-size: 0.92rem; }
details > :not(summary) { margin-top: 12px; }
.facts { display: flex; flex-wrap: wrap; gap: 10px 28px; margin: 0; font-size: 0.92rem; font-variant-numeric: tabular-nums; }
.facts dt { color: var(--muted); font-size: 0.82rem; } .facts dd { margin: 0; overflow-wrap: anywhere; }
.facts > div { min-width: 0; max-width: 100%; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(240px, 1fr)); gap: 16px; align-items: start; }
.tiles .panel + .panel { margin-top: 0; }
.tile h3 { margin-bottom: 2px; }
.tile-value { font-size: 2.1rem; font-weight: 680; letter-spacing: -0.03em; line-height: 1.25; } .tile-value small { letter-spacing: 0; margin-left: 8px; font-size: 0.42em; }

.two { display: grid; grid-template-columns: 6fr 5fr; gap: 20px 40px; } .two > * { min-width: 0; }
.two.even { grid-template-columns: 1fr 1fr; }
.stage > header { display: flex; flex-wrap: wrap; align-items: center; gap: 6px 12px; margin-bottom: 14px; }
.stage h3 { margin: 0; font-size: 1.12rem; }
.stage .number { width: 1.75em; height: 1.75em; border-radius: 50%; background: var(--ink); color: var(--panel); display: grid; place-items: center;
  font-size: 0.86rem; font-weight: 650; }
.stage .time { margin-left: auto; color: var(--muted); font-variant-numeric: tabular-nums; } .stage .time.warn { color: var(--warn); }
.stage > .facts { padding: 12px 0 18px; border-top: 1px solid var(--line); }
.matrix td, .matrix thead th:not(:first-child) { text-align: center; } .matrix td, .matrix th { vertical-align: middle; }
.learns, .frozen { display: inline-block; padding: 1px 10px; border-radius: 4px; font-size: 0.84rem; white-space: nowrap; }
.learns { color: var(--panel); background: var(--key); font-weight: 600; }
.frozen { color: var(--muted); background: var(--wash); border: 1px dashed var(--guess); padding: 0 9px; }
.statement { margin-top: 14px; padding: 10px 14px; border-radius: 8px; font-size: 0.92rem; background: var(--wash); color: var(--ink); }
.statement.good { background: var(--good-back); } .statement.bad { background: var(--bad-back); } .statement.warn { background: var(--warn-back); }
.statement.good b { color: var(--good); } .statement.bad b { color: var(--bad); } .statement.warn b { color: var(--warn); }
.hashes { margin-top: 4px; } .hashes code { margin-left: 6px; white-space: nowrap; } .hashes > span { display: inline-block; min-width: 3.4em; }

.c0 { --key: var(--c0); } .c1 { --key: var(--c1); } .c2 { --key: var(--c2); } .c3 { --key: var(--c3); }
.c4 { --key: var(--c4); } .c5 { --key: var(--c5); } .c6 { --key: var(--c6); } .accent { --key: var(--see); }
.chart { margin: 0; }
.chart figcaption { display: flex; flex-wrap: wrap; align-items: baseline; gap: 0 10px; font-size: 0.92rem; margin-bottom: 6px; }
.scale, .x-name { color: var(--muted); font-size: 0.78rem; }
.remark { margin-left: auto; color: var(--muted); font-variant-numeric: tabular-nums; }
.plot { display: grid; grid-template-columns: 3.1em 1fr; grid-template-rows: 210px 1.5em; font-size: 0.75rem; color: var(--muted); font-variant-numeric: tabular-nums;
  padding-right: 14px; }
.plot.small { grid-template-rows: 104px 1.5em; }
.y-axis, .x-axis { position: relative; }
.y-axis span { position: absolute; right: 8px; transform: translateY(-50%); line-height: 1; white-space: nowrap; }
.x-axis { grid-column: 2; } .x-axis span { position: absolute; top: 5px; transform: translateX(-50%); line-height: 1; white-space: nowrap; }
.drawing { border-left: 1px solid var(--line); border-bottom: 1px solid var(--guess); }
.drawing svg { display: block; width: 100%; height: 100%; overflow: visible; }
.drawing line, .drawing polyline { fill: none; vector-effect: non-scaling-stroke; }
.grid { stroke: var(--line); stroke-width: 1px; }
.drawing polyline { stroke: var(--key); stroke-width: 2px; stroke-linejoin: round; } .drawing polyline.faint { stroke-width: 1px; opacity: 0.35; }
.chart .legend { margin: 2px 14px 0 3.1em; font-size: 0.78rem; } .chart .x-name { margin-left: auto; }
.small-charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(220px, 1fr)); gap: 14px 20px; margin-top: 18px; }

.gallery { position: relative; margin-top: 14px; } #gallery details > summary { font-weight: 650; font-size: 1rem; }
.pick { position: absolute; opacity: 0; width: 1px; height: 1px; }
.pick + label { display: inline-block; padding: 4px 13px; margin: 0 6px 8px 0; border: 1px solid var(--line); border-radius: 99px; font-size: 0.86rem;
  cursor: pointer; color: var(--muted); background: var(--panel); }
.pick:checked + label { background: var(--ink); border-color: var(--ink); color: var(--panel); }
.pick:focus-visible + label { outline: 2px solid var(--see); outline-offset: 2px; }
.gap { display: inline-block; width: 14px; }
.cards { list-style: none; margin: 8px 0 0; padding: 0; display: grid; grid-template-columns: repeat(auto-fill, minmax(310px, 1fr)); gap: 14px; }
.answer { display: flex; gap: 14px; padding: 12px; border: 1px solid var(--line); border-radius: 8px; background: var(--panel); min-width: 0; }
.answer > div:last-child { min-width: 0; flex: 1; display: flex; flex-direction: column; }
.answer.wrong { box-shadow: inset 3px 0 0 var(--bad); } .answer.right { box-shadow: inset 3px 0 0 var(--good); }
.picture { width: 128px; height: 128px; flex: none; object-fit: contain; border-radius: 4px; background: var(--wash); }
.picture.pixels { image-rendering: pixelated; }
.picture.none { display: grid; place-items: center; color: var(--muted); font-size: 0.82rem; }
.pair { display: flex; gap: 8px; flex: none; }
.heat image { image-rendering: pixelated; filter: grayscale(1); opacity: 0.55; }
.heat .fall { fill: var(--fall); } .heat .rise { fill: var(--rise); } .heat rect { stroke: var(--line); stroke-width: 0.15; }
.heat text { font: 600 2.6px system-ui, sans-serif; text-anchor: middle; dominant-baseline: central; fill: #17212b; paint-order: stroke; stroke: #ffffff; stroke-width: 0.7; }
.answer.mapped { flex-direction: column; gap: 10px; } .answer.mapped dl > div { grid-template-columns: 7.2em 1fr; }
.pair > * { flex: 0 1 160px; min-width: 0; width: auto; height: auto; aspect-ratio: 1; }
#gallery h4 { margin: 26px 0 0; font-size: 0.95rem; }
.question { font-weight: 600; line-height: 1.3; margin-bottom: 6px; font-size: 0.95rem; }
.answer dl { margin: 0; font-size: 0.88rem; } .answer dl > div { display: grid; grid-template-columns: 4.9em 1fr; gap: 8px; }
.answer dt { color: var(--muted); } .answer dd { margin: 0; overflow-wrap: anywhere; } .answer dd.good, .answer dd.bad { font-weight: 650; }
.kind { color: var(--muted); font-size: 0.78rem; margin-top: auto; padding-top: 4px; }

@media (max-width: 860px) {
  .headline, .two, .two.even { grid-template-columns: minmax(0, 1fr); }
}
@media (max-width: 560px) {
  main { padding: 24px 12px 48px; }
  h1 { font-size: 1.6rem; } h2 { margin-top: 40px; }
  .panel { padding: 16px 14px; } .headline { padding: 20px 16px; }
  .bar-row { grid-template-columns: 6.6em 1fr 4em; gap: 8px; font-size: 0.86rem; } .times .bar-row { grid-template-columns: 6.6em 1fr 5.8em; }
  th, td { padding: 7px 5px; } table { font-size: 0.85rem; }
  .learns, .frozen { padding: 0 5px; font-size: 0.76rem; } .frozen { padding: 0 4px; } .matrix td, .matrix th { padding: 6px 3px; }
  .proof th, .proof td { padding: 7px 4px; } table.matrix, table.proof { font-size: 0.8rem; } .matrix thead th, .proof thead th { font-size: 0.76rem; }
  .stage > .facts { display: grid; grid-template-columns: repeat(3, auto); justify-content: space-between; gap: 8px 10px; }
  .chart .legend { gap: 2px 10px; }
  .scores td { min-width: 0; padding-bottom: 12px; } .scores td i { left: 8px; right: 5px; }
  .scores thead small { display: none; }
  .cards { grid-template-columns: minmax(0, 1fr); }
  .gap { display: block; width: 0; }
  .plot { grid-template-rows: 170px 1.5em; }
}
@media print { nav, .pick, .pick + label { display: none; } .panel, .answer { break-inside: avoid; } body { background: none; } }
""")
