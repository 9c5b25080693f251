"""Web page in a browser: uploads, choice of tasks, values under the pointer and rejected files."""

from __future__ import annotations

import base64
import json
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import cv2
import numpy as np
import pytest

from densemtl.demo.web.server import listen

pytest.importorskip("fastapi", reason='needs pip install "densemtl[web]"')
uvicorn = pytest.importorskip("uvicorn")
from densemtl.demo.web.page import CONCURRENCY, QUEUE_SIZE, UPLOAD_TYPE, create_app  # noqa: E402

SIZE = (60, 90)
BROWSER = ("/usr/bin/chromium", "/usr/bin/chromedriver")


class FakePredictor:
    """Predictor of a chair in the left third, floor elsewhere, and depth from 1 m to 3 m."""

    fails = False

    def __init__(self, tasks) -> None:
        self.tasks, self.resume = tasks, threading.Event()
        self.resume.set()

    def __call__(self, image):
        self.resume.wait(30)
        if self.fails:
            raise RuntimeError("out of memory")
        height, width = image.shape[:2]
        third = np.arange(width) < width // 3
        depth = np.linspace(1, 3, width, dtype=np.float32)
        maps = {"semseg": np.where(third, 2, 1), "depth": depth}
        maps = {task: np.tile(values, (height, 1)) for task, values in maps.items()}
        return {**maps, "normals": np.tile(np.array([0, -1, 0], np.float32), (height, width, 1))}


@pytest.fixture(scope="module")
def page(make_task, tmp_path_factory) -> Iterator[SimpleNamespace]:
    """Run a server and return its address, its predictor and the folder of temporary files."""
    folder = tmp_path_factory.mktemp("temporary")
    tempfile.tempdir = str(folder)
    predictor = FakePredictor([make_task(name) for name in ("semseg", "depth", "normals")])
    app, socket = create_app(predictor, "127.0.0.1"), listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]})
    thread.start()
    while not server.started:
        time.sleep(0.05)
    url = f"http://127.0.0.1:{socket.getsockname()[1]}"
    yield SimpleNamespace(url=url, predictor=predictor, folder=folder)
    server.should_exit = True
    thread.join(20)
    tempfile.tempdir = None


@pytest.fixture(scope="module")
def browser():
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs pip install selenium")
    if not all(shutil.which(program) for program in BROWSER):
        pytest.skip("needs Debian's packages chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER[0]
    for option in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "window-size=1200,1000"):
        options.add_argument(f"--{option}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(BROWSER[1]))
    driver.implicitly_wait(20)
    yield driver
    driver.quit()


@pytest.fixture
def photo(tmp_path: Path, rng: np.random.Generator) -> Path:
    file = tmp_path / "photo.png"
    cv2.imwrite(str(file), rng.integers(0, 255, (*SIZE, 3), dtype=np.uint8))
    return file


def find(browser, selector: str):
    return browser.find_element("css selector", selector)


def wait(browser, seen) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 20).until(lambda _: seen())


def point_at(browser, task: str, x: float, y: float) -> dict[str, str]:
    """Return {task: value} at a point, given as fractions of a card's width and height."""
    from selenium.webdriver import ActionChains

    stack = find(browser, f'.card[data-task="{task}"] .stack')
    width, height = stack.size["width"], stack.size["height"]
    pointer = ActionChains(browser)
    pointer.move_to_element_with_offset(stack, int((x - 0.5) * width), int((y - 0.5) * height))
    pointer.perform()
    wait(browser, lambda: find(browser, ".tip").is_displayed())
    texts = find(browser, ".tip").text.split("\n")
    return dict(zip(texts[::2], texts[1::2], strict=True))


def test_upload_shows_predictions_and_values(page, browser, photo: Path, tmp_path: Path) -> None:
    browser.get(page.url)
    find(browser, ".drop input").send_keys(str(photo))
    wait(browser, lambda: "90 x 60" in find(browser, ".message").text)
    left = point_at(browser, "depth", 0.1, 0.5)
    assert left["semseg"] == "chair"
    assert left["normals"] == "0.00, \u22121.00, 0.00"
    assert float(left["depth"].split()[0]) == pytest.approx(1.2, abs=0.03)
    assert find(browser, ".legend .here").text.split("\n")[0].startswith("chair")
    right = point_at(browser, "semseg", 0.9, 0.2)
    assert right["semseg"] == "floor"
    assert float(right["depth"].removesuffix(" m")) == pytest.approx(2.8, abs=0.03)
    shown = find(browser, '.card[data-task="semseg"] .legend').text.split()
    assert shown == ["floor", "66.7", "%", "chair", "33.3", "%"]
    browser.save_screenshot(str(tmp_path / "page.png"))
    screenshot = cv2.imread(str(tmp_path / "page.png"))
    assert len(np.unique(screenshot.reshape(-1, 3), axis=0)) > 500
    assert [path for path in page.folder.rglob("*") if path.is_file()] == []


def test_task_chips_and_overlay_slider(page, browser, photo: Path) -> None:
    from selenium.webdriver.support.expected_conditions import staleness_of

    browser.get(page.url)
    find(browser, ".drop input").send_keys(str(photo))
    layer = find(browser, '.card[data-task="depth"] .stack img + img')
    assert layer.value_of_css_property("opacity") == "0.7"
    set_slider = (
        "const s = arguments[0]; s.value = 25; s.dispatchEvent(new Event('input', {bubbles: 1}))"
    )
    browser.execute_script(set_slider, find(browser, ".slider input"))
    assert layer.value_of_css_property("opacity") == "0.25"
    assert find(browser, ".slider output").text == "25 %"
    card = find(browser, '.card[data-task="semseg"]')
    chip = browser.find_element("xpath", "//label[text()='semseg']")
    chip.click()
    assert not card.is_displayed()
    find(browser, ".drop input").send_keys(str(photo))
    wait(browser, lambda: staleness_of(card)(browser))
    assert find(browser, ".stack img + img").value_of_css_property("opacity") == "0.25"
    assert not find(browser, '.card[data-task="semseg"]').is_displayed()
    browser.find_element("xpath", "//label[text()='semseg']").click()
    assert find(browser, '.card[data-task="semseg"]').is_displayed()


