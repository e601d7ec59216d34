"""The page's controls as a person uses them, by their labels. Every hand waits until the page has told of it."""

from __future__ import annotations

import re
from typing import Any

import serving


def tab(page: Any, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()


def control(page: Any, label: str) -> Any:
    """What a label belongs to."""
    named = page.locator("label", has_text=re.compile(f"^{re.escape(label)}$")).first
    found = page.locator(f'[id="{named.get_attribute("for")}"]')
    # The field of a colour does not have the id that its label names.
    return found if found.count() else named.locator("xpath=ancestor::div[.//input][1]//input").first


def choose(page: Any, label: str, option: str) -> None:
    """Of a dropdown."""
    control(page, label).click()
    page.get_by_role("option", name=option, exact=True).click()
    serving.said(page)


def offered(page: Any, label: str) -> list[str]:
    """What a dropdown offers; it stays open."""
    control(page, label).click()
    options = page.get_by_role("option")
    options.first.wait_for()  # the list comes whole, but not at once
    return options.all_inner_texts()


def check(page: Any, label: str) -> None:
    """Tick or untick."""
    control(page, label).click()
    serving.said(page)


def fill(page: Any, label: str, value: str) -> None:
    """A number or a text."""
    field = control(page, label)
    field.fill(value)
    field.press("Enter")
    serving.said(page)


def press(page: Any, button: str) -> None:
    page.get_by_role("button", name=button, exact=True).first.click()
    serving.said(page)


def nudge(page: Any, label: str, key: str = "ArrowLeft") -> None:
    """A slider by one step."""
    control(page, label).locator("[role=slider]").press(key)
    serving.said(page)


def drag_thumb(page: Any, label: str, thumb: int, share: float) -> None:
    """A thumb of a slider with several, to a share of its length."""
    slider = control(page, label)
    slider.scroll_into_view_if_needed()
    track = slider.locator(".multi-slider-track-container").bounding_box()
    start = slider.locator(".multi-slider-thumb").nth(thumb).bounding_box()
    y = start["y"] + start["height"] / 2
    page.mouse.move(start["x"] + start["width"] / 2, y)
    page.mouse.down()
    page.mouse.move(track["x"] + track["width"] * share, y, steps=6)
    page.mouse.up()
    serving.said(page)
