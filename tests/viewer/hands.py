"""Hands for the controls of a page in a browser, found by their words as a person finds them. Every hand waits until
the page has told of it."""

from __future__ import annotations

from typing import Any

import serving


def tab(page: Any, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()


def press(page: Any, name: str) -> None:
    """A button."""
    page.get_by_role("button", name=name, exact=True).click()
    serving.said(page)


def row_of(page: Any, label: str) -> Any:
    """A control with its label, on the tab that is open."""
    return page.get_by_text(label, exact=True).locator("visible=true").first.locator("xpath=ancestor::div[.//input][1]")


def type_into(page: Any, label: str, *texts: str) -> None:
    """The fields right of a label."""
    inputs = row_of(page, label).locator("input")
    for i, text in enumerate(texts):
        inputs.nth(i).fill(text)
        inputs.nth(i).press("Tab")
        serving.said(page)


def choose(page: Any, label: str, option: str) -> None:
    """Of a dropdown."""
    row_of(page, label).locator("input").first.click()
    page.get_by_role("option", name=option, exact=True).click()
    serving.said(page)


def tick(page: Any, label: str) -> None:
    """A checkbox."""
    row_of(page, label).locator("input").first.click()
    serving.said(page)


def slide(page: Any, label: str, key: str = "ArrowRight", times: int = 1) -> None:
    """A slider, by the keyboard."""
    handle = row_of(page, label).get_by_role("slider").first
    handle.focus()
    for _ in range(times):
        handle.press(key)
        serving.said(page)
