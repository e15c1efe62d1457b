"""A person works with the front end of IOPaint 1.6.0 through a gateway: Debian's Chromium on a machine of its own.

The screenshots lie in build/scenarios/browser, for a person to look at.
"""

import io
import json
import subprocess
import time
import urllib.request

import browser
import pytest
import testinfra
from PIL import Image, ImageStat
from play import ROOT, play

HOST, MACHINE = "iopaint-default", "iopaint-default-browser"
NAME, USER, PASSWORD = "paint.example.com", "alice", "a password of $alice's"
SHOTS = ROOT / "build/scenarios/browser"
OUTPUT = "/var/lib/iopaint/outputs/cpu/photo.png"
INSTALL = "apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends"
PACKAGES = "chromium chromium-driver libnss3-tools fonts-dejavu-core"
STROKE = [(-0.25, -0.1), (-0.1, 0), (0.05, 0.05), (0.2, 0)]


def docker(*arguments, **options):
    """Run docker and return what it prints."""
    return subprocess.run(["docker", *arguments], check=True, capture_output=True, **options).stdout


def address(name):
    """Return the address of a container on the engine's own network."""
    return docker("inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", name, text=True).strip()


def answers(url):
    """Return whether something answers at the address, within five minutes; the packages take a minute."""
    until = time.monotonic() + 300
    while time.monotonic() < until:
        try:
            return urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=5).status == 200
        except OSError:
            time.sleep(0.5)
    return False


def only_the_mask_changed(before, after, mask):
    """Return whether most pixels under the mask changed, and no other one did."""
    differs = browser.changed(before, after)
    inside = ImageStat.Stat(differs, mask.point(lambda alpha: 255 if alpha > 127 else 0))
    outside = ImageStat.Stat(differs, mask.point(lambda alpha: 0 if alpha else 255))
    assert inside.count[0] > 5000
    assert inside.mean[0] > 0.8 * 255
    assert outside.count[0] > 5000
    assert outside.sum[0] == 0
    return True


@pytest.fixture(scope="module")
def machine():
    """The machine with the browser: its packages are installed while the host is deployed to."""
    subprocess.run(["docker", "rm", "--force", MACHINE], check=False, capture_output=True)
    serve = f"{INSTALL} {PACKAGES} >/dev/null && exec chromedriver --port=9515 --allowed-ips= --allowed-origins='*'"
    options = ("--detach", "--init", "--label", "owner=molecule", "--shm-size", "512m", "--name", MACHINE)
    docker("run", *options, "iopaint-fleet-host:trixie", "sh", "-c", serve)
    yield testinfra.get_host(f"docker://{MACHINE}")
    docker("rm", "--force", "--volumes", MACHINE)


@pytest.fixture(scope="module")
def team(tmp_path_factory):
    """The inventory of a team, which has a gateway before the instance."""
    folder = tmp_path_factory.mktemp("team")
    gateway = {
        "gateway_name": NAME,
        "gateway_ca_fetch": str(folder / "gateway-ca.crt"),
        "gateway_users": [{"name": USER, "password": PASSWORD}],
    }
    inventory = folder / "hosts.json"
    inventory.write_text(json.dumps({"gateways": {"hosts": {HOST: None}, "vars": gateway}}))
    return inventory


@pytest.fixture(scope="module")
def authority(machine, team):
    """The certificate of the authority of the gateway, which is deployed with the release 1.6.0."""
    done = play("deploy.yml", "-i", str(team), iopaint_image_source="release")
    assert done.rc == 0, done.output
    assert done.says(f"https://{NAME} asks for a login and serves from"), done.output
    return team.with_name("gateway-ca.crt")


@pytest.fixture(scope="module")
def page(machine, authority):
    """Chromium, which trusts the authority as a team's browsers do, and asks the host for the gateway's name."""
    chromedriver = f"http://{address(MACHINE)}:9515"
    assert answers(f"{chromedriver}/status"), docker("logs", MACHINE)
    docker("cp", str(authority), f"{MACHINE}:/tmp/ca.crt")
    trusted = "sql:/root/.pki/nssdb"
    machine.check_output(
        f"mkdir -p /root/.pki/nssdb && certutil -d {trusted} -N --empty-password"
        f" && certutil -d {trusted} -A -n gateway -t C,, -i /tmp/ca.crt"
    )
    driver = browser.start(chromedriver, "/tmp/profile", f"--host-resolver-rules=MAP {NAME} {address(HOST)}")
    yield driver
    driver.quit()


