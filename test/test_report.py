"""The report's laws: it loads nothing, shows each instruction once, and says what was not measured."""

import re
from html.parser import HTMLParser

import pytest

from dysl_vla_ros.errors import DataError
from dysl_vla_ros.records.summary import summarise
from dysl_vla_ros.records.trace import EpisodeRecord
from dysl_vla_ros.reports.report import render_report, shown_episodes, write_report
from recorded_episodes import episode


class Page(HTMLParser):
    """Collects what a page refers to, its headings, and tags that were never closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.sources += [value for name, value in attributes if name in ("src", "href")]
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def episodes() -> list[EpisodeRecord]:
    return [
        episode(instruction="open the drawer", success=False, seed=1, pictures=3),
        episode(instruction="open the drawer", success=True, seed=2, pictures=20),
        episode(instruction="reach the <red> marker & stop", success=False, seed=3),
    ]


@pytest.fixture(scope="module")
def html(episodes: list[EpisodeRecord]) -> str:
    return render_report(episodes, summarise(episodes))


def test_the_page_holds_all_it_shows(html):
    page = Page(html)
    assert page.open == []
    assert page.sources
    assert all(source.startswith("data:image/") for source in page.sources), "nothing is loaded from elsewhere"
    assert not {"script", "link", "iframe"} & set(page.tags)


def test_one_episode_of_each_instruction_is_shown_and_a_success_is_preferred(episodes, html):
    assert [shown.seed for shown in shown_episodes(episodes)] == [2, 3]
    assert "seed 2" in html
    assert "seed 1:" not in html


def test_texts_are_escaped(html):
    assert "reach the &lt;red&gt; marker &amp; stop" in html
    assert "<red>" not in html


def test_the_film_has_few_pictures_from_first_to_last(html):
    times = [float(time) for time in re.findall(r"<figcaption>([\d.]+) s", html)]
    assert len(times) == 6
    assert (times[0], times[-1]) == (0.0, 1.9)


def test_the_top_line_is_the_summary(episodes, html):
    summary = summarise(episodes)
    assert f"{summary['overall']['successes']} <span>of 3 episodes" in html
    assert f"{summary['overall']['layers_mean']:.1f} <span>of 24" in html
    assert "cut short" not in html
    assert "cut short" in render_report([], summarise([], complete=False))


def test_one_inference_no_blocks_or_nothing_at_all_still_make_a_page(tmp_path):
    single = episode(calls=[5])
    full_depth = episode(calls=[24, 24])
    full_depth.blocks = ()
    for records in ([single], [full_depth], [EpisodeRecord("reach", "reach", 0)], []):
        write_report(tmp_path / "report.html", records, summarise(records, complete=False))
        assert "<h1>" in (tmp_path / "report.html").read_text()


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path, episodes):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="file/report.html"):
        write_report(tmp_path / "file" / "report.html", episodes[2:], summarise(episodes[2:]))
