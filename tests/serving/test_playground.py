"""The page in a real browser: every flow, by mouse and by keyboard, in light and dark, wide and narrow."""

from __future__ import annotations

import re

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="the page is tested with Playwright")
from playwright.sync_api import Page, expect  # noqa: E402

from serving.live_bundle import LiveBundle  # noqa: E402
from tests.fake_decoder import FakeDecoder  # noqa: E402
from tests.serving.browser import CHROMIUM, PATIENCE_MS, chromium, visit  # noqa: E402
from tests.serving.toy_server import (  # noqa: E402
    CATALOG,
    MODEL,
    GatedDecoder,
    Server,
    index_of_toys,
    listening,
    toy_live,
)
from tests.toy_text import toy_recommender  # noqa: E402

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here; `make chromium` installs it")
expect.set_options(timeout=PATIENCE_MS)
KEY = "the-key-of-a-client"


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def port():
    with listening(Server(toy_live(FakeDecoder(sum(index_of_toys().level_sizes), seed=3)))) as port:
        yield port


@pytest.fixture
def visitor(browser, port):
    with visit(browser, port) as visitor:
        yield visitor


def history(page: Page) -> list[str]:
    return [one.inner_text() for one in page.locator(".event-title").all()]


def add(page: Page, typed: str) -> None:
    page.get_by_role("combobox", name="Find an item by its title").fill(typed)
    expect(page.locator("#found [role=option]").first).to_be_visible()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")


def results(page: Page) -> list[str]:
    return [one.inner_text() for one in page.locator(".result .title").all()]


# History


def test_a_new_user_is_welcomed_and_can_start_with_a_recommendation(visitor):
    page = visitor.open()
    expect(page.get_by_role("heading", name="Start with a few items somebody liked")).to_be_visible()
    expect(page.locator(".result")).to_have_count(10)
    first = results(page)[0]
    page.get_by_role("button", name=f"Add {first} to the history").click()
    expect(page.locator(".event-title")).to_have_text([first])
    expect(page.locator(".welcome")).to_have_count(0)
    assert first not in results(page)
    assert visitor.asked()[0]["history"] == []


def test_items_are_found_by_typing_and_added_by_mouse(visitor):
    page = visitor.open()
    box = page.get_by_role("combobox", name="Find an item by its title")
    box.fill("night")
    options = page.locator("#found [role=option]")
    expect(options).to_have_count(4)
    expect(options.first).to_contain_text("The night comedy")
    options.nth(2).click()
    expect(page.locator(".event-title")).to_have_text(["The night horror"])
    expect(page.get_by_role("listbox")).to_be_hidden()
    expect(box).to_be_focused()
    expect(box).to_have_value("")
    assert visitor.asks(lambda body: body["history"] == ["i6"])


def test_a_misspelt_title_is_answered_with_what_may_be_meant(visitor):
    page = visitor.open()
    page.get_by_role("combobox", name="Find an item by its title").fill("rivre")
    expect(page.locator(".nothing")).to_contain_text("No title with “rivre”. Did you mean river?")
    page.get_by_role("button", name="river", exact=True).click()
    expect(page.locator("#found [role=option]")).to_have_count(4)


def test_a_history_is_put_in_order_and_taken_apart_by_mouse(visitor):
    page = visitor.open("h=i1&h=i2&h=nobody")
    expect(page.locator(".event-title")).to_have_text(
        ["The river drama", "The river horror", re.compile("nobody.*not in the catalog")]
    )
    page.get_by_role("button", name="Later: The river drama").click()
    expect(page.locator(".event-title").first).to_have_text("The river horror")
    page.locator(".event").nth(1).drag_to(page.locator(".event").nth(0))
    expect(page.locator(".event-title").first).to_have_text("The river drama")
    page.get_by_role("button", name="Remove nobody").click()
    expect(page.locator(".event")).to_have_count(2)
    expect(page.locator(".result")).to_have_count(10)
    assert page.url.endswith("#h=i1&h=i2")
    page.get_by_role("button", name="Clear", exact=True).click()
    expect(page.locator(".event")).to_have_count(0)
    expect(page.locator(".history-empty")).to_be_visible()


