"""How widgets look, on every tab."""

# For every widget: visible focus, contrast, sizes that a finger can hit.
STYLE = """
:host { --focus: 3px solid #e08a00; --primary-color: #0b5394; --design-primary-color: #0b5394; }
:focus-visible, .bk-btn:focus-visible, .bk-input:focus-visible, .noUi-handle:focus-visible, input:focus-visible {
  outline: var(--focus) !important; outline-offset: 2px; }
.bk-btn { border-radius: 4px; }
.bk-btn.bk-btn-default { color: #17202a !important; border: 1px solid #6c7a89 !important;
  background: #f4f6f8 !important; }
.bk-btn.bk-btn-default:hover { background: #dfe5ea !important; }
.bk-btn.bk-btn-primary, .bk-btn.bk-btn-primary:hover { background: #0b5394 !important; color: #ffffff !important; }
label, .bk-input { color: #17202a; }
.vamoh-error p, p[role=alert] { background: #fdecea; color: #7b1e14; border-left: 4px solid #b03a2e; padding: 8px 12px;
  margin: 4px 8px; font-size: 15px; }
"""

# Colour bars, as HTML.
BARS = """
figure.bar { margin: 0; font-size: 13px; color: #17202a; }
figure.bar figcaption { font-weight: 600; padding: 2px 0; font-size: 14px; }
.ramp { height: 12px; border: 1px solid #6c7a89; }
.ticks { position: relative; height: 18px; margin: 0 12px 0 0; }
.ticks span { position: absolute; transform: translateX(-50%); }
.keys { display: flex; flex-wrap: wrap; gap: 12px; } 
.keys i { display: inline-block; width: 16px; height: 12px; margin-right: 4px; }
"""