@pytest.fixture
def shot(page):
    """Keep a screenshot: shot(name)."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    return lambda name: page.save_screenshot(str(SHOTS / f"{name}.png"))


@pytest.fixture(autouse=True)
def shown_if_it_fails(request, shot):
    failures = request.session.testsfailed
    yield
    if request.session.testsfailed > failures:
        shot(f"failed-{request.node.name}")


@pytest.fixture
def model(api):
    """Return the model that the instance has."""
    return lambda: json.loads(api("/api/v1/model")[1])["name"]


def test_nobody_gets_in_without_a_login(page, shot):
    """A certificate that the browser didn't trust would end in an exception."""
    page.get(f"https://{NAME}/")
    assert browser.status(page) == 401
    shot("1-refused")
    assert not browser.icon(page, "settings")
    assert all("401" in error for error in browser.errors(page))


def test_a_user_logs_in(page, shot):
    browser.log_in(page, f"https://{NAME}/", USER, PASSWORD)
    shot("2-logged-in")
    assert browser.status(page) == 200
    assert page.title == "IOPaint"


def test_a_stroke_of_the_mouse_is_inpainted(page, shot, host, machine, tmp_path):
    (tmp_path / "photo.png").write_bytes(docker("exec", HOST, "cat", "/opt/iopaint/instances/photo.png"))
    docker("cp", str(tmp_path / "photo.png"), f"{MACHINE}:/tmp/photo.png")
    before = browser.upload(page, "/tmp/photo.png")
    shot("3-photograph")
    mask, after = browser.paint(page, STROKE, lambda: shot("4-mask"))
    shot("5-inpainted")
    assert only_the_mask_changed(before, after, mask)


def test_the_picture_is_saved_to_the_outputs(page, shot, host):
    host.check_output(f"rm -f {OUTPUT}")
    browser.save(page)
    shot("6-saved")
    saved = Image.open(io.BytesIO(docker("exec", HOST, "cat", OUTPUT)))
    assert not browser.changed(saved, browser.pixels(page, browser.PHOTO)).getbbox()
    assert host.file(OUTPUT).uid == 10001


def test_the_model_is_switched(page, shot, model):
    assert model() == "cv2"
    browser.choose_model(page, "lama", lambda: shot("7-settings"))
    shot("8-switched")
    assert model() == "lama"
    before = browser.pixels(page, browser.PHOTO)
    mask, after = browser.paint(page, [(x, y + 0.3) for x, y in STROKE])
    shot("9-inpainted-by-lama")
    assert only_the_mask_changed(before, after, mask)
    browser.choose_model(page, "cv2")
    assert model() == "cv2"


def test_an_instance_may_let_the_page_download_pictures(page, shot, host, team, machine):
    """The browser remembers the login."""
    own = [{"name": "cpu", "variant": "cpu", "port": 8080, "model": "cv2", "save_to": "browser"}]
    done = play("deploy.yml", "-i", str(team), iopaint_image_source="release", iopaint_instances=own)
    assert done.rc == 0, done.output
    host.check_output(f"rm -f {OUTPUT}")
    page.get(f"https://{NAME}/")
    before = browser.upload(page, "/tmp/photo.png")
    mask, after = browser.paint(page, STROKE)
    assert only_the_mask_changed(before, after, mask)
    browser.download(page)
    shot("10-downloaded")
    folder = browser.DOWNLOADS
    machine.check_output(f"timeout 30 sh -c 'until ls {folder}/*.png; do sleep 0.2; done'")  # it has this name once it is whole
    downloaded = Image.open(io.BytesIO(docker("exec", MACHINE, "sh", "-c", f"cat {folder}/*.png")))
    assert not browser.changed(downloaded, after).getbbox()
    assert not host.file(OUTPUT).exists


def test_the_page_had_no_error(page):
    """Neither the gateway nor the guard of the instance refused anything that the page asked for."""
    assert browser.errors(page) == []


def test_the_log_of_the_gateway_names_the_user(host):
    host.check_output("journalctl --sync")
    lines = host.check_output("journalctl -t iopaint-gateway -p info..info -o cat --no-pager").splitlines()
    seen = {(line["path"], line["user"], line["status"]) for line in map(json.loads, lines)}
    assert {("/", "-", 401), ("/", USER, 200), ("/api/v1/inpaint", USER, 200), ("/api/v1/save_image", USER, 200)} <= seen
