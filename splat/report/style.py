"""The page's one style sheet."""

STYLE = """
:root { color-scheme: light dark;
  --bg:#fbfbfa; --card:#ffffff; --ink:#1c1e21; --soft:#666b73; --rule:#e4e4e0; --grid:#ecece8;
  --a:#2f6bd8; --b:#d9622b; --c:#2a9d74;
  --s0:#2f6bd8; --s1:#2a9d74; --s2:#e0a526; --s3:#d9622b; --s4:#8a5cd0; --s5:#c2407d; --s6:#5b8c9e; --s7:#a3a39c; }
@media (prefers-color-scheme: dark) { :root {
  --bg:#15171a; --card:#1d2024; --ink:#e7e8ea; --soft:#9aa0a8; --rule:#30343a; --grid:#2a2e33;
  --a:#7aa5ff; --b:#ff9a66; --c:#5fd0a5;
  --s0:#6f9cf5; --s1:#4dbd92; --s2:#e8bb52; --s3:#f08a57; --s4:#ab87e6; --s5:#e070a4; --s6:#84b3c4; --s7:#7d8087; } }
* { box-sizing: border-box; }
body { margin:0; background:var(--bg); color:var(--ink);
  font:15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
main { max-width:1160px; margin:0 auto; padding:32px 20px 64px; }
h1 { font-size:26px; margin:0; letter-spacing:-.01em; overflow-wrap:anywhere; }
h2 { font-size:17px; margin:40px 0 12px; }
.sub { color:var(--soft); margin:4px 0 24px; }
.state { display:inline-block; padding:1px 9px; border-radius:99px; border:1px solid var(--rule); font-size:13px;
  color:var(--soft); vertical-align:4px; margin-left:10px; font-weight:400; letter-spacing:0; }
.state.partial { color:var(--b); border-color:var(--b); }
.tiles { display:grid; grid-template-columns:repeat(auto-fit, minmax(132px, 1fr)); gap:12px; }
.tile, figure, .card { background:var(--card); border:1px solid var(--rule); border-radius:10px; }
.tile { padding:12px 14px; }
.tile b { display:block; font-size:24px; font-weight:600; letter-spacing:-.02em; font-variant-numeric:tabular-nums; }
.tile span { color:var(--soft); font-size:13px; }
.charts { display:grid; grid-template-columns:repeat(auto-fit, minmax(min(100%, 430px), 1fr)); gap:14px; }
figure { margin:0; padding:12px 14px 8px; }
figure.wide { padding:14px; }
figcaption { font-size:13px; font-weight:600; display:flex; flex-wrap:wrap; justify-content:space-between; 
  gap:4px 12px; }
svg { display:block; width:100%; height:auto; }
svg.share { height:30px; border-radius:6px; overflow:hidden; margin-bottom:8px; }
svg text { font-size:11px; fill:var(--soft); font-variant-numeric:tabular-nums; }
.grid { stroke:var(--grid); stroke-width:1; }
.line { fill:none; stroke-width:2; stroke-linejoin:round; }
.line.a{stroke:var(--a)} .line.b{stroke:var(--b)} .line.c{stroke:var(--c)}
.line.faint{stroke:var(--a);opacity:.28;stroke-width:1}
.dot.a{fill:var(--a)} .dot.b{fill:var(--b)} .dot.c{fill:var(--c)} .dot.faint{fill:var(--a)}
rect.s0{fill:var(--s0)} rect.s1{fill:var(--s1)} rect.s2{fill:var(--s2)} rect.s3{fill:var(--s3)}
rect.s4{fill:var(--s4)} rect.s5{fill:var(--s5)} rect.s6{fill:var(--s6)} rect.s7{fill:var(--s7)}
.keys { color:var(--soft); font-size:12px; font-weight:400; }
.key { margin-right:14px; white-space:nowrap; }
.key::before { content:""; display:inline-block; width:9px; height:9px; border-radius:2px; margin-right:5px;
  background:var(--soft); }
.key.a::before{background:var(--a)} .key.b::before{background:var(--b)} .key.c::before{background:var(--c)}
.key.faint::before{background:var(--a);opacity:.35}
.key.s0::before{background:var(--s0)} .key.s1::before{background:var(--s1)} .key.s2::before{background:var(--s2)}
.key.s3::before{background:var(--s3)} .key.s4::before{background:var(--s4)} .key.s5::before{background:var(--s5)}
.key.s6::before{background:var(--s6)} .key.s7::before{background:var(--s7)}
.views { display:grid; grid-template-columns:repeat(6, 1fr); gap:14px; }
.view { grid-column:span 6; padding:10px 12px 12px; } .view.upright { grid-column:span 3; }
@media (max-width: 760px) { .view.upright { grid-column:span 6; } }
.view header { display:flex; flex-wrap:wrap; gap:2px 14px; margin-bottom:8px; font-size:14px; }
.view header b { overflow-wrap:anywhere; } .view header span { color:var(--soft); font-variant-numeric:tabular-nums; }
.trio { display:grid; grid-template-columns:repeat(3, 1fr); gap:8px; }
.trio div { font-size:12px; color:var(--soft); }
.trio img { width:100%; display:block; border-radius:6px; background:#000; }
.scroll { max-height:420px; overflow:auto; }
table { border-collapse:collapse; width:100%; font-size:13px; font-variant-numeric:tabular-nums; }
th, td { text-align:left; padding:5px 14px 5px 12px; border-bottom:1px solid var(--rule); vertical-align:top;
  overflow-wrap:anywhere; }
tr:last-child td { border-bottom:0; } th { color:var(--soft); font-weight:500; } td.n, th.n { text-align:right; }
td.was { color:var(--soft); } tr.changed td:first-child { font-weight:600; }
details { margin-top:12px; } summary { cursor:pointer; color:var(--soft); font-size:14px; margin-bottom:8px; }
.note { color:var(--soft); font-size:13px; }
h3 { font-size:14px; margin:18px 0 8px; color:var(--soft); font-weight:600; }
.two { display:grid; grid-template-columns:repeat(auto-fit, minmax(min(100%, 430px), 1fr)); gap:14px;
  align-items:start; }
footer { color:var(--soft); font-size:12px; margin-top:40px; }
"""
