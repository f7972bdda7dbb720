"""Who opens the demo page, uploads, types, clicks and reads."""

import io
import time
import urllib.request

import numpy as np
from PIL import Image
from selenium.webdriver import Keys

SECONDS = 300  # for what takes a few, on a busy machine


class Page:
    """What a user does and sees."""

    def __init__(self, browser, address):
        self.browser = browser
        browser.get(address)
        self.wait(lambda: self.find('#image input[type=file]'))

    def wait(self, condition):
        """Until there is something, which is given."""
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
        """A tab; what it has is built when it is first opened."""
        (tab,) = self.find(f'#{task}-tab-button')
        tab.click()
        (button,) = self.wait(lambda: self.find(f'#{task}-button'))
        self.wait(button.is_displayed)
        return button

    def ask(self, task, text=None):
        button = self.open(task)
        if text is not None:
            (box,) = self.find(f'#{task}-question textarea')
            # clear() is nothing that the page hears of
            box.send_keys(Keys.CONTROL, 'a')
            box.send_keys(Keys.BACKSPACE, text[:40])
            self.paste(box, text)
        button.click()

    def paste(self, box, text):
        """At once: a busy machine takes a second for a few keys."""
        if text[40:]:
            self.browser.execute_script(
                'arguments[0].value = arguments[1];'
                "arguments[0].dispatchEvent(new Event('input'))",
                box,
                text,
            )

    def error(self):
        """What the page says; the message is closed."""
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
