"""The page at `/` in a real Chromium: what it shows, that it follows what happens, that its policy holds."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright
from processes import ServerProcess, StartServer

from teacher_server import auth
from teacher_server.auth import KeyFile, Limits

CHROMIUM = shutil.which("chromium")
QUIET = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
QUIET += ["--disable-component-update", "--disable-sync"]
PATIENCE_MS = 30_000

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, chromium_sandbox=False, args=QUIET)
        yield running
        running.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A tab whose console must stay silent: a broken policy or script would speak there."""
    tab = browser.new_page(viewport={"width": 1000, "height": 980})
    tab.set_default_timeout(PATIENCE_MS)
    said: list[str] = []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    yield tab
    tab.close()
    assert not [text for text in said if "ERR_CONNECTION" not in text]


def ask(server: ServerProcess, *texts: str, key: str = "") -> None:
    body = {"instances": [{"text": text} for text in texts]}
    headers = {"authorization": f"Bearer {key}"} if key else {}
    answer = httpx.post(f"{server.url}/v1/predict", json=body, headers=headers, timeout=20)
    assert answer.status_code == 200


def figure(page: Page, name: str) -> str:
    return page.locator(f"[data-value='{name}']").inner_text()


def until(page: Page, name: str, text: str) -> None:
    expect(page.locator(f"[data-value='{name}']")).to_have_text(text, timeout=PATIENCE_MS)


def test_it_follows_what_the_server_does(new_server: StartServer, page: Page, tmp_path: Path) -> None:
    server = new_server("--name", "A teacher <b>of</b> tests")
    page.goto(server.url)
    assert page.locator("h1").inner_text() == "A teacher <b>of</b> tests"
    assert server.fingerprint in page.locator("dl").inner_text()
    assert page.get_by_role("status").inner_text() == "Ready"
    until(page, "rate", "0.0")
    before = page.locator("main").element_handle()
    ask(server, "one", "two", "three")
    ask(server, "one", "two", "three", "four")
    until(page, "answered", "7")
    until(page, "usage.queries", "4")
    until(page, "usage.free", "3")
    until(page, "usage.usd", "no price")
    until(page, "hits", "43%")
    assert float(figure(page, "rate")) > 0
    assert before is not None
    assert before.evaluate("main => main.isConnected"), "the page was written anew: it flickers"
    shot = tmp_path / "page.png"
    page.screenshot(path=shot, full_page=True)
    assert shot.stat().st_size > 10_000


def test_it_says_when_the_server_is_gone(new_server: StartServer, page: Page) -> None:
    server = new_server()
    with page.expect_response("**/status") as told:
        page.goto(server.url)
    told.value.finished()  # an answer that is cut off is another fault, and the console says so
    server.kill()
    expect(page.get_by_role("status")).to_have_text("The server cannot be reached", timeout=PATIENCE_MS)


@pytest.mark.parametrize("known", [True, False], ids=["with a key", "with another"])
def test_a_key_sees_its_own_usage(
    new_server: StartServer, browser: Browser, tmp_path: Path, known: bool
) -> None:
    """The browser asks for the key as a password: it is in no address, and in no page."""
    file = tmp_path / "keys.json"
    limits = Limits(queries=100, per="month")
    content, secret = auth.create(KeyFile(), "viewer", ("predict",), limits)
    auth.write(file, content)
    server = new_server("--keys", str(file))
    shown = secret if known else secret[:-1] + "x"
    context = browser.new_context(http_credentials={"username": "key", "password": shown})
    tab = context.new_page()
    answer = tab.goto(server.url)
    assert answer is not None
    assert answer.status == (200 if known else 401)
    if known:
        ask(server, "one", "two", key=secret)
        until(tab, "usage.queries", "2")
        until(tab, "usage.left", "98 queries")
        assert tab.locator("#usage").inner_text() == "Used by viewer"
        assert secret not in tab.content()
        assert secret not in server.log.read_text()
    else:
        assert server.fingerprint not in tab.content()
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(
    server: ServerProcess, browser: Browser, page: Page, scheme: str
) -> None:
    """WCAG AA: a contrast of 4.5 at least, in both schemes."""
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.goto(server.url)
    ratios = page.evaluate(CONTRASTS)
    assert len(ratios) > 20
    assert min(ratios) >= 4.5


CONTRASTS = """() => {
  const light = (colour) => {
    const [r, g, b] = colour.match(/[\\d.]+/g).map((part) => {
      const share = part / 255;
      return share <= 0.03928 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (place) => {
    for (; place; place = place.parentElement) {
      const colour = getComputedStyle(place).backgroundColor;
      if (colour !== "rgba(0, 0, 0, 0)") return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const texts = [...document.querySelectorAll("h1, h2, h3, p, dt, dd, code")];
  return texts.map((place) => {
    const pair = [light(getComputedStyle(place).color), light(ground(place))].sort((a, b) => b - a);
    return (pair[0] + 0.05) / (pair[1] + 0.05);
  });
}"""


def test_it_fits_a_phone(server: ServerProcess, page: Page) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto(server.url)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_it_reads_without_a_script(server: ServerProcess, browser: Browser) -> None:
    context = browser.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto(server.url)
    assert server.fingerprint in tab.locator("dl").inner_text()
    assert figure(tab, "answered").replace(",", "").isdigit()
    context.close()


def test_nothing_is_asked_elsewhere_and_nothing_foreign_runs(server: ServerProcess, page: Page) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    answer = page.goto(server.url)
    assert answer is not None
    until(page, "rate", "0.0")
    assert all(url.startswith((server.url, "data:")) for url in asked)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
