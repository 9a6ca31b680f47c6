"""The report of evaluations as one HTML page that needs nothing else: no network, no script.

Every text that comes from an evaluation goes through `escape`.
"""

from base64 import b64encode
from collections.abc import Iterator, Sequence
from html import escape

from .envs.episode import Episode
from .evaluation_facts import Evaluation, Outcome, Picture, describe_outcome, outcome
from .evaluation_map import scene_map
from .evaluation_style import css_class, style_sheet
from .evaluation_svg import cube_class, draw_interval, draw_map, draw_mark
from .evaluation_table import compare, describe_counts, describe_success

# Even an escaping error could load nothing and run nothing.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def write_page(evaluations: Sequence[Evaluation], at_most: int) -> str:
    """The page.

    Args:
        evaluations: The evaluations, at least one.
        at_most: Pictures of an episode and a camera.

    Raises:
        ValueError: A report is damaged.
        OSError: A picture cannot be read.
    """
    title = escape(f"Evaluation: {', '.join(evaluation.name for evaluation in evaluations)}")
    body = "\n".join(_body(evaluations, at_most))
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>{title}</title>\n<link rel="icon" href="data:,">\n<style>{style_sheet()}</style>\n</head>\n'
        f"<body>\n<h1>{title}</h1>\n{body}\n</body>\n</html>\n"
    )


def _body(evaluations: Sequence[Evaluation], at_most: int) -> Iterator[str]:
    yield _comparison(evaluations)
    yield from _maps(evaluations)
    yield "<h2>Episodes</h2>"
    yield _filter(evaluations)
    for number, evaluation in enumerate(evaluations):
        yield f'<section aria-labelledby="e{number}">\n<h2 id="e{number}">{escape(evaluation.name)}</h2>'
        yield from _remarks(evaluation)
        for episode in evaluation.failures_first:
            yield from _episode(evaluation, episode, _anchor(number, episode.index), at_most)
        yield "</section>"


def _anchor(evaluation: int, episode: int) -> str:
    return f"e{evaluation}-{episode}"


# Side by side ---------------------------------------------------------------------------------------------------------


def _comparison(evaluations: Sequence[Evaluation]) -> str:
    heads = [f'<th scope="col"><a href="#e{i}">{escape(e.name)}</a></th>' for i, e in enumerate(evaluations)]
    rows = [
        f'<tr><th scope="row">{escape(name)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in cells)}</tr>'
        for name, cells in compare(evaluations)
    ]
    bars = "".join(f"<td>{_bar(evaluation)}</td>" for evaluation in evaluations)
    return (
        '<div class="wide" tabindex="0" role="region" aria-label="Figures">\n<table>\n'
        f"<thead><tr><td></td>{''.join(heads)}</tr></thead>\n<tbody>\n"
        f'<tr><th scope="row">success, 0 to 100%</th>{bars}</tr>\n{"\n".join(rows)}\n</tbody></table></div>'
    )


def _bar(evaluation: Evaluation) -> str:
    figures = evaluation.summary["overall"]
    return draw_interval(figures["success"], *figures["wilson_95"]) if figures["n"] else ""


def _maps(evaluations: Sequence[Evaluation]) -> Iterator[str]:
    yield "<h2>Success by the place of the named cube</h2>"
    tasks = dict.fromkeys(task for evaluation in evaluations for task in evaluation.tasks)
    rows = list(filter(None, (_maps_of(task, evaluations) for task in tasks)))
    if rows:
        yield (
            "<p>Seen from above, the arm at the bottom. The shape says how an episode ended, the color which cube was "
            "named. Squares stand for bins. The dashed field is where the twin puts cubes. A mark leads to its episode."
            f"</p>\n{_legend(evaluations)}"
        )
        yield from rows
    for evaluation in evaluations:
        if evaluation.episodes and not any(scene_map(evaluation, task) for task in evaluation.tasks):
            yield (
                f'<p class="note">No map of {escape(evaluation.name)}: its report does not say where things stood, as '
                "on a real arm.</p>"
            )


