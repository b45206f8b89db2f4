"""A page to talk with the model: images by file, by dropping or pasting them, and answers as they come. It needs nothing from elsewhere."""
import html as escape

POLICY = "default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; img-src data:; connect-src 'self'"

STYLE = """
:root { color-scheme: light dark; --page: #eef1f4; --panel: #fff; --ink: #17212b; --muted: #566472; --line: #dbe1e7; --mine: #dcebfb; --see: #0a62c4; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --page: #0e1318; --panel: #171e25; --ink: #e4eaf0; --muted: #9caab7; --line: #2b3640; --mine: #17324d; --see: #62abff; --bad: #ff9087; } }
* { box-sizing: border-box; }
body { margin: 0; height: 100dvh; display: flex; flex-direction: column; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", Arial, sans-serif; }
header, footer, main { width: 100%; max-width: 860px; margin: 0 auto; padding: 0 20px; }
header { display: flex; flex-wrap: wrap; align-items: baseline; gap: 4px 12px; padding-top: 18px; }
h1 { font-size: 1.2rem; margin: 0; flex: 1 1 9em; overflow-wrap: anywhere; }
main { flex: 1; overflow-y: auto; padding-top: 12px; padding-bottom: 12px; }
.said { max-width: 85%; width: fit-content; padding: 10px 14px; margin: 8px 0; border-radius: 12px; background: var(--panel); border: 1px solid var(--line); white-space: pre-wrap; overflow-wrap: anywhere; }
.said.user { margin-left: auto; background: var(--mine); border-color: transparent; }
.said.error { color: var(--bad); border-color: var(--bad); }
.said img, #shown img { display: block; max-height: 220px; max-width: 100%; border-radius: 8px; margin-bottom: 6px; }
#shown { display: flex; gap: 8px; flex-wrap: wrap; } #shown img { max-height: 72px; }
form { display: flex; gap: 8px; align-items: flex-end; padding: 10px 0 6px; }
textarea { flex: 1; resize: none; min-height: 46px; max-height: 30vh; padding: 10px 12px; font: inherit; color: inherit; background: var(--panel); border: 1px solid var(--line); border-radius: 10px; }
button, .file { font: inherit; padding: 10px 14px; border-radius: 10px; border: 1px solid var(--line); background: var(--panel); color: inherit; cursor: pointer; white-space: nowrap; }
button.go { background: var(--see); border-color: transparent; color: var(--panel); } button:disabled { opacity: 0.5; cursor: default; }
.file input { position: absolute; opacity: 0; width: 1px; height: 1px; } .file:focus-within, textarea:focus-visible, button:focus-visible { outline: 2px solid var(--see); outline-offset: 1px; }
small { color: var(--muted); } footer { padding-bottom: 16px; } body.over main { outline: 3px dashed var(--see); outline-offset: -6px; }
"""

# Every text goes into the page as text, never as markup.
SCRIPT = """'use strict';
const $ = id => document.getElementById(id), talk = $('talk'), box = $('text'), form = $('ask'), go = $('go'), again = $('new'), shown = $('shown'), note = $('note');
let messages = [], images = [], asking = null;

function line(kind, text, pictures = []) {
  const out = document.createElement('div');
  out.className = 'said ' + kind;
  for (const url of pictures) out.append(Object.assign(new Image(), {src: url, alt: 'an image of the question'}));
  const said = document.createElement('span');
  said.textContent = text;
  out.append(said);
  talk.append(out);
  talk.scrollTop = talk.scrollHeight;
  return said;
}

function show(files) {
  if (!$('file')) return;
  for (const file of files) {
    if (!file.type.startsWith('image/')) continue;
    const reader = new FileReader();
    reader.onload = () => {
      images.push(reader.result);
      shown.append(Object.assign(new Image(), {src: reader.result, alt: 'an image to ask about'}));
    };
    reader.readAsDataURL(file);
  }
}

async function ask(question) {
  const content = [...images.map(url => ({type: 'image_url', image_url: {url}})), {type: 'text', text: question}];
  line('user', question, images);
  const sent = [...messages, {role: 'user', content}], out = line('assistant', '');
  images = [];
  shown.replaceChildren();
  asking = new AbortController();
  go.textContent = 'Stop';
  const began = performance.now();
  let answer = '', used = null, failed = null;
  try {
    const reply = await fetch('v1/chat/completions', {method: 'POST', signal: asking.signal, headers: {'Content-Type': 'application/json'},
      body: JSON.stringify({messages: sent, stream: true, stream_options: {include_usage: true}, temperature: Number($('heat').value)})});
    if (!reply.ok) throw new Error((await reply.json()).error.message);
    let rest = '';
    const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const {value, done} = await reader.read();
      if (done) break;
      const events = (rest + value).split('\\n\\n');
      rest = events.pop();
      for (const event of events) {
        const data = event.replace(/^data: /, '');
        if (data === '[DONE]') continue;
        const part = JSON.parse(data);
        if (part.error) throw new Error(part.error.message);
        used = part.usage || used;
        answer += part.choices[0]?.delta.content || '';
        out.textContent = answer;
        talk.scrollTop = talk.scrollHeight;
      }
    }
  } catch (error) {
    failed = error;
  }
  if (failed) {
    out.parentElement.classList.add('error');
    out.textContent = failed.name === 'AbortError' ? answer + ' (stopped; it is not part of the conversation)' : failed.message;
  } else {
    messages = [...sent, {role: 'assistant', content: answer}];
    const seconds = (performance.now() - began) / 1000;
    note.textContent = `${used.prompt_tokens} tokens read, ${used.completion_tokens} written in ${seconds.toFixed(1)} s`;
  }
  asking = null;
  go.textContent = 'Ask';
  box.focus();
}

form.addEventListener('submit', event => {
  event.preventDefault();
  if (asking) return asking.abort();
  const question = box.value.trim();
  if (!question) return;
  box.value = '';
  ask(question);
});
box.addEventListener('keydown', event => {
  if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) { event.preventDefault(); if (!asking) form.requestSubmit(); }
});
again.addEventListener('click', () => { if (asking) asking.abort(); messages = []; images = []; shown.replaceChildren(); talk.replaceChildren(); note.textContent = ''; box.focus(); });
$('file')?.addEventListener('change', event => { show(event.target.files); event.target.value = ''; box.focus(); });
document.addEventListener('paste', event => show(event.clipboardData.files));
for (const kind of ['dragover', 'dragleave', 'drop']) document.addEventListener(kind, event => {
  event.preventDefault();
  document.body.classList.toggle('over', kind === 'dragover');
  if (kind === 'drop') show(event.dataTransfer.files);
});
"""


def html(name: str, sees: bool) -> str:
    """The page for a model. sees: it can be shown images."""
    called = escape.escape(name)
    file = '<label class="file">Image<input id="file" type="file" accept="image/*" multiple></label>' if sees else ""
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>{called} – vlmjax</title><link rel="icon" href="data:,"><style>{STYLE}</style></head>
<body><header><h1>{called}</h1><label><small>temperature <input id="heat" type="number" min="0" max="5" step="0.1" value="0" size="4"></small></label><button id="new" type="button">New conversation</button></header>
<main id="talk" aria-live="polite"></main>
<footer><div id="shown"></div><form id="ask">{file}<textarea id="text" rows="1" aria-label="Question" placeholder="{'Ask about an image: choose, drop or paste it' if sees else 'Ask'}" autofocus></textarea><button id="go" class="go">Ask</button></form>
<small id="note"></small></footer><script src="page.js"></script></body></html>
"""
