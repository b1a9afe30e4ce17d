"""The HTML page: well formed, complete, and safe against names that look like markup."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser

import torch
from torch import nn

from compile.analysis import analyze
from compile.analysis.html_report import page, write

VOID = {"meta", "br", "rect"}


class Balance(HTMLParser):
    """Collects every tag that is opened and not closed, or closed and not opened."""

    def __init__(self):
        super().__init__()
        self.open, self.wrong, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data):
        self.text.append(data)


def parsed(text: str) -> Balance:
    parser = Balance()
    parser.feed(text)
    return parser


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
        self.heads = nn.ModuleDict({"left": nn.Conv2d(4, 1, 1), "right": nn.Conv2d(4, 1, 1)})

    def forward(self, x):
        y = self.stem(x)
        left = self.heads["left"](torch.erfinv(y * 0.1))
        return left + self.heads["right"](y)


def report():
    torch.set_num_threads(1)
    return analyze(Model(), (torch.rand(1, 3, 8, 8),))


def test_well_formed_and_complete():
    found = parsed(page([report(), report()]))
    assert found.open == []
    assert found.wrong == []
    text = " ".join(found.text)
    for part in ("stem", "heads", "left", "right", "aten::erfinv", "Partition (predicted)", "what to do"):
        assert part in text


def test_modules_are_summed_up_the_tree():
    text = " ".join(parsed(page([report()])).text)
    found = report()
    assert f"{found.safe.compiled} of {found.total} operators on the device" in text  # the root's line


def test_names_are_escaped(tmp_path):
    target = tmp_path / "page.html"
    write([replace(report(), name="<script>alert(1)</script>", notes=("a < b",))], target)
    text = target.read_text()
    assert "<script" not in text
    assert "&lt;script&gt;" in text


def test_inf2_page_has_no_partition():
    torch.set_num_threads(1)
    text = page([analyze(Model(), (torch.rand(1, 3, 8, 8),), target="inf2")])
    assert "unknown: no public operator table" in text
    assert "Partition" not in text
    assert "on the device" not in text
