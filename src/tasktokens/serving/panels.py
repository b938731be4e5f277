"""HTML of the page: pictures with their legends, the values of a pixel, messages. Nothing is loaded from elsewhere."""

from __future__ import annotations

import base64
import html
import io

import numpy as np
from PIL import Image

from tasktokens.inference.label_pictures import show
from tasktokens.serving.answers import legend_answer
from tasktokens.serving.page_filter import PAGE_IMAGE
from tasktokens.serving.recent import Gathered, Seen
from tasktokens.tasks.base import Array
from tasktokens.utils.legends import Legend
from tasktokens.utils.pictures import png

CSS = """
.tt-panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 300px), 1fr)); gap: 18px 14px; }
.tt-panels figure { margin: 0; min-width: 0; }
.tt-panels .tt-frame { position: relative; line-height: 0; cursor: crosshair; border-radius: 6px; overflow: hidden;
  background: #000; }
.tt-panels img { width: 100%; height: auto; margin: 0; image-rendering: auto; }
.tt-panels .tt-small img { image-rendering: pixelated; }
.tt-panels figcaption { font-weight: 600; margin: 0 0 4px; overflow-wrap: anywhere; }
.tt-panels figcaption span { font-weight: 400; opacity: .7; }
.tt-mark { position: absolute; width: 18px; height: 18px; margin: -9px 0 0 -9px; border: 2px solid #fff;
  border-radius: 50%; box-shadow: 0 0 0 1.5px #000, inset 0 0 0 1.5px #000; pointer-events: none; }
.tt-legend { display: flex; flex-wrap: wrap; gap: 2px 12px; margin-top: 6px; font-size: 13px; line-height: 1.5;
  align-items: center; }
.tt-legend i { display: inline-block; width: 11px; height: 11px; border-radius: 2px; margin-right: 5px;
  border: 1px solid rgb(128 128 128 / .6); vertical-align: -1px; }
.tt-legend b { flex: 1 1 80px; max-width: 180px; height: 11px; border-radius: 2px; }
.tt-pixel { width: 100%; border-collapse: collapse; font-size: 14px; line-height: 1.4; }
.tt-pixel caption { text-align: left; font-weight: 600; padding: 0 0 4px; caption-side: top; }
.tt-pixel th, .tt-pixel td { text-align: left; padding: 5px 10px 5px 0; vertical-align: top;
  border-top: 1px solid var(--border-color-primary); }
.tt-pixel th { font-weight: 400; opacity: .7; }
.tt-pixel td:last-child, .tt-pixel th:last-child { text-align: right; padding-right: 0; white-space: nowrap; }
.tt-pixel .tt-void td { opacity: .55; }
.tt-message { border-radius: 6px; padding: 10px 12px; margin: 0 0 8px; border: 1px solid var(--border-color-primary); }
.tt-error { border-color: #c2410c; border-left-width: 4px; }
.tt-drop { display: flex; flex-direction: column; align-items: center; justify-content: center; min-height: 120px;
  border: 2px dashed var(--border-color-primary); border-radius: 8px; cursor: pointer; text-align: center; }
.tt-drop:hover, .tt-drop.tt-over, .tt-drop:focus-within { border-color: var(--color-accent); }
.tt-drop input { position: absolute; opacity: 0; width: 1px; height: 1px; }
.tt-drop span { opacity: .75; }
.tt-busy { opacity: .5; cursor: progress; }
.tt-hint { opacity: .75; }
"""

DROP = """
<label class="tt-drop"><input type="file" accept="image/*,.tif,.tiff,.jp2,.ppm">
<strong>Drop an image here</strong><span>or click to choose one</span></label>
"""
"""Where an image is dropped, chosen or pasted."""

DROPPED = f"""
const drop = element.querySelector('.tt-drop'), input = element.querySelector('input');
const send = async (file) => {{
  if (!file || drop.classList.contains('tt-busy')) return;
  drop.classList.add('tt-busy');
  let answer;
  try {{
    const form = new FormData();
    form.append('image', file);
    answer = await (await fetch('{PAGE_IMAGE[1:]}', {{ method: 'POST', body: form }})).json();
  }} catch {{
    answer = {{ error: 'the server did not answer; it has ended, or the file is far too large' }};
  }}
  drop.classList.remove('tt-busy');
  input.value = '';
  trigger('upload', answer);
}};
input.addEventListener('change', () => send(input.files[0]));
document.addEventListener('paste', (event) => send(event.clipboardData.files[0]));
drop.addEventListener('dragover', (event) => {{ event.preventDefault(); drop.classList.add('tt-over'); }});
drop.addEventListener('dragleave', () => drop.classList.remove('tt-over'));
drop.addEventListener('drop', (event) => {{
  event.preventDefault();
  drop.classList.remove('tt-over');
  send(event.dataTransfer.files[0]);
}});
"""
"""Sends an image, and triggers ``upload`` with what the server says: a key, or an error."""