def test_everything_can_be_done_by_keyboard(visitor):
    page = visitor.open()
    expect(page.locator(".result")).to_have_count(10)
    page.keyboard.press("/")
    box = page.get_by_role("combobox", name="Find an item by its title")
    expect(box).to_be_focused()
    page.keyboard.type("mirror")
    expect(page.locator("#found [role=option]")).to_have_count(4)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    expect(page.locator("#found [aria-selected=true]")).to_contain_text("The mirror drama")
    assert box.get_attribute("aria-activedescendant") == "option-1"
    page.keyboard.press("Enter")
    expect(page.locator(".event-title")).to_have_text(["The mirror drama"])
    page.keyboard.type("train")
    expect(page.locator("#found [role=option]")).to_have_count(4)
    page.keyboard.press("Escape")
    expect(page.get_by_role("listbox")).to_be_hidden()
    expect(box).to_have_value("train")
    page.keyboard.press("Escape")
    expect(box).to_have_value("")
    add(page, "train h")
    expect(page.locator(".event-title")).to_have_text(["The mirror drama", "The train horror"])
    page.keyboard.press("Tab")  # the first tool of the first event that is not off
    expect(page.get_by_role("button", name="Later: The mirror drama")).to_be_focused()
    page.keyboard.press("Alt+ArrowDown")
    expect(page.locator(".event-title")).to_have_text(["The train horror", "The mirror drama"])
    page.keyboard.press("Alt+ArrowUp")
    expect(page.locator(".event-title")).to_have_text(["The mirror drama", "The train horror"])
    page.keyboard.press("Delete")
    expect(page.locator(".event-title")).to_have_text(["The train horror"])
    page.get_by_role("tab", name="Recommendations").focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="Walk")).to_be_focused()
    expect(page.get_by_role("tab", name="Walk")).to_have_attribute("aria-selected", "true")
    expect(page.locator(".level").first).to_be_visible()


def test_the_focus_visits_the_page_in_reading_order(visitor):
    page = visitor.open("h=i1")
    expect(page.locator(".result")).to_have_count(10)
    seen = []
    for _ in range(16):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.id || document.activeElement.ariaLabel || ''"))
    expected = [
        "theme-button",
        "clear",
        "search",
        "Remove The river drama",
        "where",
        "Field",
        "exclude-seen",
        "k",
        "beam",
    ]
    assert [one for one in seen if one in expected] == expected


# Wishes


def test_what_is_wished_is_asked_for_and_stands_in_the_address(visitor):
    page = visitor.open("h=i3")
    expect(page.locator(".result")).to_have_count(10)
    page.get_by_label("Items", exact=True).fill("3")
    page.keyboard.press("Tab")
    expect(page.locator(".result")).to_have_count(3)
    page.get_by_label("Beam", exact=True).fill("7")
    page.keyboard.press("Tab")
    page.get_by_label("Items of one value").fill("1")
    page.keyboard.press("Tab")
    page.get_by_text("Exact: go on until every place is proven").click()
    page.get_by_text("Leave out items of the history").click()
    expect(page.locator(".seal-line")).to_have_text("All 3 proven to be in their place")
    expect(page).to_have_url(re.compile("seen=1&exact=1&cap=1%3Agenre"))
    assert visitor.asks(lambda body: body.get("filter", {}).get("exclude_seen") is False)
    asked = visitor.asked()[-1]
    assert asked["num_results"] == 3
    assert asked["decoding"] == {"beam": 7, "exact": True}
    assert asked["filter"] == {"exclude_seen": False, "max_per": {"genre": 1}}
    address = page.url
    page.goto("about:blank")
    page.goto(address)
    expect(page.locator(".result")).to_have_count(3)
    assert visitor.asked()[-1] == asked
    expect(page.get_by_label("Beam", exact=True)).to_have_value("7")


