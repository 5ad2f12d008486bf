"""Reviews in Chinese, which has no blanks between words: a few phrases tell the good ones from the bad ones."""

from __future__ import annotations

import random

OPENINGS = ("收到以后", "用了一个月", "给朋友买的", "说实话", "总的来说", "第一次购买")
PARTS = ("屏幕", "价格", "声音", "电池", "包装", "颜色", "客服")
PHRASES = {
    "好评": ("让人惊喜", "非常满意", "超出预期", "值得推荐", "没有问题"),
    "差评": ("让人失望", "非常糟糕", "不值这个价", "完全没用", "两天就坏了"),
}


def reviews(count: int) -> list[tuple[str, str]]:
    """Texts that differ from one another, and their labels, `好评` (good) or `差评` (bad) in turn."""
    draw = random.Random(0)
    found: dict[str, str] = {}
    while len(found) < count:
        label = list(PHRASES)[len(found) % 2]
        first, second = draw.sample(PARTS, 2)
        phrases = [draw.choice(PHRASES[label]) for _ in range(2)]
        found[f"{draw.choice(OPENINGS)},{first}{phrases[0]},{second}也{phrases[1]}。"] = label
    return list(found.items())
