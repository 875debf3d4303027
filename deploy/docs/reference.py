"""Generated reference pages: `python -m deploy.docs.reference` writes them to docs/reference.

`tests/unit/docs/test_reference.py` fails if a page is not current. Other generated parts are tables within pages; their
tests write them: metric families (test_metrics_doc.py), fields of config.json (test_fields.py), costs of edits
(test_edit_costs.py), advice (test_advice.py).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from deploy.docs import annotations_page, clients_page, exit_codes_page, fields_page, settings_page

FOLDER: Final = Path(__file__).resolve().parents[2] / "docs" / "reference"
PAGES: Final[dict[str, Callable[[], str]]] = {
    "annotations.md": annotations_page.page,
    "clients.md": clients_page.page,
    "exit-codes.md": exit_codes_page.page,
    "manifest-fields.md": fields_page.page,
    "settings.md": settings_page.page,
}


def main() -> None:
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
