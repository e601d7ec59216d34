"""The page's controls as a person uses them, by their labels."""

from __future__ import annotations

from typing import Any


def tab(page: Any, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()


def labelled(page: Any, label: str) -> Any:
    """The input that a label belongs to."""
    return page.get_by_label(label, exact=True).first


def choose(page: Any, label: str, option: str) -> None:
    """Of a dropdown."""
    labelled(page, label).click()
    page.get_by_role("option", name=option, exact=True).click()


def check(page: Any, label: str) -> None:
    """Tick or untick."""
    labelled(page, label).click()


def fill(page: Any, label: str, value: str) -> None:
    """A number or a text."""
    field = labelled(page, label)
    field.fill(value)
    field.press("Enter")


def press(page: Any, button: str) -> None:
    page.get_by_role("button", name=button, exact=True).first.click()


def slider(page: Any, label: str) -> Any:
    """The thumb of a slider: takes arrow keys."""
    row = page.locator("label", has_text=label).first
    return row.locator("xpath=ancestor::div[.//*[@role='slider']][1]").locator("[role=slider]").first