def test_scores_without_a_share_are_told_as_they_are(visitor):
    page = visitor.open("h=i3")
    expect(page.locator(".share-number").first).to_contain_text("%")
    page.get_by_role("radio", name="Vocabulary").click()
    expect(page.locator(".share-number").first).to_contain_text("−")
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_role("radio", name="Catalog")).to_be_focused()
    expect(page.locator(".share-number").first).to_contain_text("%")
    assert visitor.asked()[1]["decoding"] == {"normalize": "vocabulary"}


def test_a_filter_is_put_together_by_hand_or_typed(visitor):
    page = visitor.open("h=i3")
    page.get_by_label("Field", exact=True).select_option("genre")
    page.get_by_label("Value", exact=True).fill("drama")
    page.get_by_role("button", name="Add", exact=True).click()
    where = page.get_by_label("Filter expression")
    expect(where).to_have_value('genre == "drama"')
    expect(page.locator(".item-facts").first).to_contain_text("drama")
    page.get_by_label("Field", exact=True).select_option("year")
    page.get_by_label("Comparison").select_option(">=")
    page.get_by_label("Value", exact=True).fill("nineteen")
    page.keyboard.press("Enter")
    expect(page.get_by_label("Value", exact=True)).to_be_focused()
    expect(where).to_have_value('genre == "drama"')
    page.get_by_label("Value", exact=True).fill("2000")
    page.keyboard.press("Enter")
    expect(where).to_have_value('genre == "drama" and year >= 2000')
    expect(page.locator(".result")).to_have_count(5)
    assert visitor.asked()[-1]["filter"] == {"where": 'genre == "drama" and year >= 2000'}


def test_a_wrong_filter_is_told_where_it_was_typed_and_the_last_answer_stays(visitor):
    page = visitor.open("h=i3")
    expect(page.locator(".result")).to_have_count(10)
    page.get_by_label("Filter expression").fill("colour == 3")
    expect(page.locator("#where-error")).to_contain_text("expected a field of the catalog")
    expect(page.get_by_label("Filter expression")).to_have_attribute("aria-invalid", "true")
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("This cannot be answered")
    expect(alert).to_contain_text("status 422 · invalid_filter · field filter.where")
    expect(page.locator(".result")).to_have_count(10)
    page.get_by_label("Filter expression").fill("year == 1981")
    expect(alert).to_have_count(0)
    expect(page.locator("#where-error")).to_be_hidden()
    expect(page.locator(".result")).to_have_count(1)


def test_a_filter_that_leaves_nothing_offers_the_way_back(visitor):
    page = visitor.open("h=i3&where=year+%3E+3000")
    expect(page.get_by_role("heading", name="No item is allowed")).to_be_visible()
    page.get_by_role("tab", name="Walk").click()
    expect(page.locator(".caption")).to_have_text("Nothing is left that could change the answer.")
    page.get_by_role("tab", name="Recommendations").click()
    page.get_by_role("button", name="Clear the filter").click()
    expect(page.locator(".result")).to_have_count(10)


def test_a_model_with_several_modes_lets_one_choose(browser):
    recommender = toy_recommender(index_of_toys())
    live = LiveBundle(recommender, recommender.index.titles(), MODEL, CATALOG)
    with visit(browser, Server(live)) as visitor:
        page = visitor.open("h=i3&k=4")
        expect(page.get_by_role("radio", name="Item codes")).to_have_attribute("aria-checked", "true")
        expect(page.locator(".result")).to_have_count(4)
        page.get_by_role("radio", name="Titles").click()
        page.get_by_role("tab", name="Walk").click()
        expect(page.locator(".prefix-label b").first).to_have_text(re.compile("[Tt]he"))
        written = " ".join(one.inner_text() for one in page.locator(".prefix-label b").all()).lower().split()
        assert written
        assert not any(part.isdigit() for part in written)  # pieces of titles, no codes
        assert visitor.asked("/v1/walk")[-1]["mode"] == "title"
        page.get_by_role("radio", name="Queries").click()
        expect(page.locator("#panel-walk")).to_contain_text("Nothing to walk in this mode")
        page.get_by_role("tab", name="Recommendations").click()
        expect(page.locator(".queries li").first).to_contain_text("“")
        expect(page.locator(".result .reason").first).to_contain_text("Found by")
        expect(page.locator(".seal-line")).to_have_count(0)


