"""Drive the page of IOPaint 1.6.0 as a person does, with Chromium by way of a chromedriver.

The page's buttons have no names, so they are found by their icons. Each function waits until the page shows what it did.
"""

from __future__ import annotations

import base64
import io

from PIL import Image, ImageChops
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.file_detector import UselessFileDetector
from selenium.webdriver.support.ui import WebDriverWait

SIZE = (1280, 900)
DOWNLOADS = "/tmp/downloads"  # where the browser runs
SECONDS = 30  # until the page has to show something
PHOTO, MASK = 0, 1  # the canvases of the page, from below
PIXELS = "return document.querySelectorAll('canvas')[arguments[0]].toDataURL('image/png')"


def start(chromedriver: str, profile: str, *arguments: str) -> webdriver.Remote:
    """Return a new Chromium, headless, started by the chromedriver at this address with a folder for its profile."""
    options = webdriver.ChromeOptions()
    options.enable_bidi = True  # to answer the browser's dialog for a login,
    options.page_load_strategy = "none"  # which a page that is waited for would never get to
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    options.add_experimental_option("prefs", {"download.default_directory": DOWNLOADS})
    size = ",".join(map(str, SIZE))
    chosen = ("--headless=new", "--no-sandbox", "--no-proxy-server", f"--user-data-dir={profile}", f"--window-size={size}")
    for argument in (*chosen, *arguments):
        options.add_argument(argument)
    return webdriver.Remote(
        chromedriver, options=options, file_detector=UselessFileDetector()
    )  # files lie where the browser runs


def until(driver, condition, what: str):
    """Return what the condition, a function of the driver, returns as soon as that is true."""
    return WebDriverWait(driver, SECONDS, poll_frequency=0.2).until(condition, f"the page never showed {what}")


def status(driver) -> int:
    """Return the HTTP status of the page as soon as that has been loaded."""
    loaded = "const [page] = performance.getEntriesByType('navigation'); return page?.loadEventEnd ? page.responseStatus : 0"
    return until(driver, lambda page: page.execute_script(loaded), "a page")


def log_in(driver, url: str, user: str, password: str) -> None:
    """Open the page and answer the browser's dialog for user and password, once."""
    handler = driver.network.add_auth_handler(user, password)
    driver.browsing_context.navigate(context=driver.current_window_handle, url=url, wait="none")
    until(driver, lambda page: icon(page, "settings"), "its buttons")
    driver.network.remove_auth_handler(handler)  # from now on the browser remembers the login, or the page breaks


def icon(driver, name: str):
    """Return the button with this icon, or None."""
    found = driver.find_elements(By.XPATH, f"//button[.//*[contains(concat(' ', @class, ' '), ' lucide-{name} ')]]")
    return found[0] if found else None


def press(driver, name: str) -> None:
    """Click the button with this icon as soon as it can be clicked."""
    until(driver, lambda page: (button := icon(page, name)) and button.is_enabled() and button, f"the button {name}").click()


def picture(data: str) -> Image.Image:
    """Return the picture of a data URL."""
    assert data.startswith("data:image/png;base64,"), data[:200]
    return Image.open(io.BytesIO(base64.b64decode(data.partition(",")[2])))


def pixels(driver, canvas: int) -> Image.Image:
    """Return what a canvas of the page holds: PHOTO, or MASK with the stroke that is being drawn."""
    return picture(driver.execute_script(PIXELS, canvas))


def upload(driver, file: str) -> Image.Image:
    """Choose a file, which lies where the browser runs; return the photograph as the page shows it."""
    driver.find_element(By.CSS_SELECTOR, "main > div input[type=file]").send_keys(file)
    until(driver, lambda page: icon(page, "download"), "the editor")
    until(driver, lambda page: pixels(page, PHOTO).convert("L").getbbox(), "the photograph")
    return pixels(driver, PHOTO).convert("RGB")


def paint(driver, stroke, shot=None) -> tuple[Image.Image, Image.Image]:
    """Draw a stroke over the photograph with the mouse and wait for the result; return mask and result.

    The stroke's points are shares of the photograph's width and height, from its middle. shot is called while the button is down.
    """
    before = pixels(driver, PHOTO).convert("RGB")
    canvas = driver.find_elements(By.TAG_NAME, "canvas")[MASK]
    width, height = canvas.rect["width"], canvas.rect["height"]
    first, *others = [(round(x * width), round(y * height)) for x, y in stroke]
    ActionChains(driver).move_to_element_with_offset(canvas, *first).click_and_hold().perform()
    for point in others:
        ActionChains(driver).move_to_element_with_offset(canvas, *point).perform()
    mask = until(driver, lambda page: (drawn := pixels(page, MASK).getchannel("A")).getbbox() and drawn, "the mask")
    if shot:
        shot()
    ActionChains(driver).release().perform()
    until(driver, lambda page: changed(before, pixels(page, PHOTO)).getbbox(), "an inpainted photograph")
    until(driver, lambda page: not pixels(page, MASK).getbbox(), "the photograph without the mask")
    return mask, pixels(driver, PHOTO).convert("RGB")


def changed(before: Image.Image, after: Image.Image) -> Image.Image:
    """Return a picture that is white where two pictures differ and black where they are equal."""
    bands = ImageChops.difference(before.convert("RGB"), after.convert("RGB")).split()
    return ImageChops.lighter(ImageChops.lighter(*bands[:2]), bands[2]).point(lambda value: 255 if value else 0)


def says(driver, text: str) -> None:
    """Wait until the page shows a text."""
    until(driver, lambda page: text in page.find_element(By.TAG_NAME, "body").text, f"the text {text!r}")


def errors(driver) -> list[str]:
    """Return the errors of the browser's console since the last time, refused requests among them."""
    return [line["message"] for line in driver.execute("getLog", {"type": "browser"})["value"] if line["level"] == "SEVERE"]


def save(driver) -> None:
    """Save the picture with the page's button, which downloads nothing where IOPaint has a folder for outputs."""
    press(driver, "download")
    says(driver, "Save image success")


def download(driver) -> None:
    """Ask for the picture with the page's button, which downloads it to DOWNLOADS where IOPaint has no folder for outputs."""
    press(driver, "download")


def choose_model(driver, name: str, shot=None) -> None:
    """Switch to a model in the page's settings."""
    press(driver, "settings")
    entry = f"//*[@role='dialog']//*[@role='tabpanel']//div[text()='{name}']"
    until(driver, lambda page: page.find_elements(By.XPATH, entry), f"the model {name}")[0].click()
    if shot:
        shot()
    driver.find_element(By.XPATH, "//*[@role='dialog']//button[text()='Ok']").click()
    says(driver, f"Switch to {name} success")
