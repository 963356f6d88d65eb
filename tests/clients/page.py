"""The page at `/` in headless Chromium, against a running quickstart swarm.

    page.py BASE_URL EXPECTED_JSON CHROMIUM [SCREENSHOT]

Each check prints its name before it runs; the first that fails ends the script with its traceback.
"""

import json
import sys

from playwright.sync_api import expect, sync_playwright

base, chromium = sys.argv[1], sys.argv[3]
case = json.load(open(sys.argv[2], encoding="utf-8"))["banking"][2]
# No requests of the browser's own.
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
expect.set_options(timeout=60_000)


def last(page):
    return page.locator("article.assistant").last


def ask(page, text, model):
    page.get_by_label("Model, adapter or route").fill(model)
    page.get_by_label("Message").fill(text)
    page.get_by_label("Message").press("Enter")


def begins(page):
    # A route finds the expert by itself, so the page begins with one.
    expect(page.get_by_label("Model, adapter or route")).to_have_value("assistant")
    expect(page.locator("#about")).to_contain_text("route")
    names = page.locator("#models option").evaluate_all("options => options.map(option => option.value)")
    assert {"smollm2", "banking", "travel", "kitchen", "assistant"} <= set(names), names


def route(page):
    ask(page, case["prompt"], "assistant")
    expect(page.locator("article.user p").last).to_have_text(case["prompt"])
    expect(last(page).locator("p")).to_have_text(case["answer"])
    expect(last(page).locator(".facts").first).to_contain_text("banking (adapter on smollm2), label")
    expect(last(page).locator(".facts").last).to_contain_text("tokens/s")


def streams(page):
    page.evaluate(
        """() => {
            window.states = new Set();
            const look = () => window.states.add(document.querySelector("article:last-child p")?.textContent);
            new MutationObserver(look).observe(document.getElementById("log"), { childList: true, characterData: true, subtree: true });
        }"""
    )
    page.locator("summary", has_text="Settings").click()
    page.get_by_label("Temperature").fill("0")
    page.get_by_label("Tokens at most").fill("24")
    ask(page, "Where is the Eiffel Tower?", "smollm2")
    expect(last(page).locator("p")).to_contain_text("Paris")
    expect(last(page).locator(".facts").last).to_contain_text("first after")
    states = page.evaluate("() => window.states.size")
    assert states > 5, f"the answer came in {states} pieces"
    page.locator("summary", has_text="Settings").click()


def wrong_name(page):
    before = page.locator("article.user").count()
    ask(page, "hello", "bankin")
    expect(last(page)).to_have_class("assistant failed")
    expect(last(page).locator("p")).to_contain_text("`bankin`; did you mean `banking`?")
    # What was asked is there to be sent again.
    expect(page.get_by_label("Message")).to_have_value("hello")
    assert page.locator("article.user").count() == before + 1


def stops(page):
    page.locator("summary", has_text="Settings").click()
    page.get_by_label("Tokens at most").fill("1000")
    page.locator("summary", has_text="Settings").click()
    ask(page, "Write a long story about the sea, in a hundred sentences.", "smollm2")
    expect(last(page).locator("p")).not_to_be_empty()
    page.get_by_role("button", name="Stop").click()
    expect(last(page).locator(".facts").last).to_have_text("stopped")
    expect(page.get_by_role("button", name="Send")).to_be_visible()


def begins_again(page):
    page.get_by_role("button", name="New conversation").click()
    expect(page.locator("article")).to_have_count(0)
    ask(page, case["prompt"], "assistant")
    expect(last(page).locator("p")).to_have_text(case["answer"])


with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=chromium, args=QUIET)
    page = browser.new_page(viewport={"width": 900, "height": 700})
    said, asked = [], []
    page.on("console", lambda message: message.type in ("error", "warning") and said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(base)
    for check in (begins, route, streams, wrong_name, stops, begins_again):
        print(check.__name__, flush=True)
        check(page)
        if check is streams and len(sys.argv) > 4:
            page.screenshot(path=sys.argv[4])
    # A refused name is a 404, which Chromium notes; nothing else is to be said.
    said = [line for line in said if "404" not in line]
    assert not said, said
    elsewhere = [url for url in asked if not url.startswith((base, "data:"))]
    assert not elsewhere, elsewhere
    browser.close()
