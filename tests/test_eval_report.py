"""`lerobot-vla eval-report`: everything is in the page, nothing from outside runs in it, and a browser agrees."""

import base64
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import pytest
from browser import CHROMIUM, Browser
from evaluations import REAL_ARM, change_row, write_evaluation

from lerobot_vla_cli.main import main

VOID = {"meta", "link", "img", "input"}
NASTY = """<script>alert(1)</script> "quoted' & <img src=x onerror=alert(2)>"""


@dataclass
class Page(HTMLParser):
    """What a page consists of."""

    text: str
    tags: list[tuple[str, dict]] = field(default_factory=list)
    words: str = ""

    def __post_init__(self):
        super().__init__()
        self.open_tags: list[str] = []
        self.feed(self.text)
        assert not self.open_tags

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open_tags.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open_tags.pop() == tag

    def handle_data(self, data):
        self.words += data

    def attributes(self, name: str) -> list[str]:
        return [attributes[name] for _, attributes in self.tags if name in attributes]

    def articles(self) -> list[dict]:
        return [attributes for tag, attributes in self.tags if tag == "article"]


def report(tmp_path, *folders: Path, **options: int) -> Page:
    output = tmp_path / "report.html"
    arguments = [f"--{name}={value}" for name, value in options.items()]
    assert main(["eval-report", *map(str, folders), f"--output={output}", *arguments]) == 0
    return Page(output.read_text(encoding="utf-8"))


def test_every_episode_is_there_failures_first(tmp_path):
    page = report(tmp_path, write_evaluation(tmp_path / "ours"), write_evaluation(tmp_path / "theirs", "pick-lift"))
    assert [article["id"] for article in page.articles()] == [f"e{e}-{i}" for e in (0, 1) for i in (2, 1, 3, 0)]
    assert [article["class"] for article in page.articles()][:4] == [
        f"episode {kind}" for kind in ("other-cube-taken", "failure", "not-counted", "success")
    ]
    for words in ("ours", "theirs", "1 of 3", "6% to 79%", "pick-lift, seed 0", "time limit after 4.0 s", "0.5 s"):
        assert words in page.words
    assert "Put the" in page.words
    assert "Pick up the" in page.words


def test_the_page_needs_nothing_else(tmp_path):
    page = report(tmp_path, write_evaluation(tmp_path / "ours"))
    ids = page.attributes("id")
    assert len(set(ids)) == len(ids)
    links = page.attributes("href")
    assert all(link.startswith("#") or link == "data:," for link in links)
    assert {link.removeprefix("#") for link in links if link.startswith("#")} <= set(ids)
    assert all(source.startswith("data:image/jpeg;base64,") for source in page.attributes("src"))
    assert not re.search(r"https?:|url\(|@import|<script|srcset|\son\w+=", page.text)


def test_pictures_are_those_on_the_disk_and_say_what_they_show(tmp_path):
    folder = write_evaluation(tmp_path / "ours")
    page = report(tmp_path, folder)
    shown = {base64.b64decode(source.partition(",")[2]) for source in page.attributes("src")}
    assert shown == {path.read_bytes() for path in folder.glob("episode_*/*.jpg")}
    assert all(re.fullmatch(r"(front|wrist) camera at 0\.[05] s", text) for text in page.attributes("alt"))
    assert len(page.attributes("alt")) == len(page.attributes("src")) == 16
    assert len(report(tmp_path, folder, pictures=1).attributes("src")) == 8


def test_every_mark_leads_to_its_episode_and_says_what_it_is(tmp_path):
    page = report(tmp_path, write_evaluation(tmp_path / "ours"))
    marks = {a["href"]: a["aria-label"] for tag, a in page.tags if tag == "a" and "aria-label" in a}
    assert set(marks) == {f"#e0-{index}" for index in range(4)}
    assert re.fullmatch(
        r"Episode 2: Put the (\w+) cube into the bin\. took the \w+ cube, not the \1 one, after 4\.0 s", marks["#e0-2"]
    )