# The answer


def test_an_answer_says_what_why_how_likely_and_how_sure(visitor):
    page = visitor.open("h=i3&h=i7&k=30&beam=10")
    row = page.locator(".result").first
    expect(row.locator(".share-number")).to_contain_text("%")
    expect(row.locator(".item-facts span")).to_have_text([re.compile("[a-z]+"), re.compile(r"\d{4}")])
    expect(page.locator(".reason").first).to_contain_text("Coded like")
    expect(page.locator(".summary")).to_contain_text("in the server")
    expect(page.locator(".summary")).to_contain_text("model call")
    proven = page.locator(".result.proven").count()
    said = page.locator(".seal-line").inner_text()
    assert said.startswith("All 30" if proven == 30 else f"{proven} of 30")
    title = row.locator(".title")
    title.click()
    expect(title).to_have_attribute("aria-expanded", "true")
    expect(row.locator("dl")).to_contain_text("log-probability, catalog")


def test_what_is_not_proven_can_be(visitor):
    page = visitor.open("h=i3&k=10&beam=10&normalize=vocabulary")
    expect(page.locator(".result")).to_have_count(10)
    expect(page.locator(".cut")).to_contain_text("likely, not proven")
    page.get_by_role("button", name="Prove all").click()
    expect(page.get_by_label("Exact: go on until every place is proven")).to_be_checked()
    expect(page.locator(".seal-line")).to_have_text("All 10 proven to be in their place")


def test_the_request_can_be_taken_along(visitor):
    page = visitor.open("h=i3&k=2&where=year+%3E+1990")
    expect(page.locator(".result")).to_have_count(2)
    page.get_by_role("tab", name="Request").click()
    curl = page.get_by_role("region", name="curl")
    expect(curl).to_contain_text("/v1/recommendations")
    expect(curl).to_contain_text('"where": "year > 1990"')
    expect(page.get_by_role("region", name="Python")).to_contain_text('where="year > 1990"')
    expect(page.get_by_role("region", name="Answer", exact=True)).to_contain_text('"certified"')
    curl.get_by_role("button", name="Copy").click()
    expect(curl.get_by_role("button")).to_have_text(re.compile("Copied|Select it"))


# The walk


def test_a_walk_is_stepped_scrubbed_and_played(visitor):
    page = visitor.open("h=i3&k=4&beam=4&where=year+%3C+2010")
    expect(page.locator(".result")).to_have_count(4)
    wanted = results(page)
    page.get_by_role("tab", name="Walk").click()
    so_far = page.locator(".so-far li span:first-of-type")
    expect(so_far).to_have_text(wanted)
    place, caption = page.locator(".frame-place"), page.locator(".caption")
    expect(page.get_by_role("button", name="One frame on")).to_be_disabled()
    scrub = page.get_by_role("slider", name="Frame of the walk")
    last = int(scrub.get_attribute("max"))
    page.get_by_role("button", name="One frame back").click()
    expect(scrub).to_have_value(str(last - 1))
    scrub.focus()
    page.keyboard.press("Home")
    expect(place).to_contain_text("Step 1 of")
    expect(caption).to_have_text(re.compile(r"The model scores \d+ continuations of the beginning\."))
    expect(page.locator(".so-far")).to_have_count(0)
    assert page.locator(".map .scored").count() > 0
    assert page.locator(".map .certified").count() == 0
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.get_by_role("button", name="Play").click()
    expect(page.get_by_role("button", name="Pause")).to_be_visible()
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("button", name="Play")).to_be_visible()
    scrub.focus()
    page.keyboard.press("End")
    expect(so_far).to_have_text(wanted)
    expect(caption).to_contain_text("proven")


