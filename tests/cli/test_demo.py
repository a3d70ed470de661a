"""The demo: drawn, served, and stopped by one Ctrl-C."""

import http.client
import os
import re
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from imgserve.core.errors import ImgserveError
from imgserve.demo import draw, folder
from imgserve.demo.scenes import poster
from imgserve.settings import load


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demo folder with every sample."""
    place = tmp_path_factory.mktemp("demo")
    folder.make(place, lambda _: None)
    return place


def test_the_samples_are_what_their_names_say(drawn: Path) -> None:
    """Two photos, an upright one that is stored lying, a logo with alpha, a drawing."""
    starts = {
        "lake.jpg": b"\xff\xd8\xff",
        "islands.jpg": b"\xff\xd8\xff",
        "logo.png": b"\x89PNG",
        "poster.svg": b"<svg",
    }
    for name, start in starts.items():
        assert (drawn / "samples" / name).read_bytes().startswith(start)
    turned = (drawn / "samples/balloons.jpg").read_bytes()
    assert turned.startswith(b"\xff\xd8\xff\xe1")
    exif = turned[6:48]
    assert exif.startswith(b"Exif\0\0II*\0")
    assert struct.pack("<HHIH", 0x0112, 3, 1, 6) in exif
    png = (drawn / "samples/logo.png").read_bytes()
    assert png[25] == 6  # colour type: RGB with alpha


def test_the_configuration_is_valid_and_for_this_machine_only(drawn: Path) -> None:
    """Nothing to warn of; the tenant answers every host."""
    loaded = load(drawn / "imgserve.toml", {})
    assert loaded.warnings == ()
    assert loaded.configuration.server.is_loopback_only
    tenant = loaded.configuration.tenants.for_host("127.0.0.1:8080")
    assert tenant is not None
    assert loaded.configuration.tenants.for_key("demo-key") is not None


def test_what_is_there_is_kept(drawn: Path) -> None:
    """A second start draws nothing and leaves a changed configuration alone."""
    path = drawn / "imgserve.toml"
    changed = path.read_text() + "# mine\n"
    path.write_text(changed)
    said: list[str] = []
    folder.make(drawn, said.append)
    assert ([], changed) == (said, path.read_text())


def test_a_folder_that_cannot_be_made_is_an_error_of_ours(tmp_path: Path) -> None:
    """A file is in the way."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ImgserveError, match="cannot be written"):
        folder.make(tmp_path / "file", lambda _: None)


def test_the_same_picture_everywhere() -> None:
    """Drawing twice gives equal bytes."""
    assert poster() == poster()
    assert draw.draw(draw.SAMPLES["poster.svg"]) == poster().encode()


def test_the_demo_serves_its_urls_until_ctrl_c(drawn: Path, project: Path, free_port: Callable[[], int]) -> None:
    """Three addresses, each an image; SIGINT ends it with exit 0 and nobody left."""
    environ = {
        **os.environ,
        "PYTHONPATH": str(project),
        "IMGSERVE_SERVER__LISTEN": f"127.0.0.1:{free_port()}",
        "IMGSERVE_SERVER__ADMIN_LISTEN": f"127.0.0.1:{free_port()}",
        "IMGSERVE_SERVER__PROCESSES": "1",
        "IMGSERVE_RENDER__WORKERS": "1",
    }
    arguments = [sys.executable, "-m", "imgserve", "demo", "--folder", str(drawn)]
    with subprocess.Popen(arguments, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as demo:
        try:
            assert demo.stdout is not None
            shown = ""
            for line in demo.stdout:
                shown += line
                if "Ctrl-C" in line:
                    break
            urls = re.findall(r"http://\S+", shown)
            assert len(urls) == 3, shown
            for url in urls:
                parts = urlsplit(url)
                connection = http.client.HTTPConnection(parts.netloc, timeout=30)
                connection.request("GET", f"{parts.path}?{parts.query}")
                response = connection.getresponse()
                body = response.read()
                connection.close()
                assert (200, "image") == (response.status, response.headers["Content-Type"].partition("/")[0])
                assert len(body) > 1000
            demo.send_signal(signal.SIGINT)
            _, errors = demo.communicate(timeout=25)
        finally:
            demo.kill()
    assert (0, "stopped\n") == (demo.returncode, errors)
