"""The picture of the architecture is current, well formed, and has every package of the tree."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from deploy.docs import picture


def test_the_picture_is_current() -> None:
    assert picture.FILE.read_text(encoding="utf-8") == picture.drawing(), "python -m deploy.docs.picture"


@pytest.mark.parametrize("folder", sorted(picture.drawn_packages()))
def test_every_package_of_the_tree_is_drawn(folder: str) -> None:
    there = {path.parent.name for path in (picture.REPO / folder).glob("*/__init__.py")}
    assert picture.drawn_packages()[folder] == there


@pytest.mark.parametrize("step", [step for step in picture.CHAIN if step.place], ids=lambda step: step.name)
def test_each_step_names_an_existing_package(step: picture.Step) -> None:
    assert (picture.REPO / step.place).is_dir()


def test_everything_is_inside_and_nothing_is_loaded() -> None:
    text = picture.drawing()
    root = ET.fromstring(text)
    width, height = map(float, root.attrib["viewBox"].split()[2:])
    boxes = [found.attrib for found in root.iter() if found.tag.endswith("rect")]
    assert len(boxes) > 30
    for box in boxes:
        assert float(box["x"]) >= 0 and float(box["x"]) + float(box["width"]) <= width
        assert float(box["y"]) >= 0 and float(box["y"]) + float(box["height"]) <= height
    assert "url(http" not in text and "href" not in text and "@import" not in text
