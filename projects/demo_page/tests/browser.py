"""A headless Chromium, and a user of the demo page in it."""

import io
import json
import shutil
import time
import urllib.request
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver import Keys

SECONDS = 300  # for what takes a few, on a busy machine
FLAGS = (
    '--headless=new',
    '--no-sandbox',  # a sandbox is not available to root
    '--disable-gpu',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
    '--window-size=1280,1000',
)


def open_chromium(profile):
    """Start a browser that logs its requests."""
    chromium, driver = map(shutil.which, ('chromium', 'chromedriver'))
    if chromium is None or driver is None:
        pytest.skip('needs Chromium: apt-get install chromium chromium-driver')
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f'--user-data-dir={profile}'):
        options.add_argument(flag)
    options.set_capability('goog:loggingPrefs', dict(performance='ALL'))
    service = webdriver.ChromeService(driver)
    return webdriver.Chrome(options=options, service=service)


def asked_hosts(browser):
    """Hosts and ports of all requests so far."""
    hosts = set()
    for entry in browser.get_log('performance'):
        message = json.loads(entry['message'])['message']
        if message['method'] == 'Network.requestWillBeSent':
            address = urlsplit(message['params']['request']['url'])
            if address.scheme not in ('data', 'blob', 'chrome'):
                hosts.add(address.netloc)
        elif message['method'] == 'Network.webSocketCreated':
            hosts.add(urlsplit(message['params']['url']).netloc)
    return hosts


class Page:
    """The actions of a user on the page, and what it shows."""

    def __init__(self, browser, address):
        self.browser = browser
        browser.get(address)
        self.wait(lambda: self.find('#image input[type=file]'))

    def wait(self, condition):
        """Wait for a truthy value and return it."""
        end = time.time() + SECONDS
        while not (found := condition()):
            assert time.time() < end, self.browser.page_source[-3000:]
            time.sleep(0.1)
        return found

    def find(self, selector):
        return self.browser.find_elements('css selector', selector)

    def upload(self, path):
        for button in self.find('#image button[aria-label="Remove Image"]'):
            button.click()
        field = self.wait(lambda: self.find('#image input[type=file]'))[0]
        field.send_keys(str(path))

    def shows_upload(self, path):
        """Whether the image is there: its preview is the file itself."""
        return any(path.name in a for a in self.addresses('#image img'))

    def open(self, task):
        """Open a tab, whose content is built when it is first opened."""
        (tab,) = self.find(f'#{task}-tab-button')
        tab.click()
        (button,) = self.wait(lambda: self.find(f'#{task}-button'))
        self.wait(button.is_displayed)
        return button

    def ask(self, task, text=None):
        button = self.open(task)
        if text is not None:
            (box,) = self.find(f'#{task}-inputs textarea')
            # clear() sends no event that the page listens to
            box.send_keys(Keys.CONTROL, 'a')
            box.send_keys(Keys.BACKSPACE, text[:40])
            self.paste(box, text)
        button.click()

    def paste(self, box, text):
        """Enter a text at once; single keys are slow on a busy machine."""
        if text[40:]:
            self.browser.execute_script(
                "arguments[0].value = arguments[1];arguments[0].dispatchEvent(new Event('input'))",
                box,
                text,
            )

    def error(self):
        """Return the error message that the page shows, and close it."""
        toast = '.toast-body'
        text = self.wait(lambda: [e.text for e in self.find(toast) if e.text])
        for button in self.find('.toast-close'):
            button.click()
        self.wait(lambda: not self.find(toast))
        return text[0]

    def addresses(self, selector):
        """Of images."""
        return [image.get_attribute('src') for image in self.find(selector)]

    def cells(self, rows):
        """The texts of a table."""
        self.wait(lambda: self.find(rows))
        return self.browser.execute_script(
            'return [...document.querySelectorAll(arguments[0])].map('
            'row => [...row.cells].map(cell => cell.textContent))',
            rows,
        )

    def picture(self, task, side):
        selector = f'#{task}-{side} img'
        (address,) = self.wait(lambda: self.addresses(selector))
        with urllib.request.urlopen(address) as answer:
            return np.asarray(Image.open(io.BytesIO(answer.read())))
