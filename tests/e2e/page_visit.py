"""Visit the web page with a browser in the node's network namespace: `python -m tests.e2e.page_visit URL`.

Prints the observations as JSON; `test_web.py` checks them.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from tests.e2e import browser

WIDTHS = (360, 768, 1280, 1920, 3840)
UNTIL = """new Promise((done, fail) => {
  const end = Date.now() + %d;
  const look = () => (%s) ? done(true) : Date.now() > end ? done(false) : setTimeout(look, 50);
  look();
})"""


def until(page: browser.Page, condition: str) -> bool:
    """Whether a JavaScript condition became true in time."""
    return bool(page.evaluate(UNTIL % (int(browser.TIMEOUT / 2 * 1000), condition)))


def visit(url: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with browser.page("about:blank") as page:
        page.call("Page.navigate", url=url)  # resolves when the document is loaded
        assert until(page, "document.body && document.body.classList.contains('live')")
        page.evaluate(
            "document.getElementById('pods').mine = true; document.querySelector('#pods tbody tr').focus()"
        )
        found["measured"] = until(page, "document.querySelectorAll('#pods tbody polyline').length > 0")
        found["same element"] = page.evaluate("document.getElementById('pods').mine === true")
        found["markup from strings"] = page.evaluate(
            "(() => { try { document.body.innerHTML = '<b>x</b>'; return 'allowed'; } catch (e) { return e.name; } })()"
        )
        found["inline script"] = page.evaluate(
            "(() => { const s = document.createElement('script'); try { s.text = 'window.ran = 1'; } catch (e) {}"
            "document.body.append(s); return window.ran || 0; })()"
        )
        found["wide"] = {}
        for width in WIDTHS:
            page.call(
                "Emulation.setDeviceMetricsOverride",
                width=width,
                height=800,
                deviceScaleFactor=1,
                mobile=False,
            )
            found["wide"][str(width)] = page.evaluate("document.documentElement.scrollWidth")
        page.evaluate(
            "(() => { const q = document.getElementById('q'); q.focus(); q.value = 'bad';"
            "q.dispatchEvent(new Event('input', { bubbles: true })); })()"
        )
        found["searched"] = until(page, "document.querySelectorAll('#pods tbody tr').length === 1")
        found["address"] = page.evaluate("location.search")
        found["focus"] = page.evaluate("document.activeElement.id")
        found["row"] = page.evaluate("document.querySelector('#pods tbody tr').innerText")
    return found


if __name__ == "__main__":
    print(json.dumps(visit(sys.argv[1])))
