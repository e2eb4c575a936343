"""The answer: one or two sentences for the first screen, before them who reached the target loss first, after
them whether the loader is the bottleneck."""

from __future__ import annotations

from analysis.advice.answer import Answers, answers
from analysis.report.model.content import Content
from analysis.report.model.section import ListItem, Points, Section
from analysis.report.sections import input_pipeline, target

MOST_HEADLINES = 3
"""Tasks whose answer stands on the first screen."""


def sections(content: Content) -> list[Section]:
    """The headline, and the answers per world size."""
    if content.trained.empty:
        return []
    task_answers = answers(content.records, content.trained)
    prose = target.sentences(content) + headlines(task_answers) + input_pipeline.sentences(content)
    if not task_answers:
        searched = bool((content.trained["search_tried"] > 0).any())
        prose = [
            "These configurations searched for the largest batch that fits, below; nothing was timed."
            if searched
            else "No configuration ended ok with times, so there is nothing to compare."
        ]
    lists = [Points([ListItem(one.text, one.about) for one in task.paragraphs], task.task) for task in task_answers]
    return [
        Section("Answer", "answer", prose=prose),
        Section(
            "By world size",
            "by-world-size",
            lists=lists,
            folded="all",
            notes=[
                "Compared by throughput over all ranks. Tied: the interval of the paired ratio over rounds includes 1. "
                "A configuration that was measured under heavy background load is not named fastest."
            ],
        ),
    ]


def headlines(task_answers: list[Answers]) -> list[str]:
    """The answer of each task, of the first few where there are many."""
    shown = task_answers[:MOST_HEADLINES]
    lines = [f"{task.task}: {task.headline}" if task.task else task.headline for task in shown]
    left = len(task_answers) - len(shown)
    return [*lines, f"And {left} more: by world size."] if left else lines
