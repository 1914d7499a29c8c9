"""Finds this machine's package registry and the URLs of files in it.

The registry is pip's: from PIP_INDEX_URL, pip's configuration, or pip's default. Both formats of the simple
repository API are supported, JSON and HTML.
"""

import base64
import html.parser
import json
import os
import re
import ssl
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request

from .console import ProvisionError

ACCEPT = "application/vnd.pypi.simple.v1+json, text/html;q=0.1"
TIMEOUT_SECONDS = 60
INDEX_BYTES_MAX = 64 * 1024 * 1024


def pip_setting(name):
    """Returns a setting as pip resolves it: from the environment, else from pip's configuration files."""
    from_environment = os.environ.get("PIP_" + name.upper().replace("-", "_"))
    if from_environment:
        return from_environment
    for section in ("install", "global"):
        command = [sys.executable, "-m", "pip", "config", "get", f"{section}.{name}"]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        if answer.returncode == 0 and answer.stdout.strip():
            return answer.stdout.strip()
    return None


def index_url():
    stated = pip_setting("index-url")
    if stated:
        return stated.rstrip("/")
    try:
        from pip._internal.models.index import PyPI
    except ImportError:
        raise ProvisionError(
            "no package registry is configured and Python has no pip: install pip or set PIP_INDEX_URL"
        ) from None
    return PyPI.simple_url.rstrip("/")


class Registry:
    """A package registry, opened with pip's credentials and certificates."""

    def __init__(self, url=None):
        parts = urllib.parse.urlsplit(url or index_url())
        self.credentials = None
        if parts.username:
            user = urllib.parse.unquote(parts.username)
            password = urllib.parse.unquote(parts.password or "")
            pair = base64.b64encode(f"{user}:{password}".encode()).decode()
            self.credentials = (parts.hostname, "Basic " + pair)
        host = parts.netloc.rpartition("@")[2]
        self.url = urllib.parse.urlunsplit(parts._replace(netloc=host))
        self.context = ssl.create_default_context(cafile=certificate_file())
        self.pages = {}

    def open(self, url, headers=None):
        """Opens `url`. The caller closes the response and handles urllib's errors."""
        request = urllib.request.Request(url, headers=headers or {})
        if self.credentials and urllib.parse.urlsplit(url).hostname == self.credentials[0]:
            request.add_unredirected_header("Authorization", self.credentials[1])
        return urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS, context=self.context)

    def files(self, package):
        """Returns all files of a package: name → {"url", "sha256" or None, "size" or None}."""
        name = re.sub(r"[-_.]+", "-", package).lower()
        if name not in self.pages:
            page = f"{self.url}/{name}/"
            try:
                with self.open(page, {"Accept": ACCEPT}) as answer:
                    body = answer.read(INDEX_BYTES_MAX)
                    is_json = "json" in answer.headers.get("Content-Type", "")
                    page = answer.geturl()
            except (OSError, urllib.error.URLError) as error:
                raise ProvisionError(f"cannot query the registry for {name} at {page}: {error}") from error
            self.pages[name] = parse_json(body, page) if is_json else parse_html(body, page)
        return self.pages[name]

    def locate(self, package, file_name):
        listed = self.files(package).get(file_name)
        if not listed:
            raise ProvisionError(f"the registry {self.url} has no file {file_name} of {package}")
        return listed["url"]


def certificate_file():
    for path in (pip_setting("cert"), os.environ.get("REQUESTS_CA_BUNDLE")):
        if path and os.path.isfile(path):
            return path
    return None


def parse_json(body, page):
    try:
        listed = json.loads(body)["files"]
        return {
            entry["filename"]: {
                "url": urllib.parse.urljoin(page, entry["url"]),
                "sha256": entry.get("hashes", {}).get("sha256"),
                "size": entry.get("size"),
            }
            for entry in listed
        }
    except (ValueError, KeyError, TypeError) as error:
        raise ProvisionError(f"{page} is not a package registry's index: {error!r}") from error


class LinkReader(html.parser.HTMLParser):
    """Collects the links of a page of the simple API. The hash is in the URL's fragment."""

    def __init__(self, page):
        super().__init__()
        self.page = page
        self.links = {}

    def handle_starttag(self, tag, attributes):
        target = dict(attributes).get("href")
        if tag != "a" or not target:
            return
        url, _, fragment = urllib.parse.urljoin(self.page, target).partition("#")
        file_name = urllib.parse.unquote(urllib.parse.urlsplit(url).path.rpartition("/")[2])
        digest = fragment[len("sha256="):] if fragment.startswith("sha256=") else None
        self.links[file_name] = {"url": url, "sha256": digest, "size": None}


def parse_html(body, page):
    reader = LinkReader(page)
    reader.feed(body.decode("utf-8", "replace"))
    return reader.links
