"""A headless Chromium, where Debian's is installed."""

import json
import shutil
from urllib.parse import urlsplit

import pytest
from selenium import webdriver

FLAGS = (
    '--headless=new',
    '--no-sandbox',  # root has none
    '--disable-gpu',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
    '--window-size=1280,1000',
)


def open_chromium(profile):
    """Start a browser that writes down what it asks of whom."""
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
    """The hosts, with ports, that all pages so far asked for anything."""
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
