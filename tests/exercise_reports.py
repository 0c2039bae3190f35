"""What the checker of exercises says of an answer."""

from __future__ import annotations

from companion.exercises import check


def told(exercise, answer):
    """What the checks say of an answer that is not right."""
    report = check(exercise, answer)
    assert not report.right, report
    return " ".join(finding.fault for finding in report.findings)


def right(exercise, *answers):
    for answer in answers:
        report = check(exercise, answer)
        assert report.right, report
