# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Pages in Chinese have the structure, commands, links and names of their originals. scripts/translations names outdated ones."""

import importlib.machinery
import importlib.util
import os
import re
import subprocess
import sys
import unicodedata
from collections import Counter
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml
from markdown_it import MarkdownIt

ROOT = Path(__file__).resolve().parents[2]
# Tables that a script makes are in the original alone; a page in Chinese links them.
MADE = re.compile(r"<!-- scripts/\w+: \w+ -->.*?<!-- end -->", re.DOTALL)
MARKDOWN = MarkdownIt("commonmark").enable("table")


def load():
    loader = importlib.machinery.SourceFileLoader("translations_script", str(ROOT / "scripts/translations"))
    spec = importlib.util.spec_from_loader("translations_script", loader)
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


SCRIPT = load()
PAGES = SCRIPT.pages(ROOT)
STALE = {SCRIPT.original_of(page) for page in PAGES if SCRIPT.moved_on(ROOT, page)}


def slug(title):
    """Return the anchor of a heading, as mkdocs makes it with slugify_unicode."""
    text = re.sub(r"[^\w\s-]", "", unicodedata.normalize("NFKC", title)).strip().lower()
    return re.sub(r"[-\s]+", "-", text)


class Page:
    """What a page has besides its sentences."""

    def __init__(self, path):
        self.headings, self.blocks, self.tables, self.links, self.code, anchors = [], [], [], [], set(), []
        inline_of_heading = False
        for token in MARKDOWN.parse(MADE.sub("", (ROOT / path).read_text())):
            if token.type == "heading_open":
                self.headings.append(token.tag)
                inline_of_heading = True
            elif token.type == "table_open":
                self.tables.append(0)
            elif token.type == "tr_open":
                self.tables[-1] += 1
            elif token.type in {"fence", "code_block"}:
                # Comments are in the reader's language.
                self.blocks.append([re.sub(r"(^|\s)\s*#\s.*$", "", line).rstrip() for line in token.content.splitlines()])
            elif token.type == "inline":
                if inline_of_heading:
                    anchors.append(slug("".join(child.content for child in token.children)))
                    inline_of_heading = False
                for child in token.children:
                    if child.type == "link_open":
                        self.links.append(child.attrs["href"])
                    elif child.type == "image":
                        self.links.append(child.attrs["src"])
                        self.links += re.findall(r"\]\(([^)]+)\)", child.content)
                    elif child.type == "code_inline":
                        self.code.add(child.content)
        self.anchors = {anchor: place for place, anchor in enumerate(anchors)}
        assert len(self.anchors) == len(anchors), f"{path} has two headings of one name"


def targets(path, page):
    """Return how often a page leads to each place: an address, or an original page with the number of its heading."""
    found = Counter()
    for link in page.links:
        if re.match(r"[a-z]+:", link):
            found[link] += 1
            continue
        name, _, anchor = link.partition("#")
        target = os.path.normpath(os.path.join(os.path.dirname(path), unquote(name))) if name else path
        assert (ROOT / target).exists(), f"{path} links {link}, which is not there"
        place = None
        if anchor:
            there = Page(target)
            assert unquote(anchor) in there.anchors, f"{path} links {link}, and {target} has no such heading"
            place = there.anchors[unquote(anchor)]
        if path in PAGES and target == SCRIPT.original_of(path):
            continue  # the switch of languages, and tables that the original alone has
        if target in PAGES:
            target = SCRIPT.original_of(target)
        if target in STALE:  # its headings may have other numbers in the two languages
            place = None
        found[target, place] += 1
    return found


def current(path):
    """Skip a page whose original has moved on: a correction does not wait for a translator."""
    if SCRIPT.original_of(path) in STALE:
        pytest.skip(f"{SCRIPT.original_of(path)} has moved on")


@pytest.mark.parametrize("path", PAGES)
def test_a_page_records_its_original_and_links_it(path):
    SCRIPT.moved_on(ROOT, path)
    original = os.path.relpath(SCRIPT.original_of(path), os.path.dirname(path) or ".")
    assert f"[English]({original})" in (ROOT / path).read_text().splitlines()[:5]


def test_the_readmes_link_each_other():
    assert "[简体中文](README.zh-CN.md)" in (ROOT / "README.md").read_text().splitlines()[:4]
    assert "README.zh-CN.md" in PAGES


@pytest.mark.parametrize("path", PAGES)
def test_a_current_page_has_the_structure_of_its_original(path):
    current(path)
    page, original = Page(path), Page(SCRIPT.original_of(path))
    assert page.headings == original.headings
    assert page.blocks == original.blocks
    assert page.tables == original.tables
    assert page.code == original.code


@pytest.mark.parametrize("path", PAGES)
def test_a_current_page_links_what_its_original_links(path):
    current(path)
    original = SCRIPT.original_of(path)
    wanted, found = targets(original, Page(original)), targets(path, Page(path))
    if path == "README.zh-CN.md":
        wanted[original, None] -= 1  # the original's switch of languages
        found["docs/index.md", None] -= 1  # where the pages in Chinese begin
    assert +found == +wanted