CLICKS = """
let at = null;
const mark = () => {
  const panels = element.querySelector('.tt-panels');
  element.querySelectorAll('.tt-mark').forEach((old) => old.remove());
  if (!at || !panels || panels.dataset.key !== at.key) return;
  for (const frame of element.querySelectorAll('.tt-frame')) {
    const dot = document.createElement('span');
    dot.className = 'tt-mark';
    dot.style.left = 100 * at.x + '%';
    dot.style.top = 100 * at.y + '%';
    frame.append(dot);
  }
};
element.addEventListener('click', (event) => {
  const frame = event.target.closest('.tt-frame');
  if (!frame) return;
  const box = frame.getBoundingClientRect();
  at = {
    key: element.querySelector('.tt-panels').dataset.key,
    x: Math.min(1, Math.max(0, (event.clientX - box.left) / box.width)),
    y: Math.min(1, Math.max(0, (event.clientY - box.top) / box.height)),
  };
  mark();
  trigger('click', { x: at.x, y: at.y });
});
watch('value', mark);
"""
"""Where a picture is clicked, as shares of its width and height; a mark shows the place in all pictures."""

_SMALL = 240
"""Width below which pictures are enlarged pixel by pixel."""


def panels(gathered: Gathered, key: str, threshold: float) -> str:
    """The image and every task in colours; pixels whose confidence does not exceed the threshold are void (black)."""
    height, width = gathered.size
    figures = [_figure("image", f"{width} × {height}", _jpeg(gathered.image_HW3), "")]
    figures += [_task(name, seen, threshold) for name, seen in gathered.tasks.items()]
    small = " tt-small" if gathered.image_HW3.shape[1] < _SMALL else ""
    notes = "".join(message(note) for note in gathered.notes)
    return f'{notes}<div class="tt-panels{small}" data-key="{safe(key)}">{"".join(figures)}</div>'


def pixel(gathered: Gathered, across: float, down: float, threshold: float) -> str:
    """A table of every task's value at a place; see `Gathered.at`."""
    x, y, picked = gathered.at(across, down)
    rows = []
    for name, text, confidence in picked:
        is_void = threshold > 0 and confidence <= threshold
        kind, more = (' class="tt-void"', " (void)") if is_void else ("", "")
        rows.append(f"<tr{kind}><td>{safe(name)}</td><td>{safe(text)}{more}</td><td>{confidence:.2f}</td></tr>")
    head = "<tr><th>task</th><th>value</th><th>confidence</th></tr>"
    return f'<table class="tt-pixel"><caption>pixel x {x}, y {y}</caption>{head}{"".join(rows)}</table>'


def message(text: str, error: bool = False) -> str:
    """A sentence."""
    kind, role = (" tt-error", "alert") if error else ("", "status")
    return f'<p class="tt-message{kind}" role="{role}">{safe(text)}</p>'


def hint(text: str) -> str:
    """What can be done here."""
    return f'<p class="tt-hint">{safe(text)}</p>'


def safe(text: str) -> str:
    """Text in HTML that gradio takes for a template: neither markup nor placeholders."""
    return html.escape(text).replace("{", "&#123;").replace("$", "&#36;").replace("@", "&#64;")


def _task(name: str, seen: Seen, threshold: float) -> str:
    valid = seen.confidence_HW > threshold if threshold > 0 else None
    shown = show(seen.task, seen.value_CHW, valid)
    share = 1.0 if valid is None else float(valid.mean())
    more = f"confidence {seen.confidence_HW.mean():.2f}" + ("" if valid is None else f", {share:.0%} above")
    data = png(Image.fromarray(np.ascontiguousarray(shown.colours)))
    return _figure(name, more, _address("png", data), _legend(shown.legend))


def _figure(name: str, more: str, address: str, legend: str) -> str:
    return (
        f'<figure data-task="{safe(name)}"><figcaption>{safe(name)} <span>{safe(more)}</span></figcaption>'
        f'<div class="tt-frame"><img src="{address}" alt="{safe(name)}" draggable="false"></div>{legend}</figure>'
    )


def _legend(legend: Legend) -> str:
    answer, parts = legend_answer(legend), []
    if answer.bar is not None:
        colours = ", ".join(answer.bar)
        low, high = map(safe, answer.ends)
        parts += [
            f"<span>{low}</span>",
            f'<b style="background: linear-gradient(90deg, {colours})"></b>',
            f"<span>{high}</span>",
        ]
    parts += [
        f'<span><i style="background: {swatch.colour}"></i>{safe(swatch.name)}</span>' for swatch in answer.swatches
    ]
    return f'<div class="tt-legend">{"".join(parts)}</div>' if parts else ""


def _jpeg(pixels_HW3: Array) -> str:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels_HW3)).save(buffer, "JPEG", quality=90)
    return _address("jpeg", buffer.getvalue())


def _address(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