def test_every_state_of_a_prefix_is_shown_and_explained(visitor):
    page = visitor.open("h=i3&k=2&beam=2&where=year+%3C+2005")
    page.get_by_role("tab", name="Walk").click()
    scrub = page.get_by_role("slider", name="Frame of the walk")
    seen = set()
    for number in range(int(scrub.get_attribute("max")) + 1):
        scrub.fill(str(number))
        for state in page.locator(".levels [data-state]").all():
            seen.add(state.get_attribute("data-state"))
    assert {"scored", "live", "walked", "pruned", "filtered"} <= seen
    assert seen & {"finished", "certified"}
    prefix = page.locator(".levels [data-state=pruned], .levels [data-state=walked]").first
    prefix.hover()
    detail = page.locator(".detail")
    expect(detail).to_contain_text("Probability")
    expect(detail).to_contain_text("Allowed below")
    assert page.locator(".map.dimmed .on").count() > 0
    assert "[object" not in detail.inner_text()
    page.mouse.move(5, 5)
    expect(detail).to_contain_text("The answer so far")


def test_prefixes_are_walked_through_by_arrow_keys(visitor):
    page = visitor.open("h=i3&k=3&beam=3")
    page.get_by_role("tab", name="Walk").click()
    first = page.locator(".level").first.locator("[data-id]").first
    first.focus()
    expect(page.locator(".detail")).to_contain_text("level 1")
    page.keyboard.press("ArrowRight")
    expect(page.locator(".detail")).to_contain_text("level 2")
    page.keyboard.press("ArrowLeft")
    expect(first).to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(first).not_to_be_focused()
    expect(page.locator(".levels [tabindex='0']")).to_have_count(1)
    page.keyboard.press("Escape")
    expect(page.locator(".detail")).to_contain_text("The answer so far")


def test_an_exact_walk_takes_up_what_was_left_out(visitor):
    page = visitor.open("h=i3&k=2&beam=2&exact=1")
    page.get_by_role("tab", name="Walk").click()
    expect(page.locator(".so-far .proven")).to_have_count(2)
    page.get_by_label("Items", exact=True).fill("4")
    page.keyboard.press("Tab")
    expect(page.locator(".so-far .proven")).to_have_count(4)
    assert [one["num_results"] for one in visitor.asked("/v1/walk")] == [2, 4]


# Trouble


def test_a_server_with_keys_asks_for_one_and_forgets_it_with_the_tab(browser):
    with visit(browser, Server(api_keys=(KEY,))) as visitor:
        page = visitor.open("h=i3")
        expect(page.get_by_role("alert")).to_contain_text("This server asks for an API key")
        page.get_by_role("button", name="Enter the key").click()
        dialog = page.get_by_role("dialog")
        expect(dialog).to_be_visible()
        page.keyboard.press("Escape")
        expect(dialog).to_be_hidden()
        page.get_by_role("button", name="API key").click()
        dialog.locator("#key").fill("a-wrong-key-of-somebody")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("invalid_api_key")
        page.get_by_role("button", name="Enter the key").click()
        dialog.locator("#key").fill("with spaces")
        page.keyboard.press("Enter")
        expect(dialog).to_contain_text("printable ASCII without spaces")
        dialog.locator("#key").fill(KEY)
        page.keyboard.press("Enter")
        expect(page.locator(".result")).to_have_count(10)
        expect(page.locator(".event-title")).to_have_text(["The river western"])
        kept = page.evaluate(
            "[sessionStorage.getItem('genrec.key'), JSON.stringify(localStorage), location.href, document.cookie]"
        )
        assert kept[0] == KEY
        assert not any(KEY in one for one in kept[1:])
        page.get_by_role("button", name="API key").click()
        page.get_by_role("button", name="Forget the key").click()
        expect(page.get_by_role("alert")).to_contain_text("asks for an API key")
        assert page.evaluate("sessionStorage.getItem('genrec.key')") is None


