"""The page in a real browser: opened, looked at, and held to what every view promises."""

import json
from pathlib import Path
from typing import Any

from tests.browser import Tab

AXE = Path(__file__).parent / "node_modules/axe-core/axe.min.js"
PHONE, DESKTOP = (360, 740), (1280, 800)
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


def opened(tab: Tab, address: str, view: str = "") -> Tab:
    """`view` as it stands after `#/`; until its heading is there."""
    tab.open(f"http://{address}/#/{view}")
    tab.until("return !!document.querySelector('main h1')")
    return tab


def sized(tab: Tab, size: tuple[int, int]) -> None:
    width, height = size
    tab.call(
        "Emulation.setDeviceMetricsOverride",
        width=width,
        height=height,
        deviceScaleFactor=1,
        mobile=width < 600,
    )


def themed(tab: Tab, theme: str) -> None:
    """`light` or `dark`, and no colour on its way from one to the other."""
    features = {"prefers-color-scheme": theme, "prefers-reduced-motion": "reduce"}
    named = [{"name": name, "value": value} for name, value in features.items()]
    tab.call("Emulation.setEmulatedMedia", features=named)


def click(tab: Tab, selector: str) -> None:
    """With the mouse, as a person does: what asks for a gesture gets one."""
    place = tab.until(
        f"""const found = document.querySelector({json.dumps(selector)});
        if (!found || found.disabled) return null;
        found.scrollIntoView({{block: "center", behavior: "instant"}});
        const box = found.getBoundingClientRect();
        return [box.x + box.width / 2, box.y + box.height / 2];"""
    )
    for kind in ("mousePressed", "mouseReleased"):
        x, y = place
        tab.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)


def typed(tab: Tab, selector: str, text: str) -> None:
    """Into a field, over what it has."""
    tab.run(f"const it = document.querySelector({json.dumps(selector)}); it.focus(); it.select?.()")
    tab.call("Input.insertText", text=text)


def give(tab: Tab, selector: str, *files: Path) -> None:
    """Files to a field that takes some."""
    tab.until(f"return !!document.querySelector({json.dumps(selector)})")
    root = tab.call("DOM.getDocument")["root"]["nodeId"]
    node = tab.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
    tab.call("DOM.setFileInputFiles", nodeId=node, files=[str(it) for it in files])


def text_of(tab: Tab, selector: str) -> str:
    said: str = tab.run(f"return document.querySelector({json.dumps(selector)})?.innerText ?? ''")
    return said


def violations(tab: Tab) -> list[Any]:
    """What axe-core finds in the page as it is now."""
    if not tab.run("return !!window.axe"):
        tab.call("Runtime.evaluate", expression=AXE.read_text())
    options = json.dumps({"runOnly": RULES})
    found: list[Any] = tab.run(
        f"""const {{violations}} = await axe.run(document, {options});
        return violations.map((it) => [it.id, it.nodes.map((node) => node.html.slice(0, 200))]);"""
    )
    return found


def fits(tab: Tab) -> bool:
    """Nothing makes the page wider than its window."""
    wide: bool = tab.run("return document.documentElement.scrollWidth <= innerWidth")
    return wide


def accessible(tab: Tab) -> None:
    """On a phone and a desk, light and dark: axe finds nothing, and nothing is cut off."""
    for size in (PHONE, DESKTOP):
        sized(tab, size)
        assert fits(tab), f"wider than {size[0]} px"
        for theme in ("light", "dark"):
            themed(tab, theme)
            found = violations(tab)
            assert found == [], f"{size} {theme}: {found}"