@pytest.mark.parametrize("path", PAGES)
def test_the_examples_of_a_page_are_yaml(path):
    blocks = [token.content for token in MARKDOWN.parse((ROOT / path).read_text()) if token.info == "yaml"]
    for block in blocks:
        yaml.safe_load(block)


def test_every_page_is_in_the_navigation():
    found = re.findall(r"(?m)^ +- (?:\S+: )?(zh/\S+\.md)$", (ROOT / "mkdocs.yml").read_text())
    assert sorted(found) == [path.removeprefix("docs/") for path in PAGES if path.startswith("docs/")]


@pytest.mark.parametrize("path", PAGES)
def test_chinese_and_latin_are_set_apart(path):
    """A space stands between Chinese characters and Latin letters or figures, and none beside full-width punctuation."""
    wrong = []
    for token in MARKDOWN.parse((ROOT / path).read_text()):
        for child in token.children or [] if token.type == "inline" else []:
            if child.type == "text":
                wrong += re.findall(r".{0,8}(?:[\u4e00-\u9fff][A-Za-z0-9]|[A-Za-z0-9%][\u4e00-\u9fff]).{0,8}", child.content)
                wrong += re.findall(r".{0,8}[\u4e00-\u9fff] ?[,;:?!()](?=\s|$|[\u4e00-\u9fff]).{0,8}", child.content)
    assert wrong == []


@pytest.mark.parametrize("path", PAGES)
def test_quotes_are_those_that_ansible_test_accepts(path):
    """ansible-test (no-smart-quotes) refuses curly quotes in every file of the tarball. Corner brackets take their place."""
    assert re.findall(".{0,8}[\u2018\u2019\u201c\u201d].{0,8}", (ROOT / path).read_text()) == []


@pytest.mark.parametrize("path", PAGES)
def test_a_paragraph_is_one_line(path):
    """A line end inside of a Chinese sentence becomes a space on the page."""
    inline = [token for token in MARKDOWN.parse((ROOT / path).read_text()) if token.type == "inline"]
    # Badges stand one on a line.
    broken = [
        token.content
        for token in inline
        if any(child.type == "softbreak" for child in token.children) and "img.shields" not in token.content
    ]
    assert broken == []


@pytest.fixture
def checkout(tmp_path):
    """A repository with an original, its page in Chinese, and the script."""
    (tmp_path / "docs/zh").mkdir(parents=True)
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts/translations").write_text((ROOT / "scripts/translations").read_text())
    (tmp_path / "docs/page.md").write_text("# Page\n\nOne.\n")
    (tmp_path / "docs/zh/page.md").write_text("# 页\n\n一。\n")
    for command in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "a"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    return tmp_path


def translations(checkout, *options):
    """Run the script; return its status and what it said."""
    done = subprocess.run(
        [sys.executable, "scripts/translations", *options], cwd=checkout, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


def test_a_page_without_a_record_is_named(checkout):
    status, said = translations(checkout, "--check")
    assert status == 1
    assert "docs/zh/page.md: no line below the title records its original" in said


def test_a_recorded_page_is_current_until_its_original_moves_on(checkout):
    assert translations(checkout, "--record", "docs/zh/page.md") == (0, "")
    page = (checkout / "docs/zh/page.md").read_text()
    blob = subprocess.run(["git", "hash-object", "docs/page.md"], cwd=checkout, capture_output=True, text=True, check=True).stdout
    assert page == f"# 页\n\n<!-- From docs/page.md at git blob {blob[:12]}. See scripts/translations. -->\n\n一。\n"
    assert translations(checkout, "--check") == (0, "")

    (checkout / "docs/page.md").write_text("# Page\n\nTwo.\n")
    status, said = translations(checkout, "--check")
    assert status == 1
    assert "docs/zh/page.md: docs/page.md has moved on." in said
    assert translations(checkout) == (0, said)
    command = re.search(r"`(git diff [^`]+)`", said)[1]
    shown = subprocess.run(command.split(), cwd=checkout, capture_output=True, text=True, check=True).stdout
    assert "[-One.-]{+Two.+}" in shown

    assert translations(checkout, "--record", "docs/zh/page.md") == (0, "")
    assert translations(checkout, "--check") == (0, "")
    assert (checkout / "docs/zh/page.md").read_text().count("git blob") == 1


def test_a_state_that_git_does_not_know_is_shown_by_the_log(checkout):
    (checkout / "docs/page.md").write_text("# Page\n\nNever committed.\n")
    translations(checkout, "--record", "docs/zh/page.md")
    (checkout / "docs/page.md").write_text("# Page\n\nThree.\n")
    assert "`git log -p -- docs/page.md`" in translations(checkout, "--check")[1]


def test_a_page_whose_original_is_gone_is_named(checkout):
    (checkout / "docs/page.md").unlink()
    status, said = translations(checkout, "--check")
    assert status == 1
    assert "its original docs/page.md is not there" in said
    status, said = translations(checkout, "--record", "docs/zh/page.md")
    assert status == 1
    assert "Nothing was recorded" in said


def test_other_files_are_not_recorded(checkout):
    status, said = translations(checkout, "--record", "docs/page.md")
    assert status == 1
    assert "docs/page.md is no page in Chinese" in said
    assert (checkout / "docs/page.md").read_text() == "# Page\n\nOne.\n"