def _maps_of(task: str, evaluations: Sequence[Evaluation]) -> str:
    """The maps of one kind of scene, side by side to be compared."""
    figures = [_map(number, evaluation, task) for number, evaluation in enumerate(evaluations)]
    return f'<div class="maps">\n{"\n".join(filter(None, figures))}\n</div>' if any(figures) else ""


def _map(number: int, evaluation: Evaluation, task: str) -> str:
    scene = scene_map(evaluation, task)
    if scene is None:
        return ""
    title = f"{evaluation.name}, {task}: {describe_counts(scene.counts)}"
    drawing = draw_map(scene, title, lambda episode: _anchor(number, episode))
    return f"<figure>{drawing}<figcaption>{escape(title)}</figcaption></figure>"


def _legend(evaluations: Sequence[Evaluation]) -> str:
    entries = [f"<li>{draw_mark(kind)} {escape(kind)}</li>" for kind in _count(evaluations)]
    return f'<ul class="legend">{"".join(entries)}</ul>'


# Episode by episode ---------------------------------------------------------------------------------------------------


def _filter(evaluations: Sequence[Evaluation]) -> str:
    boxes = [
        f'<label><input type="checkbox" id="show-{css_class(kind)}" checked> {draw_mark(kind)} {escape(kind)} '
        f"({count})</label>"
        for kind, count in _count(evaluations).items()
    ]
    large = '<label><input type="checkbox" id="large"> large pictures</label>'
    return f'<fieldset class="filter"><legend>Show</legend>{"".join(boxes)}{large}</fieldset>'


def _count(evaluations: Sequence[Evaluation]) -> dict[Outcome, int]:
    """How many episodes ended how; only what there is."""
    ended = [outcome(episode) for evaluation in evaluations for episode in evaluation.episodes]
    return {kind: ended.count(kind) for kind in Outcome if kind in ended}


def _remarks(evaluation: Evaluation) -> Iterator[str]:
    """What one should know before looking at the episodes."""
    yield f"<p>{escape(describe_success(evaluation.summary['overall']))}</p>"
    if not evaluation.episodes:
        yield '<p class="note">No episode ended.</p>'
    if evaluation.cut_off:
        yield '<p class="note">The last line of the report was cut off: one more episode ended, and is lost.</p>'
    if evaluation.summary["not_counted"]:
        counts = describe_counts(evaluation.summary["not_counted"])
        yield f'<p class="note">Not counted: {escape(counts)}. These say nothing about the policy.</p>'


def _episode(evaluation: Evaluation, episode: Episode, anchor: str, at_most: int) -> Iterator[str]:
    ended = outcome(episode)
    yield (
        f'<article class="episode {css_class(ended)}" id="{anchor}" aria-labelledby="{anchor}-head">\n'
        f'<h3 id="{anchor}-head"><span class="{cube_class(episode.color)}">{draw_mark(ended)}</span> '
        f"Episode {episode.index}: {escape(ended)}</h3>\n"
        f"<p>“{escape(episode.instruction)}” – {escape(describe_outcome(episode))}</p>\n"
        f'<p class="quiet">{escape(_small_print(episode))}</p>'
    )
    strips = evaluation.pictures(episode, at_most)
    for camera, pictures in strips.items():
        yield _strip(camera, pictures)
    if not strips:
        yield '<p class="quiet">There are no pictures of this episode.</p>'
    yield "</article>"


def _small_print(episode: Episode) -> str:
    seed = "" if episode.seed is None else f", seed {episode.seed}"
    guard = f"; guard: {describe_counts(episode.interventions)}" if episode.interventions else ""
    return f"{episode.task}{seed}, {episode.steps} actions{guard}"


def _strip(camera: str, pictures: Sequence[Picture]) -> str:
    name = escape(camera)
    images = "".join(
        f'<li><img src="data:image/jpeg;base64,{b64encode(picture.path.read_bytes()).decode()}" '
        f'alt="{name} camera at {picture.time_s:.1f} s"><span class="time">{picture.time_s:.1f} s</span></li>'
        for picture in pictures
    )
    return (
        f'<figure class="strip"><figcaption>{name}</figcaption>'
        f'<ol tabindex="0" aria-label="Pictures of the {name} camera">{images}</ol></figure>'
    )