def test_text_from_outside_stays_text(tmp_path):
    folder = write_evaluation(tmp_path / "<b>ours", instruction=NASTY)
    layout = {"cubes": {NASTY: {"x_m": 0.2, "y_m": 0.0}}}
    change_row(folder, 0, task=NASTY, color=NASTY, taken=NASTY, layout=layout, interventions={NASTY: 1})
    change_row(folder, 2, taken=NASTY)
    picture = folder / "episode_0" / "front_00000.jpg"
    picture.rename(picture.with_name("<i onclick=alert(3)>_00000.jpg"))
    page = report(tmp_path, folder)
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "i", "b"})
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert page.words.count(NASTY) >= 4
    assert "<i onclick=alert(3)> camera at 0.0 s" in page.attributes("alt")


def test_a_real_arm_has_no_map(tmp_path):
    page = report(tmp_path, write_evaluation(tmp_path / "real", **REAL_ARM))
    assert "No map of real: its report does not say where things stood, as on a real arm." in page.words
    assert "map" not in page.attributes("class")
    assert len(page.articles()) == 4


def test_an_interrupted_evaluation(tmp_path):
    folder = write_evaluation(tmp_path / "ours")
    with (folder / "episodes.jsonl").open("a") as lines:
        lines.write('{"index": 4, "ta')
    (folder / "episode_1" / "front_00005.jpg").unlink()
    page = report(tmp_path, folder)
    assert len(page.articles()) == 4
    assert "The last line of the report was cut off" in page.words
    assert "Not counted: interrupted 1." in page.words


def test_an_evaluation_without_episodes_and_one_without_pictures(tmp_path):
    page = report(
        tmp_path, write_evaluation(tmp_path / "none", endings=()), write_evaluation(tmp_path / "bare", frames=None)
    )
    assert "No episode ended." in page.words
    assert page.words.count("There are no pictures of this episode.") == 4
    assert "no map" not in page.words.lower()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "nothing holds no episodes.jsonl: it is not the --env.report_dir of an evaluation"),
        (["damaged"], "episodes.jsonl is damaged: line 1 is not episode 0"),
        (["fine", "fine"], "each evaluation is to be named once"),
        (["fine", "--output=report.txt"], "expected a file name that ends with .html"),
        (["fine", "--output=absent/report.html"], "there is no folder"),
        (["fine", "--output=folder.html"], "expected a file, this is a folder"),
    ],
)
def test_what_cannot_be_reported(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    write_evaluation(tmp_path / "fine")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "episodes.jsonl").write_text("{}\n")
    (tmp_path / "folder.html").mkdir()
    assert main(["eval-report", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("report*"))


# In a browser ---------------------------------------------------------------------------------------------------------

DISPLAY = "[...document.querySelectorAll('article')].map(a => getComputedStyle(a).display)"
IMAGES = (
    "Promise.all([...document.images].map(i => i.decode())).then(() => [...document.images].map(i => i.naturalWidth))"
)


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome is installed")
def test_a_browser_shows_it_without_network_and_without_complaint(tmp_path):
    folders = [
        write_evaluation(tmp_path / name, task) for name, task in [("ours", "pick-lift"), ("theirs", "pick-place")]
    ]
    report(tmp_path, *folders)
    with Browser() as browser:
        for width, dark in ((1280, False), (390, True)):
            browser.resize(width, 800, dark=dark)
            browser.open(tmp_path / "report.html")
            assert browser.evaluate("document.documentElement.scrollWidth") <= width
            text, page = browser.evaluate(
                "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
            )
            assert (sum(map(int, re.findall(r"\d+", text))) > sum(map(int, re.findall(r"\d+", page)[:3]))) == dark
        assert browser.evaluate(IMAGES) == [32] * 32
        assert browser.evaluate(DISPLAY) == ["block"] * 8
        browser.evaluate("document.getElementById('show-failure').click()")
        assert browser.evaluate(DISPLAY) == ["block", "none", "block", "block"] * 2
        browser.evaluate("document.querySelector('svg a[href=\"#e1-2\"]').dispatchEvent(new MouseEvent('click'))")
        assert browser.evaluate("location.hash") == "#e1-2"
    assert [url for url in browser.requests if not url.startswith(("data:", "file:///"))] == []
    assert [url for url in browser.requests if url.startswith("file:")] == [(tmp_path / "report.html").as_uri()] * 2
    assert browser.complaints == []