def test_a_busy_server_is_asked_again_by_itself(browser):
    decoder = GatedDecoder(sum(index_of_toys().level_sizes))
    server = Server(toy_live(decoder), queue_size=1, max_requests=1, max_batch=1)
    with visit(browser, server) as visitor:
        page = visitor.open("h=i3")
        expect(page.locator(".result")).to_have_count(10)
        decoder.gate.clear()
        while decoder.entered.acquire(blocking=False):
            pass
        # One is being searched and one waits: there is no place for the page's own.
        page.evaluate(ASK_BESIDE, "i1")
        assert decoder.entered.acquire(timeout=20)
        page.evaluate(ASK_BESIDE, "i2")
        for _ in range(400):
            if server.metric("genrec_queue_depth") == 1:
                break
            page.wait_for_timeout(50)
        page.get_by_label("Items", exact=True).fill("4")
        page.keyboard.press("Tab")
        alert = page.get_by_role("alert")
        expect(alert).to_contain_text("The server is busy")
        expect(alert).to_contain_text("again in")
        expect(alert).to_contain_text("status 429 · queue_full")
        decoder.gate.set()
        expect(page.locator(".result")).to_have_count(4)
        expect(alert).to_have_count(0)


def test_a_late_answer_is_told_with_what_helps(browser):
    decoder = GatedDecoder(sum(index_of_toys().level_sizes))
    with visit(browser, Server(toy_live(decoder), default_timeout_ms=2000)) as visitor:
        page = visitor.open("h=i3")
        expect(page.locator(".result")).to_have_count(10)
        decoder.gate.clear()
        page.get_by_label("Items", exact=True).fill("4")
        page.keyboard.press("Tab")
        alert = page.get_by_role("alert")
        expect(alert).to_contain_text("No answer in time")
        expect(alert).to_contain_text("status 504 · deadline_exceeded · field timeout_ms")
        decoder.gate.set()
        alert.get_by_role("button", name="Try again").click()
        expect(page.locator(".result")).to_have_count(4)


def test_without_a_server_the_page_says_so_and_keeps_what_was_entered(visitor):
    page = visitor.open("h=i3")
    expect(page.locator(".result")).to_have_count(10)
    page.context.set_offline(True)
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("The server cannot be reached")
    expect(page.locator(".event-title")).to_have_text(["The river western"])
    page.context.set_offline(False)
    expect(alert).to_have_count(0)
    expect(page.locator(".result")).to_have_count(10)


def test_a_slow_first_answer_shows_that_something_is_coming(visitor):
    held = []
    visitor.page.route("**/v1/models", lambda route: held.append(route))
    page = visitor.open()
    expect(page.locator(".ghost").first).to_be_visible()
    expect(page.locator("#answer")).to_have_attribute("aria-busy", "true")
    expect(page.locator("#progress")).to_have_class("progress on")
    held[0].continue_()
    expect(page.locator(".result")).to_have_count(10)
    expect(page.locator(".ghost")).to_have_count(0)


def test_a_failure_of_the_server_names_the_request_for_its_log(visitor):
    page = visitor.open("h=i3")
    expect(page.locator(".result")).to_have_count(10)
    page.route(
        "**/v1/recommendations",
        lambda route: route.fulfill(
            status=500,
            headers={"x-request-id": "req_1"},
            json={"error": {"code": "internal_error", "message": "x"}},
        ),
    )
    page.get_by_role("button", name="Remove The river western").click()
    expect(page.get_by_role("alert")).to_contain_text("status 500 · internal_error · request req_1")


# Looks