def test_image_can_be_dropped(page, browser, photo: Path) -> None:
    browser.get(page.url)
    script = """
    const [target, text] = arguments, data = new DataTransfer();
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    data.items.add(new File([bytes], 'dropped.png', {type: 'image/png'}));
    target.dispatchEvent(new DragEvent('drop', {dataTransfer: data, bubbles: true}));
    """
    text = base64.b64encode(photo.read_bytes()).decode("ascii")
    browser.execute_script(script, find(browser, ".drop"), text)
    wait(browser, lambda: find(browser, ".message").text.startswith("dropped.png, 90 x 60"))


def test_rejected_files_show_a_message_and_do_not_block_the_page(
    page, browser, photo: Path, tmp_path: Path
) -> None:
    browser.get(page.url)
    drop, message = find(browser, ".drop input"), lambda: find(browser, ".message").text
    words = tmp_path / "words.png"
    words.write_text("no picture")
    drop.send_keys(str(words))
    wait(browser, lambda: "words.png: this file is not a supported image" in message())
    large = tmp_path / "large.png"
    with large.open("wb") as handle:
        handle.truncate(21 * 2**20)
    find(browser, ".drop input").send_keys(str(large))
    wait(browser, lambda: "large.png: this file is larger than 20 MB" in message())
    find(browser, ".drop input").send_keys(str(photo))
    wait(browser, lambda: "90 x 60" in message())


def test_page_requests_only_own_files_and_logs_no_errors(page, browser) -> None:
    browser.get_log("performance"), browser.get_log("browser")
    browser.get(page.url)
    wait(browser, lambda: "semseg, depth, normals" in find(browser, ".tasks").text)
    entries = [json.loads(line["message"])["message"] for line in browser.get_log("performance")]
    urls = [
        entry["params"]["request"]["url"]
        for entry in entries
        if entry["method"] == "Network.requestWillBeSent"
    ]
    paths = ("/", "/viewer.css", "/viewer.js", "/info")
    assert {url for url in urls if not url.startswith("data:")} == {page.url + p for p in paths}
    assert [line for line in browser.get_log("browser") if line["level"] == "SEVERE"] == []


def test_server_error_is_shown(page, browser, photo: Path) -> None:
    browser.get(page.url)
    page.predictor.fails = True
    try:
        find(browser, ".drop input").send_keys(str(photo))
        message = "photo.png: the server failed (status 500)"
        wait(browser, lambda: find(browser, ".message").text == message)
    finally:
        page.predictor.fails = False
    find(browser, ".drop input").send_keys(str(photo))
    wait(browser, lambda: "90 x 60" in find(browser, ".message").text)


def post(url: str, data: bytes, kind: str = UPLOAD_TYPE) -> tuple[int, str]:
    """Send a POST request and return status and text of the response."""
    try:
        with urlopen(Request(url, data, {"content-type": kind})) as response:
            return response.status, response.read().decode()
    except HTTPError as error:
        return error.code, error.read().decode()


def test_other_files_are_neither_stored_nor_served(page, photo: Path) -> None:
    lines = [
        "--x",
        'Content-Disposition: form-data; name="files"; filename="a.png"',
        "",
        "x",
        "--x--",
    ]
    body = "\r\n".join([*lines, ""]).encode()
    for path, status in (("upload", 405), ("predict", 415)):
        answer = post(f"{page.url}/{path}", body, "multipart/form-data; boundary=x")
        assert answer[0] == status
    for path in (photo, Path(__file__), "/etc/passwd", "../page.py", "%2e%2e/page.py"):
        with pytest.raises(HTTPError, match="404"):
            urlopen(f"{page.url}/{path}")
    assert [path for path in page.folder.rglob("*") if path.is_file()] == []


def test_requests_beyond_the_queue_are_rejected(page) -> None:
    pixel = cv2.imencode(".png", np.zeros((4, 4, 3), np.uint8))[1].tobytes()
    page.predictor.resume.clear()
    with ThreadPoolExecutor(CONCURRENCY + QUEUE_SIZE + 3) as pool:
        futures = [
            pool.submit(post, f"{page.url}/predict", pixel) for _ in range(pool._max_workers)
        ]
        try:
            deadline = time.monotonic() + 20
            while sum(each.done() for each in futures) < 3 and time.monotonic() < deadline:
                time.sleep(0.05)
        finally:
            page.predictor.resume.set()
        answers = [each.result()[0] for each in futures]
    assert answers.count(200) == CONCURRENCY + QUEUE_SIZE
    assert answers.count(503) == 3


@pytest.mark.parametrize("sent", [b"", b"text", b"[]", b"{}", b'{"data": {"path": "/etc"}}'])
def test_invalid_uploads_are_rejected_with_a_message(page, sent: bytes) -> None:
    status, text = post(f"{page.url}/predict", sent)
    message = "not a supported image" if sent else "nothing was uploaded"
    assert (status, message in json.loads(text)["error"]) == (400, True)
