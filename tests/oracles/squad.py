"""SQuAD's evaluation, written down plainly from the published rules of evaluate-v1.1 and evaluate-v2.0."""

MARKS = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"


def words(text: str) -> list[str]:
    """Lower case, marks out, articles out as whole words (letters, digits and _ make words), split at white space."""
    kept = "".join(c for c in text.lower() if c not in MARKS)
    pieces, piece = [], ""
    for c in kept + " ":
        if c.isalnum() or c == "_":
            piece += c
        else:
            pieces += ["" if piece in ("a", "an", "the") else piece, c]
            piece = ""
    return "".join(piece or " " for piece in pieces).split()


def exact(gold: str, text: str) -> float:
    return 1.0 if words(gold) == words(text) else 0.0


def f1(gold: str, text: str, version: int) -> float:
    left, right = words(gold), words(text)
    if version == 2 and (not left or not right):
        return 1.0 if left == right else 0.0
    rest, shared = list(left), 0
    for word in right:
        if word in rest:
            rest.remove(word)
            shared += 1
    if shared == 0:
        return 0.0
    precision, recall = shared / len(right), shared / len(left)
    return 2 * precision * recall / (precision + recall)


def v1(questions: list[tuple[list[str], str]]) -> dict[str, float]:
    """Args: questions: (answers, predicted text)."""
    number = len(questions)
    return {
        "exact_match": 100 * sum(max(exact(a, text) for a in answers) for answers, text in questions) / number,
        "f1": 100 * sum(max(f1(a, text, 1) for a in answers) for answers, text in questions) / number,
    }


def v2(questions: list[tuple[list[str], str, float]], threshold: float) -> dict[str, float]:
    """Figures at a threshold. Args: questions: (answers, predicted text, null score)."""
    points: dict[str, list[tuple[float, float]]] = {"": [], "HasAns_": [], "NoAns_": []}
    for answers, text, null_score in questions:
        golds = [a for a in answers if words(a)] or [""]
        pair = (max(exact(a, text) for a in golds), max(f1(a, text, 2) for a in golds))
        if null_score > threshold:
            pair = (0.0, 0.0) if answers else (1.0, 1.0)
        points[""].append(pair)
        points["HasAns_" if answers else "NoAns_"].append(pair)
    figures = {}
    for prefix, pairs in points.items():
        if pairs:
            figures[prefix + "exact"] = 100 * sum(pair[0] for pair in pairs) / len(pairs)
            figures[prefix + "f1"] = 100 * sum(pair[1] for pair in pairs) / len(pairs)
            figures[prefix + "total"] = float(len(pairs))
    return figures


def best(questions: list[tuple[list[str], str, float]], figure: str) -> tuple[float, float]:
    """Best value over all thresholds and the lowest one that gives it; null scores all different.

    An unanswerable question counts as answered "none" only if its text is empty.
    """
    as_counted = [(a, text if a or not text else "no answer", null) for a, text, null in questions]
    nothing = 100 * sum(not a for a, _, _ in questions) / len(questions)
    thresholds = sorted(null for _, _, null in questions)
    candidates = [(nothing, 0.0), *((v2(as_counted, each)[figure], each) for each in thresholds)]
    top = max(value for value, _ in candidates)
    return next(candidate for candidate in candidates if candidate[0] > top - 1e-9)