def test_dark_and_light_follow_the_system_and_the_button(browser, port):
    with visit(browser, port, color_scheme="dark") as visitor:
        page = visitor.open()
        ground = "getComputedStyle(document.body).backgroundColor"
        dark = page.evaluate(ground)
        button = page.get_by_role("button", name="Dark theme")
        expect(button).to_have_attribute("aria-pressed", "true")
        button.click()
        expect(button).to_have_attribute("aria-pressed", "false")
        light = page.evaluate(ground)
        assert sum(map(int, re.findall(r"\d+", light))) > 600 > 100 > sum(map(int, re.findall(r"\d+", dark)))
        page.reload()
        assert page.evaluate(ground) == light


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_on_its_ground(browser, port, scheme):
    """WCAG 2.1 AA: 4.5 to 1, of every text that stands on the page, the walk included."""
    with visit(browser, port, color_scheme=scheme, reduced_motion="reduce") as visitor:
        page = visitor.open("h=i3&h=i7&where=year+%3C+2010")
        expect(page.locator(".result").first).to_be_visible()
        poor = page.evaluate(CONTRAST)
        page.get_by_role("tab", name="Walk").click()
        expect(page.locator(".level").first).to_be_visible()
        poor += page.evaluate(CONTRAST)
        assert poor == []


def test_a_phone_gets_one_column_and_no_sideways_scrolling(browser, port):
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    with visit(browser, port, **phone) as visitor:
        page = visitor.open("h=i3&h=i7")
        expect(page.locator(".result")).to_have_count(10)
        width = "document.documentElement.scrollWidth"
        assert page.evaluate(width) == 390
        expect(page.get_by_label("Filter expression")).to_be_hidden()
        page.get_by_role("button", name="Filter and search").tap()
        expect(page.get_by_label("Filter expression")).to_be_visible()
        page.get_by_role("tab", name="Walk").tap()
        expect(page.locator(".level").first).to_be_visible()
        page.locator(".level [data-id]").first.tap()
        expect(page.locator(".detail")).to_contain_text("Probability")
        assert page.evaluate(width) == 390


def test_long_titles_stay_in_their_place(visitor):
    """Titles of shops have two hundred letters; they once pushed the left column under the answer."""
    page = visitor.open(f"h=i3&h={'a-very-long-title-' * 12}")
    expect(page.locator(".event")).to_have_count(2)
    expect(page.locator(".result")).to_have_count(10)
    left, right = page.locator("#search").bounding_box(), page.locator("#answer").bounding_box()
    assert left is not None
    assert right is not None
    assert left["x"] + left["width"] < right["x"]


def test_who_wants_no_motion_gets_none(browser, port):
    with visit(browser, port, reduced_motion="reduce") as visitor:
        page = visitor.open("h=i3")
        expect(page.locator(".result")).to_have_count(10)
        moving = """document.getAnimations().filter(
            (one) => one.playState === "running" && one.effect.getTiming().duration > 1).length"""
        page.locator("#exact").click()
        assert page.evaluate(moving) == 0


ASK_BESIDE = """(item) => {
  const headers = {"content-type": "application/json"};
  fetch("/v1/recommendations", {method: "POST", headers, body: JSON.stringify({history: [item]})});
}"""

CONTRAST = """() => {
  const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((one) => (one /= 255) <= 0.03928 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const ground = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const color = numbers(getComputedStyle(at).backgroundColor);
      if (color.length < 4 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const node of document.querySelectorAll('body *')) {
    const own = [...node.childNodes].some((one) => one.nodeType === 3 && one.textContent.trim());
    const isLeftOut = node.disabled || node.closest('svg, .sr, .skip, noscript, select');
    if (!own || isLeftOut || !node.checkVisibility()) continue;
    const [a, b] = [light(numbers(getComputedStyle(node).color)), light(ground(node))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const text = node.textContent.trim().slice(0, 20);
    if (ratio < 4.5) poor.push(`${node.className || node.tagName}: ${text} ${ratio.toFixed(2)}`);
  }
  return [...new Set(poor)];
}"""
